"""s and q of a pass's channels in the Numba backend: of those that are to be summed, in float32 or in float64."""

from __future__ import annotations

from typing import Any

import numpy as np

from cpubn.backends.jit import kernels
from cpubn.backends.jit.arrays import Terms, enough, flat, groups, is_plain, plain, serial_for
from cpubn.backends.jit.sums import Walk
from cpubn.backends.jit.threads import team
from cpubn.typing import Array


def sum_pending(
    x: Array, terms: Terms, rows: Any, walk: Walk, which: tuple[Array, Array], sums: tuple[Array, Array], threads: int
) -> None:
    """s and q of the channels that are pending, some of them in float64; rows: centre, scale, shift."""
    pending, double = which
    for real in (np.float32, np.float64):
        wanted = np.flatnonzero(pending & (double == (real is np.float64)))
        if not len(wanted):
            continue
        if len(wanted) == walk.channels and x.dtype == real and all(map(is_plain, (x, *terms[:3]))):
            sums[0][:], sums[1][:] = _sum_group(x, terms, rows, walk, threads)
            continue
        for group in groups(x, wanted, x, *terms[:3], None if x.dtype == real else x):
            chosen = np.arange(walk.channels)[group]
            filled = enough(chosen, walk, 128 // np.dtype(real).itemsize)
            own = [np.asarray(row, np.float64)[filled] for row in rows]
            some = plain(x[:, filled].astype(real, copy=False)), terms.of(filled, real)
            sums[0][chosen], sums[1][chosen] = _sum_group(*some, own, walk, threads)[:, : len(chosen)]
            del some  # before the next ones are copied


def _sum_group(x: Array, terms: Terms, rows: Any, walk: Walk, threads: int) -> Array:
    """s and q, (2, C), of plain arrays of one type."""
    real, own = x.dtype.type, walk._replace(channels=x.shape[1])
    with np.errstate(all="ignore"):
        table = np.concatenate([np.asarray(row, np.float64) for row in rows]).astype(real)
    parts = np.empty((walk.spans, 2, own.channels))
    with team(serial_for(terms.activation, threads)) as count:
        if own.columns:
            columns = np.empty(own.chunks * 2 * own.channels * own.inner * own.together)
            loops = kernels.columns(terms.derivative)(count > 1)
            loops(flat(x), terms.source(real), own, table, columns, flat(parts), count)
        else:
            loops = kernels.rows(terms.derivative)(count > 1)
            loops(flat(x), terms.source(real), own, table, flat(parts), count)
    totals: Array = parts[0]
    for span in parts[1:]:
        totals = totals + span
    return totals
