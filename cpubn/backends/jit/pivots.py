"""The pivots of moments in the Numba backend: those of backends/compiled/pivots.pxd, word for word."""

import numpy as np

from cpubn.backends.jit.lanes import fold, lanes
from cpubn.backends.jit.prologue import part_of
from cpubn.backends.jit.samples import lane_count, load, room, zeros
from cpubn.backends.jit.sums import Walk, close_up, fold_columns, widened
from cpubn.backends.jit.typed import Place, Value, compiled

ROW_PLACES, COLUMN_PLACES = 16, 64


@compiled
def row_pivot(x: Place, walk: Walk, c: int) -> Value:
    """The mean of steps of lanes spread over channel c."""
    count = lane_count(x)
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
def column_pivots(x: Place, walk: Walk, columns: Place, totals: Place) -> None:
    """The means of rows spread over the channels, totals (C,); columns (width,) is for their sums."""
    count, few = lane_count(x), room(x)
    width, rows = walk.channels * walk.inner * walk.together, walk.outer // walk.together
    wanted = max(8, COLUMN_PLACES // (walk.together * walk.inner))
    places = (wanted * rows - 1) // (rows + wanted) + 1
    for first in range(0, width, count):
        j = max(0, min(first, width - count))
        s0, s1 = lanes(0.0), lanes(0.0)
        for v in range(0, places, 8):
            s = zeros(x)
            for u in range(v, min(v + 8, places)):
                at = u * rows // places * width + j
                s = s + (load(x, at) if width >= count else load(part_of(x, at, width, zeros(x), few), 0))
            s0, s1 = s0 + widened(s, 0), s1 + widened(s, 1)
        close_up(s0, s1, columns, j, min(count, width - j), min(count, width - j))
    for c in range(walk.channels):
        totals[c] = 0.0
    fold_columns(walk, columns, totals)
    for c in range(walk.channels):
        totals[c] /= np.float64(places * walk.together * walk.inner)
