"""Keras 3: gamma, beta, moving_mean and moving_variance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numpy.typing import DTypeLike

from cpubn.convert._layout import axis_of
from cpubn.convert._names import Each, Names, biased, each, of_batch_norm, their_momentum, with_old_weights
from cpubn.convert._norm import UNKNOWN, Count, Norm, Unknown
from cpubn.typing import Array

FIELDS = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}
NAMES = Names("a mapping of Keras weights", "/", FIELDS)


def from_keras(
    weights: Mapping[str, Any],
    *,
    epsilon: Each[float | Unknown] = UNKNOWN,
    momentum: Each[float | Unknown] = UNKNOWN,
    axis: Each[int] = -1,
    center: Each[bool | Unknown] = UNKNOWN,
    scale: Each[bool | Unknown] = UNKNOWN,
) -> dict[str, Norm]:
    """Every BatchNormalization among named weights by its path, '' for that of a single layer.

    weights : `{v.path: v.numpy() for v in model.weights}`, or `v.name` for one layer.
    epsilon, momentum, axis, center, scale : fields of `layer.get_config()`, in Keras's meanings: one value for all, or
        a mapping by path. epsilon and momentum are not among the weights: without epsilon ValueError asks for it
        (Keras's default is 1e-3, torch's 1e-5), momentum can wait until a layer is made. axis is -1 for channels last
        (Keras's default) or 1. Of center and scale the weights themselves tell: said as well, they must agree.

    Keras's momentum is the weight of the old average, ours 1 - momentum. Its moving variance averages biased variances
    (keras/src/layers/normalization/batch_normalization.py: `ops.moments`): `.freeze()` uses it as it stands, `.layer()`
    asks for values_per_channel. With renorm=True only inference is the same; training on from it is another method.
    """
    found = NAMES.find(weights)
    for keyword, given, name, theirs in (("center", center, "bias", "beta"), ("scale", scale, "weight", "gamma")):
        for prefix, said in each(given, keyword, found).items():
            if said is not UNKNOWN and bool(said) != (name in found[prefix]):
                raise ValueError(
                    f"{NAMES.join(prefix, theirs)} must be there where {keyword}=True and nowhere else, got "
                    f"{keyword}={said} and {'no ' if said else ''}{theirs}; "
                    "pass the layer's own config and all its weights"
                )
    return with_old_weights(found, NAMES.source, epsilon, momentum, axis, usual_epsilon=1e-3)


def to_keras(
    norms: Mapping[str, Any],
    *,
    values_per_channel: Each[Count] = UNKNOWN,
    dtype: DTypeLike = "float32",
) -> tuple[dict[str, Array], dict[str, dict[str, Any]]]:
    """Weights by path, and for each batch norm what `keras.layers.BatchNormalization` must be built with.

    norms : Norms, layers or FrozenBatchNorms by path. ValueError asks for a momentum that is unknown.
    values_per_channel : needed where the running variance is not biased, see Norm.with_variance; also by path.

    `variable.assign(weights[variable.path])` takes the weights into a model.
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
