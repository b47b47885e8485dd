"""Plans: all that a pass needs, checked, with every array in the form (outer, channel, inner) that kernels take."""

from __future__ import annotations

from typing import Any, NamedTuple

from numpy.typing import ArrayLike

from cpubn import _check
from cpubn._types import Array, Vector
from cpubn._walk import Target, Walk, new_target, target_of, walk_of


class Forward(NamedTuple):
    """Arrays and numbers of a forward pass."""

    x: Array
    y: Target
    walk: Walk
    weight: Vector
    bias: Vector
    running: tuple[Vector, Vector] | None  # mean and variance
    momentum: float
    eps: float


class Backward(NamedTuple):
    """Arrays and numbers of a backward pass."""

    dy: Array
    x: Array
    dx: Target
    walk: Walk
    mean: Vector
    var: Vector
    weight: Vector
    eps: float


class Apply(NamedTuple):
    """Arrays of a pass whose coefficients are known."""

    x: Array
    y: Target
    walk: Walk


def forward(
    x: ArrayLike,
    running_mean: Any,
    running_var: Any,
    weight: ArrayLike | None,
    bias: ArrayLike | None,
    training: bool,
    momentum: float,
    eps: float,
    layout: str,
    out: Array | None,
) -> Forward:
    x, axis = _check.batch(x, layout)
    channels = x.shape[axis]
    eps = _check.epsilon(eps, training=training)
    momentum = _check.momentum(momentum)
    walk = walk_of(x, axis)
    w = _check.optional_vector(weight, "weight", channels, layout, 1.0)
    b = _check.optional_vector(bias, "bias", channels, layout, 0.0)
    parameters = {"weight": weight, "bias": bias}
    running = _check.running_pair(running_mean, running_var, channels, layout, training=training)
    if training:
        _check.enough_values(walk, x)
        if running:
            _check.updatable(running_mean, running_var, {"x": x, **parameters})
    given = {"running_mean": running_mean, "running_var": running_var, **parameters}
    y = _target(x, out, walk, {"x": x}, given)
    return Forward(walk.view(x), y, walk, w, b, running, momentum, eps)


def backward(
    dy: ArrayLike,
    x: ArrayLike,
    mean: ArrayLike,
    var: ArrayLike,
    weight: ArrayLike | None,
    eps: float,
    training: bool,
    layout: str,
    out: Array | None,
) -> Backward:
    x, axis = _check.batch(x, layout)
    dy = _check.gradient(dy, x)
    channels = x.shape[axis]
    eps = _check.epsilon(eps, training=training)
    walk = walk_of(x, axis)
    m = _check.vector(mean, "mean", channels, layout)
    v = _check.vector(var, "var", channels, layout)
    w = _check.optional_vector(weight, "weight", channels, layout, 1.0)
    if training:
        _check.enough_values(walk, x)
    dx = _target(x, out, walk, {"dy": dy, "x": x}, {"mean": mean, "var": var, "weight": weight})
    return Backward(walk.view(dy), walk.view(x), dx, walk, m, v, w, eps)


def apply(x: ArrayLike, channels: int, layout: str, out: Array | None) -> Apply:
    x, axis = _check.batch(x, layout)
    _check.channels(x, axis, channels, layout)
    walk = walk_of(x, axis)
    return Apply(walk.view(x), _target(x, out, walk, {"x": x}, {}), walk)


def sample(x: ArrayLike, layout: str) -> tuple[Array, Walk]:
    """`x` as its walk sees it, and the walk."""
    x, axis = _check.batch(x, layout)
    walk = walk_of(x, axis)
    return walk.view(x), walk


def _target(x: Array, out: Any, walk: Walk, instead_of: dict[str, Array], apart_from: dict[str, Any]) -> Target:
    if out is None:
        return new_target(x, walk)
    _check.output(out, x, instead_of, apart_from)
    return target_of(out, walk)
