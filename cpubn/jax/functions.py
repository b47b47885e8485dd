"""batch_norm of JAX's arrays: what is asked for, checked in the words of `ask` while a function is traced."""

from __future__ import annotations

from typing import Any, Literal, overload

import jax
import jax.numpy as jnp
import numpy as np

from cpubn.ask import check, options
from cpubn.ask.walk import walk_of
from cpubn.backends.interface import name_of
from cpubn.jax import calls
from cpubn.jax.calls import How, Primals
from cpubn.maths.activations import TABLE
from cpubn.typing import Activation, Layout

HALVES = "float16", "bfloat16"


@overload
def batch_norm(
    x: Any, running_mean: Any, running_var: Any, weight: Any = None, bias: Any = None,
    training: Literal[False] = False, momentum: float = 0.1, eps: float = 1e-5, *,
    layout: Layout = "NCHW", activation: Activation | None = None, residual: Any = None,
) -> jax.Array: ...  # fmt: skip
@overload
def batch_norm(
    x: Any, running_mean: Any, running_var: Any, weight: Any = None, bias: Any = None,
    *, training: Literal[True], momentum: float = 0.1, eps: float = 1e-5,
    layout: Layout = "NCHW", activation: Activation | None = None, residual: Any = None,
) -> tuple[jax.Array, jax.Array | None, jax.Array | None]: ...  # fmt: skip
@overload
def batch_norm(
    x: Any, running_mean: Any, running_var: Any, weight: Any = None, bias: Any = None,
    training: bool = False, momentum: float = 0.1, eps: float = 1e-5, *,
    layout: Layout = "NCHW", activation: Activation | None = None, residual: Any = None,
) -> Any: ...  # fmt: skip
def batch_norm(
    x: Any,
    running_mean: Any,
    running_var: Any,
    weight: Any = None,
    bias: Any = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *,
    layout: Layout = "NCHW",
    activation: Activation | None = None,
    residual: Any = None,
) -> Any:
    """Normalize every channel of ``x`` inside or outside of jax.jit, with the bits of `cpubn.batch_norm`::

        training:   y = activation((x - mean(x)) / sqrt(var(x) + eps) * weight + bias + residual)
        inference:  y = activation((x - running_mean) / sqrt(running_var + eps) * weight + bias + residual)

    Ioffe and Szegedy (2015), algorithms 1 and 2. A call of XLA on the CPU; jax.grad goes by `cpubn.batch_norm_backward`
    (section 3), and of its gradients by JAX's own of the same formula. Under jax.vmap each entry of the batch has
    statistics of its own.

    Parameters
    ----------
    x : float16, bfloat16, float32 or, with jax_enable_x64, float64 array of 2 to 5 dimensions.
    running_mean, running_var : (C,), of any floating type; in training float32 or float64, or both None.
    weight, bias : (C,) of any floating type, or None for ones and zeros.
    training : normalize with the batch's biased variance instead of the running statistics.
    momentum : from 0 to 1, the weight of the new batch (torch's convention, 1 minus that of Flax)
        With 1 the new statistics are the batch's own.
    eps : added to the variance; above 0 in training, as running_var + eps must be in inference.
    layout : "NCHW", channels on axis 1, or "NHWC", channels on the last axis, whatever the rank.
    activation : an activation of `cpubn.batch_norm`'s table, by its name, or a tuple of its name and its numbers
        Call a function of your own on the result: XLA fuses that with what comes next.
    residual : array of x's shape and dtype, added before the activation.

    Notes
    -----
    `training`, `momentum`, `eps`, `layout` and `activation` are constants of the function that is traced.

    Returns
    -------
    y, or (y, running_mean, running_var) : of x's shape and dtype; in training the triple
        The latter two are new arrays of the old ones' types, ``(1 - momentum) * r + momentum * batch`` with the
        unbiased variance, or None where None was passed. They are constants to jax.grad, as torch's are. An empty batch
        leaves them as they are.

    Raises
    ------
    ValueError, TypeError : when the function is traced, saying what must hold, what was got and what to do; jax.jvp
        and jax.jacfwd, which batch_norm does not have, raise JAX's own TypeError.
    RuntimeError : there are no compiled kernels, or the calls cannot be built: `build` says when. JAX's own is raised
        when the program runs where running_var + eps is not above 0 in every channel.

    Examples
    --------
    >>> x = jnp.array([[1.0, 2.0], [3.0, 6.0]])
    >>> train = jax.jit(cpubn.jax.batch_norm, static_argnames="training")
    >>> y, mean, var = train(x, jnp.zeros(2), jnp.ones(2), training=True)
    >>> y.round(2)
    Array([[-1., -1.],
           [ 1.,  1.]], dtype=float32)
    >>> mean
    Array([0.2, 0.4], dtype=float32)
    """
    for name, value in {"training": training, "momentum": momentum, "eps": eps, "activation": activation}.items():
        constant(name, value)
    training = check.flag(training, "training")
    layout = check.layout_name(layout)
    x = floating("x", x)
    kinds = check.SINGLE_OR_DOUBLE if training else check.FLOATS
    vectors = {"running_mean": running_mean, "running_var": running_var, "weight": weight, "bias": bias}
    vectors = {
        name: None if v is None else floating(name, v, kinds if name.startswith("running") else check.FLOATS)
        for name, v in vectors.items()
    }
    residual = None if residual is None else floating("residual", residual)
    stand_in, channel = check.batch(like(x), layout)
    channels = x.shape[channel]
    mean, var = (None if v is None else like(v) for v in (vectors["running_mean"], vectors["running_var"]))
    check.running_pair(mean, var, channels, layout, training=training)
    for name in ("weight", "bias"):
        if vectors[name] is not None:
            check.vector(like(vectors[name]), name, channels, layout)
    options.residual(None if residual is None else like(residual), x.shape, x.dtype)
    eps, momentum = check.epsilon(eps, training=training), check.momentum(momentum)
    if training:
        check.enough_values(walk_of(stand_in, channel), stand_in)
    code, numbers, by_output = fused(activation, x.dtype)
    how = How(channel, training, momentum, eps, code, numbers, by_output)
    if x.size:
        y, *new, _ = calls.batch_norm(how, Primals(x, **{n: widened(v) for n, v in vectors.items()}, residual=residual))
    else:
        y, new = jnp.zeros_like(x), [vectors["running_mean"], vectors["running_var"]]
    return (y, *(v if v is None else jax.lax.stop_gradient(v) for v in new)) if training else y


def constant(name: str, value: Any) -> None:
    """What is not an operand of the call must be known while a function is traced."""
    if any(isinstance(v, jax.core.Tracer) for v in (value if isinstance(value, tuple) else (value,))):
        raise TypeError(
            f"{name} must be known while the function is traced, got {value}; make it a constant, "
            f"for example with jax.jit(..., static_argnames={name!r})"
        )


def floating(name: str, value: Any, kinds: tuple[str, ...] = check.FLOATS) -> Any:
    """An array of JAX's, of one of some types."""
    check.unmasked(value, name)
    array = value if isinstance(value, jax.Array) else jnp.asarray(value)
    if name_of(array.dtype) not in kinds:
        raise TypeError(
            f"{name} must be an array of {check.alternatives(kinds)}, got one of {array.dtype}; "
            f"convert it, for example with {name}.astype(jnp.float32)"
        )
    return array


def widened(vector: Any) -> Any:
    """A vector of float32 or float64, which the calls take; None as it is."""
    return vector.astype(jnp.float32) if vector is not None and name_of(vector.dtype) in HALVES else vector


def like(array: Any) -> Any:
    """An array of NumPy's of that shape and type, which takes no memory."""
    return np.broadcast_to(np.zeros((), array.dtype), array.shape)


def fused(activation: Any, dtype: Any) -> tuple[int, tuple[float, ...], bool]:
    """Its code in the table, its own numbers, and whether its gradient is made of y, which is of `dtype`."""
    if any(callable(part) for part in (activation if isinstance(activation, tuple) else (activation,))):
        raise ValueError(
            f"activation must be one of {options.CHOICE} in JAX, got {activation!r}; "
            "call a function of your own on the result"
        )
    act = options.activation(activation)
    if act is None:
        return 0, (), False
    numbers = (act.low, act.high)[: len(TABLE[act.code - 1].parameters)]
    return act.code, numbers, name_of(dtype) not in HALVES and act.of_output(dtype) is not None
