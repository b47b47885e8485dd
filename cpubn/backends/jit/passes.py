"""The Numba backend: the same functions, arguments and bits as the Cython one, compiled when they are first called.

Kernels take contiguous arrays of one type, float32 or float64; others are copied. What they leave undone is done here
by the same kernels in float64: channels whose sums do not stand, and those whose coefficients float32 does not hold.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cpubn.backends import reference
from cpubn.backends.blocks import count_of, fill_masked
from cpubn.backends.epilogue import Epilogue
from cpubn.backends.jit import kernels
from cpubn.backends.jit.apply import Ends
from cpubn.backends.jit.arrays import (
    Terms,
    affine_of,
    flat,
    groups,
    is_plain,
    plain,
    serial_for,
    table_of,
    terms_of,
    walk_of,
)  # fmt: skip
from cpubn.backends.jit.threads import team, thread_limit, threading_layer
from cpubn.backends.jit.totals import sum_pending
from cpubn.backends.prologue import Prologue, Statistics
from cpubn.backends.weights import Weights
from cpubn.maths import algebra
from cpubn.typing import Array

__all__ = [
    "ANY_TYPE",
    "backward",
    "gradient_sums",
    "moments",
    "normalize",
    "pack_signs",
    "thread_limit",
    "threading_layer",
    "train_forward",
]

# Samples are of the type that is computed in.
ANY_TYPE = False
FAR, LOST = 1.25, 2.0**-110  # see backends/compiled/sums.pxd and channels.pxd


def moments(x: Array, stats: Array, threads: int, weights: Weights | None = None) -> None:
    """mean, low word of the mean and sum((x - mean)**2) of each channel.

    x (O, C, I) real; stats (3, C) float64.
    About one pivot a channel: partial sums then merge by addition. Reads x once. Of weighted samples NumPy adds up.
    """
    if weights is not None:
        reference.moments(x, stats, threads, weights)
        return
    walk = walk_of(x.shape)
    count = np.float64(walk.outer * walk.inner)
    pivot = np.empty(walk.channels)
    for group in groups(x, np.arange(walk.channels), x):
        part = x[:, group]
        own = walk._replace(channels=part.shape[1])
        if own.columns:
            columns = np.empty(own.channels * own.inner * own.together)
            kernels.column_means()(flat(part), own, columns, pivot[group])
        else:
            kernels.row_means()(flat(part), own, pivot[group])
    with np.errstate(all="ignore"):
        pivot = algebra.centre(pivot, x.dtype.type)
        double = np.full(walk.channels, x.dtype == np.float64)
        again = np.zeros(walk.channels, bool)
        pending = np.ones(walk.channels, bool)
        s, q = np.zeros(walk.channels), np.zeros(walk.channels)
        while pending.any():
            sum_pending(x, Terms(), (pivot, pivot, pivot), walk, (pending, double), (s, q), threads)
            offset = s / count
            m2 = q - s * offset
            m2 = np.where(m2 < 0.0, 0.0, m2)
            mean, low = algebra.two_sum(pivot, offset)
            for row, made in zip(stats, (mean, low, m2 + 0.0 * m2), strict=True):
                np.copyto(row, made, where=pending)
            far = ~(q <= FAR * m2)
            lost = (~(q < np.inf) | (q < count * LOST)) & (x.dtype != np.float64)
            if not (pending & (far | lost)).any():
                break
            to_double = pending & ~double & (lost | (far & again))
            moved = pending & ~to_double & far & ~again & np.isfinite(mean)
            pivot = np.where(to_double & ~np.isfinite(pivot), 0.0, pivot)
            pivot = np.where(moved, np.where(double, mean, algebra.centre(mean, x.dtype.type)), pivot)
            again = np.where(to_double, False, again | moved)
            double |= to_double
            pending = to_double | moved


def normalize(
    x: Array, affine: Array, epilogue: Epilogue, y: Array, threads: int, weights: Weights | None = None
) -> None:
    """y = epilogue((x - centre) * scale + shift).

    x, y (O, C, I) real, which may be the same; affine (3, C) float64: centre, scale, shift.
    A float32 channel is computed in float64 where float32 cannot hold its coefficients or might overflow on the way.
    Reads x and the residual once, writes y once, and once more where nothing counts.
    """
    if weights is not None:
        normalize(x, affine, epilogue, y, threads)
        fill_masked(y, weights, weights.filling)
        return
    activation, residual, _ = epilogue
    if not (is_plain(x) and is_plain(y) and is_plain(residual)):
        for group in groups(x, np.arange(x.shape[1]), x, y, residual):
            added = None if residual is None else plain(residual[:, group])
            made = np.empty((x.shape[0], affine[:, group].shape[1], x.shape[2]), x.dtype)
            normalize(plain(x[:, group]), affine[:, group], Epilogue(activation, added), made, threads)
            y[:, group] = made
            del made, added
        return
    wide = algebra.forward_is_wide(*affine) & (x.dtype != np.float64)
    result = None
    if wide.any():
        result = np.empty((x.shape[0], int(wide.sum()), x.shape[2]))
        part = None if residual is None else residual[:, wide].astype(np.float64)
        normalize(x[:, wide].astype(np.float64), affine[:, wide], Epilogue(activation, part), result, threads)
    function, low, high = None, 0.0, 0.0
    if activation is not None:
        _, low, high, function, _ = activation
        function = activation.entry.function if activation.entry else function
    real = x.dtype.type
    table = table_of(affine, x.shape, real, 2)
    with np.errstate(all="ignore"):
        ends = Ends(flat(residual), real(low), real(high))
    with team(serial_for(activation, threads)) as parts:
        kernels.elements(function)(parts > 1)(flat(x), ends, y.reshape(-1), x.shape, table, parts)
    if result is not None:
        with np.errstate(all="ignore"):
            y[:, wide] = result


def train_forward(
    x: Array, weight: Array, bias: Array, eps: float, stats: Array, epilogue: Epilogue, y: Array, threads: int,
    weights: Weights | None = None,
) -> None:  # fmt: skip
    """y = epilogue((x - mean) / sqrt(var + eps) * weight + bias) with x's own moments, which go to stats.

    x, y (O, C, I) real, which may be the same; weight, bias (C,), stats (3, C) float64.
    Sums first, then the elementwise pass: kernels that did both would be compiled once more for every activation.
    Reads x twice, the residual once, writes y once.
    """
    moments(x, stats, threads, weights)
    mean, low, m2 = stats
    with np.errstate(all="ignore"):
        centre = algebra.centre(mean, x.dtype.type)
        var = m2 / count_of(x, weights)
        affine = np.stack((centre, *algebra.affine(mean, low, var, weight, bias, eps, centre)))
    normalize(x, affine, epilogue, y, threads, weights)


def gradient_sums(
    dy: Array, x: Array, statistics: Statistics, prologue: Prologue, sums: Array, threads: int,
    weights: Weights | None = None,
) -> None:  # fmt: skip
    """s0 = sum(g) and s1 = sum(g * (x - mean)) of each channel, g being dy through the prologue.

    dy, x (O, C, I) real; sums (2, C) float64.
    x - centre in the data's type, where it is exact for a large mean; the rest of the mean is paid back.
    Reads dy and x, and what the prologue reads, once.
    """
    if weights is not None:
        g = _g(dy, x, statistics, prologue, threads)
        reference.gradient_sums(g, x, statistics, Prologue(g=prologue.g), sums, threads, weights)
        return
    walk = walk_of(x.shape)
    count, single = np.float64(walk.outer * walk.inner), x.dtype != np.float64
    terms, affine = terms_of(dy, x, prologue), affine_of(x, statistics, prologue.bias)
    pending = np.ones(walk.channels, bool)
    double = np.full(walk.channels, not single)
    if terms.activation is not None and terms.kept is None:
        double |= algebra.forward_is_wide(*affine)
    s, q = np.zeros(walk.channels), np.zeros(walk.channels)
    with np.errstate(all="ignore"):
        sum_pending(x, terms, affine, walk, (pending, double), (s, q), threads)
        lost = ~(abs(s) < np.inf) | ~(abs(q) < np.inf) | (abs(q) < count * LOST)
        pending = lost & single & ~double
        pivot = affine[0]
        if pending.any():
            first = s.copy()
            pivot = np.where(pending & ~np.isfinite(pivot), 0.0, pivot)
            sum_pending(x, terms, (pivot, *affine[1:]), walk, (pending, double | pending), (s, q), threads)
            s = np.where(pending & np.isfinite(first), first, s)
        sums[0] = s
        sums[1] = q + ((pivot - statistics.mean) - statistics.low) * s


def backward(
    dy: Array, x: Array, statistics: Statistics, prologue: Prologue, sums: Array, dx: Array, threads: int,
    weights: Weights | None = None,
) -> None:  # fmt: skip
    """dx = scale * ((g - k) - ((x - centre) * r) * s), with the coefficients of `algebra.gradient`; or g * scale.

    dy, x, dx (O, C, I) real, of which dx may be dy or x; sums (2, C) float64 <- as `gradient_sums`, or given.
    Sums first, as in `train_forward`.
    Reads dy, x and what the prologue reads twice, writes dx once. Weighted samples NumPy takes from g on.
    """
    mean, low, var, weight, eps, training, counts = statistics
    if weights is not None:
        g = _g(dy, x, statistics, prologue, threads)
        reference.backward(g, x, statistics, Prologue(g=prologue.g), sums, dx, threads, weights)
        return
    if counts is None:
        gradient_sums(dy, x, statistics, prologue, sums, threads)
    affine = affine_of(x, statistics, prologue.bias)
    count = x.shape[0] * x.shape[2] if counts is None else counts
    with np.errstate(all="ignore"):
        r, s, k, _ = algebra.gradient(count, mean, low, var, weight, eps, affine[0], *sums)
    _apply_backward(x, terms_of(dy, x, prologue), np.stack((*affine, r, s, k)), training, (dx, prologue.g), threads)


def pack_signs(y: Array, low: float, high: float, nan: bool, bits: NDArray[np.uint8], threads: int) -> None:
    """bits[j] = not (y[j] <= low or y[j] >= high), of NaN `nan`: by NumPy, on one thread."""
    reference.pack_signs(y, low, high, nan, bits, threads)


def _g(dy: Array, x: Array, statistics: Statistics, prologue: Prologue, threads: int) -> Array:
    """dy through the prologue: dy itself where there is none, else a new array."""
    if prologue.activation is None and prologue.signs is None:
        return dy
    g, rest = np.empty(x.shape, x.dtype), np.empty(x.shape, x.dtype)
    affine = affine_of(x, statistics, prologue.bias)
    rows = np.concatenate((affine, np.zeros_like(affine)))
    _apply_backward(x, terms_of(dy, x, prologue), rows, False, (rest, g), threads)
    return g


def _apply_backward(
    x: Array, terms: Terms, rows: Array, training: bool, targets: tuple[Array, Array | None], threads: int
) -> None:
    """dx and, where it is wanted, g by the coefficients rows (6, C)."""
    dx, g = targets
    if not all(map(is_plain, (x, dx, g, *terms[:3]))):
        for group in groups(x, np.arange(x.shape[1]), x, *targets, *terms[:3]):
            part = plain(x[:, group])
            made = np.empty_like(part), None if g is None else np.empty_like(part)
            _apply_backward(part, terms.of(group, x.dtype), rows[:, group], training, made, threads)
            for to, own in zip(targets, made, strict=True):
                if to is not None:
                    to[:, group] = own
            del part, made, own
        return
    centre, scale, shift, r, s, k = rows
    by_z = terms.activation is not None and terms.kept is None
    wide = algebra.backward_is_wide(centre, r, s, k, scale)
    if not training:
        wide = algebra.forward_is_wide(np.zeros_like(centre), scale, np.zeros_like(centre))
    if by_z:
        wide = wide | algebra.forward_is_wide(centre, scale, shift)
    wide = wide & (x.dtype != np.float64)
    results: tuple[Array, ...] = ()
    if wide.any():
        results = tuple(np.empty((x.shape[0], int(wide.sum()), x.shape[2])) for t in targets if t is not None)
        given = results[0], results[1] if len(results) == 2 else None
        _apply_backward(
            x[:, wide].astype(np.float64), terms.of(wide, np.float64), rows[:, wide], training, given, threads
        )
    table = table_of(rows, x.shape, x.dtype.type, 3)
    task = terms.source(x.dtype.type, g, not training)
    with team(serial_for(terms.activation, threads)) as parts:
        kernels.elements(terms.derivative)(parts > 1)(flat(x), task, dx.reshape(-1), x.shape, table, parts)
    with np.errstate(all="ignore"):
        for to, result in zip([t for t in targets if t is not None], results, strict=False):
            to[:, wide] = result
