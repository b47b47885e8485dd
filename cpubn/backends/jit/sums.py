"""The sums of the Numba backend: those of backends/compiled/sums.pxd and chunks.pxd, word for word.

    moments:    s = sum(x - K),   q = sum((x - K) ** 2)
    gradient:   s = sum(g),       q = sum(g * (x - K))

Arrays are given by where their elements stand; `take` and `gradient_of` are compiled for those that are there.
"""
# mypy: allow-untyped-defs

from typing import NamedTuple

from cpubn.backends.jit.lanes import DOUBLES, FLOATS, fold, lanes, last, plus, widen
from cpubn.backends.jit.prologue import Source, gradient_of, is_there, part_of, part_of_source
from cpubn.backends.jit.samples import after, lane_count, load, room, store, zeros
from cpubn.backends.jit.typed import Body, Place, Type, Value, compiled, overload
from cpubn.maths.activations import Formula

STEPS = 8


class Walk(NamedTuple):
    """A walk and its order of summation: see maths/order.py."""

    outer: int
    channels: int
    inner: int
    columns: bool
    together: int
    levels: int
    pieces: int
    chunks: int
    span: int
    spans: int


def widened(a: Value, last_half: int) -> Value:
    """Half of float lanes as doubles; of double lanes all, and zeros."""
    raise NotImplementedError


@overload(widened)
def widened_lanes(a: Type, last_half: Type) -> Body | None:
    if a == FLOATS:
        return lambda a, last_half: widen(a, 1) if last_half else widen(a, 0)
    if a == DOUBLES:
        return lambda a, last_half: lanes(0.0) if last_half else a
    return None


def take(
    derive: Formula | None, x: Place, source: Source, i: int, centre: Value, scale: Value, shift: Value
) -> tuple[Value, Value]:
    """x - K and g of the lanes from element i on."""
    raise NotImplementedError


@overload(take, error_model="numpy")
def take_of(
    derive: Type,
    x: Type,
    source: Type,
    i: Type,
    centre: Type,
    scale: Type,
    shift: Type,
) -> Body:
    if not is_there(source.types[0]):

        def moment(derive, x, source, i, centre, scale, shift):
            d = load(x, i) - centre
            return d, d

        return moment

    def gradient(derive, x, source, i, centre, scale, shift):
        d = load(x, i) - centre
        return d, gradient_of(derive, source, i, d * scale + shift)

    return gradient


@compiled
def bounds(n: int, parts: int, k: Value) -> tuple[int, int]:
    return n * k // parts, n * (k + 1) // parts


@compiled
def sum_rows(
    derive: Formula | None, x: Place, source: Source, walk: Walk, c: int, chunk: int, table: Place
) -> tuple[Value, Value]:
    """One chunk of channel c, whose inner runs are rows; table (3, C): centre, scale, shift."""
    count, zero = lane_count(x), zeros(x)
    o0, o1 = bounds(walk.outer, walk.levels, chunk // walk.pieces)
    i0, i1 = bounds(walk.inner, walk.pieces, chunk % walk.pieces)
    steps, rest = (i1 - i0) // count, (i1 - i0) % count
    m = walk.channels
    centre, scale, shift = lanes(table[c]), lanes(table[m + c]), lanes(table[2 * m + c])
    s, q, pending = zero, zero, 0
    s0, s1, q0, q1 = lanes(0.0), lanes(0.0), lanes(0.0), lanes(0.0)
    for o in range(o0, o1):
        i, done = (o * walk.channels + c) * walk.inner + i0, 0
        while done < steps:
            more = min(STEPS, steps - done)
            if pending + (more + 1) // 2 > STEPS // 2:
                s0, s1, q0, q1 = s0 + widened(s, 0), s1 + widened(s, 1), q0 + widened(q, 0), q1 + widened(q, 1)
                s, q, pending = zero, zero, 0
            for _ in range(more // 2):
                d, g = take(derive, x, source, i, centre, scale, shift)
                e, h = take(derive, x, source, i + count, centre, scale, shift)
                s = s + (g + h)
                q = plus(g * d + h * e, q)
                i += 2 * count
            if more % 2 > 0:
                d, g = take(derive, x, source, i, centre, scale, shift)
                s = s + g
                q = plus(g * d, q)
                i += count
            pending += (more + 1) // 2
            done += more
        if rest > 0:
            if pending + 1 > STEPS // 2:
                s0, s1, q0, q1 = s0 + widened(s, 0), s1 + widened(s, 1), q0 + widened(q, 0), q1 + widened(q, 1)
                s, q, pending = zero, zero, 0
            d, g = take(derive, x, source, i + rest - count, centre, scale, shift)
            d, g = last(d, rest), last(g, rest)
            s = s + g
            q = plus(g * d, q)
            pending += 1
    s0, s1, q0, q1 = s0 + widened(s, 0), s1 + widened(s, 1), q0 + widened(q, 0), q1 + widened(q, 1)
    return fold(s0 + s1), fold(q0 + q1)


@compiled
def sum_strip(
    derive: Formula | None, x: Place, source: Source, first: int, step: int, rows: int, keep: int, table: Place
) -> tuple[Value, Value, Value, Value]:
    """The sums of `rows` rows of lanes, `step` apart from element `first` on; table: of those lanes."""
    count, zero = lane_count(x), zeros(x)
    centre, scale, shift = load(table, 0), load(table, count), load(table, 2 * count)
    s0, s1, q0, q1 = lanes(0.0), lanes(0.0), lanes(0.0), lanes(0.0)
    i, done = first, 0
    while done < rows:
        more = min(STEPS, rows - done)
        s, q = zero, zero
        for _ in range(more // 2):
            d, g = take(derive, x, source, i, centre, scale, shift)
            e, h = take(derive, x, source, i + step, centre, scale, shift)
            if keep < count:
                d, g, e, h = last(d, keep), last(g, keep), last(e, keep), last(h, keep)
            s = s + (g + h)
            q = plus(g * d + h * e, q)
            i += 2 * step
        if more % 2 > 0:
            d, g = take(derive, x, source, i, centre, scale, shift)
            if keep < count:
                d, g = last(d, keep), last(g, keep)
            s = s + g
            q = plus(g * d, q)
            i += step
        s0, s1, q0, q1 = s0 + widened(s, 0), s1 + widened(s, 1), q0 + widened(q, 0), q1 + widened(q, 1)
        done += more
    return s0, s1, q0, q1


@compiled
def close_up(s0: Value, s1: Value, to: Place, first: int, keep: int, n: int) -> None:
    """The last `keep` of n lanes as those of the columns from `first` on; what stands there already keeps it."""
    made = room(to)
    store(made, 0, s0)
    store(made, 16, s1)
    for lane in range(n - keep, n):
        to[first + lane] = made[lane]


@compiled
def sum_columns(
    derive: Formula | None,
    x: Place,
    source: Source,
    walk: Walk,
    chunk: int,
    table: Place,
    first: int,
    after_last: int,
    s: Place,
    q: Place,
) -> None:
    """One chunk of the columns of strips from `first` to before `after_last`, to s and q (width,)."""
    count, row = lane_count(x), walk.channels * walk.inner
    width, whole = row * walk.together, walk.outer // walk.together
    v0, v1 = bounds(-(-walk.outer // walk.together), walk.levels, chunk)
    own, bits = room(x), room(source.signs)
    few, given_few = after(own, 3 * count), after(own, 4 * count)
    for k in range(first, after_last):
        j = max(0, min(k * count, width - count))
        keep = min(count, width - k * count) if width >= count else count
        for lane in range(count):
            c = min(j + lane, width - 1) % row // walk.inner
            for kind in range(3):
                own[kind * count + lane] = table[kind * walk.channels + c]
        s0, s1, q0, q1 = lanes(0.0), lanes(0.0), lanes(0.0), lanes(0.0)
        for piece in range(2):  # whole rows of lanes, and the last, shorter one
            some, given, at, step, rows = x, source, v0 * width + j, width, min(v1, whole) - v0
            n = count
            if piece == 1:
                at, rows = whole * width + j, 1
                n = min(count, walk.outer * row - at) if v1 > whole else 0
            elif width < count:  # so few columns that they are one row
                n = width
            if n <= 0 or rows <= 0:
                continue
            if piece == 1 or n < count:
                some, given = (
                    part_of(x, at, n, load(own, 0), few),
                    part_of_source(source, at, n, zeros(x), given_few, bits),
                )
                at, step, rows = 0, 0, 1
            t0, t1, r0, r1 = sum_strip(derive, some, given, at, step, rows, keep, own)
            s0, s1, q0, q1 = s0 + t0, s1 + t1, q0 + r0, q1 + r1
        n = min(count, width - j)
        close_up(s0, s1, s, j, min(keep, n), n)
        close_up(q0, q1, q, j, min(keep, n), n)


@compiled
def fold_columns(walk: Walk, columns: Place, to: Place) -> None:
    """Add the columns of each channel to its sum: `inner` of them in 16 lanes, which are folded, for each row laid."""
    few = room(columns)
    for j in range(walk.channels * walk.together):
        total = lanes(0.0)
        for i in range(j * walk.inner, (j + 1) * walk.inner, 16):
            n = (j + 1) * walk.inner - i
            total = total + (load(part_of(columns, i, n, lanes(0.0), few), 0) if n < 16 else load(columns, i))
        to[j % walk.channels] += fold(total)
