"""The sums of the Numba backend: moments and gradient sums, in the order of `_order`.

Loops index with unsigned integers, since Numba counts negative ones from the end, and that check keeps vector
instructions out; LLVM makes two loops of each, one for a step of 1. A sum is a vector of lanes, each summed in turn:
Numba may not reorder a single one.

dy is an empty tuple where a walk goes forward: Numba compiles `if len(dy) == 0` away. What is called in one place is
inlined: LLVM works through all that a compiled function calls once more.
"""
# mypy: allow-untyped-defs, allow-untyped-calls

from typing import Any, NamedTuple

import numpy as np

from cpubn import _algebra
from cpubn.kernels._numba_jit import compiled, fetch, inlined, u

# Lanes of a row: element j of a run is added to lane j % LANES.
LANES = 32
# Lanes to which the columns of one channel are added up.
FOLD = 8
# Elements that are asked for before they are needed; bytes of a cache line.
AHEAD, LINE = 1024, 64


class View(NamedTuple):
    """An array (O, C, I): channel c's run in outer row o starts at flat[start + o * outer + c * channel].

    A run is the inner elements of one channel; of columns, those of a group of channels. Strides in elements.
    """

    flat: Any
    start: int
    outer: int
    channel: int
    step: int


class Walk(NamedTuple):
    """The shape (O, C, I), its `_order.Order` (columns ... spans), and how this call cuts it."""

    outer: int
    channels: int
    inner: int
    columns: bool
    rows: int
    piece: int
    pieces: int
    chunks: int
    span: int
    spans: int
    group: int  # channels that are walked side by side: 1 where channels are rows
    groups: int
    block: int  # outer rows that are applied at once
    interleaved: bool  # in memory, all channels of an outer row come before the next row


@inlined
def fetch_rows(flat, at, stride, rows, lanes):
    """Ask for as many rows that come after these, or what stands AHEAD elements on if that is farther."""
    first = at + u(max(rows * stride, AHEAD))
    for row in range(rows):
        for i in range(0, lanes, LINE // flat.itemsize):
            fetch(flat, first + u(row * stride + i))


@inlined
def add_squares(x, at, stride, rows, rest, lanes, pivots, s, q):
    """s[j] += d and q[j] += d * d for d = x[row, j] - pivots[j] in x's type, over the rows in turn.

    x (rows, lanes) real, rows `stride` apart, then `rest` elements of one more; pivots, s, q (lanes,) float64.
    Four rows in one pass: the sums are loaded and stored a quarter as often.
    Reads rows * lanes + rest elements of x.
    """
    flat, step, real = x.flat, u(x.step), x.flat.dtype.type
    fours = rows - rows % 4
    for row in range(0, fours, 4):
        a = u(at + row * stride)
        b, c, d = a + u(stride), a + u(2 * stride), a + u(3 * stride)
        if step == 1:
            fetch_rows(flat, a, stride, 4, lanes)
        for lane in range(lanes):
            j, i = u(lane), u(lane) * step
            pivot = real(pivots[j])
            e, f = np.float64(flat[a + i] - pivot), np.float64(flat[b + i] - pivot)
            g, h = np.float64(flat[c + i] - pivot), np.float64(flat[d + i] - pivot)
            s[j] = s[j] + e + f + g + h
            q[j] = q[j] + e * e + f * f + g * g + h * h
    for row in range(fours, rows + min(rest, 1)):
        a = u(at + row * stride)
        for lane in range(lanes if row < rows else rest):
            j, i = u(lane), u(lane) * step
            e = np.float64(flat[a + i] - real(pivots[j]))
            s[j] += e
            q[j] += e * e


@inlined
def add_products(dy, dy_at, dy_stride, x, x_at, x_stride, rows, rest, lanes, means, s0, s1):
    """s0[j] += g and s1[j] += g * (x[row, j] - means[j]) for g = dy[row, j], over the rows in turn.

    dy, x (rows, lanes) real, and `rest` elements, as in `add_squares`; means, s0, s1 (lanes,) float64.
    Two rows in one pass: four streams of memory, as there.
    Reads rows * lanes + rest elements of dy and of x.
    """
    dy_flat, x_flat, dy_step, x_step = dy.flat, x.flat, u(dy.step), u(x.step)
    twos = rows - rows % 2
    for row in range(0, twos, 2):
        a, c = u(dy_at + row * dy_stride), u(x_at + row * x_stride)
        b, d = a + u(dy_stride), c + u(x_stride)
        if dy_step == 1 and x_step == 1:
            fetch_rows(dy_flat, a, dy_stride, 2, lanes)
            fetch_rows(x_flat, c, x_stride, 2, lanes)
        for lane in range(lanes):
            j, i, k = u(lane), u(lane) * dy_step, u(lane) * x_step
            g, h = np.float64(dy_flat[a + i]), np.float64(dy_flat[b + i])
            s0[j] = s0[j] + g + h
            s1[j] = s1[j] + g * (x_flat[c + k] - means[j]) + h * (x_flat[d + k] - means[j])
    for row in range(twos, rows + min(rest, 1)):
        a, c = u(dy_at + row * dy_stride), u(x_at + row * x_stride)
        for lane in range(lanes if row < rows else rest):
            j, i, k = u(lane), u(lane) * dy_step, u(lane) * x_step
            g = np.float64(dy_flat[a + i])
            s0[j] += g
            s1[j] += g * (x_flat[c + k] - means[j])


@compiled
def add_rows(dy, x, columns, o, c, i, rows, rest, width, pivots, s, q):
    """Add columns, outer rows from o on, to their lanes; or one channel's row, from element i on, LANES at a time."""
    x_at = x.start + o * x.outer + c * x.channel + i * x.step
    x_stride = x.outer if columns else LANES * x.step
    if len(dy) == 0:
        add_squares(x, x_at, x_stride, rows, rest, width, pivots, s, q)
    else:
        dy_at = dy.start + o * dy.outer + c * dy.channel + i * dy.step
        dy_stride = dy.outer if columns else LANES * dy.step
        add_products(dy, dy_at, dy_stride, x, x_at, x_stride, rows, rest, width, pivots, s, q)


@compiled
def lay_out(values, start, n, copies, out, at):
    """out[at:] = values[start], `copies` times, then values[start + 1], and so on for n values."""
    for value in range(n):
        first = u(at + value * copies)
        out[first] = values[u(start + value)]
        for copy in range(1, copies):
            out[first + u(copy)] = out[first]


@compiled
def start_chunk(dy, x, given, sample, first, last, centres):
    """A chunk's pivots, its first samples; or the means, which are given."""
    for c in range(first, last):
        centres[c - first] = np.float64(x.flat[sample + c * x.channel]) if len(dy) == 0 else given[0, c]


@compiled
def move_pivots(x, attempt, channels, lanes, count, s, q, centres):
    """Move the pivots that lay far from their channel's mean. Whether there was one."""
    moved = False
    for c in range(channels):
        total = s[c * lanes]
        m2 = _algebra.close(count, centres[c], total, q[c * lanes])[2]
        if _algebra.pivot_is_far(total, total / count, m2):
            pivot = _algebra.next_pivot(centres[c], total / count, m2, attempt == 0, x.flat.dtype.type)
            moved = moved or pivot != centres[c]
            centres[c] = pivot
    return moved


@compiled
def fold(s, q, at, n, lanes):
    """s[at] and q[at] become the sums of n from there on: FOLD lanes of columns first, then upper half onto lower."""
    if n > lanes:
        whole = n - n % FOLD
        for first in range(at + FOLD, at + whole, FOLD):
            for lane in range(FOLD):
                s[at + lane] += s[first + lane]
                q[at + lane] += q[first + lane]
        for lane in range(n - whole):
            s[at + lane] += s[at + whole + lane]
            q[at + lane] += q[at + whole + lane]
    half = lanes // 2
    while half > 0:
        for lane in range(at, at + min(half, n - half)):
            s[lane] += s[lane + half]
            q[lane] += q[lane + half]
        half //= 2


@compiled
def chunk(walk, k):
    """The outer rows and the inner elements of chunk k."""
    o_first, i_first = k // walk.pieces * walk.rows, k % walk.pieces * walk.piece
    return o_first, min(walk.outer, o_first + walk.rows), i_first, min(walk.inner, i_first + walk.piece)


@inlined
def add_span(dy, x, given, walk, first, last, span, state, sums):
    """state[:, first:last] = moments of x (3, C), or gradient sums about mean (2, C), over one span.

    A chunk's pivot is its first sample; where that lay far from the mean, the chunk is summed again about its mean.
    """
    channels, lanes = last - first, walk.inner if walk.columns else LANES
    width = channels * lanes
    centres, pivots, s, q = sums[0], sums[1], sums[2], sums[3]
    total = 0.0
    for k in range(span * walk.span, min(walk.chunks, (span + 1) * walk.span)):
        o_first, o_last, i_first, i_last = chunk(walk, k)
        rows, rest = o_last - o_first, 0
        count = np.float64(rows * (i_last - i_first))
        start_chunk(dy, x, given, x.start + o_first * x.outer + i_first * x.step, first, last, centres)
        for attempt in range(3):
            lay_out(centres, 0, channels, lanes, pivots, 0)
            for lane in range(width):
                s[lane] = q[lane] = 0.0
            for o in range(o_first, o_last, rows if walk.columns else 1):
                if not walk.columns:
                    rows, rest = (i_last - i_first) // LANES, (i_last - i_first) % LANES
                add_rows(dy, x, walk.columns, o, first, i_first, rows, rest, width, pivots, s, q)
            if lanes > 1:
                for at in range(0, width, lanes):
                    fold(s, q, at, lanes, FOLD if walk.columns else LANES)
            if len(dy) > 0 or not move_pivots(x, attempt, channels, lanes, count, s, q, centres):
                break
        put_chunk(dy, state, first, last, total, count, lanes, s, q, centres)
        total += count


@compiled
def put_chunk(dy, state, first, last, count, more, lanes, s, q, centres):
    """Add a chunk of `more` samples to the count that state holds."""
    for c in range(first, last):
        at = (c - first) * lanes
        if len(dy) == 0:
            mean, low, m2 = _algebra.close(more, centres[c - first], s[at], q[at])
            put_moments(state, c, count, more, mean, low, m2)
        else:
            put_sums(state, c, count, s[at], q[at])


@compiled
def put_spans(dy, walk, first, last, states, out):
    """out[:, first:last] = the sum of the spans, in turn."""
    count = 0.0
    for span in range(walk.spans):
        more = 0.0
        for k in range(span * walk.span, min(walk.chunks, (span + 1) * walk.span)):
            o_first, o_last, i_first, i_last = chunk(walk, k)
            more += np.float64((o_last - o_first) * (i_last - i_first))
        for c in range(first, last):
            if len(dy) == 0:
                put_moments(out, c, count, more, states[span, 0, c], states[span, 1, c], states[span, 2, c])
            else:
                put_sums(out, c, count, states[span, 0, c], states[span, 1, c])
        count += more


@compiled
def put_moments(state, c, count, more, mean, low, m2):
    """Merge the moments of `more` samples into the count in channel c of state; the first are taken as they are."""
    if count > 0.0:
        mean, low, m2 = _algebra.merge(count, state[0, c], state[1, c], state[2, c], more, mean, low, m2)
    state[0, c], state[1, c], state[2, c] = mean, low, m2


@compiled
def put_sums(state, c, count, s0, s1):
    """Add sums to those of count samples in channel c of state; the first are taken as they are."""
    if count > 0.0:
        s0, s1 = state[0, c] + s0, state[1, c] + s1
    state[0, c], state[1, c] = s0, s1
