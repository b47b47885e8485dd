"""Validation of what is kept: the state of a layer, moments, constants, and variances to divide by."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from cpubn.ask import check, remedy
from cpubn.backends.gpu.arrays import DeviceArray
from cpubn.backends.overlap import overlap, overlaps_itself
from cpubn.backends.place import located, place_name, to_host
from cpubn.typing import Array, Count, Vector

P = ParamSpec("P")
T = TypeVar("T")


def vectors_by_name(make: Callable[P, T]) -> Callable[P, T]:
    """A method of constants whose arguments all have names: given by position, they would be in some other order."""

    @wraps(make)
    def named(*args: P.args, **kwargs: P.kwargs) -> T:
        if len(args) > 1:
            raise TypeError(
                "weight, bias, running_mean, running_var and eps must be given by name, got "
                f"{len(args) - 1} positional argument{'s' * (len(args) > 2)}; write weight=..., bias=..., "
                "running_mean=..., running_var=... (batch_norm's order is another one)"
            )
        return make(*args, **kwargs)

    return named


def layer_state(state: Mapping[str, ArrayLike], current: Mapping[str, Array]) -> dict[str, Array]:
    """A state_dict with the layer's own keys and shapes, in its own dtypes.

    num_batches_tracked may be missing: torch's state_dicts had none before version 0.4.1.
    """
    if not isinstance(state, Mapping) or not all(isinstance(key, str) for key in state):
        raise TypeError(
            f"the state must be a mapping from names to arrays, got {type(state).__name__}; pass a state_dict"
        )
    missing, unexpected = sorted(set(current) - set(state) - {"num_batches_tracked"}), sorted(set(state) - set(current))
    if missing or unexpected:
        raise ValueError(
            f"the state must have the keys {', '.join(current)}, got {', '.join(state) or 'none'} "
            f"(missing: {', '.join(missing) or 'none'}; unexpected: {', '.join(unexpected) or 'none'}); "
            "build the layer with the same affine and track_running_stats, or strip the prefix from the keys"
        )
    return {name: _state_value(value, name, current[name]) for name, value in state.items()}


def _state_value(value: ArrayLike, name: str, current: Array) -> Array:
    if name == "num_batches_tracked":
        array = check.array_of(to_host(located(off_torch(value, name), name)), name)
        if array.dtype.kind not in "iu":
            raise TypeError(f"{name} must be a whole number, got {value!r}; pass np.int64(count)")
        if array.size != 1 or not 0 <= array.item() < 2**63:
            raise ValueError(f"{name} must be a whole number of at least 0, got {value!r}; pass np.int64(count)")
        return array.reshape(())
    array = check.data(to_host(located(off_torch(value, name), name)), name, check.NUMBERS)
    if array.shape != current.shape:
        way = remedy.for_a_vector(value, array.shape, current.size, name, "build the layer for that many channels")
        raise ValueError(f"{name} must have shape {current.shape}, got {array.shape}; {way}")
    check.exact(array, name)
    with np.errstate(all="ignore"):
        cast = array.astype(current.dtype)
        lost = np.isinf(cast) & ~np.isinf(array)
    if lost.any():
        raise ValueError(
            f"{name} must fit the layer's {current.dtype}, got {np.abs(array).max()}; use a layer with dtype='float64'"
        )
    return cast


def off_torch(value: Any, name: str) -> Any:
    """Of a torch tensor an array on the host, without an import of torch; anything else as it is."""
    if not hasattr(value, "detach"):
        return value
    try:
        tensor = value.detach().cpu()
        return tensor.double().numpy() if tensor.is_floating_point() else tensor.numpy()  # NumPy has no bfloat16
    except Exception as error:  # a tensor without data, or on a device that is not there
        raise TypeError(f"{name} must be an array, got {type(value).__name__}: {error}; pass an array of it") from error


def updatable(vectors: dict[str, Any], apart_from: dict[str, Any], who: str = "training") -> None:
    """Two vectors that a call can update in place."""
    found = {name: located(v, name) for name, v in vectors.items()}
    for name, v in found.items():
        if not isinstance(v, (np.ndarray, DeviceArray)):
            way = remedy.for_a_target(v, name, f"pass np.asarray({name}, dtype=np.float64) and keep it")
            raise TypeError(
                f"{name} must be an array, because {who} updates it in place, got {type(v).__name__}; {way}"
            )
        check.in_place(v, name, who)
        if overlaps_itself(v):
            raise ValueError(f"{name} must not overlap itself, got strides {v.strides}; pass a copy")
        for other_name, other in apart_from.items():
            if other is not None and overlap(v, other):
                raise ValueError(
                    f"{name} must not overlap {other_name}, got memory that does; pass a copy of one of them"
                )
    if overlap(*found.values()):
        names = " and ".join(found)
        raise ValueError(f"{names} must be two arrays, got overlapping memory; copy one of them")


def divisor(var: Any, eps: float, name: str = "running_var") -> None:
    """A variance that with eps can be divided by; NaN passes. One on a GPU is not looked at: that would wait for it."""
    if isinstance(var, DeviceArray):
        return
    with np.errstate(all="ignore"):
        wrong = var + eps <= 0.0
    if wrong.any():
        channel = int(wrong.argmax())
        way = "a constant channel has variance 0 and needs an eps above 0, for example 1e-5"
        if var[channel] < 0.0:
            mean = name.replace("var", "mean")
            way = f"no variance is negative: check that {mean} and {name} are not in each other's place"
        raise ValueError(
            f"{name} + eps must be above 0 in every channel, got {name} {var[channel]:g} and eps {eps:g} "
            f"in channel {channel}; {way}"
        )


def own_vectors(given: Mapping[str, ArrayLike]) -> dict[str, Vector]:
    """Copies of the vectors of moments."""
    arrays = {name: check.on_host(value, name, check.NUMBERS) for name, value in given.items()}
    for name, array in arrays.items():
        check.exact(array, name)
    vectors = {name: np.array(array, dtype=np.float64) for name, array in arrays.items()}
    shape = vectors["mean"].shape
    for name, value in vectors.items():
        if value.ndim != 1 or value.shape != shape:
            way = remedy.for_a_vector(given[name], value.shape, None, name, "pass one value per channel")
            raise ValueError(f"{name} must have shape (C,), one for mean, m2 and low, got {value.shape}; {way}")
    if (vectors["m2"] < 0.0).any():
        raise ValueError(f"m2 must be at least 0, got {vectors['m2'].min()}; pass sum((x - mean)**2)")
    return vectors


def degrees_of_freedom(values: Count, ddof: Any, name: str) -> Any:
    """A number, or of counts by channel one for each: of a channel without values, whose m2 is 0, 1."""
    ddof = check.number(ddof, "ddof", "a number of at least 0", 0.0, float("inf"), 0)
    none = np.equal(values, 0) & np.any(values)
    few = np.less_equal(values, ddof) & ~none
    if np.any(few):
        values = np.asarray(values)[few]
        raise ValueError(
            f"{name}(ddof={ddof:g}) needs more than {ddof:g} values per channel, got {np.min(values)}; merge more first"
        )
    return np.where(none, 1.0, values - ddof)


def of_kind(value: Any, kind: type, name: str = "other") -> None:
    if not isinstance(value, kind):
        raise TypeError(f"{name} must be Moments, got {type(value).__name__}; compute them with cpubn.moments(x)")


def enough_moments(moments: Any, channels: int) -> None:
    """For running statistics of that many channels."""
    if len(moments.mean) != channels:
        raise ValueError(
            f"moments must have {channels} channels like the layer, got {len(moments.mean)}; "
            "pass those of this layer's input, computed in its layout"
        )
    if np.any(np.less_equal(moments.count, 1)):
        raise ValueError(
            f"moments must have at least 2 values per channel, got {np.min(moments.count)}; merge more first"
        )


def mergeable(moments: Any, other: Any) -> None:
    of_kind(other, type(moments))
    here, there = (place_name(located(m.mean, "mean")) for m in (moments, other))
    if here != there and np.any(moments.count) and np.any(other.count):  # empty ones are as good anywhere
        raise ValueError(
            f"other must be Moments on {here} like these, got some on {there}; compute both of arrays in one place"
        )
    if other.mean.shape != moments.mean.shape:
        counts = len(moments.mean), len(other.mean)
        raise ValueError(
            f"other must have {counts[0]} channels like these moments, got {counts[1]}; "
            f"{remedy.for_other_channels(counts)}"
        )


def on_host(*vectors: Any) -> tuple[Any, ...]:
    """What the running mean is on a GPU, or None; then weight, bias, running mean and variance as host arrays."""
    given = dict(zip(("weight", "bias", "running_mean", "running_var"), vectors, strict=True))
    mean = located(given["running_mean"], "running_mean")
    check.together(mean, given, like="running_mean")
    return mean if isinstance(mean, DeviceArray) else None, *map(to_host, vectors)


def constant(vector: Vector) -> Vector:
    """A copy that cannot be written to."""
    copy = vector.copy()
    copy.flags.writeable = False
    return copy
