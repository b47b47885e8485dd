"""health(): batch norms in memory, looked at channel by channel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from cpubn.backends.place import to_host
from cpubn.convert import UNKNOWN, Norm
from cpubn.convert._names import errors_of
from cpubn.frozen import FrozenBatchNorm
from cpubn.functional import moments
from cpubn.inspection.findings import Drift, Numbers, found_in
from cpubn.inspection.report import Finding, Health, NormHealth
from cpubn.layers import BatchNorm1d, BatchNorm2d, BatchNorm3d
from cpubn.statistics import Moments

LAYERS = BatchNorm1d, BatchNorm2d, BatchNorm3d
OneNorm: TypeAlias = BatchNorm1d | BatchNorm2d | BatchNorm3d | FrozenBatchNorm | Norm
Batch: TypeAlias = ArrayLike | Moments


def health(
    layers_or_norms: OneNorm | Mapping[str, OneNorm] | Sequence[OneNorm],
    batch: Batch | Mapping[str, Batch] | None = None,
) -> Health:
    """What is wrong with batch norms, or will be once they are folded into float16 or int8, by norm and channel::

        scale = weight / sqrt(running_var + eps)        shift = bias - running_mean * scale

    so that in inference y = scale * x + shift.

    Parameters
    ----------
    layers_or_norms : a layer, a FrozenBatchNorm or a convert.Norm, a mapping from names to such, or a list
        A BatchNorm1d, BatchNorm2d or BatchNorm3d has running statistics, and is in either mode; mappings are what
        convert's readers return.
    batch : inputs of the norm, in its layout, with at least 2 values per channel, or their Moments
        For example the sum of those of many batches. Of a mapping or list of norms a mapping from names to these, for
        some of them or all; a list's norms are named "0", "1" and so on.

    Returns
    -------
    A mapping from names to a record of each norm, with `findings`, and `drift` where there was a batch
        Of one norm alone the name is "". `print(report)` says the findings in a line each, `report.to_dict()` all in
        what JSON has.

    Notes
    -----
    Each kind of finding is a criterion on the vectors as they stand, computed in float64:

    broken : scale, shift or running_var is not finite, or running_var + eps is not above 0.

    negative variance : running_var < 0. In the other criteria it counts as 0.

    not updated : running_mean is 0 and running_var 1 in every channel, and num_batches_tracked is 0 or not known.

    dead : the deviation that the output has over data of the running statistics is 0, or next to nothing
        That is ``|weight| * sqrt(running_var / (running_var + eps))``; less than 2**-24 of ``|bias|`` or of the largest
        such deviation in the norm. So it is where weight is 0, and where the input never varied.

    near-constant : sqrt(running_var) is less than the step from ``float32(|running_mean|)`` to the next float32
        Or running_var is below 2**-126, the smallest normal float32.

    equal weights : the norm has a weight, of several channels, and it is the same in all of them.

    float16 overflow : np.float16(scale) or np.float16(shift) is infinite, as of a magnitude of 65520 or more.

    float16 underflow : np.float16(scale) is 0, as of a magnitude of 2**-25 or less, in a channel that is not dead.

    int8 underflow : with one step for all channels, ``step = max |scale| / 127``, the code rint(scale / step) is 0
        Of a channel that is not dead. What is then 0 in int8 are the folded weights of this
        channel, where the layer before has weights of like size for all channels. (A step for each channel has no such
        loss; Nagel et al., 2019, arXiv:1906.04721, section 3, show the loss, and another way out.)

    int8 outlier : the same of the median of all ``|scale|`` that are not 0, if this channel were the largest
        It takes the codes from half of the others.

    mean drift : with a batch, ``|batch mean - running_mean| > sqrt(running_var + eps)``.

    variance drift : with a batch, (batch variance + eps) / (running_var + eps) is above 4 or below 1 / 4
        Of the unbiased variance.

    Raises
    ------
    ValueError : for a layer without running statistics, for a batch that does not fit its norm or has fewer than 2
        values per channel, and for names that no norm has.
    TypeError : for anything else than the above.

    Examples
    --------
    >>> bn = cpubn.BatchNorm2d(3)
    >>> bn.weight = [0.0, 1.0, 2.0]
    >>> print(cpubn.health(bn))
    1 norm, 3 channels: findings in 1
    norm: not updated: all 3 channels (running_mean 0 and running_var 1, as in a new layer)
    norm: dead: channel 0 of 3 (weight 0, or an output that does not vary)
    """
    if isinstance(layers_or_norms, (*LAYERS, FrozenBatchNorm, Norm)):
        norms: dict[str, OneNorm] = {"": layers_or_norms}
        batches: dict[str, Any] = {} if batch is None else {"": batch}
    else:
        norms = _by_name(layers_or_norms)
        batches = _batches(batch, norms)
    return Health({name: _judged(name, norm, batches.get(name)) for name, norm in norms.items()})


def _by_name(given: Any) -> dict[str, OneNorm]:
    if isinstance(given, Mapping) and all(isinstance(name, str) for name in given):
        norms = dict(given)
    elif isinstance(given, list | tuple):
        norms = {str(place): norm for place, norm in enumerate(given)}
    else:
        raise TypeError(
            "layers_or_norms must be a batch norm of cpubn, a convert.Norm, or a mapping from names or a list of such, "
            f"got {type(given).__name__}; read another framework's with cpubn.convert"
        )
    for name, norm in norms.items():
        if not isinstance(norm, (*LAYERS, FrozenBatchNorm, Norm)):
            raise TypeError(
                f"{name!r} must be a BatchNorm1d, BatchNorm2d, BatchNorm3d, FrozenBatchNorm or convert.Norm, got "
                f"{type(norm).__name__}; read another framework's with cpubn.convert, and leave out other layers"
            )
    return norms


def _batches(batch: Any, norms: Mapping[str, OneNorm]) -> dict[str, Any]:
    if batch is None:
        return {}
    if not isinstance(batch, Mapping):
        raise TypeError(
            f"batch must be a mapping from the norms' names to their inputs, as there are several norms, got "
            f"{type(batch).__name__}; pass {{{next(iter(norms), 'name')!r}: inputs}}"
        )
    strangers = [name for name in batch if name not in norms]
    if strangers:
        some, known = (
            ", ".join(map(repr, list(names)[:4])) + ", ..." * (len(names) > 4) for names in (strangers, norms)
        )
        raise ValueError(f"batch must be named as the norms are, {known}, got {some}; leave out what is no norm here")
    return dict(batch)


def _judged(name: str, norm: OneNorm, batch: Batch | None) -> NormHealth:
    numbers = _numbers(name, norm)
    drift = None if batch is None else _drift(name, norm, numbers, batch)
    findings = tuple(
        Finding(kind, tuple(np.flatnonzero(mask).tolist()), tuple(values[mask].tolist()), mask.size)
        for kind, mask, values in found_in(numbers, drift)
    )
    return NormHealth(name, numbers.eps, *numbers.affine, findings, drift)


def _numbers(name: str, norm: OneNorm) -> Numbers:
    if isinstance(norm, LAYERS) and norm.running_mean is None:
        raise ValueError(
            f"{name or 'the layer'} must have running statistics, got track_running_stats=False: scale and shift are "
            "another one's in every batch; leave it out"
        )
    tracked = getattr(norm, "num_batches_tracked", None)
    mean, var, weight, bias = (
        _vector(getattr(norm, name)) for name in ("running_mean", "running_var", "weight", "bias")
    )
    return Numbers(mean, var, weight, bias, norm.eps, None if tracked is UNKNOWN else tracked)


def _vector(given: Any) -> Any:
    return None if given is None else np.array(to_host(given), np.float64)


def _drift(name: str, norm: OneNorm, numbers: Numbers, batch: Batch) -> Drift:
    where = f"batch of {name!r}" if name else "batch"
    if isinstance(norm, FrozenBatchNorm) and norm.is_quantized:
        raise ValueError(f"{where} must be None for a quantized norm, whose input's step it does not keep, got one")
    if not isinstance(batch, Moments):
        with errors_of(where):
            batch = moments(batch, layout=norm.layout)
    mean, channels = to_host(batch.mean), numbers.mean.size
    if mean.shape != (channels,):
        raise ValueError(
            f"{where} must have {channels} channels (layout {norm.layout!r}), as its norm has, got {mean.size}; "
            "pass this norm's inputs"
        )
    if batch.count < 2:
        raise ValueError(f"{where} must have at least 2 values per channel, got {batch.count}; pass a larger one")
    return Drift.between(numbers, mean, to_host(batch.var(ddof=1)), batch.count)
