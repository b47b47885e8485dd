"""Batch norm of plain arrays: plan, kernel, result. Names, defaults and meanings are torch.nn.functional.batch_norm's.

    training:   y = (x - mean(x)) / sqrt(var(x) + eps) * weight + bias         over every axis but the channels'
    inference:  y = (x - running_mean) / sqrt(running_var + eps) * weight + bias

Ioffe and Szegedy, "Batch Normalization: Accelerating Deep Network Training by Reducing Internal Covariate Shift"
(2015), algorithms 1 and 2; the gradients are those of its section 3.
"""

from __future__ import annotations

from typing import Any, Literal, overload

import numpy as np
from numpy.typing import ArrayLike

from cpubn import _algebra, _dispatch, _plan
from cpubn._types import Array, Layout, Vector
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
    out: Array | None = None,
    return_moments: bool = False,
    backend: str | None = None,
) -> Array | tuple[Array, Moments]:
    """Normalize every channel of ``x``; in training with the batch's own statistics, which also move the running ones.

    Parameters
    ----------
    x : float32 or float64 array of 2 to 5 dimensions, any strides. Channels stand on axis 1 with ``layout="NCHW"`` and
        on the last axis with ``layout="NHWC"``, whatever the rank.
    running_mean, running_var : (C,) float32 or float64. In training they are updated in place,
        ``r = (1 - momentum) * r + momentum * batch`` with the unbiased variance, unless both are None. Keep them in
        float64: float32 ones throw away what the kernels kept at a large mean, and overflow beyond 3.4e38.
    weight, bias : (C,) float32 or float64, or None for ones and zeros.
    training : normalize with the batch's biased variance instead of the running statistics.
    momentum : from 0 to 1, the weight of the new batch (torch's convention).
    eps : added to the variance; above 0 in training.
    out : array of x's shape and dtype to write to; may be ``x`` itself.
    return_moments : also return the batch's Moments, which backward needs. In inference that is one more read of ``x``.
    backend : "cython", "numba" or "numpy"; None for the current default.

    Returns
    -------
    y, of x's shape, dtype and memory order (or ``out``); with ``return_moments=True`` the pair (y, Moments).
    float32 results are within ``1e-6 * (|weight| * max(1, |x_hat|) + |bias|)`` of the exact ones up to mean/std = 1e7.
    An empty batch gives an empty result and leaves the running statistics alone.

    Raises
    ------
    ValueError, TypeError : before anything is written, saying what must hold, what was got and what to do.
    """
    direct = _dispatch.direct_kernels(backend)
    if direct and training:
        done = direct.train_directly(
            x, running_mean, running_var, weight, bias, momentum, eps, layout, out, _dispatch.threads
        )
        if done:
            y, stats = done
            return (y, Moments.of(y.size // stats.shape[1], stats)) if return_moments else y
    elif direct and not return_moments:
        y = direct.infer_directly(
            x, running_mean, running_var, weight, bias, momentum, eps, layout, out, _dispatch.threads
        )
        if y is not None:
            return y  # type: ignore[no-any-return]
    plan = _plan.forward(x, running_mean, running_var, weight, bias, training, momentum, eps, layout, out)
    kernels = _dispatch.kernels(backend)
    samples, threads = plan.walk.samples, _dispatch.threads(plan.x.nbytes)
    stats = np.zeros((3, plan.walk.shape[1]))
    if plan.x.size:
        if training:
            kernels.train_forward(plan.x, plan.weight, plan.bias, plan.eps, stats, plan.y.view, threads)
            if plan.running:
                _update_running(running_mean, running_var, stats, samples, plan.momentum)
        elif plan.running:
            if return_moments:
                kernels.moments(plan.x, stats, threads)
            affine = affine_of(plan.x.dtype, *plan.running, plan.weight, plan.bias, plan.eps)
            kernels.normalize(plan.x, affine, plan.y.view, threads)
        plan.y.deliver(plan.walk)
    return (plan.y.array, Moments.of(samples, stats)) if return_moments else plan.y.array


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
    out: Array | None = None,
    backend: str | None = None,
) -> tuple[Array, Vector, Vector]:
    """Gradients of batch norm with respect to its input, weight and bias.

        x_hat = (x - mean) / sqrt(var + eps);  dbias = sum(dy);  dweight = sum(dy * x_hat)
        training:   dx = weight / sqrt(var + eps) * (dy - mean(dy) - x_hat * mean(dy * x_hat))
        inference:  dx = weight / sqrt(var + eps) * dy

    Ioffe and Szegedy (2015), section 3.

    Parameters
    ----------
    dy, x : the output's gradient and the forward's input, of one shape and dtype, float32 or float64.
    mean, var : (C,), those the forward normalized with: the batch's own, ``m.mean`` and ``m.var()`` of its Moments, or
        the running ones with ``training=False``. Pass them in float64 where the mean is large beside the deviation.
    weight : (C,), or None for ones.
    out : array for dx; may be ``dy`` or ``x`` itself.

    Returns
    -------
    dx of x's shape, dtype and memory order (or ``out``); dweight and dbias, (C,) float64.

    Raises
    ------
    ValueError, TypeError : before anything is written, saying what must hold, what was got and what to do.
    """
    direct = _dispatch.direct_kernels(backend)
    if direct:
        done = direct.backward_directly(dy, x, mean, var, weight, eps, training, layout, out, _dispatch.threads)
        if done:
            return done  # type: ignore[no-any-return]
    plan = _plan.backward(dy, x, mean, var, weight, eps, training, layout, out)
    kernels = _dispatch.kernels(backend)
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
                kernels.normalize(plan.dy, np.stack((zeros, plan.weight * rstd, zeros)), plan.dx.view, threads)
            plan.dx.deliver(plan.walk)
        return plan.dx.array, sums[1] * rstd, sums[0]


def moments(x: ArrayLike, *, layout: Layout = "NCHW", backend: str | None = None) -> Moments:
    """Count, mean and sum of squared deviations of every channel of ``x``; see Moments.

    ``x`` is a float32 or float64 array of 2 to 5 dimensions; the results are float64, the variance to 1e-6 (float32) at
    any mean. Raises ValueError or TypeError as batch_norm does.
    """
    direct = _dispatch.direct_kernels(backend)
    if direct:
        stats = direct.moments_directly(x, layout, _dispatch.threads)
        if stats is not None:
            return Moments.of(np.size(x) // stats.shape[1], stats)
    array, walk = _plan.sample(x, layout)
    kernels = _dispatch.kernels(backend)
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
