"""Batch norm of plain arrays: plan, kernel, result. Names, defaults and meanings are torch.nn.functional.batch_norm's.

    training:   y = (x - mean(x)) / sqrt(var(x) + eps) * weight + bias         over every axis but the channels'
    inference:  y = (x - running_mean) / sqrt(running_var + eps) * weight + bias

Ioffe and Szegedy, "Batch Normalization: Accelerating Deep Network Training by Reducing Internal Covariate Shift"
(2015), algorithms 1 and 2; the gradients are those of its section 3.
"""

from __future__ import annotations

from typing import Any, Literal, Unpack, overload

from numpy.typing import ArrayLike, DTypeLike, NDArray

from cpubn.ask import check, options
from cpubn.ask.backward import Request, backward_of_part, backward_through, check_besides, samples_of
from cpubn.ask.check import NCHW, NHWC, layout_name
from cpubn.ask.forward import forward_through
from cpubn.ask.moments import counted as moments_of
from cpubn.ask.policies import KEEP, RAISE, RUNNING, Batch, chosen, trained
from cpubn.ask.weights import PROPAGATE, ZERO, asked, weights_of
from cpubn.backends import choice
from cpubn.backends.foreign import maker
from cpubn.statistics import Moments

from cpubn.typing import (  # isort: skip
    Activation, Array, Backend, BackwardOptions, Floating, ForwardOptions, Layout, Missing, OnEmpty, OnNonfinite,
    OnSingle, Values, Vector,
)  # fmt: skip


@overload
def batch_norm(
    x: NDArray[Floating], running_mean: Values, running_var: Values, weight: Values = None, bias: Values = None,
    training: bool = False, momentum: float = 0.1, eps: float = 1e-5, *, dtype: None = None,
    return_moments: Literal[False] = False, **options: Unpack[ForwardOptions],
) -> NDArray[Floating]: ...  # fmt: skip
@overload
def batch_norm(
    x: NDArray[Floating], running_mean: Values, running_var: Values, weight: Values = None, bias: Values = None,
    training: bool = False, momentum: float = 0.1, eps: float = 1e-5, *, dtype: None = None,
    return_moments: Literal[True], **options: Unpack[ForwardOptions],
) -> tuple[NDArray[Floating], Moments]: ...  # fmt: skip
@overload
def batch_norm(
    x: ArrayLike, running_mean: Values, running_var: Values, weight: Values = None, bias: Values = None,
    training: bool = False, momentum: float = 0.1, eps: float = 1e-5, *, dtype: DTypeLike | None = None,
    return_moments: Literal[False] = False, **options: Unpack[ForwardOptions],
) -> Array: ...  # fmt: skip
@overload
def batch_norm(
    x: ArrayLike, running_mean: Values, running_var: Values, weight: Values = None, bias: Values = None,
    training: bool = False, momentum: float = 0.1, eps: float = 1e-5, *, dtype: DTypeLike | None = None,
    return_moments: Literal[True], **options: Unpack[ForwardOptions],
) -> tuple[Array, Moments]: ...  # fmt: skip
@overload
def batch_norm(
    x: ArrayLike, running_mean: Values, running_var: Values, weight: Values = None, bias: Values = None,
    training: bool = False, momentum: float = 0.1, eps: float = 1e-5, *, dtype: DTypeLike | None = None,
    return_moments: bool, **options: Unpack[ForwardOptions],
) -> Array | tuple[Array, Moments]: ...  # fmt: skip
def batch_norm(
    x: ArrayLike, running_mean: Values, running_var: Values, weight: Values = None, bias: Values = None,
    training: bool = False, momentum: float = 0.1, eps: float = 1e-5, *, layout: Layout = "NCHW",
    activation: Activation | None = None, residual: Values = None, dtype: DTypeLike | None = None,
    out_layout: Layout | None = None, out: Any = None, like: Any = None, return_moments: bool = False,
    backend: Backend | None = None, mask: Values = None, lengths: Values = None, weights: Values = None,
    nan: Missing = PROPAGATE, masked_output: float = ZERO, on_single: OnSingle = RAISE, on_empty: OnEmpty = KEEP,
    on_nonfinite: OnNonfinite = PROPAGATE,
) -> Array | tuple[Array, Moments]:  # fmt: skip
    """Normalize every channel of ``x``; in training with the batch's own statistics, which also move the running ones.

    Parameters
    ----------
    x : float16, bfloat16 (of ml_dtypes), float32 or float64 array of 2 to 5 dimensions, any strides
        In inference also uint8, int8, uint16 or int16. float64 is computed in float64, all else in float32.
        With ``__cuda_array_interface__`` on a GPU, where the other arrays must be then, and results are numba.cuda's.
    running_mean, running_var : (C,), in inference of any floating type or integers, which are read exactly
        In training they are float32 or float64 arrays and updated in place, ``r = (1 - momentum) * r + momentum *
        batch`` with the unbiased variance, unless both are None. Keep them in float64: float32 ones throw away what the
        kernels kept at a large mean, and overflow beyond 3.4e38.
    weight, bias : (C,) of any floating type or integers, or None for ones and zeros.
    training : normalize with the batch's biased variance instead of the running statistics.
    momentum : from 0 to 1, the weight of the new batch (torch's convention).
    eps : added to the variance; above 0 in training, as running_var + eps must be in inference.
    layout : "NCHW", channels on axis 1, or "NHWC", channels on the last, whatever the rank
        "channels_first", "NCL", "NCDHW", "NC" and "channels_last", "NLC", "NDHWC" are other names of the two, all in
        any case.
    activation : y = activation(affine + residual), in the same pass over memory, without a temporary
        "relu", "relu6", ("clip", low, high), ("leaky_relu", slope), "hardswish", "silu", "gelu", "sigmoid", "tanh",
        "softplus", "mish", "elu" or ("elu", alpha), or a scalar function compiled by ``numba.njit``, which the Numba
        backend fuses into its loops, on a GPU by ``numba.cuda.jit(device=True)`` (an error of its own passes through,
        with y written in part).
    residual : array of y's shape and dtype, added before the activation.
    dtype : of y: "float16", "bfloat16", "float32" or "float64"; None for that of x, which integers do not allow.
    out_layout : layout of y, "NCHW" or "NHWC"; None for that of x.
    out : array of y's shape and dtype to write to; may be ``x`` itself, or ``residual``.
    like : an array of torch, JAX or another library, such as ``x`` itself
        y becomes one of its kind, over the memory that was written, where that library takes it (JAX copies what it
        finds unaligned). None for a NumPy array.
    return_moments : also return the batch's Moments, which backward needs. In inference that is one more read of ``x``.
    backend : "cython", "numba" or "numpy"; None for the current default, and for "cuda" where x is on a GPU.
    mask, lengths, weights, nan : which elements count, and how often
        A bool mask of x's shape, or of that without the channel axis; (N,) lengths; weights of at least 0; "omit" for
        NaN. Their product w makes mean = sum(w * x) / W, W = sum(w), m2 = sum(w * (x - mean)**2), var = m2 / W, and
        running_var moves by m2 / (W - 1); W must be above 1, or 0, by which running statistics stay.
    on_single : in training, where a channel has one value, "raise" or take the "running" statistics for it
        W up to 1 is one value. Backward is that of inference then, with ``training=False`` and the running statistics.
    on_empty : in training, "keep" the running statistics of a channel without values, or "raise".
    on_nonfinite : in training, where the batch's mean or variance is NaN or infinite
        Let it "propagate", "raise", or "skip" the update of all running statistics, with a warning. What is refused has
        written nothing.
    masked_output : y where w is 0. Elements there may hold anything, and reach nothing.

    Returns
    -------
    y, or (y, Moments) : of x's shape, memory order and dtype but for out_layout and dtype, or ``out``
        The pair with ``return_moments=True``.

    Notes
    -----
    Ioffe and Szegedy (2015), algorithms 1 and 2. float32 results are within
    ``1e-6 * (|weight| * max(1, |x_hat|) + |bias|)`` of the exact ones up to mean/std = 1e7.

    Raises
    ------
    ValueError, TypeError : before anything is written, saying what must hold, what was got and what to do.

    Examples
    --------
    >>> cpubn.batch_norm(np.array([[1.0], [3.0]]), None, None, training=True).round(4).tolist()
    [[-1.0], [1.0]]
    """
    if training is not True and training is not False:
        training = check.flag(training, "training")
    if return_moments is not True and return_moments is not False:
        return_moments = check.flag(return_moments, "return_moments")
    if layout is not NCHW and layout is not NHWC:  # which the shortest ways to a kernel know alone
        layout = layout_name(layout)
    if out_layout is not None:
        out_layout = layout_name(out_layout, "out_layout")
    act = None
    if activation is not None:
        act = options.activation(activation)
        backend = choice.backend_for(act, backend)
    kind = None if dtype is None else options.floating(dtype)
    make = None if like is None else maker(like)
    vectors = running_mean, running_var, weight, bias, None
    policies = chosen(on_single, on_empty, on_nonfinite)
    which, own = asked(mask, lengths, weights, nan, masked_output), None
    if which is not None:
        enough = training and on_single != RUNNING
        own = weights_of(x, layout, which, summed=training or return_moments, training=enough, out=out)
    how = momentum, eps, layout, act, own, residual, kind, out_layout, out
    if not training and not return_moments:
        calls = choice.compiled_calls(backend)
        y = calls and calls.infer(x, vectors, how)
        if y is not None:
            return y if make is None else make(y)  # type: ignore[no-any-return]
    if policies is None or not training:
        y, samples, stats = forward_through(x, vectors, how, training, return_moments, backend)
    else:
        y, samples, stats, *_ = trained(policies, Batch(x, vectors, how, backend))
    if make is not None:
        y = make(y)
    return (y, Moments.of(samples, stats)) if return_moments else y


@overload
def batch_norm_backward(
    dy: ArrayLike, x: NDArray[Floating], mean: ArrayLike | Moments, var: ArrayLike, weight: Values = None,
    *, residual: None = None, **options: Unpack[BackwardOptions],
) -> tuple[NDArray[Floating], Vector, Vector]: ...  # fmt: skip
@overload
def batch_norm_backward(
    dy: ArrayLike, x: NDArray[Floating], mean: ArrayLike | Moments, var: ArrayLike, weight: Values = None,
    *, residual: ArrayLike, **options: Unpack[BackwardOptions],
) -> tuple[NDArray[Floating], Vector, Vector, NDArray[Floating]]: ...  # fmt: skip
@overload
def batch_norm_backward(
    dy: ArrayLike, x: ArrayLike, mean: ArrayLike | Moments, var: ArrayLike, weight: Values = None,
    *, residual: Values = None, **options: Unpack[BackwardOptions],
) -> tuple[Array, ...]: ...  # fmt: skip
def batch_norm_backward(
    dy: ArrayLike, x: ArrayLike, mean: ArrayLike | Moments, var: ArrayLike, weight: Values = None,
    *, eps: float = 1e-5, training: bool = True, layout: Layout = "NCHW", bias: Values = None,
    activation: Activation | None = None, residual: Values = None, y: Values = None, sums: Values = None,
    out: Any = None, like: Any = None, backend: Backend | None = None, mask: Values = None, lengths: Values = None,
    weights: Values = None, nan: Missing = PROPAGATE,
) -> tuple[Array, ...]:  # fmt: skip
    """Gradients of batch norm with respect to its input, weight and bias, and to a residual if there was one::

        g = dy * activation'(z),  z = x_hat * weight + bias + residual            (g = dy without an activation)
        x_hat = (x - mean) / sqrt(var + eps);  dbias = sum(g);  dweight = sum(g * x_hat);  dresidual = g
        training:   dx = weight / sqrt(var + eps) * (g - mean(g) - x_hat * mean(g * x_hat))
        inference:  dx = weight / sqrt(var + eps) * g

    Ioffe and Szegedy (2015), section 3.

    Parameters
    ----------
    dy, x : the output's gradient and the forward's input, of one shape and one dtype, a floating one of batch_norm's
        g is of that dtype, too.
    mean, var : (C,), those the forward normalized with
        The batch's own, ``m.mean`` and ``m.var()`` of its Moments, or the running ones with ``training=False``. Pass
        them in float64 where the mean is large beside the deviation. As ``mean`` the Moments themselves will do, too,
        which hold the mean's rounding error besides: float64 gradients are exact to 1e-12 at a large mean with that
        alone.
    weight, bias : (C,), or None for ones and zeros. The bias counts where there is an activation.
    eps, training, layout, backend : the forward's.
    activation, residual : the forward's. A function of your own comes with its derivative, as a pair.
    y : the forward's output, if you kept it
        It spares computing z again for relu, relu6, leaky_relu, clip, sigmoid and tanh, and is not read for the others.
    sums : where x is a part of a batch, what ``gradient_sums`` gives of all parts, added up, (2, C) float64
        ``mean`` is then the Moments of the whole, and dweight and dbias are the whole's, too.
    out : array for dx; may be ``dy`` or ``x`` itself.
    like : an array of the kind that all results become, as in batch_norm.
    mask, lengths, weights, nan : the forward's. Where w is 0 so are g and dx; means of g are sums over W, times w.

    Returns
    -------
    dx, dweight, dbias : of x's shape, dtype and memory order (or ``out``); (C,) float64; (C,) float64
        With a residual its gradient, like dx, as the fourth.

    Notes
    -----
    With r = 1 / sqrt(var + eps), float32 dx is within
    ``1e-6 * |weight| * r * (|g| + mean|g| + (1 + |x_hat|) * mean|g * x_hat|)`` of the exact one up to mean/std = 1e7,
    dweight within 1e-6 of ``sum(|g| * (1 + |x_hat|))`` and dbias of ``sum|g|``; float64 within 1e-12, up to mean/std =
    1e6.

    Raises
    ------
    ValueError, TypeError : before anything is written, saying what must hold, what was got and what to do.

    Examples
    --------
    >>> x, dy = np.array([[1.0], [3.0]]), np.array([[2.0], [0.0]])
    >>> y, batch = cpubn.batch_norm(x, None, None, training=True, return_moments=True)
    >>> dx, dweight, dbias = cpubn.batch_norm_backward(dy, x, batch, batch.var())
    >>> dweight.round(4).tolist(), dbias.tolist()
    ([-2.0], [2.0])
    """
    training = check.flag(training, "training")
    if layout is not NCHW and layout is not NHWC:
        layout = layout_name(layout)
    act = options.activation(activation)
    backend = choice.backend_for(act, backend)
    make = None if like is None else maker(like)
    if act is None and not bias is residual is y is None:  # they are not read then, but checked all the same
        check_besides(x, layout, bias, residual, y)
    which = asked(mask, lengths, weights, nan)
    own = which and weights_of(x, layout, which, summed=training, training=training, out=out)
    low, samples = None, 0.0 if sums is None else samples_of(mean, training)
    if isinstance(mean, Moments):
        mean, second, _ = mean._vectors
        low = second if training else None  # inference normalizes with the first word alone
    request = Request(
        *(dy, x, (mean, low, var, 1.0), weight, bias, eps, training, layout),
        *(act, residual, y, residual is not None, out, None, backend, own),
    )
    dx, dweight, dbias, g = backward_through(request) if sums is None else backward_of_part(request, sums, samples)
    results = (dx, dweight, dbias) if residual is None else (dx, dweight, dbias, g)
    return results if make is None else tuple(map(make, results))


def moments(
    x: ArrayLike, *, layout: Layout = "NCHW", backend: Backend | None = None, mask: Values = None,
    lengths: Values = None, weights: Values = None, nan: Missing = PROPAGATE,
) -> Moments:  # fmt: skip
    """Count, mean and sum of squared deviations of every channel of ``x``, which add up: ``moments(a) + moments(b)``.

    Parameters
    ----------
    x : array of 2 to 5 dimensions, of any type that batch_norm takes in inference.
    layout, backend, mask, lengths, weights, nan : as in batch_norm.

    Returns
    -------
    Moments, of (C,) float64: the variance to 1e-6 of itself at any mean (float64: 1e-12 up to mean/std = 1e6)
        Its count is (C,) float64, sums of w, where there is a mask, lengths, weights or nan="omit".

    Raises
    ------
    ValueError, TypeError : as batch_norm does.

    Examples
    --------
    >>> halves = cpubn.moments(np.array([[1.0], [3.0]])) + cpubn.moments(np.array([[5.0], [7.0]]))
    >>> halves.count, halves.mean.tolist(), halves.var().tolist()
    (4, [4.0], [5.0])
    """
    return Moments.of(*moments_of(x, layout, backend, asked(mask, lengths, weights, nan)))
