"""Batch norm of plain arrays: plan, kernel, result. Names, defaults and meanings are torch.nn.functional.batch_norm's.

    training:   y = (x - mean(x)) / sqrt(var(x) + eps) * weight + bias         over every axis but the channels'
    inference:  y = (x - running_mean) / sqrt(running_var + eps) * weight + bias

Ioffe and Szegedy, "Batch Normalization: Accelerating Deep Network Training by Reducing Internal Covariate Shift"
(2015), algorithms 1 and 2; the gradients are those of its section 3.
"""

from __future__ import annotations

from typing import Any, Literal, overload

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from cpubn import _algebra, _check_output, _dispatch, _plan
from cpubn._epilogue import PLAIN, Activation
from cpubn._signs import Signs
from cpubn._types import ActivationLike, Array, Layout, Vector
from cpubn._walk import overlap
from cpubn.statistics import Moments


@overload
def batch_norm(
    x: ArrayLike,
    running_mean: ArrayLike | None,
    running_var: ArrayLike | None,
    weight: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *,
    layout: Layout = "NCHW",
    activation: ActivationLike = None,
    residual: ArrayLike | None = None,
    dtype: DTypeLike | None = None,
    out_layout: Layout | None = None,
    out: Array | None = None,
    return_moments: Literal[False] = False,
    backend: str | None = None,
) -> Array: ...
@overload
def batch_norm(
    x: ArrayLike,
    running_mean: ArrayLike | None,
    running_var: ArrayLike | None,
    weight: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *,
    layout: Layout = "NCHW",
    activation: ActivationLike = None,
    residual: ArrayLike | None = None,
    dtype: DTypeLike | None = None,
    out_layout: Layout | None = None,
    out: Array | None = None,
    return_moments: Literal[True],
    backend: str | None = None,
) -> tuple[Array, Moments]: ...
def batch_norm(
    x: ArrayLike,
    running_mean: ArrayLike | None,
    running_var: ArrayLike | None,
    weight: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *,
    layout: Layout = "NCHW",
    activation: ActivationLike = None,
    residual: ArrayLike | None = None,
    dtype: DTypeLike | None = None,
    out_layout: Layout | None = None,
    out: Array | None = None,
    return_moments: bool = False,
    backend: str | None = None,
) -> Array | tuple[Array, Moments]:
    """Normalize every channel of ``x``; in training with the batch's own statistics, which also move the running ones.

    Parameters
    ----------
    x : float16, bfloat16 (of ml_dtypes), float32 or float64 array of 2 to 5 dimensions, any strides; in inference also
        uint8, int8, uint16 or int16. Channels stand on axis 1 with ``layout="NCHW"`` and on the last axis with
        ``layout="NHWC"``, whatever the rank. float64 is computed in float64, all else in float32.
    running_mean, running_var : (C,) float32 or float64. In training they are updated in place,
        ``r = (1 - momentum) * r + momentum * batch`` with the unbiased variance, unless both are None. Keep them in
        float64: float32 ones throw away what the kernels kept at a large mean, and overflow beyond 3.4e38.
    weight, bias : (C,) float32 or float64, or None for ones and zeros.
    training : normalize with the batch's biased variance instead of the running statistics.
    momentum : from 0 to 1, the weight of the new batch (torch's convention).
    eps : added to the variance; above 0 in training.
    activation : y = activation(affine + residual): "relu", "relu6", ("leaky_relu", slope), "hardswish", "silu", "gelu",
        "sigmoid", "tanh", ("clip", low, high), or a scalar function compiled by ``numba.njit``, which the Numba
        backend fuses into its loops. In the same pass over memory, without a temporary.
    residual : array of y's shape and dtype, added before the activation.
    dtype : of y: "float16", "bfloat16", "float32" or "float64"; None for that of x, which integers do not allow.
    out_layout : layout of y, "NCHW" or "NHWC"; None for that of x.
    out : array of y's shape and dtype to write to; may be ``x`` itself, or ``residual``.
    return_moments : also return the batch's Moments, which backward needs. In inference that is one more read of ``x``.
    backend : "cython", "numba" or "numpy"; None for the current default.

    Returns
    -------
    y, of x's shape, memory order and dtype but for out_layout and dtype, or ``out``; with ``return_moments=True`` the
    pair (y, Moments).
    float32 results are within ``1e-6 * (|weight| * max(1, |x_hat|) + |bias|)`` of the exact ones up to mean/std = 1e7.
    An empty batch gives an empty result and leaves the running statistics alone.

    Raises
    ------
    ValueError, TypeError : before anything is written, saying what must hold, what was got and what to do.
    """
    act = _check_output.activation(activation)
    backend = _dispatch.backend_for(act, backend)
    kind = None if dtype is None else _check_output.floating(dtype)
    direct = _dispatch.direct_kernels(backend)
    if direct and training and kind is None and out_layout is None:
        done = direct.train_directly(
            x, running_mean, running_var, weight, bias, momentum, eps, layout, act, residual, out, _dispatch.threads
        )
        if done:
            y, stats = done
            return (y, Moments.of(y.size // stats.shape[1], stats)) if return_moments else y
    elif direct and not training and not return_moments:
        y = direct.infer_directly(
            *(x, running_mean, running_var, weight, bias, momentum, eps, layout),
            *(act, residual, kind, out_layout, out, _dispatch.threads),
        )
        if y is not None:
            return y  # type: ignore[no-any-return]
    kernels = _dispatch.kernels(backend)
    plan = _plan.forward(
        *(x, running_mean, running_var, weight, bias, training, momentum, eps, layout),
        *(act, residual, kind, out_layout, out),
    )
    output = plan.output
    samples, threads = output.walk.samples, _dispatch.threads(output.x.nbytes)
    stats = np.zeros((3, output.walk.shape[1]))
    if not output.x.size:
        pass
    elif training:
        call = output.call(kernels.ANY_TYPE)
        kernels.train_forward(call.x, plan.weight, plan.bias, plan.eps, stats, call.epilogue, call.y.view, threads)
        call.y.deliver(call.walk)
        if plan.running:
            _update_running(running_mean, running_var, stats, samples, plan.momentum)
    elif plan.running:
        if return_moments:
            kernels.moments(output.call(kernels.ANY_TYPE).x, stats, threads)
        apply(output, affine_of(output.computed_in, *plan.running, plan.weight, plan.bias, plan.eps), kernels)
    return (output.array, Moments.of(samples, stats)) if return_moments else output.array


def apply(output: _plan.Output, affine: Array, kernels: Any) -> Array:
    """The output, by coefficients that are known."""
    if output.x.size:
        for call in output.calls(kernels.ANY_TYPE):
            kernels.normalize(call.x, affine, call.epilogue, call.y.view, _dispatch.threads(call.x.nbytes))
            call.y.deliver(call.walk)
    return output.array


def batch_norm_backward(
    dy: ArrayLike,
    x: ArrayLike,
    mean: ArrayLike,
    var: ArrayLike,
    weight: ArrayLike | None = None,
    *,
    eps: float = 1e-5,
    training: bool = True,
    layout: Layout = "NCHW",
    bias: ArrayLike | None = None,
    activation: ActivationLike = None,
    residual: ArrayLike | None = None,
    y: ArrayLike | None = None,
    out: Array | None = None,
    backend: str | None = None,
) -> tuple[Array, ...]:
    """Gradients of batch norm with respect to its input, weight and bias, and to a residual if there was one.

        g = dy * activation'(z),  z = x_hat * weight + bias + residual            (g = dy without an activation)
        x_hat = (x - mean) / sqrt(var + eps);  dbias = sum(g);  dweight = sum(g * x_hat);  dresidual = g
        training:   dx = weight / sqrt(var + eps) * (g - mean(g) - x_hat * mean(g * x_hat))
        inference:  dx = weight / sqrt(var + eps) * g

    Ioffe and Szegedy (2015), section 3.

    Parameters
    ----------
    dy, x : the output's gradient and the forward's input, of one shape and one dtype, a floating one of batch_norm's. g
        is of that dtype, too.
    mean, var : (C,), those the forward normalized with: the batch's own, ``m.mean`` and ``m.var()`` of its Moments, or
        the running ones with ``training=False``. Pass them in float64 where the mean is large beside the deviation.
    weight, bias : (C,), or None for ones and zeros. The bias counts where there is an activation.
    activation, residual : the forward's. A function of your own comes with its derivative, as a pair.
    y : the forward's output, if you kept it: it spares computing z again for relu, relu6, leaky_relu, clip, sigmoid and
        tanh, and is not read for the others.
    out : array for dx; may be ``dy`` or ``x`` itself.

    Returns
    -------
    dx of x's shape, dtype and memory order (or ``out``); dweight and dbias, (C,) float64; with a residual its gradient,
    like dx, as the fourth.

    Raises
    ------
    ValueError, TypeError : before anything is written, saying what must hold, what was got and what to do.
    """
    act = _check_output.activation(activation)
    backend = _dispatch.backend_for(act, backend)
    if act is None and (bias is not None or y is not None):  # which are not read then, but were meant to be right
        _plan.gradient(dy, x, bias, layout, act, residual, y, None, any_type=True)
    dx, dweight, dbias, g = backward_through(
        dy, x, mean, var, weight, bias, eps, training, layout, act, residual, y, out, backend
    )
    return (dx, dweight, dbias) if residual is None else (dx, dweight, dbias, g)


def backward_through(
    dy: ArrayLike,
    x: ArrayLike,
    mean: ArrayLike,
    var: ArrayLike,
    weight: ArrayLike | None,
    bias: ArrayLike | None,
    eps: float,
    training: bool,
    layout: Layout,
    activation: Activation | None,
    residual: ArrayLike | None,
    kept: ArrayLike | Signs | None,
    out: Array | None,
    backend: str | None,
) -> tuple[Array, Vector, Vector, Any]:
    """dx, dweight, dbias and g of `batch_norm_backward`, from the forward's output or its signs or, without them, x.

    g is made where dx will stand, so that it takes no memory of its own, unless it is wanted as a residual's gradient.
    """
    if activation is None and residual is None:
        return *_backward(dy, x, mean, var, weight, eps, training, layout, out, backend), dy
    kernels = _dispatch.kernels(backend)
    apart_from = {"bias": bias, "residual": residual, "y": None if isinstance(kept, Signs) else kept}
    plan = _plan.backward(dy, x, mean, var, weight, eps, training, layout, out, kernels.ANY_TYPE, apart_from)
    dx = plan.dx.array
    room = None if residual is not None or (out is not None and overlap(out, np.asarray(x))) else dx
    if isinstance(kept, Signs):
        g = kept.gradient(np.asarray(dy), room)
    elif activation is None:
        g = np.array(_plan.gradient(dy, x, bias, layout, None, residual, None, room, kernels.ANY_TYPE).given)
    else:
        through = _plan.gradient(dy, x, bias, layout, activation, residual, kept, room, kernels.ANY_TYPE)
        affine = None
        if through.bias is not None:
            dtype = _plan.computed_in(plan.x.dtype)
            affine = affine_of(dtype, plan.mean, plan.var, plan.weight, through.bias, plan.eps)
        if plan.x.size:
            threads = _dispatch.threads(through.dy.nbytes)
            kernels.activation_gradient(through.dy, through.source, affine, through.epilogue, through.g.view, threads)
            through.g.deliver(plan.walk)
        g = through.g.array
    return *_backward(g, x, mean, var, weight, eps, training, layout, dx, backend), g


def _backward(
    dy: ArrayLike,
    x: ArrayLike,
    mean: ArrayLike,
    var: ArrayLike,
    weight: ArrayLike | None,
    eps: float,
    training: bool,
    layout: Layout,
    out: Array | None,
    backend: str | None,
) -> tuple[Array, Vector, Vector]:
    """`batch_norm_backward` of the normalization alone."""
    direct = _dispatch.direct_kernels(backend)
    if direct:
        done = direct.backward_directly(dy, x, mean, var, weight, eps, training, layout, out, _dispatch.threads)
        if done:
            return done  # type: ignore[no-any-return]
    kernels = _dispatch.kernels(backend)
    plan = _plan.backward(dy, x, mean, var, weight, eps, training, layout, out, kernels.ANY_TYPE, {})
    threads = _dispatch.threads(plan.x.nbytes)
    sums = np.zeros((2, plan.walk.shape[1]))
    with np.errstate(all="ignore"):  # a channel that holds NaN or Inf stays non-finite, without a warning
        rstd = _algebra.rstd(plan.var, plan.eps)
        if plan.x.size:
            if training:
                kernels.train_backward(
                    plan.dy, plan.x, plan.mean, plan.var, plan.weight, plan.eps, sums, plan.dx.view, threads
                )
            else:
                kernels.gradient_sums(plan.dy, plan.x, plan.mean, sums, threads)
                zeros = np.zeros_like(rstd)
                affine = np.stack((zeros, plan.weight * rstd, zeros))
                kernels.normalize(plan.dy, affine, PLAIN, plan.dx.view, threads)
            plan.dx.deliver(plan.walk)
        return plan.dx.array, sums[1] * rstd, sums[0]


def moments(x: ArrayLike, *, layout: Layout = "NCHW", backend: str | None = None) -> Moments:
    """Count, mean and sum of squared deviations of every channel of ``x``; see Moments.

    ``x`` is an array of 2 to 5 dimensions, of any type that batch_norm takes in inference; the results are float64, the
    variance to 1e-6 at any mean (float64: 1e-12 up to mean/std = 1e6). Raises ValueError or TypeError as batch_norm does.
    """
    direct = _dispatch.direct_kernels(backend)
    if direct:
        stats = direct.moments_directly(x, layout, _dispatch.threads)
        if stats is not None:
            return Moments.of(np.size(x) // stats.shape[1], stats)
    kernels = _dispatch.kernels(backend)
    array, walk = _plan.sample(x, layout, kernels.ANY_TYPE)
    stats = np.zeros((3, walk.shape[1]))
    if array.size:
        kernels.moments(array, stats, _dispatch.threads(array.nbytes))
    return Moments.of(walk.samples, stats)


def affine_of(dtype: np.dtype[Any], mean: Vector, var: Vector, weight: Vector, bias: Vector, eps: float) -> Array:
    """(3, C) float64: centre, scale and shift that apply statistics to data of `dtype`."""
    with np.errstate(all="ignore"):
        centre = _algebra.centre(mean, dtype.type)
        return np.stack((centre, *_algebra.affine(mean, 0.0, var, weight, bias, eps, centre)))


def _update_running(running_mean: Any, running_var: Any, stats: Array, count: int, momentum: float) -> None:
    mean, _, m2 = stats
    with np.errstate(all="ignore"):
        for running, batch in ((running_mean, mean), (running_var, _algebra.unbiased(m2, count))):
            running[...] = _algebra.running_update(running.astype(np.float64), batch, momentum)
