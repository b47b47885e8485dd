"""NumPy kernels: the plainest form of each pass, in blocks small enough to stay in cache.

They obey the numerical contract's bounds; their order of summation is NumPy's own. `threads` is taken and not used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cpubn import _activations, _algebra
from cpubn._epilogue import Epilogue

Array = NDArray[Any]
Block = tuple[slice, slice, slice]
After = Callable[..., Array]

# Samples are of the type that is computed in.
ANY_TYPE = False
# Elements of a block: its few float64 temporaries then take under 1 MB together.
BLOCK = 32768


def moments(x: Array, stats: Array, threads: int) -> None:
    """mean = sum(x) / n and m2 = sum((x - mean)**2) per channel, each block about its own first sample and mean.

    x (O, C, I) float32 or float64; stats (3, C) float64 <- mean, its low word, m2.
    Blocks merge by _algebra.merge: about one shift for a whole channel, a first sample far away costs the variance.
    Moves x once.
    """
    count = np.zeros(x.shape[1])
    with np.errstate(all="ignore"):
        for block in _blocks(x.shape):
            part = x[block]
            pivot = part[0, :, 0].astype(np.float64)
            d = part - pivot[:, None]
            n = float(d.shape[0] * d.shape[2])
            offset = d.sum(axis=(0, 2)) / n
            d -= offset[:, None]
            mean, low = _algebra.two_sum(pivot, offset)
            rest = d.sum(axis=(0, 2))
            m2 = np.maximum(np.einsum("oci,oci->c", d, d) - rest * (rest / n), 0.0)
            low = low + rest / n
            channels = block[1]
            before = count[channels][0]
            if before:
                mean_0, low_0, m2_0 = stats[:, channels]
                stats[:, channels] = _algebra.merge(before, mean_0, low_0, m2_0, n, mean, low, m2)
            else:
                stats[:, channels] = mean, low, m2 + 0.0 * m2
            count[channels] += n


def normalize(x: Array, affine: Array, epilogue: Epilogue, y: Array, threads: int) -> None:
    """y = epilogue((x - centre) * scale + shift).

    x, y (O, C, I); affine (3, C) float64: centre, scale, shift; y may be x or the epilogue's residual.
    The centre is taken off first: `x * scale + (shift - centre * scale)` loses digits as the mean grows.
    Moves x, the residual and y once.
    """
    _apply(_affine, (x,), affine, _algebra.forward_is_wide(*affine), y, _after(epilogue, y.dtype))


def train_forward(
    x: Array,
    weight: Array,
    bias: Array,
    eps: float,
    stats: Array,
    epilogue: Epilogue,
    y: Array,
    threads: int,
) -> None:
    """y = epilogue((x - mean) / sqrt(var + eps) * weight + bias) with the batch's own mean and biased variance.

    x, y (O, C, I), y may be x or the residual; weight, bias (C,), stats (3, C) float64 <- mean, its low word, m2.
    Two plain passes: NumPy offers no way to finish a channel while it is in cache without a Python loop over channels.
    Moves x twice and y once.
    """
    moments(x, stats, threads)
    mean, low, m2 = stats
    with np.errstate(all="ignore"):
        centre = _algebra.centre(mean, x.dtype.type)
        var = m2 / (x.shape[0] * x.shape[2])
        affine = np.stack((centre, *_algebra.affine(mean, low, var, weight, bias, eps, centre)))
    normalize(x, affine, epilogue, y, threads)


def gradient_sums(dy: Array, x: Array, mean: Array, sums: Array, threads: int) -> None:
    """s0 = sum(dy), s1 = sum(dy * (x - mean)) per channel.

    dy, x (O, C, I); mean (C,) float64; sums (2, C) float64 <- s0, s1.
    Differences are taken in float64: rounded to float32 at mean/std = 1e7 nothing would be left of them.
    Moves dy and x once.
    """
    sums[...] = 0.0
    with np.errstate(all="ignore"):
        for block in _blocks(x.shape):
            g = dy[block].astype(np.float64)
            d = x[block] - mean[block[1], None]
            sums[:, block[1]] += g.sum(axis=(0, 2)), np.einsum("oci,oci->c", g, d)


def train_backward(
    dy: Array, x: Array, mean: Array, var: Array, weight: Array, eps: float, sums: Array, dx: Array, threads: int
) -> None:
    """dx = scale * ((dy - k) - ((x - centre) * r) * s) with the coefficients of _algebra.gradient.

    dy, x, dx (O, C, I); mean, var, weight (C,) float64; sums (2, C) float64 <- s0, s1; dx may be dy or x.
    Not `a * dy + b * (x - centre) + k`: where dy follows x that loses half its digits at mean/std = 1e6.
    Moves dy and x twice and dx once.
    """
    gradient_sums(dy, x, mean, sums, threads)
    with np.errstate(all="ignore"):
        centre = _algebra.centre(mean, x.dtype.type)
        gradient = _algebra.gradient(x.shape[0] * x.shape[2], mean, var, weight, eps, centre, sums[0], sums[1])
    wide = _algebra.backward_is_wide(centre, *gradient)

    def apply(g: Array, block: Array, c: Array, r: Array, s: Array, k: Array, a: Array) -> Array:
        x_hat: Array = block - c
        x_hat *= r
        x_hat *= s
        result: Array = g - k
        result -= x_hat
        result *= a
        return result

    _apply(apply, (dy, x), np.stack((centre, *gradient)), wide, dx)


def activation_gradient(dy: Array, x: Array, affine: Array | None, epilogue: Epilogue, g: Array, threads: int) -> None:
    """g = dy * activation'((x - centre) * scale + shift + residual); without affine, of x as it is.

    dy, x, g (O, C, I); affine (3, C) float64: centre, scale, shift; g may be dy.
    From x, and not from z: to keep that would be one more array of memory, and of traffic.
    Moves dy, x, the residual and g once.
    """
    derivative = _after(epilogue, g.dtype, _activations.GRADIENTS)

    def after(z: Array, block: Block) -> Array:
        result: Array = dy[block] * derivative(z, block)
        return result

    if affine is None:
        _apply(np.copy, (x,), np.empty((0, x.shape[1])), np.zeros(x.shape[1], bool), g, after)
    else:
        _apply(_affine, (x,), affine, _algebra.forward_is_wide(*affine), g, after)


def pack_signs(y: Array, low: float, high: float, nan: bool, bits: Array, threads: int) -> None:
    """bits[j] = not (y[j] <= low or y[j] >= high); of NaN, `nan`. A bound of NaN is none.

    y (n,) of any type; bits (ceil(n / 8),) uint8, the first element in the lowest bit.
    Block by block: flags for all of y would take eight times the memory of the bits.
    Moves y once.
    """
    for start in range(0, y.size, BLOCK):
        block = y[start : start + BLOCK]
        inside = ~((block <= y.dtype.type(low)) | (block >= y.dtype.type(high)))
        if not nan:
            inside &= block == block
        bits[start // 8 : (start + BLOCK) // 8] = np.packbits(inside, bitorder="little")


def apply_signs(dy: Array, bits: Array, slope: float, g: Array, threads: int) -> None:
    """g[j] = dy[j] where bits[j] is set, otherwise slope * dy[j], or 0 where the slope is 0.

    dy, g (n,) of one type; bits as `pack_signs` makes them; g may be dy.
    Block by block, for the same reason.
    Moves dy and g once.
    """
    for start in range(0, dy.size, BLOCK):
        block = dy[start : start + BLOCK]
        flags = np.unpackbits(bits[start // 8 : (start + BLOCK) // 8], count=block.size, bitorder="little")
        other = np.zeros((), dy.dtype)
        if slope:
            with np.errstate(all="ignore"):
                wide: Any = np.float64 if dy.dtype == np.float64 else np.float32
                other = (block.astype(wide) * wide(slope)).astype(dy.dtype)
        g[start : start + BLOCK] = np.where(flags.view(bool), block, other)


def _affine(x: Array, centre: Array, scale: Array, shift: Array) -> Array:
    z: Array = x - centre
    z *= scale
    z += shift
    return z


def _after(epilogue: Epilogue, dtype: Any, table: Sequence[After] = _activations.FUNCTIONS) -> After:
    """What makes y, or with a table of derivatives its gradient, of a block of z."""
    activation, residual, _ = epilogue

    def after(z: Array, block: Block) -> Array:
        if residual is not None:
            z += residual[block]
        if activation is None:
            return z
        y: Array = table[activation.code - 1](z, dtype.type(activation.low), dtype.type(activation.high))
        return y

    return after


def _apply(
    function: Any, inputs: tuple[Array, ...], coefficients: Array, wide: Array, out: Array, after: After | None = None
) -> None:
    """Write after(function(*inputs, *coefficients), block), in float64 for float32 channels that are wide."""
    single = out.dtype == np.float32
    with np.errstate(all="ignore"):
        for block in _blocks(out.shape):
            vectors = coefficients[:, block[1], None]
            parts = [a[block] for a in inputs]
            result = function(*parts, *vectors.astype(out.dtype))
            these = wide[block[1]]
            if single and these.any():
                result[:, these] = function(*(p[:, these].astype(np.float64) for p in parts), *vectors[:, these])
            out[block] = result if after is None else after(result, block)


def _blocks(shape: tuple[int, ...]) -> Iterator[Block]:
    """Blocks of at most BLOCK elements, all those of a channel one after another."""
    outer, channels, inner = shape
    i = min(inner, BLOCK)
    c = min(channels, BLOCK // i)
    o = min(outer, BLOCK // (i * c))
    for c0 in range(0, channels, c):
        for o0 in range(0, outer, o):
            for i0 in range(0, inner, i):
                yield slice(o0, o0 + o), slice(c0, c0 + c), slice(i0, i0 + i)
