"""Batch norm in long double, written plainly from the equations (Ioffe and Szegedy, 2015), and the bounds promised.

This is what the tests believe, so it imports numpy alone. `layout` is "NCHW" (channels on axis 1) or "NHWC" (last).
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

# Of a half type: half the last bit of a number beside it, and half the smallest subnormal.
HALF_A_BIT = {"float16": (2.0**-11, 2.0**-25), "bfloat16": (2.0**-8, 2.0**-134)}


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


def precision(dtype):
    """All but float64 is computed in float32."""
    return 1e-12 if dtype == np.float64 else 1e-6


def rounding(y, dtype):
    """What a number may lose when it is stored."""
    relative, smallest = HALF_A_BIT.get(np.dtype(dtype).name, (0.0, 0.0))
    if not relative:
        smallest = long(np.finfo(dtype).smallest_subnormal) / 2
    return relative * abs(y) + smallest


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
    relative = precision(dtype)
    return relative * np.sqrt(var) + 2.0**-53 * abs(mean), relative * var


def batch_norm(x, mean=None, var=None, weight=None, bias=None, eps=1e-5, layout="NCHW", dtype=None):
    """With the batch's own moments where mean and var are None; `dtype` is that of y, if not of x.

    The bound is 1e-6 (float64: 1e-12) times |weight| * max(1, |x_hat|) + |bias|, or half of the last bit of a
    denormal, and of any number of a half type, which no rounding can avoid.
    """
    if mean is None:
        mean, var = moments(x, layout)
    dtype = np.dtype(x.dtype if dtype is None else dtype)
    m, v = per_channel(mean, x, layout, 0.0), per_channel(var, x, layout, 1.0)
    w, b = per_channel(weight, x, layout, 1.0), per_channel(bias, x, layout, 0.0)
    with np.errstate(invalid="ignore"):
        x_hat = (long(x) - m) / np.sqrt(v + eps)
        y = x_hat * w + b
        bound = precision(dtype) * (abs(w) * np.maximum(1, abs(x_hat)) + abs(b))
    return Forward(y, bound + rounding(y, dtype), long(mean), long(var))


def batch_norm_backward(dy, x, mean, var, weight=None, eps=1e-5, training=True, layout="NCHW"):
    """Gradients at the mean and variance given, which training takes to be the batch's own.

    The bounds: 1e-6 (float64: 1e-12) times |w| * r * (|dy| + mean|dy| + (1 + |x_hat|) * mean|dy * x_hat|) for dx, times
    sum |dy| * (1 + |x_hat|) for dweight, times sum |dy| for dbias. Means of absolute values, since where the terms of a
    sum cancel, it is known to the rounding of those terms alone. In inference, which has no sums, |w| * r * |dy|.
    """
    axes = sample_axes(x, layout)
    m, v = per_channel(mean, x, layout, 0.0), per_channel(var, x, layout, 1.0)
    w = per_channel(weight, x, layout, 1.0)
    relative = precision(x.dtype)

    dy = long(dy)
    r = 1 / np.sqrt(v + eps)
    x_hat = (long(x) - m) * r
    dx, terms = w * r * dy, abs(dy)
    if training:
        k = dy.mean(axis=axes, keepdims=True)
        s = (dy * x_hat).mean(axis=axes, keepdims=True)
        dx = w * r * (dy - k - x_hat * s)
        of_dy, of_product = (abs(a).mean(axis=axes, keepdims=True) for a in (dy, dy * x_hat))
        terms = terms + of_dy + (1 + abs(x_hat)) * of_product
    return Backward(
        dx,
        (dy * x_hat).sum(axis=axes),
        dy.sum(axis=axes),
        relative * abs(w) * r * terms + rounding(dx, x.dtype),
        relative * (abs(dy) * (1 + abs(x_hat))).sum(axis=axes),
        relative * abs(dy).sum(axis=axes),
    )


class Activation(NamedTuple):
    """In long double, from z and the parameters given. Where there is no derivative, torch's stands."""

    function: Callable
    derivative: Callable
    steepest: float = 1.0  # the largest derivative
    curvature: float = 0.0  # the largest derivative of the derivative, where that is one
    kinks: tuple = ()


PI = 4 * np.arctan(long(1))


def error_function(z):
    """2 / sqrt(pi) * exp(-z**2) * sum of 2**n * z**(2 * n + 1) / (2 * n + 1)!!: all terms have one sign."""
    x = np.clip(z, -6.5, 6.5)  # beyond, the sign of z to 4e-20
    term = total = x
    for n in range(1, 130):
        term = term * (2 * x * x) / (2 * n + 1)
        total = total + term
    return np.where(x == z, 2 / np.sqrt(PI) * np.exp(-x * x) * total, np.sign(z))


def normal(z):
    return (1 + error_function(z / np.sqrt(long(2)))) / 2


def density(z):
    return np.exp(-z * z / 2) / np.sqrt(2 * PI)


def logistic(z):
    return np.exp(np.minimum(z, 0)) / (1 + np.exp(-abs(z)))


def bell(z):
    """logistic(z) * (1 - logistic(z))."""
    return np.exp(-abs(z)) / (1 + np.exp(-abs(z))) ** 2


def within(z, low, high):
    return ((z > low) & (z < high)).astype(np.longdouble)


# By the names that users give; those with parameters take them.
ACTIVATIONS = {
    "relu": lambda: Activation(lambda z: np.maximum(z, 0), lambda z: within(z, 0, np.inf), kinks=(0,)),
    "relu6": lambda: Activation(lambda z: np.clip(z, 0, 6), lambda z: within(z, 0, 6), kinks=(0, 6)),
    "leaky_relu": lambda slope: Activation(
        lambda z: np.where(z > 0, z, slope * z), lambda z: np.where(z > 0, 1, long(slope)), max(1, abs(slope)), 0, (0,)
    ),
    "hardswish": lambda: Activation(
        lambda z: z * (np.clip(z + 3, 0, 6) / 6),
        lambda z: np.where(z <= -3, 0, np.where(z < 3, z / 3 + long(0.5), 1)),
        *(1.5, 1 / 3, (-3, 3)),
    ),
    "silu": lambda: Activation(lambda z: z * logistic(z), lambda z: logistic(z) + z * bell(z), 1.1, 0.5),
    "gelu": lambda: Activation(lambda z: z * normal(z), lambda z: normal(z) + z * density(z), 1.13, 0.8),
    "sigmoid": lambda: Activation(logistic, bell, 0.25, 0.1),
    "tanh": lambda: Activation(np.tanh, lambda z: 4 * bell(2 * z), 1, 0.77),
    "softplus": lambda: Activation(
        lambda z: np.where(z > 20, z, np.logaddexp(0, z)), lambda z: np.where(z > 20, 1, logistic(z)), 1, 0.25, (20,)
    ),
    "mish": lambda: Activation(
        lambda z: z * np.tanh(np.logaddexp(0, z)),
        lambda z: np.tanh(np.logaddexp(0, z)) + z * logistic(z) / np.cosh(np.logaddexp(0, z)) ** 2,
        *(1.09, 0.65),
    ),
    "elu": lambda alpha=1.0: Activation(
        lambda z: np.where(z > 0, z, alpha * np.expm1(np.minimum(z, 0))),
        lambda z: np.where(z > 0, 1, alpha * np.exp(np.minimum(z, 0))),
        *(max(1, abs(alpha)), abs(alpha), () if alpha == 1 else (0,)),
    ),
    "clip": lambda low, high: Activation(
        lambda z: np.clip(z, low, high), lambda z: within(z, low, high), kinks=(low, high)
    ),
}
# Parameters that they are tried with, which any floating type holds.
PARAMETERS = {"leaky_relu": [(0.125,), (-0.5,)], "clip": [(-0.5, 1.25)], "elu": [(), (0.5,), (-2.0,)]}


def activation_of(given):
    """What a user's activation is: None, a name, or a tuple of a name and its parameters."""
    if given is None:
        return Activation(lambda z: z, np.ones_like)
    name, *parameters = given if isinstance(given, tuple) else (given,)
    return ACTIVATIONS[name](*parameters)


def fused(plain, activation=None, residual=None, dtype=np.float32, computed_in=np.float32):
    """act(plain.y + residual), of what `batch_norm` gave, as stored in `dtype`.

    The bound: that of the batch norm and a rounding of the sum, times the steepest derivative; and what is promised of
    the activation: 1e-6 (float64: 1e-12) and 2 ulp.
    """
    act, unit = activation_of(activation), np.finfo(computed_in).eps
    z, bound = plain.y, plain.bound
    if residual is not None:
        z = z + long(residual)
        bound = bound + unit * abs(z)
    y = act.function(z)
    if activation is not None:
        bound = act.steepest * bound + precision(computed_in) + 2 * unit * abs(y)
    return plain._replace(y=y, bound=bound + rounding(y, dtype))


def activation_gradient(dy, z, bound, activation, dtype):
    """g = dy * act'(z), and how far it may be from it in a `dtype`, of z that may be `bound` away.

    At a kink nothing is promised, nor may it be asked: dy must be 0 there.
    """
    act = activation_of(activation)
    for kink in act.kinks:
        assert not ((abs(z - kink) <= bound) & (dy != 0)).any()
    g = long(dy) * act.derivative(z)
    return g, abs(long(dy)) * (act.curvature * bound + 2 * precision(dtype)) + rounding(g, dtype)


def fused_backward(dy, x, mean, var, weight, bias, activation, residual, eps=1e-5, training=True, layout="NCHW"):
    """As `batch_norm_backward` of g, with g itself and its bound, and the bounds wide enough for what g may be off."""
    axes = sample_axes(x, layout)
    plain = batch_norm(x, mean, var, weight, bias, eps, layout, np.float64 if x.dtype == np.float64 else np.float32)
    z, bound = plain.y, plain.bound
    if residual is not None:
        z = z + long(residual)
        bound = bound + precision(x.dtype) * abs(z)
    g, off = activation_gradient(dy, z, bound, activation, x.dtype)
    exact = batch_norm_backward(g, x, mean, var, weight, eps, training, layout)
    r = 1 / np.sqrt(per_channel(var, x, layout, 1.0) + eps)
    x_hat = abs(long(x) - per_channel(mean, x, layout, 0.0)) * r
    shares = off
    if training:
        shares = off + off.mean(axis=axes, keepdims=True) + x_hat * (off * x_hat).mean(axis=axes, keepdims=True)
    wide = exact._replace(
        dx_bound=exact.dx_bound + abs(per_channel(weight, x, layout, 1.0)) * r * shares,
        dweight_bound=exact.dweight_bound + (off * x_hat).sum(axis=axes),
        dbias_bound=exact.dbias_bound + off.sum(axis=axes),
    )
    return wide, g, off


def worst(got, expected, bound):
    """The largest error in units of its bound: at most 1 where the contract holds, NaN where got or expected is."""
    got = np.asarray(got)
    assert got.shape == expected.shape
    error = abs(long(got) - expected)
    # An error of 0 meets a bound of 0.
    return float(np.max(np.divide(error, bound, out=np.where(error > 0, np.inf, error), where=bound > 0), initial=0.0))
