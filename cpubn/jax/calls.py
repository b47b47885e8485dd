"""The calls of XLA that handlers.cpp answers, and what they are differentiated by.

Operands and results stand in its order; of what there is none, an array without elements is passed.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cpubn.jax import formulas, library

NOTHING = np.zeros(0, np.float32)


class How(NamedTuple):
    """What is known when a function is traced, and can be compared: there is no NaN in it."""

    channel: int  # the channels' axis
    training: bool
    momentum: float
    eps: float
    activation: int  # its code, 0 for none
    numbers: tuple[float, ...]  # its own
    keeps_output: bool  # whether that is what its gradient is made of


class Primals(NamedTuple):
    """What y is a function of; None for what is not there."""

    x: Any
    running_mean: Any
    running_var: Any
    weight: Any
    bias: Any
    residual: Any


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def forward(how: How, primals: Primals) -> tuple[Any, Any, Any, Any]:
    """y; in training the new running_mean and running_var; and stats, (3, C) float64 by their bits, or None."""
    x, mean, var, *_ = primals
    channels = x.shape[how.channel]
    results = [x, *((mean, var, jnp.zeros((3, 2 * channels), jnp.uint32)) if how.training else (None,) * 3)]
    y, mean, var, stats = _call("forward", how, list(primals), results)
    return y, mean, var, stats


def _forward_kept(how: How, primals: Primals) -> Any:
    results = forward(how, primals)  # by its own name, so that this can be differentiated, too
    return results, (primals, results[3], results[0] if how.keeps_output else None)


def _forward_pulled(how: How, kept: Any, gradients_of_results: Any) -> tuple[Primals]:
    return (gradients(how, gradients_of_results[0], *kept),)


forward.defvjp(_forward_kept, _forward_pulled)
# Outside of what is compiled, a call is compiled by itself, once for each shape: it took 2.5 ms, and takes 0.06.
batch_norm = jax.jit(forward, static_argnums=0, inline=True)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def gradients(how: How, dy: Any, primals: Primals, stats: Any, output: Any) -> Primals:
    """Of dy, the gradient of each of the primals; where it is none, in training of the running statistics, None."""
    x, mean, var, weight, bias, residual = primals
    sums = jnp.zeros(x.shape[how.channel], jnp.result_type(float))  # the widest that there is
    added = None if how.keeps_output or not how.activation else residual
    operands = [dy, x, mean, var, weight, bias, added, stats, output]
    dx, dweight, dbias, g = _call("backward", how, operands, [x, sums, sums, residual])
    dmean = dvar = None
    if not how.training:
        r = 1 / jnp.sqrt(var + how.eps)
        scale = -r if weight is None else -r * weight
        dmean, dvar = (scale * dbias).astype(mean.dtype), (0.5 * scale * r * dweight).astype(var.dtype)
    dweight = None if weight is None else dweight.astype(weight.dtype)
    dbias = None if bias is None else dbias.astype(bias.dtype)
    return Primals(dx, dmean, dvar, dweight, dbias, g)


def _gradients_kept(how: How, dy: Any, primals: Primals, stats: Any, output: Any) -> Any:
    return gradients(how, dy, primals, stats, output), (dy, primals)


def _gradients_pulled(how: How, kept: Any, gradients_of_results: Any) -> tuple[Any, ...]:
    """By JAX's own gradients of the formula; stats and output count there, being functions of the primals."""
    _, pull = jax.vjp(partial(formulas.gradients, how), *kept)
    return (*pull(gradients_of_results), None, None)


gradients.defvjp(_gradients_kept, _gradients_pulled)


def _call(name: str, how: How, operands: list[Any], results: list[Any]) -> list[Any]:
    """The results, each like the array that stands for it, and None where that is None."""
    library.register()
    like = [jax.ShapeDtypeStruct(np.shape(a), a.dtype) for a in (NOTHING if r is None else r for r in results)]
    call = jax.ffi.ffi_call(library.TARGETS[name], like, vmap_method="expand_dims")
    low, high = (*how.numbers, 0.0, 0.0)[:2]
    made = call(
        *(NOTHING if a is None else a for a in operands),
        rank=np.int64(np.ndim(results[0])),
        channel=np.int64(how.channel),
        training=np.int64(how.training),
        activation=np.int64(how.activation),
        low=np.float64(low),
        high=np.float64(high),
        eps=np.float64(how.eps),
        momentum=np.float64(how.momentum),
    )
    return [None if wanted is None else a for a, wanted in zip(made, results, strict=True)]
