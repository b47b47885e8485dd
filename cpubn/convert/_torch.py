"""torch: a model's state_dict."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import DTypeLike

from cpubn.ask.files import MOST, file_path
from cpubn.convert._names import Each, Names, build, cast, each, errors_of, of_batch_norm, own, replaced, required
from cpubn.convert._norm import UNKNOWN, Count, Momentum, Norm, Unknown, finite_vector, plain
from cpubn.convert._sources import content_errors
from cpubn.convert._torch_files import as_tensor, flat, load

if TYPE_CHECKING:
    import torch

Source: TypeAlias = "str | os.PathLike[str] | Mapping[str, Any] | torch.nn.Module"
FIELDS = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
NAMES = Names("a torch state_dict", ".", {name: name for name in FIELDS})


def from_torch(
    source: Source,
    *,
    eps: Each[float | Unknown] = UNKNOWN,
    momentum: Each[Momentum] = UNKNOWN,
) -> dict[str, Norm]:
    """Every batch norm of a module, a state_dict or a file by its prefix, '' for that of a single layer.

    Parameters
    ----------
    source : a `torch.nn.Module`, a `model.state_dict()`, or a file of `torch.save` with a state_dict in it
        Of tensors of any floating dtype, or arrays. A file takes torch to read (`torch.load(path, weights_only=True)`,
        so that none of its code runs). Mappings may hold mappings, as a checkpoint does: keys are joined by dots. A
        batch norm is what has `running_mean` and `running_var`; the rest is ignored, and so is a layer with
        track_running_stats=False. SyncBatchNorm is one. An instance norm of a module is none, although it may have
        statistics; in a state_dict it looks the same.
    eps, momentum : one value for all, or a mapping by prefix
        A module says both, and what is given replaces it. A state_dict and a file hold neither. A mapping is for
        example `{name: m.eps for name, m in model.named_modules() if isinstance(m, torch.nn.BatchNorm2d)}`. Without eps
        ValueError asks for it; momentum (None: the cumulative average) can wait until a layer is made.

    Returns
    -------
    A dict of Norms by prefix.

    Raises
    ------
    ValueError : a damaged file, vectors that do not fit together, or eps is asked for.
    TypeError, OSError : no mapping, module or path; a file that cannot be opened.

    Notes
    -----
    torch's running variance averages unbiased variances, as cpubn's does (torch/nn/modules/batchnorm.py: "the moving
    average of variance is calculated via the unbiased estimator").

    Examples
    --------
    >>> state = {"1.running_mean": np.zeros(2), "1.running_var": np.ones(2), "0.weight": np.ones((2, 2))}
    >>> convert.from_torch(state, eps=1e-5)["1"].num_features
    2
    """
    if isinstance(source, str | os.PathLike):
        path = file_path(source)
        return of_file(path, load(path), eps=eps, momentum=momentum)
    if hasattr(source, "named_modules"):
        state, said = _modules(source)
        return _built(_found(state), said, eps, momentum)
    return _built(_found(source), {}, eps, momentum)


def of_file(path: str, state: Any, *, eps: Any, momentum: Any) -> dict[str, Norm]:
    """The batch norms of a state_dict that a file holds; whatever is wrong with it is a ValueError."""
    with content_errors(path):
        found = _vectors(_found(state))
    with errors_of(path):
        return _built(found, {}, eps, momentum)


def to_torch(
    norms: Mapping[str, Any],
    *,
    values_per_channel: Each[Count] = UNKNOWN,
    dtype: DTypeLike = "float32",
    tensors: bool = False,
) -> dict[str, Any]:
    """A state_dict of arrays, or of tensors, that `model.load_state_dict(state, strict=False)` takes into a model.

    Parameters
    ----------
    norms : Norms, layers or FrozenBatchNorms by prefix.
    values_per_channel : needed where the running variance is not unbiased, see Norm.with_variance; also by prefix.
    dtype : of all but num_batches_tracked, which is 0 where it is unknown, as torch takes old state_dicts.
    tensors : True makes tensors of them, for which torch is imported.

    Returns
    -------
    A dict of arrays or tensors by torch's keys.

    Raises
    ------
    ValueError, TypeError : a variance that is asked for; a number that is not finite in dtype; what is no batch norm.

    Notes
    -----
    A batch norm with one of weight and bias gets the other as ones or zeros; one with neither has no such keys
    (affine=False). eps and momentum are for torch's constructor: `norm.eps`, `norm.momentum`. strict=False because
    the rest of the model is not in it: what load_state_dict returns must name none of it as unexpected.

    Examples
    --------
    >>> sorted(convert.to_torch({"1": cpubn.BatchNorm2d(3, affine=False)}))
    ['1.num_batches_tracked', '1.running_mean', '1.running_var']
    """
    norms = own(norms)
    counts = each(values_per_channel, "values_per_channel", norms)
    state: dict[str, Any] = {}
    for prefix, norm in norms.items():
        values = of_batch_norm(prefix, norm.state_dict, counts[prefix])
        count = values.pop("num_batches_tracked", np.array(0, np.int64))
        for name, vector in values.items():
            state[NAMES.join(prefix, name)] = cast(vector, NAMES.join(prefix, name), dtype)
        state[NAMES.join(prefix, "num_batches_tracked")] = count
    return {name: as_tensor(array) for name, array in state.items()} if tensors else state


def _built(
    found: Mapping[str, Mapping[str, Any]], said: Mapping[str, Mapping[str, Any]], eps: Any, momentum: Any
) -> dict[str, Norm]:
    known = {keyword: dict.fromkeys(found, UNKNOWN) | dict(said.get(keyword, {})) for keyword in ("eps", "momentum")}
    return build(
        found,
        eps=required(replaced(known["eps"], eps, "eps"), "eps", found, NAMES.source, 1e-5),
        momentum=replaced(known["momentum"], momentum, "momentum"),
        variance=each("unbiased", "variance", found),
    )


def _found(state: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The batch norms of a state_dict."""
    found = NAMES.find(flat(state) if isinstance(state, Mapping) and all(isinstance(k, str) for k in state) else state)
    for prefix, values in found.items():
        if "num_batches_tracked" in values:
            values["num_batches_tracked"] = of_batch_norm(prefix, _count, values["num_batches_tracked"])
        if "bias" in values and "weight" not in values:
            raise ValueError(
                f"a torch state_dict must hold weight where it holds bias, got no {NAMES.join(prefix, 'weight')}; "
                "pass the whole of it"
            )
    return found


def _vectors(found: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The same of a file, whose tensors may be views that say to be far longer than they are."""
    for prefix, values in found.items():
        for name, value in values.items():
            if name == "num_batches_tracked":
                continue
            shape = tuple(np.shape(value))
            if np.prod(shape, dtype=float) * 8 > MOST:
                raise ValueError(f"{NAMES.join(prefix, name)} must have shape (C,), one value per channel, got {shape}")
            values[name] = of_batch_norm(prefix, finite_vector, value, name)
    return found


def _modules(model: torch.nn.Module) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """The state of the batch norms in a module, by their attributes, and what each of them says besides."""
    state: dict[str, Any] = {}
    said: dict[str, dict[str, Any]] = {"eps": {}, "momentum": {}}
    for prefix, module in model.named_modules(remove_duplicate=False):
        values = {name: value for name in FIELDS if (value := getattr(module, name, None)) is not None}
        kinds = [getattr(module, "original_name", ""), *(kind.__name__ for kind in type(module).__mro__)]
        if not {"running_mean", "running_var"} <= set(values) or any("InstanceNorm" in kind for kind in kinds):
            continue
        state |= {NAMES.join(prefix, name): value for name, value in values.items()}
        for keyword, of_modules in said.items():
            of_modules[prefix] = getattr(module, keyword, UNKNOWN)
    if not state:
        raise ValueError(
            f"the module must hold a batch norm with running statistics, got {type(model).__name__} without; "
            "pass the model that was trained, with track_running_stats=True"
        )
    return state, said


def _count(value: Any) -> int:
    array = plain(value, "num_batches_tracked")
    if array.dtype.kind not in "iu" or array.size != 1:
        raise TypeError(f"num_batches_tracked must be a whole number, got {value!r}; pass np.int64(count)")
    return int(array.item())
