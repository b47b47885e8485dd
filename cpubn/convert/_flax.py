"""Flax: linen's variables, and the state of nnx."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import DTypeLike

from cpubn.convert._layout import axis_of
from cpubn.convert._names import Each, Names, biased, of_batch_norm, their_momentum, with_old_weights
from cpubn.convert._norm import UNKNOWN, Count, Norm, Unknown
from cpubn.typing import Array

FIELDS = {"scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
NAMES = Names("Flax variables", "/", FIELDS)
COLLECTIONS = {"scale": "params", "bias": "params", "mean": "batch_stats", "var": "batch_stats"}
Path: TypeAlias = tuple[Any, ...]


def from_flax(
    variables: Mapping[Any, Any],
    *,
    epsilon: Each[float | Unknown] = UNKNOWN,
    momentum: Each[float | Unknown] = UNKNOWN,
    axis: Each[int] = -1,
) -> dict[str, Norm]:
    """Every BatchNorm by its path in the tree, for example 'Block_0/BatchNorm_1', and '' for that of a single layer.

    Parameters
    ----------
    variables : linen's `{"params": ..., "batch_stats": ...}`, or nnx's `nnx.to_pure_dict(nnx.state(model))`
        Of nnx one tree holds both.
    epsilon, momentum, axis : of the modules, in Flax's meanings, one value for all or a mapping by path
        No tree holds them: without epsilon ValueError asks for it, momentum can wait until a layer is made. axis is -1
        (Flax's default), the same by its number, or 1. use_scale=False and use_bias=False show in the tree.

    Returns
    -------
    A dict of Norms by path.

    Raises
    ------
    ValueError, TypeError : no batch norm is there, or what was given does not fit the tree.

    Notes
    -----
    Flax's momentum is the weight of the old average, ours 1 - momentum. Its running variance averages biased variances
    (flax/linen/normalization.py: `_compute_stats`): `.freeze()` uses it as it stands, `.layer()` asks for
    values_per_channel.

    Examples
    --------
    >>> variables, config = convert.to_flax({"bn": cpubn.BatchNorm2d(3)}, values_per_channel=None)
    >>> convert.from_flax(variables, epsilon=1e-5, axis=1)["bn"].num_features
    3
    """
    found = NAMES.find({name: leaf for name, (_, leaf) in _leaves(variables).items()})
    return with_old_weights(found, NAMES.source, epsilon, momentum, axis, usual_epsilon=1e-5)


def to_flax(
    norms: Mapping[str, Any],
    into: Mapping[Any, Any] | None = None,
    *,
    values_per_channel: Each[Count] = UNKNOWN,
    dtype: DTypeLike = "float32",
) -> tuple[dict[Any, Any], dict[str, dict[str, Any]]]:
    """linen's variables, or a copy of `into` with new numbers; and for each what BatchNorm must be built with.

    Parameters
    ----------
    norms : Norms, layers or FrozenBatchNorms by path. ValueError asks for a momentum that is unknown.
    into : variables or an nnx pure dict that has these paths; all else in it is kept. None makes linen's variables.
    values_per_channel : needed where the running variance is not biased, see Norm.with_variance; also by path.
    dtype : of all arrays that are made.

    Returns
    -------
    variables, config : a tree of arrays; by path the epsilon, momentum and so on of Flax's BatchNorm

    Raises
    ------
    ValueError, TypeError : a number is unknown, not finite in dtype, or `into` has no such path or shape.

    Examples
    --------
    >>> variables, config = convert.to_flax({"bn": cpubn.BatchNorm2d(3)}, values_per_channel=None)
    >>> sorted(variables), sorted(variables["params"]["bn"])
    (['batch_stats', 'params'], ['bias', 'scale'])
    """
    norms = biased(norms, values_per_channel)
    arrays = NAMES.write(norms, dtype)
    tree: dict[Any, Any] = {"params": {}, "batch_stats": {}}
    if into is None:
        for name, array in arrays.items():
            *path, field = name.split(NAMES.separator)
            branch = tree[COLLECTIONS[field]]
            for key in path:
                branch = branch.setdefault(key, {})
            branch[field] = array
    else:
        leaves = _leaves(into)
        places = {name: leaves[name] for p in norms for name in (NAMES.join(p, f) for f in FIELDS) if name in leaves}
        _same_shapes(arrays, {name: np.shape(leaf) for name, (_, leaf) in places.items()})
        tree = _replaced(into, {places[name][0]: array for name, array in arrays.items()})
    config = {
        prefix: {
            "axis": axis_of(norm.layout),
            "momentum": of_batch_norm(prefix, their_momentum, norm, "Flax"),
            "epsilon": norm.eps,
            "use_bias": norm.bias is not None,
            "use_scale": norm.weight is not None,
        }
        for prefix, norm in norms.items()
    }
    return tree, config


def _leaves(tree: Any) -> dict[str, tuple[Path, Any]]:
    """Path and value of every leaf by its name, which leaves out linen's collection."""
    if not isinstance(tree, Mapping):
        raise TypeError(
            f"Flax variables must be nested mappings, got {type(tree).__name__}; "
            "pass linen's variables, or nnx.to_pure_dict(nnx.state(model))"
        )
    linen = "batch_stats" in tree or "params" in tree
    if linen:
        tree = {key: tree[key] for key in ("params", "batch_stats") if key in tree}
    leaves: dict[str, tuple[Path, Any]] = {}
    for path, leaf in _walk(tree, ()):
        name = NAMES.separator.join(map(str, path[1:] if linen else path))
        if name in leaves:
            raise ValueError(f"Flax variables must hold each name once, got {name!r} twice; rename one of the modules")
        leaves[name] = path, leaf
    return leaves


def _walk(tree: Any, path: Path) -> Iterator[tuple[Path, Any]]:
    if not isinstance(tree, Mapping):
        yield path, tree
        return
    for key, branch in tree.items():
        yield from _walk(branch, (*path, key))


def _replaced(tree: Any, new: Mapping[Path, Array], path: Path = ()) -> Any:
    if not isinstance(tree, Mapping):
        return new.get(path, tree)
    return {key: _replaced(branch, new, (*path, key)) for key, branch in tree.items()}


def _same_shapes(arrays: Mapping[str, Array], present: Mapping[str, tuple[int, ...]]) -> None:
    for name in {**arrays, **present}:
        given, there = (arrays[name].shape if name in arrays else None), present.get(name)
        if given != there:
            raise ValueError(
                f"into must hold {name} of the shape that is given, {given or 'none'}, got {there or 'none'}; "
                "pass the variables of the same modules, built with the same use_scale and use_bias"
            )
