"""The elementwise pass of the Numba backend: that of backends/compiled/apply.pxd, run by run.

    forward:    y  = activation((x - centre) * scale + shift + residual)
    backward:   dx = scale * ((g - k) - ((x - centre) * r) * s),  or g * scale in inference

Arrays are given by where their elements stand; y may be x or the residual, and dx may be dy or x: of a run, the last
lanes, and past the cache the first ones, are computed before those that overlap them.
"""
# mypy: allow-untyped-defs, allow-untyped-calls

from typing import NamedTuple

from numba import types
from numba.extending import overload

from cpubn.backends.jit.lanes import lanes
from cpubn.backends.jit.prologue import compiled, gradient_of, inlined, is_there, part_of, part_of_source
from cpubn.backends.jit.samples import address, after, lane_count, load, room, store, stream, zeros

CENTRE, FACTOR, SHIFT, RSTD, SLOPE, LEVEL = range(6)


class Ends(NamedTuple):
    """What a forward pass ends with, its parameters in the type that is computed in; the residual may not be there."""

    residual: object
    low: object
    high: object


class Table(NamedTuple):
    """Coefficients, kind by kind: of columns that are repeated or, where the period is 0, of channels."""

    values: object
    length: int  # from one kind to the next
    period: int
    past: bool  # results are written past the cache


@compiled
def coefficient(table, kind, at):
    """Of lanes of columns from `at` on, or of the channel that stands there."""
    at += kind * table.length
    return load(table.values, at) if table.period > 0 else lanes(table.values[at])


@compiled
def before_line(y, first):
    """Elements from `first` to the next cache line, which is half of what lanes take."""
    return -(address(y) * lane_count(y) // 128 + first) % (lane_count(y) // 2)


def ended(activate, ends, i, z):
    """activation(z + residual)."""
    raise NotImplementedError


@overload(ended, error_model="numpy")
def ended_by(activate, ends, i, z):
    residual, active = is_there(ends.types[0]), not isinstance(activate, types.NoneType)
    if residual and active:
        return lambda activate, ends, i, z: activate(z + load(ends.residual, i), ends.low, ends.high)
    if residual:
        return lambda activate, ends, i, z: z + load(ends.residual, i)
    if active:
        return lambda activate, ends, i, z: activate(z, ends.low, ends.high)
    return lambda activate, ends, i, z: z


def store_where(to, i, value):
    """Store lanes; of none nothing."""
    raise NotImplementedError


@overload(store_where, error_model="numpy")
def store_where_there(to, i, value):
    if is_there(to):
        return lambda to, i, value: store(to, i, value)
    return lambda to, i, value: None


@compiled
def stretch(phase, y, first, n, lead, edges):
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
def put_edges(y, first, n, lead, past, edges):
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
def forward_run(activate, x, ends, y, first, n, table, column, edges):
    """At least as many elements from `first` on as there are lanes."""
    count, past = lane_count(x), table.past
    lead = before_line(y, first) if past else 0
    centre, scale = coefficient(table, CENTRE, column), coefficient(table, FACTOR, column)
    shift = coefficient(table, SHIFT, column)
    for phase in range(0 if past else 1, 3):
        j, stop, to, at = stretch(phase, y, first, n, lead, edges)
        own = (column + j) % table.period if table.period > 0 else 0
        while j + count <= stop:
            if table.period > 0:
                own -= table.period if own >= table.period else 0
                centre, scale = coefficient(table, CENTRE, own), coefficient(table, FACTOR, own)
                shift = coefficient(table, SHIFT, own)
                own += count
            value = ended(activate, ends, first + j, (load(x, first + j) - centre) * scale + shift)
            if past and phase == 2:
                stream(to, at, value)
            else:
                store(to, at, value)
            j, at = j + count, at + count
    put_edges(y, first, n, lead, past, edges)


@inlined
def backward_run(derive, x, source, g_to, is_scale, dx, first, n, table, column, edges):
    """At least as many elements from `first` on as there are lanes, as in `forward_run`."""
    count, past = lane_count(x), table.past
    lead = before_line(dx, first) if past else 0
    centre, scale = coefficient(table, CENTRE, column), coefficient(table, FACTOR, column)
    shift, r = coefficient(table, SHIFT, column), coefficient(table, RSTD, column)
    s, k = coefficient(table, SLOPE, column), coefficient(table, LEVEL, column)
    for phase in range(0 if past else 1, 3):
        j, stop, to, at = stretch(phase, dx, first, n, lead, edges)
        own = (column + j) % table.period if table.period > 0 else 0
        while j + count <= stop:
            if table.period > 0:
                own -= table.period if own >= table.period else 0
                centre, scale = coefficient(table, CENTRE, own), coefficient(table, FACTOR, own)
                shift, r = coefficient(table, SHIFT, own), coefficient(table, RSTD, own)
                s, k = coefficient(table, SLOPE, own), coefficient(table, LEVEL, own)
                own += count
            d = load(x, first + j) - centre
            g = gradient_of(derive, source, first + j, d * scale + shift)
            store_where(g_to, first + j, g)
            value = g * scale if is_scale else scale * ((g - k) - (d * r) * s)
            if past and phase == 2:
                stream(to, at, value)
            else:
                store(to, at, value)
            j, at = j + count, at + count
    put_edges(dx, first, n, lead, past, edges)


@inlined
def forward_part(activate, x, ends, y, first, n, table, column):
    """Any number of elements: a few go through blocks of as many as there are lanes."""
    count, start, many, made, edges = lane_count(x), first, n, y, room(x)
    if n < count:
        residual = part_of(ends.residual, first, n, zeros(x), after(edges, 3 * count))
        x, ends = part_of(x, first, n, zeros(x), after(edges, 2 * count)), Ends(residual, ends.low, ends.high)
        start, many, made = 0, count, after(edges, 4 * count)
    forward_run(activate, x, ends, made, start, many, table, column, edges)
    if n < count:
        put_part(y, first, n, made)


@inlined
def backward_part(derive, x, source, g_to, is_scale, dx, first, n, table, column):
    """Any number of elements: a few go through blocks of as many as there are lanes."""
    count, start, many, made, g, edges = lane_count(x), first, n, dx, g_to, room(x)
    if n < count:
        source = part_of_source(source, first, n, zeros(x), after(edges, 3 * count), room(source.signs))
        x, g = (
            part_of(x, first, n, zeros(x), after(edges, 2 * count)),
            part_of(g, first, n, zeros(x), after(edges, 6 * count)),
        )
        start, many, made = 0, count, after(edges, 7 * count)
    backward_run(derive, x, source, g, is_scale, made, start, many, table, column, edges)
    if n < count:
        put_part(dx, first, n, made)
        put_part(g_to, first, n, g)


def put_part(to, first, n, made):
    """The first n elements to where others stand; of none nothing."""
    raise NotImplementedError


@overload(put_part, error_model="numpy")
def put_part_in(to, first, n, made):
    if not is_there(to):
        return lambda to, first, n, made: None

    def put(to, first, n, made):
        for k in range(n):
            to[first + k] = made[k]

    return put
