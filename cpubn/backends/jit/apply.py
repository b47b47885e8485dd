"""The elementwise pass of the Numba backend: that of backends/compiled/apply.pxd, run by run.

    forward:    y  = activation((x - centre) * scale + shift + residual)
    backward:   dx = scale * ((g - k) - ((x - centre) * r) * s),  or g * scale in inference

Arrays are given by where their elements stand; y may be x or the residual, and dx may be dy or x: of a run, the last
lanes, and past the cache the first ones, are computed before those that overlap them.
"""
# mypy: allow-untyped-defs

from typing import NamedTuple, TypeAlias

from numba import types

from cpubn.backends.jit.lanes import lanes
from cpubn.backends.jit.prologue import Source, gradient_of, is_there, part_of, part_of_source, placed
from cpubn.backends.jit.samples import address, after, bytes_at, lane_count, load, pointer, room, store, stream, zeros
from cpubn.backends.jit.typed import Body, Place, Type, Value, compiled, inlined, overload
from cpubn.maths.activations import Formula

CENTRE, FACTOR, SHIFT, RSTD, SLOPE, LEVEL = range(6)


class Ends(NamedTuple):
    """The task of a forward pass: what it ends with, parameters in the type that is computed in; see `is_there`.

    That of a backward pass is a Source.
    """

    residual: Place
    low: Value
    high: Value


Task: TypeAlias = Ends | Source


class Table(NamedTuple):
    """Coefficients, kind by kind: of columns that are repeated or, where the period is 0, of channels."""

    values: Place
    length: int  # from one kind to the next
    period: int
    past: bool  # results are written past the cache


@compiled
def coefficient(table: Table, kind: int, at: int) -> Value:
    """Of lanes of columns from `at` on, or of the channel that stands there."""
    at += kind * table.length
    return load(table.values, at) if table.period > 0 else lanes(table.values[at])


@compiled
def forward_coefficients(table: Table, at: int) -> tuple[Value, Value, Value]:
    return coefficient(table, CENTRE, at), coefficient(table, FACTOR, at), coefficient(table, SHIFT, at)


@compiled
def backward_coefficients(table: Table, at: int) -> tuple[Value, Value, Value, Value, Value, Value]:
    r, s, k = coefficient(table, RSTD, at), coefficient(table, SLOPE, at), coefficient(table, LEVEL, at)
    centre, scale, shift = forward_coefficients(table, at)
    return centre, scale, shift, r, s, k


def coefficients(task: Task, table: Table, at: int) -> tuple[Value, ...]:
    """All that a task needs."""
    raise NotImplementedError


@overload(coefficients, error_model="numpy")
def coefficients_for(task: Type, table: Type, at: Type) -> Body:
    if task.instance_class is Ends:
        return lambda task, table, at: forward_coefficients(table, at)
    return lambda task, table, at: backward_coefficients(table, at)


@compiled
def before_line(y: Place, first: int) -> int:
    """Elements from `first` to the next cache line, which is half of what lanes take."""
    elements: int = -(address(y) * lane_count(y) // 128 + first) % (lane_count(y) // 2)
    return elements


def store_where(to: Place, i: int, value: Value) -> None:
    """Store lanes; of none nothing."""
    raise NotImplementedError


@overload(store_where, error_model="numpy")
def store_where_there(to: Type, i: Type, value: Type) -> Body:
    if is_there(to):
        return lambda to, i, value: store(to, i, value)
    return lambda to, i, value: None


def ended(activate: Formula | None, ends: Ends, i: int, z: Value) -> Value:
    """activation(z + residual)."""
    raise NotImplementedError


@overload(ended, error_model="numpy")
def ended_by(activate: Type, ends: Type, i: Type, z: Type) -> Body:
    residual, active = is_there(ends.types[0]), not isinstance(activate, types.NoneType)
    if residual and active:
        return lambda activate, ends, i, z: activate(z + load(ends.residual, i), ends.low, ends.high)
    if residual:
        return lambda activate, ends, i, z: z + load(ends.residual, i)
    if active:
        return lambda activate, ends, i, z: activate(z, ends.low, ends.high)
    return lambda activate, ends, i, z: z


def result(function: Formula | None, x: Place, task: Task, i: int, own: tuple[Value, ...]) -> Value:
    """What is written to the lanes from element i on, by their own coefficients."""
    raise NotImplementedError


@overload(result, error_model="numpy")
def result_of(function: Type, x: Type, task: Type, i: Type, own: Type) -> Body:
    def forward(function, x, task, i, own):
        centre, scale, shift = own
        return ended(function, task, i, (load(x, i) - centre) * scale + shift)

    def backward(function, x, task, i, own):
        centre, scale, shift, r, s, k = own
        d = load(x, i) - centre
        g = gradient_of(function, task, i, d * scale + shift)
        store_where(task.g, i, g)
        return g * scale if task.is_scale else scale * ((g - k) - (d * r) * s)

    return forward if task.instance_class is Ends else backward


@compiled
def stretch(phase: int, y: Place, first: int, n: int, lead: int, edges: Place) -> tuple[int, int, Place, int]:
    """Where a phase of a run starts and ends, and the place that it writes to with the element there.

    The last lanes, and past the cache the first, go to `edges`: the others overlap them, and y may be what is read.
    """
    count = lane_count(y)
    if phase == 0:
        return 0, count, edges, 0
    if phase == 1:
        return n - count, n, edges, count
    return lead, n, y, first + lead


@compiled
def put_edges(y: Place, first: int, n: int, lead: int, past: bool, edges: Place) -> None:
    """The last lanes; past the cache, what no lanes were written to, since lines just streamed would be read again."""
    count = lane_count(y)
    if not past:
        store(y, first + n - count, load(edges, count))
        return
    for k in range(lead):
        y[first + k] = edges[k]
    for k in range(count - (n - lead) % count, count):
        y[first + n - count + k] = edges[count + k]


@inlined
def apply_run(
    function: Formula | None,
    x: Place,
    task: Task,
    y: Place,
    first: int,
    n: int,
    table: Table,
    column: int,
    edges: Place,
) -> None:
    """At least as many elements from `first` on as there are lanes."""
    count, past = lane_count(x), table.past
    lead = before_line(y, first) if past else 0
    own = coefficients(task, table, column)
    for phase in range(0 if past else 1, 3):
        j, stop, to, at = stretch(phase, y, first, n, lead, edges)
        place = (column + j) % table.period if table.period > 0 else 0
        while j + count <= stop:
            if table.period > 0:
                place -= table.period if place >= table.period else 0
                own = coefficients(task, table, place)
                place += count
            value = result(function, x, task, first + j, own)
            if past and phase == 2:
                stream(to, at, value)
            else:
                store(to, at, value)
            j, at = j + count, at + count
    put_edges(y, first, n, lead, past, edges)


@inlined
def apply_part(
    function: Formula | None, x: Place, task: Task, y: Place, first: int, n: int, table: Table, column: int
) -> None:
    """Any number of elements: a few go through blocks of as many as there are lanes."""
    count, start, many, made, some, edges = lane_count(x), first, n, y, task, room(x)
    if n < count:
        some = part_of_task(task, first, n, zeros(x), after(edges, 4 * count))
        x = part_of(x, first, n, zeros(x), after(edges, 2 * count))
        start, many, made = 0, count, after(edges, 3 * count)
    apply_run(function, x, some, made, start, many, table, column, edges)
    if n < count:
        put_part(y, first, n, made)
        put_part_of_task(task, first, n, some)


def part_of_task(task: Task, first: int, n: int, filling: Value, to: Place) -> Task:
    """n elements of what a task reads put elsewhere, and room there for what it writes."""
    raise NotImplementedError


@overload(part_of_task, error_model="numpy")
def part_of_any_task(task: Type, first: Type, n: Type, filling: Type, to: Type) -> Body:
    if task.instance_class is Ends:
        return lambda task, first, n, filling, to: Ends(
            part_of(task.residual, first, n, filling, to), task.low, task.high
        )
    # Room for signs would be gone with this function's own.
    return lambda task, first, n, filling, to: part_of_source(
        task, first, n, filling, to, bytes_at(after(to, 4 * lane_count(to)))
    )


def put_part(to: Place, first: int, n: int, made: Place) -> None:
    """The first n elements to where others stand; of none nothing."""
    raise NotImplementedError


@overload(put_part, error_model="numpy")
def put_part_in(to: Type, first: Type, n: Type, made: Type) -> Body:
    if not is_there(to):
        return lambda to, first, n, made: None

    def put(to, first, n, made):
        for k in range(n):
            to[first + k] = made[k]

    return put


def put_part_of_task(task: Task, first: int, n: int, made: Task) -> None:
    """What a task wrote beside its result."""
    raise NotImplementedError


@overload(put_part_of_task, error_model="numpy")
def put_part_of_any_task(task: Type, first: Type, n: Type, made: Type) -> Body:
    if task.instance_class is Ends:
        return lambda task, first, n, made: None
    return lambda task, first, n, made: put_part(task.g, first, n, made.g)


def placed_task(task: Task) -> Task:
    """Of arrays, where their elements stand."""
    raise NotImplementedError


@overload(placed_task, error_model="numpy")
def placed_any_task(task: Type) -> Body:
    if task.instance_class is Ends:
        return lambda task: Ends(pointer(task.residual), task.low, task.high)
    return lambda task: placed(task)
