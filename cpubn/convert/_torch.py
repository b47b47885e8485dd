"""torch: a model's state_dict."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from cpubn.convert._names import Each, Names, build, cast, each, of_batch_norm, own, required
from cpubn.convert._norm import UNKNOWN, Count, Momentum, Norm, Unknown, plain
from cpubn.typing import Array

FIELDS = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
NAMES = Names("a torch state_dict", ".", {name: name for name in FIELDS})


def from_torch(
    state: Mapping[str, Any],
    *,
    eps: Each[float | Unknown] = UNKNOWN,
    momentum: Each[Momentum] = UNKNOWN,
) -> dict[str, Norm]:
    """Every batch norm of a state_dict by its prefix, '' for that of a single layer.

    state : `model.state_dict()`, of tensors of any floating dtype or arrays. A batch norm is what has `running_mean`
        and `running_var`; the rest is ignored, and so is a layer with track_running_stats=False. An instance norm that
        tracks them looks the same.
    eps, momentum : a state_dict holds neither. One value for all, or a mapping by prefix, for example
        `{name: m.eps for name, m in model.named_modules() if isinstance(m, torch.nn.BatchNorm2d)}`. Without eps
        ValueError asks for it; momentum (None: the cumulative average) can wait until a layer is made.

    torch's running variance averages unbiased variances, as cpubn's does (torch/nn/modules/batchnorm.py: "the moving
    average of variance is calculated via the unbiased estimator").
    """
    found = NAMES.find(state)
    for prefix, values in found.items():
        if "num_batches_tracked" in values:
            values["num_batches_tracked"] = of_batch_norm(prefix, _count, values["num_batches_tracked"])
        if "bias" in values and "weight" not in values:
            raise ValueError(
                f"a torch state_dict must hold weight where it holds bias, got no {NAMES.join(prefix, 'weight')}; "
                "pass the whole of it"
            )
    return build(
        found,
        eps=required(eps, "eps", found, NAMES.source, 1e-5),
        momentum=each(momentum, "momentum", found),
        variance=each("unbiased", "variance", found),
    )


def to_torch(
    norms: Mapping[str, Any],
    *,
    values_per_channel: Each[Count] = UNKNOWN,
    dtype: DTypeLike = "float32",
) -> dict[str, Array]:
    """A state_dict's keys, with arrays: `{k: torch.from_numpy(v) for k, v in to_torch(norms).items()}` is its tensors.

    norms : Norms, layers or FrozenBatchNorms by prefix.
    values_per_channel : needed where the running variance is not unbiased, see Norm.with_variance; also by prefix.
    dtype : of all but num_batches_tracked, which is 0 where it is unknown, as torch takes old state_dicts.

    A batch norm with one of weight and bias gets the other as ones or zeros; one with neither has no such keys
    (affine=False). eps and momentum are for torch's constructor: `norm.eps`, `norm.momentum`.
    """
    norms = own(norms)
    counts = each(values_per_channel, "values_per_channel", norms)
    state: dict[str, Array] = {}
    for prefix, norm in norms.items():
        values = of_batch_norm(prefix, norm.state_dict, counts[prefix])
        count = values.pop("num_batches_tracked", np.array(0, np.int64))
        for name, vector in values.items():
            state[NAMES.join(prefix, name)] = cast(vector, NAMES.join(prefix, name), dtype)
        state[NAMES.join(prefix, "num_batches_tracked")] = count
    return state


def _count(value: Any) -> int:
    array = plain(value, "num_batches_tracked")
    if array.dtype.kind not in "iu" or array.size != 1:
        raise TypeError(f"num_batches_tracked must be a whole number, got {value!r}; pass np.int64(count)")
    return int(array.item())
