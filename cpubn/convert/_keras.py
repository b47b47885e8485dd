"""Keras 3: gamma, beta, moving_mean and moving_variance."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeAlias

from numpy.typing import DTypeLike

from cpubn.ask import check
from cpubn.ask.files import file_path
from cpubn.convert._keras_files import Found, norms_in
from cpubn.convert._layout import axis_of, layout_of
from cpubn.convert._names import (
    Each,
    Names,
    biased,
    each,
    errors_of,
    listed,
    of_batch_norm,
    old_weight,
    replaced,
    their_momentum,
    with_old_weights,
)
from cpubn.convert._norm import UNKNOWN, Count, Norm, Unknown, finite_vector
from cpubn.convert._sources import content_errors
from cpubn.typing import Array, Vector

FIELDS = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}
NAMES = Names("a set of Keras weights", "/", FIELDS, r"(:\d+|/\.ATTRIBUTES/VARIABLE_VALUE)$")
CHECKS: dict[str, Callable[[Any], Any]] = {
    "epsilon": partial(check.epsilon, training=False),
    "momentum": old_weight,
    "axis": layout_of,
}
Source: TypeAlias = "str | os.PathLike[str] | Mapping[str, Any]"


def from_keras(
    weights: Source,
    *,
    epsilon: Each[float | Unknown] = UNKNOWN,
    momentum: Each[float | Unknown] = UNKNOWN,
    axis: Each[Any] = UNKNOWN,
    center: Each[bool | Unknown] = UNKNOWN,
    scale: Each[bool | Unknown] = UNKNOWN,
) -> dict[str, Norm]:
    """Every BatchNormalization of a file, or among named weights, by its path, '' for that of a single layer.

    Parameters
    ----------
    weights : `{v.path: v.numpy() for v in model.weights}`, or a file
        Or `v.name`, also with the `:0` of Keras 2, or as a checkpoint of TF2 names its arrays
        (`.../gamma/.ATTRIBUTES/VARIABLE_VALUE`). A file is one of Keras 3, Keras 2 or
        tf.keras, .keras, .weights.h5 or .h5, models within models included, which takes h5py and no Keras. Its batch
        norms are named as the layers are, one within the other; in .h5 files as the weights are.
    epsilon, momentum, axis, center, scale : fields of `layer.get_config()`, one value for all or a mapping by path
        In Keras's meanings. A whole model's file says them, but not those of layers inside classes of its own; what is
        given replaces what it says, but one value is not taken for all where it says another of some. epsilon and
        momentum are not among the weights: without epsilon ValueError asks for it (Keras's default is 1e-3, torch's
        1e-5), momentum can wait until a layer is made. axis is 1, or the last one: -1 (Keras's default), or as a layer
        that was built says it, 3 or [3] for images. Of center and scale names tell: said as well, they must agree. A
        .weights.h5 has no names: one of them is needed where a batch norm has three vectors, and two vectors are one
        only under the name batch_normalization.

    Returns
    -------
    A dict of Norms by path.

    Raises
    ------
    ValueError : a damaged file or one of another kind, no batch norm in it, or what was given does not fit it.
    TypeError, OSError : no weights and no path; a file that cannot be opened.

    Notes
    -----
    Keras's momentum is the weight of the old average, ours 1 - momentum. Its moving variance averages biased variances
    (keras/src/layers/normalization/batch_normalization.py: `ops.moments`): `.freeze()` uses it as it stands, `.layer()`
    asks for values_per_channel. Those of images are unbiased in Keras 2 and tf.keras, which leave them to TensorFlow's
    fused kernel: `values_per_channel=None` keeps them. With renorm=True only inference is the same; training on from it
    is another method. Of a file's arrays, only what it holds itself is read.

    Examples
    --------
    >>> weights, config = convert.to_keras({"bn": cpubn.BatchNorm2d(3)}, values_per_channel=None)
    >>> convert.from_keras(weights, epsilon=1e-3, axis=1)["bn"].eps
    0.001
    """
    given = {"epsilon": epsilon, "momentum": momentum, "axis": axis, "center": center, "scale": scale}
    if not isinstance(weights, str | os.PathLike):
        return _built(NAMES.find(weights), given)
    path = file_path(weights)
    file = norms_in(path, NAMES)
    with content_errors(path):
        said = {keyword: _said(file, keyword) for keyword in given}
    with errors_of(path):
        known = {keyword: _known(said[keyword], value, keyword) for keyword, value in given.items()}
    with content_errors(path):
        found = {
            prefix: of_batch_norm(prefix, _fields, norm.weights, known["center"][prefix], known["scale"][prefix])
            for prefix, norm in file.items()
        }
    with errors_of(path):
        return _built(found, known)


def _said(file: Mapping[str, Found], keyword: str) -> dict[str, Any]:
    """What a file's config says of each batch norm, checked."""
    said: dict[str, Any] = {}
    for name, norm in file.items():
        said[name] = value = norm.config.fields.get(keyword, UNKNOWN) if norm.config else UNKNOWN
        if value is not UNKNOWN and keyword in CHECKS:
            of_batch_norm(name, CHECKS[keyword], value)
    return said


def _known(said: Mapping[str, Any], given: Any, keyword: str) -> dict[str, Any]:
    """What is said or given; one value that is for those of which nothing is said shall not replace another's."""
    asked = [name for name, value in said.items() if value is UNKNOWN]
    others = [name for name, value in said.items() if value is not UNKNOWN and value != given]
    if asked and others and given is not UNKNOWN and not isinstance(given, Mapping):
        raise ValueError(
            f"{keyword} must be given by name, because the file says another than {given!r} of "
            f"{listed(map(repr, others))}, got one for all; pass {keyword}={{name: {given!r}}} for "
            f"{listed(map(repr, asked))}"
        )
    return replaced(said, given, keyword)


def _fields(weights: Mapping[str, Any], center: Any, scale: Any) -> dict[str, Any]:
    """A file's vectors by our names; those that have numbers get the names that center and scale leave."""
    if not all(key.isdecimal() for key in weights):
        return {FIELDS[key]: _vector(value, key) for key, value in weights.items()}
    if len(weights) == 4 or len(weights) == 2:
        there = [len(weights) == 4] * 2
    elif UNKNOWN in (center, scale) and center is scale:
        raise ValueError(
            f"center or scale must be given, because the file does not say whether its {len(weights)} vectors are with "
            "gamma or beta, got neither; pass scale=False or center=False, or a mapping by name"
        )
    else:
        there = [
            bool(scale) if scale is not UNKNOWN else not center,
            bool(center) if center is not UNKNOWN else not scale,
        ]
    names = [name for name, is_there in zip(FIELDS, (*there, True, True), strict=True) if is_there]
    if len(names) != len(weights):
        raise ValueError(f"it must hold the vectors {', '.join(names)}, got {len(weights)}; save it again")
    return {FIELDS[name]: _vector(value, name) for name, value in zip(names, weights.values(), strict=True)}


def _vector(value: Any, name: str) -> Vector:
    if value is None:
        raise ValueError(f"{name} must be a vector of floating numbers in the file itself, got another kind of array")
    return finite_vector(value, name)


def _built(found: Mapping[str, Mapping[str, Any]], given: Mapping[str, Any]) -> dict[str, Norm]:
    for keyword, name, theirs in (("center", "bias", "beta"), ("scale", "weight", "gamma")):
        for prefix, said in each(given[keyword], keyword, found).items():
            if said is not UNKNOWN and bool(said) != (name in found[prefix]):
                raise ValueError(
                    f"{NAMES.join(prefix, theirs)} must be there where {keyword}=True and nowhere else, got "
                    f"{keyword}={said} and {'no ' if said else ''}{theirs}; "
                    "pass the layer's own config and all its weights"
                )
    axes = {prefix: -1 if axis is UNKNOWN else axis for prefix, axis in each(given["axis"], "axis", found).items()}
    return with_old_weights(found, NAMES.source, given["epsilon"], given["momentum"], axes, usual_epsilon=1e-3)


def to_keras(
    norms: Mapping[str, Any],
    *,
    values_per_channel: Each[Count] = UNKNOWN,
    dtype: DTypeLike = "float32",
) -> tuple[dict[str, Array], dict[str, dict[str, Any]]]:
    """Weights by path, and for each batch norm what `keras.layers.BatchNormalization` must be built with.

    Parameters
    ----------
    norms : Norms, layers or FrozenBatchNorms by path. ValueError asks for a momentum that is unknown.
    values_per_channel : needed where the running variance is not biased, see Norm.with_variance; also by path.
    dtype : of the weights.

    Returns
    -------
    weights, config : arrays by path; by the norm's path the epsilon, momentum and so on of Keras's layer

    Raises
    ------
    ValueError, TypeError : a number is unknown, or not finite in dtype.

    Notes
    -----
    `variable.assign(weights[variable.path])` takes the weights into a model.

    Examples
    --------
    >>> weights, config = convert.to_keras({"bn": cpubn.BatchNorm2d(3)}, values_per_channel=None)
    >>> sorted(weights), round(config["bn"]["momentum"], 3)
    (['bn/beta', 'bn/gamma', 'bn/moving_mean', 'bn/moving_variance'], 0.9)
    """
    norms = biased(norms, values_per_channel)
    config = {
        prefix: {
            "axis": axis_of(norm.layout),
            "momentum": of_batch_norm(prefix, their_momentum, norm, "Keras"),
            "epsilon": norm.eps,
            "center": norm.bias is not None,
            "scale": norm.weight is not None,
        }
        for prefix, norm in norms.items()
    }
    return NAMES.write(norms, dtype), config
