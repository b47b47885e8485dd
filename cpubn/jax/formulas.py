"""y by JAX's own operations, of which it takes gradients of any order: what gradients of gradients are made of.

y = activation((x - mean) / sqrt(var + eps) * weight + bias + residual)
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from cpubn.maths.activations import TABLE


def clip(z: Any, low: float = 0.0, high: float = float("inf")) -> Any:
    """As the table has it; jnp.clip halves the gradient at its bounds."""
    return jnp.where(z <= low, low, jnp.where(z >= high, high, z))


ACTIVATIONS: dict[str, Callable[..., Any]] = {
    "relu": clip,
    "relu6": partial(clip, high=6.0),
    "clip": clip,
    "leaky_relu": jax.nn.leaky_relu,
    "hardswish": jax.nn.hard_swish,
    "silu": jax.nn.silu,
    "gelu": partial(jax.nn.gelu, approximate=False),
    "sigmoid": jax.nn.sigmoid,
    "tanh": jnp.tanh,
    "softplus": jax.nn.softplus,
    "mish": lambda z: z * jnp.tanh(jax.nn.softplus(z)),
    "elu": jax.nn.elu,
}


def normalized(how: Any, primals: Any) -> Any:
    """y; how and primals: as calls.py has them."""
    x, mean, var, weight, bias, residual = primals
    exact = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    axes = tuple(k for k in range(x.ndim) if k != how.channel)
    if how.training:
        mean, var = exact.mean(axes), exact.var(axes)
    mean, r, weight, bias = (
        None if v is None else jnp.expand_dims(v, axes) for v in (mean, 1 / jnp.sqrt(var + how.eps), weight, bias)
    )
    z = (exact - mean) * r
    z = z if weight is None else z * weight
    z = z if bias is None else z + bias
    z = z if residual is None else z + residual
    if how.activation:
        z = ACTIVATIONS[TABLE[how.activation - 1].name](z, *how.numbers)
    return z.astype(x.dtype)


def gradients(how: Any, dy: Any, primals: Any) -> Any:
    """Of each of the primals, as calls.gradients has them."""
    _, pull = jax.vjp(partial(normalized, how), primals)
    [found] = pull(dy)
    return found._replace(running_mean=None, running_var=None) if how.training else found
