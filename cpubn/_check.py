"""Validation: everything that can be wrong with what a user passes is found here, before anything is written.

Each message says what must hold, what was got and what to do.
"""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from cpubn._types import Array, Layout, Vector
from cpubn._walk import Walk, is_same, overlap, overlaps_itself

SINGLE_OR_DOUBLE = "float32", "float64"
FLOATS = "float16", "bfloat16", *SINGLE_OR_DOUBLE
INTEGERS = "uint8", "int8", "uint16", "int16"


def data(a: ArrayLike, name: str, kinds: tuple[str, ...] = SINGLE_OR_DOUBLE) -> Array:
    """An array of one of some types, of either byte order."""
    if isinstance(a, np.ma.MaskedArray):
        raise TypeError(f"{name} must be a plain array, got a masked array; fill it first with {name}.filled(value)")
    try:
        array = np.asarray(a)
    except Exception as error:  # a list of lists of many lengths, or a tensor that needs detaching first
        raise TypeError(f"{name} must be an array, got {type(a).__name__}: {error}; pass an array of it") from error
    if array.dtype.name not in kinds:
        raise TypeError(
            f"{name} must be an array of {alternatives(kinds)}, got {type(a).__name__} of {array.dtype}; "
            f"convert it, for example with np.asarray({name}, dtype='{'float32' if 'float32' in kinds else kinds[0]}')"
        )
    return array


def alternatives(names: tuple[str, ...]) -> str:
    return " or ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def layout_name(layout: Any, name: str = "layout") -> Layout:
    if not isinstance(layout, str) or layout not in ("NCHW", "NHWC"):
        raise ValueError(
            f"{name} must be 'NCHW' (channels on axis 1, for any rank) or 'NHWC' (channels last), got {layout!r}"
        )
    return layout  # type: ignore[return-value]


def batch(x: ArrayLike, layout: str, kinds: tuple[str, ...] = FLOATS) -> tuple[Array, int]:
    """The data of a batch, and its channel axis."""
    layout_name(layout)
    array = data(x, "x", kinds)
    if not 2 <= array.ndim <= 5:
        raise ValueError(
            f"x must have 2 to 5 dimensions, got {array.ndim} with shape {array.shape}; "
            "a single sample needs a batch axis: x[np.newaxis]"
        )
    return array, channel_axis(array, layout)


def channel_axis(x: Array, layout: str) -> int:
    return 1 if layout == "NCHW" else x.ndim - 1


def channels(x: Array, axis: int, expected: int, layout: str) -> None:
    if x.shape[axis] != expected:
        raise ValueError(
            f"x must have {expected} channels on axis {axis} (layout {layout!r}), got {x.shape[axis]} "
            f"in shape {x.shape}; check the layout, or build the layer for {x.shape[axis]} channels"
        )


def layer_input(x: ArrayLike, layer: str, ranks: tuple[int, ...], features: int, layout: str) -> Array:
    array, axis = batch(x, layout)
    if array.ndim not in ranks:
        wanted = " or ".join(map(str, ranks))
        raise ValueError(
            f"{layer} takes x of {wanted} dimensions, got {array.ndim} with shape {array.shape}; "
            "use the layer for that rank (1d: 2 or 3 dimensions, 2d: 4, 3d: 5)"
        )
    channels(array, axis, features, layout)
    return array


def gradient(dy: ArrayLike, x: Array) -> Array:
    """A gradient of x's shape and dtype."""
    array = data(dy, "dy", FLOATS)
    if array.shape != x.shape:
        raise ValueError(f"dy must have x's shape {x.shape}, got {array.shape}; pass the gradient of the output")
    if array.dtype.type != x.dtype.type:
        raise TypeError(f"dy must have x's dtype {x.dtype}, got {array.dtype}; convert it with dy.astype(x.dtype)")
    return array


def vector(v: ArrayLike, name: str, count: int, layout: str) -> Vector:
    """A per-channel vector as contiguous, aligned float64 of shape (count,)."""
    array = data(v, name)
    if array.shape != (count,):
        raise ValueError(
            f"{name} must have shape ({count},), the channels of x (layout {layout!r}), got {array.shape}; "
            "pass one value per channel, or check the layout"
        )
    return np.require(array, np.float64, ["C", "A"])


def channel_vector(v: ArrayLike, name: str) -> Array:
    """A vector whose length says how many channels there are."""
    array = data(v, name)
    if array.ndim != 1:
        raise ValueError(f"{name} must have shape (C,), got {array.shape}; pass one value per channel")
    return array


def optional_vector(v: ArrayLike | None, name: str, count: int, layout: str, default: float) -> Vector:
    return np.full(count, default) if v is None else vector(v, name, count, layout)


def running_pair(mean: Any, var: Any, count: int, layout: str, *, training: bool) -> tuple[Vector, Vector] | None:
    """Running statistics, or None where there are none, as may be in training."""
    if (mean is None) != (var is None):
        missing = "running_mean" if mean is None else "running_var"
        raise ValueError(f"running_mean and running_var must come together, got no {missing}; pass both or neither")
    if mean is not None:
        return vector(mean, "running_mean", count, layout), vector(var, "running_var", count, layout)
    if not training:
        raise ValueError(
            "running_mean and running_var must be given where training=False, got None; "
            "pass them, or training=True to normalize with the batch's own statistics"
        )
    return None


def updatable(mean: Any, var: Any, apart_from: dict[str, Any]) -> None:
    """Running statistics that training can update in place."""
    for name, v in (("running_mean", mean), ("running_var", var)):
        if not isinstance(v, np.ndarray):
            raise TypeError(
                f"{name} must be a NumPy array, because training updates it in place, got {type(v).__name__}; "
                f"pass np.asarray({name}, dtype=np.float64) and keep it"
            )
        if not v.flags.writeable:
            raise ValueError(
                f"{name} must be writeable, because training updates it, got a read-only array; pass a copy"
            )
        if overlaps_itself(v):
            raise ValueError(f"{name} must not overlap itself, got strides {v.strides}; pass a copy")
        for other_name, other in apart_from.items():
            if other is not None and overlap(v, np.asarray(other)):
                raise ValueError(
                    f"{name} must not overlap {other_name}, got memory that does; pass a copy of one of them"
                )
    if overlap(mean, var):
        raise ValueError("running_mean and running_var must be two arrays, got overlapping memory; copy one of them")


def output(
    out: Any, shape: tuple[int, ...], dtype: np.dtype[Any], instead_of: dict[str, Any], apart_from: dict[str, Any]
) -> None:
    """An array to write to: it may be one of `instead_of`, and must overlap nothing else."""
    make = f"np.empty({shape}, {dtype.name!r})"
    if not isinstance(out, np.ndarray) or isinstance(out, np.ma.MaskedArray):
        raise TypeError(f"out must be a NumPy array, got {type(out).__name__}; allocate it with {make}")
    if out.shape != shape:
        raise ValueError(f"out must have the result's shape {shape}, got {out.shape}; allocate it with {make}")
    if out.dtype.type != dtype.type:
        raise TypeError(f"out must have the result's dtype {dtype.name}, got {out.dtype}; allocate it with {make}")
    if not out.flags.writeable:
        raise ValueError("out must be writeable, got a read-only array; pass a copy of it: out.copy()")
    if overlaps_itself(out):
        raise ValueError(f"out must not overlap itself, got strides {out.strides} for shape {out.shape}; pass a copy")
    for name, other in (*instead_of.items(), *apart_from.items()):
        if other is None or not overlap(out, np.asarray(other)):
            continue
        if name in apart_from:
            raise ValueError(f"out must not overlap {name}, got memory that does; pass an array of its own")
        if not is_same(out, other):
            raise ValueError(
                f"out must be {alternatives(tuple(n for n, a in instead_of.items() if a is not None))} itself "
                f"or apart from it, got memory that partly overlaps {name}; pass an array of its own"
            )


def enough_values(walk: Walk, x: Array) -> None:
    if walk.samples == 1 and x.size:
        raise ValueError(
            f"the batch's own statistics need more than 1 value per channel, got x of shape {x.shape}; "
            "pass a larger batch, or normalize with running statistics (training=False, or eval() of a tracked layer)"
        )


def number(value: Any, name: str, what: str, low: float, high: float, usual: float) -> float:
    """A real number from low to high."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be {what}, got {value!r}; pass a float, usually {usual}")
    try:
        number = float(value)
    except OverflowError:
        number = float("inf")
    if not low <= number <= high:  # NaN fails this too
        raise ValueError(f"{name} must be {what}, got {number}; it is usually {usual}")
    return number


def epsilon(eps: Any, *, training: bool) -> float:
    value = number(eps, "eps", "a finite number of at least 0", 0.0, float(np.finfo(np.float64).max), 1e-5)
    if training and value == 0.0:
        raise ValueError("eps must be above 0 in training, where a constant channel has variance 0, got 0; try 1e-5")
    return value


def momentum(value: Any) -> float:
    return number(value, "momentum", "a number from 0 to 1, the weight of the new batch", 0.0, 1.0, 0.1)


def count(value: Any, name: str, what: str) -> int:
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} must be a whole number, got {value!r}; pass {what}")
    if value < 0:
        raise ValueError(f"{name} must be at least 0, got {value}; pass {what}")
    return int(value)


def dtype_of(dtype: DTypeLike) -> np.dtype[Any] | None:
    """A dtype, or None where that names none."""
    try:
        return None if dtype is None else np.dtype(dtype)
    except TypeError:
        return None


def parameter_dtype(dtype: DTypeLike) -> np.dtype[Any]:
    """The dtype of weight and bias."""
    kind = dtype_of(dtype)
    if kind is None or kind.name not in SINGLE_OR_DOUBLE:
        raise TypeError(
            f"dtype must be float32 or float64, got {kind or repr(dtype)}; the data's own dtype need not be the same"
        )
    return kind.newbyteorder("=")


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
        array = np.asarray(value)
        if array.dtype.kind not in "iu":
            raise TypeError(f"{name} must be a whole number, got {value!r}; pass np.int64(count)")
        if array.shape != () or not 0 <= array < 2**63:
            raise ValueError(f"{name} must be a whole number of at least 0, got {value!r}; pass np.int64(count)")
        return array
    array = data(value, name)
    if array.shape != current.shape:
        raise ValueError(
            f"{name} must have shape {current.shape}, got {array.shape}; build the layer for that many channels"
        )
    with np.errstate(over="ignore"):
        cast = array.astype(current.dtype)
    if (np.isinf(cast) & ~np.isinf(array)).any():
        raise ValueError(
            f"{name} must fit the layer's {current.dtype}, got {np.abs(array).max()}; use a layer with dtype='float64'"
        )
    return cast


def own_vectors(given: Mapping[str, ArrayLike]) -> dict[str, Vector]:
    """Copies of the vectors of moments."""
    vectors = {name: np.array(data(value, name), dtype=np.float64) for name, value in given.items()}
    shape = vectors["mean"].shape
    for name, value in vectors.items():
        if value.ndim != 1 or value.shape != shape:
            raise ValueError(
                f"{name} must have shape (C,), one for mean, m2 and low, got {value.shape}; pass one value per channel"
            )
    if (vectors["m2"] < 0.0).any():
        raise ValueError(f"m2 must be at least 0, got {vectors['m2'].min()}; pass sum((x - mean)**2)")
    return vectors


def degrees_of_freedom(values: int, ddof: Any) -> float:
    ddof = number(ddof, "ddof", "a number of at least 0", 0.0, float("inf"), 0)
    if values <= ddof:
        raise ValueError(
            f"var(ddof={ddof:g}) needs more than {ddof:g} values per channel, got {values}; merge more first"
        )
    return float(values - ddof)


def mergeable(moments: Any, other: Any) -> None:
    if not isinstance(other, type(moments)):
        raise TypeError(f"other must be Moments, got {type(other).__name__}; compute it with cpubn.moments(x)")
    if other.mean.shape != moments.mean.shape:
        raise ValueError(
            f"other must have {len(moments.mean)} channels like these moments, got {len(other.mean)}; "
            "merge moments of the same layer"
        )
