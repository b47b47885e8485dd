"""The sums of the Numba backend: those of backends/compiled/sums.pxd and chunks.pxd, word for word.

    moments:    s = sum(x - K),   q = sum((x - K) ** 2)
    gradient:   s = sum(g),       q = sum(g * (x - K))

Arrays are flat and contiguous; `take` and `gradient_of` are compiled for those that are there.
"""
# mypy: allow-untyped-defs, allow-untyped-calls

from typing import NamedTuple

import numpy as np
from numba import njit, types
from numba.extending import overload

from cpubn.backends.jit.lanes import DOUBLES, FLOATS, fold, lanes, last, plus, select, unpack, widen
from cpubn.backends.jit.samples import load, store

compiled = njit(error_model="numpy", nogil=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)

STEPS, ROW_PLACES, COLUMN_PLACES = 8, 16, 64


class Walk(NamedTuple):
    """A walk and its order of summation: see kernels/_order.py."""

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


class Source(NamedTuple):
    """What g is made of, and the derivative's parameters; see `is_there`."""

    dy: object
    residual: object
    kept: object
    signs: object
    slope: object
    low: object
    high: object


def widened(a, last_half):
    """Half of float lanes as doubles; of double lanes all, and zeros."""
    raise NotImplementedError


@overload(widened)
def widened_lanes(a, last_half):
    if a == FLOATS:
        return lambda a, last_half: widen(a, 1) if last_half else widen(a, 0)
    if a == DOUBLES:
        return lambda a, last_half: lanes(0.0) if last_half else a
    return None


@compiled
def bits_at(packed, bit):
    """The 32 bits from that one on; behind the last one there is room."""
    first, word = bit // 8, np.uint64(0)
    for k in range(5):
        word |= np.uint64(packed[first + k]) << np.uint64(8 * k)
    return np.uint32((word >> np.uint64(bit % 8)) & np.uint64(0xFFFFFFFF))


def is_there(a):
    """Of a type: whether it is a flat array; one of two dimensions stands for none."""
    return isinstance(a, types.Array) and a.ndim == 1


def take(derive, x, source, i, centre, scale, shift):
    """x - K and g of the lanes from element i on."""
    raise NotImplementedError


@overload(take, error_model="numpy")
def take_of(derive, x, source, i, centre, scale, shift):
    if not is_there(source.types[0]):

        def moment(derive, x, source, i, centre, scale, shift):
            d = load(x, i) - centre
            return d, d

        return moment

    def gradient(derive, x, source, i, centre, scale, shift):
        d = load(x, i) - centre
        return d, gradient_of(derive, source, i, d * scale + shift)

    return gradient


def gradient_of(derive, source, i, z):
    """g of the lanes from element i on, whose z is given but for the residual."""
    raise NotImplementedError


@overload(gradient_of, error_model="numpy")
def gradient_by(derive, source, i, z):
    _, residual, kept, signs = map(is_there, source.types[:4])
    if signs:

        def by_signs(derive, source, i, z):
            g, zero = load(source.dy, i), lanes(source.slope - source.slope)
            flags = unpack(bits_at(source.signs, i), zero)
            return select(flags, g, zero if source.slope == 0 else g * source.slope)

        return by_signs
    if isinstance(derive, types.NoneType):
        return lambda derive, source, i, z: load(source.dy, i)
    if kept:
        return lambda derive, source, i, z: load(source.dy, i) * derive(load(source.kept, i), source.low, source.high)
    if residual:
        return lambda derive, source, i, z: (
            load(source.dy, i) * derive(z + load(source.residual, i), source.low, source.high)
        )
    return lambda derive, source, i, z: load(source.dy, i) * derive(z, source.low, source.high)


def part_of(a, first, n, fill):
    """n elements of a flat array, and numbers to fill the lanes behind them with; of none none."""
    raise NotImplementedError


@overload(part_of, error_model="numpy")
def part_of_array(a, first, n, fill):
    if not is_there(a):
        return lambda a, first, n, fill: a

    def part(a, first, n, fill):
        made = np.empty(fill.size, fill.dtype)
        for k in range(fill.size):
            made[k] = a[first + k] if k < n else fill[k]
        return made

    return part


def part_of_signs(signs, first):
    """The 32 bits from that one on."""
    raise NotImplementedError


@overload(part_of_signs, error_model="numpy")
def part_of_bits(signs, first):
    if not is_there(signs):
        return lambda signs, first: signs

    def part(signs, first):
        word, made = bits_at(signs, first), np.zeros(16, np.uint8)
        for k in range(4):
            made[k] = np.uint8((word >> np.uint32(8 * k)) & np.uint32(255))
        return made

    return part


@compiled
def bounds(n, parts, k):
    return n * k // parts, n * (k + 1) // parts


@compiled
def sum_rows(derive, x, source, walk, c, chunk, table):
    """One chunk of channel c, whose inner runs are rows; table (3, C): centre, scale, shift."""
    count, zero = 128 // x.itemsize, lanes(x.dtype.type(0))
    o0, o1 = bounds(walk.outer, walk.levels, chunk // walk.pieces)
    i0, i1 = bounds(walk.inner, walk.pieces, chunk % walk.pieces)
    steps, rest = (i1 - i0) // count, (i1 - i0) % count
    centre, scale, shift = lanes(table[0, c]), lanes(table[1, c]), lanes(table[2, c])
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
def sum_strip(derive, x, source, first, step, rows, keep, table):
    """The sums of `rows` rows of lanes, `step` apart from element `first` on; table: of those lanes."""
    count, zero = 128 // x.itemsize, lanes(x.dtype.type(0))
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
def put_aside(s0, s1, to, at, count):
    store(to, at, s0)
    if count == 32:
        store(to, at + 16, s1)


@compiled
def part_of_source(source, first, n, zeros):
    """A part of what g is made of."""
    dy, residual = part_of(source.dy, first, n, zeros), part_of(source.residual, first, n, zeros)
    kept, signs = part_of(source.kept, first, n, zeros), part_of_signs(source.signs, first)
    return Source(dy, residual, kept, signs, source.slope, source.low, source.high)


@compiled
def sum_columns(derive, x, source, walk, chunk, table, first, after, s, q):
    """One chunk of the columns of strips from `first` to before `after`, to s and q (width,)."""
    count, row = 128 // x.itemsize, walk.channels * walk.inner
    width, whole = row * walk.together, walk.outer // walk.together
    v0, v1 = bounds(-(-walk.outer // walk.together), walk.levels, chunk)
    zeros, sums = np.zeros(count, x.dtype), np.empty((4, 32))
    own = np.empty(3 * count, x.dtype)
    for k in range(first, after):
        j = max(0, min(k * count, width - count))
        keep = min(count, width - k * count) if width >= count else count
        for lane in range(count):
            c = min(j + lane, width - 1) % row // walk.inner
            own[lane], own[count + lane], own[2 * count + lane] = table[0, c], table[1, c], table[2, c]
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
                some, given = part_of(x, at, n, own[:count]), part_of_source(source, at, n, zeros)
                at, step, rows = 0, 0, 1
            t0, t1, r0, r1 = sum_strip(derive, some, given, at, step, rows, keep, own)
            s0, s1, q0, q1 = s0 + t0, s1 + t1, q0 + r0, q1 + r1
        put_aside(s0, s1, sums[0], 0, count)
        put_aside(q0, q1, sums[1], 0, count)
        for lane in range(count):
            if count - lane <= keep and j + lane < width:
                s[j + lane], q[j + lane] = sums[0, lane], sums[1, lane]


@compiled
def fold_columns(walk, columns, to):
    """Add the columns of each channel to its sum: `inner` of them in 16 lanes, which are folded, for each row laid."""
    few = np.zeros(16)
    for j in range(walk.channels * walk.together):
        total = lanes(0.0)
        for i in range(j * walk.inner, (j + 1) * walk.inner, 16):
            n = (j + 1) * walk.inner - i
            if n < 16:
                few[:n], few[n:] = columns[i : i + n], 0.0
                total = total + load(few, 0)
            else:
                total = total + load(columns, i)
        to[j % walk.channels] += fold(total)


@compiled
def row_pivot(x, walk, c):
    """The mean of steps of lanes spread over channel c."""
    count = 128 // x.itemsize
    steps = walk.inner // count
    total = walk.outer * steps
    places = min(total, ROW_PLACES, max(2, total // 8))
    s0, s1 = lanes(0.0), lanes(0.0)
    for k in range(places):
        step = total * k // places
        a = load(x, ((step // steps) * walk.channels + c) * walk.inner + step % steps * count)
        s0, s1 = s0 + widened(a, 0), s1 + widened(a, 1)
    return fold(s0 + s1) / np.float64(places * count)


@compiled
def column_pivots(x, walk, totals):
    """The means of rows spread over the channels, totals (C,)."""
    count, row, zero = 128 // x.itemsize, walk.channels * walk.inner, lanes(x.dtype.type(0))
    width, rows = row * walk.together, walk.outer // walk.together
    wanted = max(8, COLUMN_PLACES // (walk.together * walk.inner))
    places = (wanted * rows - 1) // (rows + wanted) + 1
    columns, sums = np.empty(width), np.empty(32)
    zeros = np.zeros(count, x.dtype)
    for k in range(-(-width // count)):
        j = max(0, min(k * count, width - count))
        s0, s1 = lanes(0.0), lanes(0.0)
        for v in range(0, places, 8):
            s = zero
            for u in range(v, min(v + 8, places)):
                if width >= count:
                    s = s + load(x, u * rows // places * width + j)
                else:
                    s = s + load(part_of(x, u * rows // places * width, width, zeros), 0)
            s0, s1 = s0 + widened(s, 0), s1 + widened(s, 1)
        put_aside(s0, s1, sums, 0, count)
        for lane in range(count):
            if j + lane < width:
                columns[j + lane] = sums[lane]
    totals[:] = 0.0
    fold_columns(walk, columns, totals)
    for c in range(walk.channels):
        totals[c] /= np.float64(places * walk.together * walk.inner)
