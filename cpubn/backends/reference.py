"""NumPy kernels: the plainest form of each pass, in blocks small enough to stay in cache.

They obey the numerical contract's bounds; their order of summation is NumPy's own. `threads` is taken and not used.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cpubn.backends.blocks import BLOCK, Block, blocks, count_of, moments_of_block, where_counted
from cpubn.backends.epilogue import Epilogue
from cpubn.backends.prologue import Bits, Prologue, Statistics
from cpubn.backends.weights import Weights
from cpubn.maths import algebra

Array = NDArray[Any]
Made = Callable[[Block], Array]
After = Callable[[Array, Block], Array]

# Samples are of the type that is computed in.
ANY_TYPE = False


def moments(x: Array, stats: Array, threads: int, weights: Weights | None = None) -> None:
    """mean = sum(x) / n and m2 = sum((x - mean)**2) per channel, each block about its own first sample and mean.

    x (O, C, I) float32 or float64; stats (3, C) float64 <- mean, its low word, m2.
    Blocks merge by algebra.merge: about one shift for a whole channel, a first sample far away costs the variance.
    Moves x once.
    """
    count = np.zeros(x.shape[1])
    with np.errstate(all="ignore"):
        for block in blocks(x.shape):
            channels = block[1]
            n, mean, low, m2 = moments_of_block(x[block], None if weights is None else weights.array[block])
            before, kept = count[channels], stats[:, channels]
            merged = np.stack(algebra.merge(before, kept[0], kept[1], kept[2], n, mean, low, m2))
            first = np.stack((mean, low, m2 + 0.0 * m2))
            stats[:, channels] = np.where(n == 0.0, kept, np.where(before == 0.0, first, merged))
            count[channels] += n


def normalize(
    x: Array, affine: Array, epilogue: Epilogue, y: Array, threads: int, weights: Weights | None = None
) -> None:
    """y = epilogue((x - centre) * scale + shift).

    x, y (O, C, I); affine (3, C) float64: centre, scale, shift; y may be x or the epilogue's residual.
    The centre is taken off first: `x * scale + (shift - centre * scale)` loses digits as the mean grows.
    Moves x, the residual and y once.
    """
    after = _after(epilogue, y.dtype, "function")
    with np.errstate(all="ignore"):
        formula = _formula(_affine, (x,), affine, algebra.forward_is_wide(*affine))
        for block in blocks(y.shape):
            y[block] = where_counted(weights, block, after(formula(block), block))


def train_forward(
    x: Array,
    weight: Array,
    bias: Array,
    eps: float,
    stats: Array,
    epilogue: Epilogue,
    y: Array,
    threads: int,
    weights: Weights | None = None,
) -> None:
    """y = epilogue((x - mean) / sqrt(var + eps) * weight + bias) with the batch's own mean and biased variance.

    x, y (O, C, I), y may be x or the residual; weight, bias (C,), stats (3, C) float64 <- mean, its low word, m2.
    Two plain passes: NumPy offers no way to finish a channel while it is in cache without a Python loop over channels.
    Moves x twice and y once.
    """
    moments(x, stats, threads, weights)
    mean, low, m2 = stats
    with np.errstate(all="ignore"):
        statistics = Statistics(mean, low, m2 / count_of(x, weights), weight, eps, training=True)
        affine = _coefficients(statistics, bias, x.dtype)
    normalize(x, affine, epilogue, y, threads, weights)


def gradient_sums(
    dy: Array,
    x: Array,
    statistics: Statistics,
    prologue: Prologue,
    sums: Array,
    threads: int,
    weights: Weights | None = None,
) -> None:
    """s0 = sum(g), s1 = sum(g * (x - mean)) per channel, with g = dy * activation'(z) where the prologue has one.

    dy, x (O, C, I); sums (2, C) float64 <- s0, s1; the prologue's g <- g, which may be dy.
    Differences are taken in float64 and from both words of the mean: rounded to float32 at mean/std = 1e7 nothing would
    be left of them, and of float64 data at 1e6 the first word alone leaves 1e-10 standard deviations.
    Moves dy, x and what the prologue reads and writes once.
    """
    mean, low = statistics.mean, statistics.low
    sums[...] = 0.0
    with np.errstate(all="ignore"):
        gradient = _through(dy, x, statistics, prologue)
        for block in blocks(x.shape):
            channels = block[1]
            g = where_counted(weights, block, gradient(block), 0.0)
            if prologue.g is not None:
                prologue.g[block] = g
            g = g.astype(np.float64)
            d = x[block] - mean[channels, None]
            d -= low[channels, None]
            d = where_counted(weights, block, d, 0.0)
            sums[:, channels] += g.sum(axis=(0, 2)), np.einsum("oci,oci->c", g, d)


def backward(
    dy: Array,
    x: Array,
    statistics: Statistics,
    prologue: Prologue,
    sums: Array,
    dx: Array,
    threads: int,
    weights: Weights | None = None,
) -> None:
    """dx = scale * ((g - k) - ((x - centre) * r) * s) by algebra.gradient; in inference dx = scale * g.

    dy, x, dx (O, C, I); sums (2, C) float64, if they are not given, and the prologue's g as of gradient_sums; dx may be
    dy or x.
    Not `a * g + b * (x - centre) + k`: where g follows x that loses half its digits at mean/std = 1e6. And g is kept
    where dx will stand, if that is not x, since to make it twice would cost more than to read it.
    Moves dy, x and dx twice, and once more what the prologue reads and writes.
    """
    g = dy
    if prologue.activation is not None or prologue.signs is not None:
        g = np.empty_like(dx) if np.may_share_memory(dx, x) else dx
        g = g if prologue.g is None else prologue.g
        prologue = prologue._replace(g=g)
    mean, low, var, weight, eps, training, counts = statistics
    gradient_sums(dy, x, statistics, prologue, sums if counts is None else np.empty_like(sums), threads, weights)
    with np.errstate(all="ignore"):
        if training:
            centre, count = algebra.centre(mean, x.dtype.type), count_of(x, weights) if counts is None else counts
            coefficients = centre, *algebra.gradient(count, mean, low, var, weight, eps, centre, *sums)
            wide = algebra.backward_is_wide(*coefficients)
            weighted = (g, x) if weights is None else (g, x, weights.array)
            formula = _formula(
                _gradient if weights is None else _weighted_gradient, weighted, np.stack(coefficients), wide
            )
        else:
            scale = weight * algebra.rstd(var, eps)
            wide = algebra.outside(scale, algebra.TINY, algebra.LARGE)
            formula = _formula(np.multiply, (g,), scale[None], wide)
        for block in blocks(dx.shape):
            dx[block] = where_counted(weights, block, formula(block), 0.0)


def pack_signs(y: Array, low: float, high: float, nan: bool, bits: Array, threads: int) -> None:
    """bits[j] = not (y[j] <= low or y[j] >= high); of NaN, `nan`. A bound of NaN is none.

    y (n,) of any type; bits (ceil(n / 8) + 8,) uint8, the first element in the lowest bit; the last 8 are left alone.
    Block by block: flags for all of y would take eight times the memory of the bits.
    Moves y once.
    """
    with np.errstate(all="ignore"):
        for start in range(0, y.size, BLOCK):
            block = y[start : start + BLOCK]
            inside = ~((block <= y.dtype.type(low)) | (block >= y.dtype.type(high)))
            if not nan:
                inside &= block == block
            packed = np.packbits(inside, bitorder="little")
            bits[start // 8 : start // 8 + packed.size] = packed


def _through(dy: Array, x: Array, statistics: Statistics, prologue: Prologue) -> Made:
    """What makes g of a block."""
    activation, bias, residual, kept, signs, _ = prologue
    if signs is not None:
        return lambda block: _by_signs(dy, signs, block)
    if activation is None:
        return lambda block: dy[block]
    derivative = _after(Epilogue(activation, residual), x.dtype, "gradient" if kept is None else "of_output")
    if kept is not None:
        return lambda block: dy[block] * derivative(kept[block], block)
    affine = _coefficients(statistics, bias, x.dtype)
    z = _formula(_affine, (x,), affine, algebra.forward_is_wide(*affine))
    return lambda block: dy[block] * derivative(z(block), block)


def _by_signs(dy: Array, signs: Bits, block: Block) -> Array:
    """dy where its bit is set, otherwise slope * dy, or 0 where the slope is 0; of the bytes that a block reaches."""
    g = dy[block]
    first = sum(part.start * step for part, step in zip(block, signs.strides, strict=True))
    last = first + sum((n - 1) * step for n, step in zip(g.shape, signs.strides, strict=True))
    flags = np.unpackbits(signs.bits[first // 8 : last // 8 + 1], bitorder="little")[first % 8 :]
    is_set = np.lib.stride_tricks.as_strided(flags, g.shape, signs.strides, writeable=False).view(bool)
    return np.where(is_set, g, g * g.dtype.type(signs.slope) if signs.slope else g.dtype.type(0.0))


def _coefficients(statistics: Statistics, bias: Any, dtype: np.dtype[Any]) -> Array:
    """(3, C): centre, scale and shift that apply statistics to data of that type."""
    mean, low, var, weight, eps, *_ = statistics
    centre = algebra.centre(mean, dtype.type)
    return np.stack((centre, *algebra.affine(mean, low, var, weight, bias, eps, centre)))


def _affine(x: Array, centre: Array, scale: Array, shift: Array) -> Array:
    z: Array = x - centre
    z *= scale
    z += shift
    return z


def _gradient(g: Array, x: Array, *coefficients: Array) -> Array:
    centre, r, s, k, scale = coefficients
    x_hat: Array = x - centre
    x_hat *= r
    x_hat *= s
    dx: Array = g - k
    dx -= x_hat
    dx *= scale
    return dx


def _weighted_gradient(g: Array, x: Array, w: Array, *coefficients: Array) -> Array:
    centre, r, s, k, scale = coefficients
    w = w.astype(g.dtype)
    dx: Array = scale * ((g - w * k) - w * (((x - centre) * r) * s))
    return dx


def _after(epilogue: Epilogue, dtype: Any, which: str) -> After:
    """What makes of a block of z, or for "of_output" of y, what that formula of the activation gives."""
    activation, residual, _ = epilogue
    formula: Any = activation and getattr(activation.entry, which)

    def after(z: Array, block: Block) -> Array:
        if residual is not None:
            z += residual[block]
        if activation is None:
            return z
        y: Array = formula(z, dtype.type(activation.low), dtype.type(activation.high))
        return y

    return after


def _formula(function: Any, inputs: tuple[Array, ...], coefficients: Array, wide: Array) -> Made:
    """What makes function(*inputs, *coefficients) of a block, in float64 for float32 channels that are wide."""
    dtype = inputs[0].dtype

    def result_of(block: Block) -> Array:
        vectors = coefficients[:, block[1], None]
        parts = [a[block] for a in inputs]
        result: Array = function(*parts, *vectors.astype(dtype))
        these = wide[block[1]]
        if dtype == np.float32 and these.any():
            result[:, these] = function(*(p[:, these].astype(np.float64) for p in parts), *vectors[:, these])
        return result

    return result_of
