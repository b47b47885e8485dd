"""The pivots of moments in the Numba backend: those of backends/compiled/pivots.pxd, word for word."""
# mypy: allow-untyped-defs, allow-untyped-calls

import numpy as np

from cpubn.backends.jit.lanes import fold, lanes
from cpubn.backends.jit.prologue import compiled, part_of
from cpubn.backends.jit.samples import load
from cpubn.backends.jit.sums import fold_columns, put_aside, widened

ROW_PLACES, COLUMN_PLACES = 16, 64


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
