"""Batch norm in long double, written plainly from the equations (Ioffe and Szegedy, 2015), and the bounds promised.

This is what the tests believe, so it imports numpy alone. `layout` is "NCHW" (channels on axis 1) or "NHWC" (last).
"""

from typing import NamedTuple

import numpy as np

PRECISION = {np.dtype(np.float32): 1e-6, np.dtype(np.float64): 1e-12}


class Forward(NamedTuple):
    y: np.ndarray  # shape of x
    bound: np.ndarray  # shape of x: how far y may be from the truth
    mean: np.ndarray  # (C,)
    var: np.ndarray  # (C,), biased


class Backward(NamedTuple):
    dx: np.ndarray  # shape of x
    dweight: np.ndarray  # (C,)
    dbias: np.ndarray  # (C,)
    dx_bound: np.ndarray
    dweight_bound: np.ndarray
    dbias_bound: np.ndarray


def channel_axis(x, layout):
    return 1 if layout == "NCHW" else x.ndim - 1


def sample_axes(x, layout):
    return tuple(axis for axis in range(x.ndim) if axis != channel_axis(x, layout))


def long(x):
    return np.asarray(x).astype(np.longdouble)


def per_channel(vector, x, layout, default):
    """A (C,) vector, or None, in the shape that broadcasts against x."""
    channels = x.shape[channel_axis(x, layout)]
    shape = [1] * x.ndim
    shape[channel_axis(x, layout)] = channels
    return long(np.full(channels, default) if vector is None else vector).reshape(shape)


def moments(x, layout="NCHW"):
    """Mean and biased variance of each channel, (C,) each."""
    axes = sample_axes(x, layout)
    with np.errstate(invalid="ignore", over="ignore"):
        rough = long(x).mean(axis=axes, keepdims=True)
        rest = long(x) - rough
        mean = rough + rest.mean(axis=axes, keepdims=True)
        var = ((long(x) - mean) ** 2).mean(axis=axes)
    return mean.reshape(-1), var


def moments_bounds(mean, var, dtype):
    """How far a mean and a variance may be from the truth: the variance is promised, the mean is what forward needs."""
    precision = PRECISION[np.dtype(dtype)]
    return precision * np.sqrt(var) + 2.0**-53 * abs(mean), precision * var


def batch_norm(x, mean=None, var=None, weight=None, bias=None, eps=1e-5, layout="NCHW"):
    """With the batch's own moments where mean and var are None.

    The bound is 1e-6 (float64: 1e-12) times |weight| * max(1, |x_hat|) + |bias|, or half of the last bit of a
    denormal, which no rounding can avoid.
    """
    if mean is None:
        mean, var = moments(x, layout)
    m, v = per_channel(mean, x, layout, 0.0), per_channel(var, x, layout, 1.0)
    w, b = per_channel(weight, x, layout, 1.0), per_channel(bias, x, layout, 0.0)
    with np.errstate(invalid="ignore"):
        x_hat = (long(x) - m) / np.sqrt(v + eps)
        y = x_hat * w + b
        bound = PRECISION[x.dtype] * (abs(w) * np.maximum(1, abs(x_hat)) + abs(b))
    return Forward(y, bound + long(np.finfo(x.dtype).smallest_subnormal) / 2, long(mean), long(var))


def batch_norm_backward(dy, x, mean, var, weight=None, eps=1e-5, training=True, layout="NCHW"):
    """Gradients at the mean and variance given, which training takes to be the batch's own.

    The bounds: 1e-6 times |w| * r * (|dy| + |S0| / M + |x_hat * S1| * r / M) for dx, times sum |dy * x_hat| for
    dweight, times sum |dy| for dbias. float64: 1e-12 times the same with sums of absolute values for S0 and S1, because
    where those vanish a float64 sum is known to 1e-16 of its terms only.
    """
    axes = sample_axes(x, layout)
    m, v = per_channel(mean, x, layout, 0.0), per_channel(var, x, layout, 1.0)
    w = per_channel(weight, x, layout, 1.0)
    precision = PRECISION[x.dtype]

    dy = long(dy)
    r = 1 / np.sqrt(v + eps)
    x_hat = (long(x) - m) * r
    k = dy.mean(axis=axes, keepdims=True)
    s = (dy * x_hat).mean(axis=axes, keepdims=True)
    dx = w * r * (dy - k - x_hat * s) if training else w * r * dy
    if x.dtype == np.float64:
        k, s = abs(dy).mean(axis=axes, keepdims=True), abs(dy * x_hat).mean(axis=axes, keepdims=True)
    dx_bound = precision * abs(w) * r * (abs(dy) + abs(k) + abs(x_hat * s))
    return Backward(
        dx,
        (dy * x_hat).sum(axis=axes),
        dy.sum(axis=axes),
        dx_bound + long(np.finfo(x.dtype).smallest_subnormal) / 2,
        precision * abs(dy * x_hat).sum(axis=axes),
        precision * abs(dy).sum(axis=axes),
    )


def worst(got, expected, bound):
    """The largest error in units of its bound: at most 1 where the contract holds, NaN where got or expected is."""
    got = np.asarray(got)
    assert got.shape == expected.shape
    error = abs(long(got) - expected)
    # An error of 0 meets a bound of 0.
    return float(np.max(np.divide(error, bound, out=np.where(error > 0, np.inf, error), where=bound > 0), initial=0.0))
