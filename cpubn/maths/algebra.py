"""Per-channel float64 algebra: the one place where batch norm's formulas stand.

    y = (x - mean) / sqrt(var + eps) * weight + bias            Ioffe and Szegedy (2015), algorithm 1

Every function works on scalars and on arrays of channels, uses + - * / and the square root alone, and is compiled by
Numba where a kernel calls it. Its Cython twin, backends/compiled/maths.hpp, gives the same bits.

A mean is a pair (mean, low) whose sum carries about 106 bits: at mean/std = 1e6 one float64 would lose six digits of
the twelve that float64 data is promised, in forward and in backward. A centre is the mean rounded to the data's own
type, so that `x - centre` loses nothing that x had; what rounding took away is paid back in the shift.
"""

from typing import Any, TypeAlias

import numpy as np

Value: TypeAlias = Any  # a float, or a float64 array with one value per channel

sqrt: Any = np.sqrt
# |value| < LARGE: adding it to any finite float32 cannot overflow, half an ulp of the largest float32 being 2**103.
LARGE = 2.0**100
# The smallest normal float32: a smaller coefficient would be applied with fewer than 24 bits.
TINY = 2.0**-126


def two_sum(a: Value, b: Value) -> tuple[Value, Value]:
    """Return (s, e) with s = fl(a + b) and s + e = a + b exactly (Knuth, TAOCP vol. 2, 4.2.2, theorem B)."""
    s = a + b
    t = s - a
    return s, (a - (s - t)) + (b - t)


def merge(
    count_a: Value, mean_a: Value, low_a: Value, m2_a: Value, count_b: Value, mean_b: Value, low_b: Value, m2_b: Value
) -> tuple[Value, Value, Value]:
    """Moments of two disjoint sets of samples together: Chan, Golub and LeVeque (1983), equations 2.1.

    Both counts must be positive. Infinite m2 turns into NaN: a variance that overflowed must not divide to zero.
    """
    share = count_b / (count_a + count_b)
    delta = (mean_b - mean_a) + (low_b - low_a)
    mean, low = two_sum(mean_a, delta * share)
    mean, low = two_sum(mean, low + low_a)
    m2 = m2_a + m2_b + delta * delta * (count_a * share)
    return mean, low, m2 + 0.0 * m2


def unmerge(
    count: Value, mean: Value, low: Value, m2: Value, count_b: Value, mean_b: Value, low_b: Value, m2_b: Value
) -> tuple[Value, Value, Value]:
    """Moments of what a set of samples is without some of them, b: merge, solved for a."""
    share = count_b / (count - count_b)
    delta = (mean - mean_b) + (low - low_b)
    mean_a, low_a = two_sum(mean, delta * share)
    mean_a, low_a = two_sum(mean_a, low_a + low)
    return mean_a, low_a, (m2 - m2_b) - delta * delta * (count * share)


def close(count: Value, pivot: Value, s: Value, q: Value) -> tuple[Value, Value, Value]:
    """Moments of one chunk from s = sum(x - pivot) and q = sum((x - pivot)**2); scalars only."""
    offset = s / count
    m2 = q - s * offset
    if m2 < 0.0:  # not max(): NaN must stay
        m2 = 0.0
    mean, low = two_sum(pivot, offset)
    return mean, low, m2 + 0.0 * m2


def pivot_is_far(s: Value, offset: Value, m2: Value) -> Value:
    """Whether the pivot lay over 4 standard deviations from the chunk's mean, or the sums are not finite.

    Then `close` cancelled, or a difference overflowed. Differences are taken in the data's type: in float32 they may be
    off by 2**-24 of themselves, and var by 2 * sqrt(17) * 2**-24 < 5e-7, where (mean - pivot)**2 <= 16 * var.
    """
    return not s * offset <= 16.0 * m2  # so written that NaN is far


def next_pivot(pivot: Value, offset: Value, m2: Value, first: bool, real: type[np.floating[Any]]) -> Value:
    """Where a chunk whose pivot is far is summed again: about 0 if a difference overflowed, since no x - 0 does.

    Otherwise about its mean, if those were its first sums; the same pivot means that the sums stand.
    """
    if m2 != m2:
        return 0.0
    return np.float64(real(pivot + offset)) if first else pivot


def centre(mean: Value, real: type[np.floating[Any]]) -> Value:
    """The mean as a number of the data's type `real` (np.float32 or np.float64), in float64."""
    return np.float64(real(mean))


def rstd(var: Value, eps: Value) -> Value:
    """1 / sqrt(var + eps)."""
    return 1.0 / sqrt(var + eps)


def affine(
    mean: Value, low: Value, var: Value, weight: Value, bias: Value, eps: Value, centre: Value
) -> tuple[Value, Value]:
    """scale and shift of `y = (x - centre) * scale + shift`, whatever centre near the mean was chosen."""
    scale = weight * rstd(var, eps)
    return scale, bias + ((centre - mean) - low) * scale


def gradient(
    count: Value, mean: Value, low: Value, var: Value, weight: Value, eps: Value, centre: Value, s0: Value, s1: Value
) -> tuple[Value, Value, Value, Value]:
    """r, s, k, scale of `dx = scale * ((g - k) - ((x - centre) * r) * s)`.

    s0 = sum(g), s1 = sum(g * (x - mean)), with both words of the mean: Ioffe and Szegedy (2015), section 3, with the
    means of g and of g * x_hat written as s0 / count and s1 * r / count.
    """
    r = rstd(var, eps)
    s = s1 * r / count
    return r, s, s0 / count + ((centre - mean) - low) * r * s, weight * r


def running_update(running: Value, batch: Value, momentum: Value) -> Value:
    """Exponential moving average with torch's meaning of momentum: the weight of the new batch."""
    return (1.0 - momentum) * running + momentum * batch


def unbiased(m2: Value, count: Value) -> Value:
    """Bessel's correction: m2 / (count - 1), which the running variance keeps."""
    return m2 / (count - 1.0)


def forward_is_wide(centre: Value, scale: Value, shift: Value) -> Value:
    """Whether float32 data must be computed in float64, because float32 coefficients would overflow or lose digits.

    NaN is not wide: it makes NaN in either type.
    """
    return (abs(centre) >= LARGE) | (abs(shift) >= LARGE) | outside(scale, TINY, LARGE)


def backward_is_wide(centre: Value, r: Value, s: Value, k: Value, scale: Value) -> Value:
    """The same for a gradient's coefficients.

    |x_hat| <= sqrt(count) < 2**32 keeps x_hat * s below LARGE for s < 2**64; and s and k are multiplied or summed with
    what may be far smaller than 1, so they need room above the smallest normal number as well.
    """
    wide = (abs(centre) >= LARGE) | outside(r, TINY, LARGE) | outside(scale, TINY, LARGE)
    return wide | outside(s, 2.0**-100, 2.0**64) | outside(k, 2.0**-100, LARGE)


def outside(value: Value, low: Value, high: Value) -> Value:
    """Whether a number other than zero is not of a magnitude from low to high."""
    return (value != 0.0) & ((abs(value) < low) | (abs(value) >= high))
