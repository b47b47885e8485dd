"""JAX: the formulas, compiled; every output is fresh."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cpubn.bench.case import EPS, Case, Prepared
from cpubn.bench.contestants import Contestant, Prepare
from cpubn.bench.contestants.numpy_ import sample_axes
from cpubn.bench.edge import FUSED, Fused
from cpubn.typing import Array

VERSION: str = jax.__version__
ACTIVATIONS: dict[str, Any] = {
    "relu": jax.nn.relu,
    "hardswish": jax.nn.hard_swish,
    "silu": jax.nn.silu,
    "gelu": partial(jax.nn.gelu, approximate=False),
}
NOTE = "every output is fresh; inputs lie in arrays of its own"


def contestants(threads: int) -> list[Contestant]:
    os.environ["NPROC"] = str(threads)  # read when its CPU client starts, which is at the first array
    jax.config.update("jax_platforms", "cpu")
    passes: dict[str, Prepare] = {
        "eval": evaluate,
        "train": train,
        "backward": backward,
        "moments": moments,
        "overhead": evaluate,
    }
    passes |= dict.fromkeys(FUSED, fused)
    return [Contestant("jax", layout, passes, NOTE) for layout in ("NCHW", "NHWC")]


def prepared(function: Callable[..., Any], *arrays: Array) -> Prepared:
    """The function, compiled, on arrays that JAX has; its first output is the result."""
    compiled, arguments = jax.jit(function), [jnp.asarray(a) for a in arrays]
    return Prepared(
        lambda: jax.block_until_ready(compiled(*arguments)),
        lambda: np.asarray(jax.tree.leaves(compiled(*arguments))[0]),
    )


def vectors(case: Case, layout: str) -> tuple[Array, ...]:
    batch = (v.astype(np.float32) for v in (case.batch_mean, case.batch_var))
    given = batch if case.op == "backward" else (case.mean, case.var)
    return tuple(case.along(v, layout) for v in (case.weight, case.bias, *given))


def evaluate(case: Case, layout: str) -> Prepared:
    def y(x: Any, weight: Any, bias: Any, mean: Any, var: Any) -> Any:
        return (x - mean) * (weight / jnp.sqrt(var + EPS)) + bias

    return prepared(y, case.x(layout), *vectors(case, layout))


def fused(case: Fused, layout: str) -> Prepared:
    act, given = ACTIVATIONS[case.activation], case.residual(layout)
    residuals = () if given is None else (given,)

    def y(x: Any, weight: Any, bias: Any, mean: Any, var: Any, *residuals: Any) -> Any:
        return act(sum(residuals, (x - mean) * (weight / jnp.sqrt(var + EPS)) + bias))

    return prepared(y, case.x(layout), *vectors(case, layout), *residuals)


def train(case: Case, layout: str) -> Prepared:
    axes = sample_axes(case, layout)

    def y_and_moments(x: Any, weight: Any, bias: Any) -> Any:
        mean, var = jnp.mean(x, axes, keepdims=True), jnp.var(x, axes, keepdims=True)
        return (x - mean) * (weight / jnp.sqrt(var + EPS)) + bias, mean, var

    return prepared(y_and_moments, case.x(layout), *vectors(case, layout)[:2])


def backward(case: Case, layout: str) -> Prepared:
    axes = sample_axes(case, layout)

    def gradients(dy: Any, x: Any, weight: Any, bias: Any, mean: Any, var: Any) -> Any:
        rstd = 1 / jnp.sqrt(var + EPS)
        x_hat = (x - mean) * rstd
        dbias, dweight = jnp.sum(dy, axes, keepdims=True), jnp.sum(dy * x_hat, axes, keepdims=True)
        return weight * rstd * (dy - (dbias + x_hat * dweight) / case.layer.samples), dweight, dbias

    return prepared(gradients, case.dy(layout), case.x(layout), *vectors(case, layout))


def moments(case: Case, layout: str) -> Prepared:
    axes = sample_axes(case, layout)
    return prepared(lambda x: jnp.stack((jnp.mean(x, axes), jnp.var(x, axes))), case.x(layout))
