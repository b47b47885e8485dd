"""What a call's mask, lengths, weights and treatment of NaN mean together: what each element counts for."""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

import numpy as np

from cpubn.ask import check
from cpubn.backends.gpu.arrays import DeviceArray
from cpubn.backends.interface import name_of
from cpubn.backends.overlap import overlap
from cpubn.backends.place import located, place_of, to_host
from cpubn.backends.weights import Weights
from cpubn.maths.order import LANES
from cpubn.typing import Array

PROPAGATE: Literal["propagate"] = "propagate"
OMIT = "omit"
ZERO = 0.0  # this very object, by which a call without a masked_output is known


class Asked(NamedTuple):
    """As it was given."""

    mask: Any
    lengths: Any
    weights: Any
    nan: Any
    masked_output: Any


def asked(mask: Any, lengths: Any, weights: Any, nan: Any, masked_output: Any = ZERO) -> Asked | None:
    """None where nothing was given, as in most calls."""
    if mask is lengths is weights is None and nan is PROPAGATE and masked_output is ZERO:
        return None
    return Asked(mask, lengths, weights, nan, masked_output)


def weights_of(
    x: Any, layout: str, asked: Asked, *, summed: bool, training: bool = False, out: Any = None
) -> Weights | None:
    """Of a batch; None where every element counts once. Their sums where `summed`, enough of them for `training`."""
    weights = _weights_of(x, layout, asked, summed)
    if weights is not None:
        if training:
            _enough(weights)
        if out is not None and overlap(located(out, "out"), weights.array):
            raise ValueError("out must not overlap mask or weights, got memory that does; pass an array of its own")
    return weights


def _weights_of(x: Any, layout: str, asked: Asked, summed: bool) -> Weights | None:
    filling = check.number(asked.masked_output, "masked_output", "a number", -np.inf, np.inf, 0.0)
    if not isinstance(asked.nan, str) or asked.nan not in (PROPAGATE, OMIT):
        raise ValueError(f"nan must be 'propagate' or 'omit', got {asked.nan!r}; omit lets NaN count as masked")
    x, axis = check.batch(x, layout, check.SAMPLES)
    given = {_mask: asked.mask, _within: asked.lengths, _weights: asked.weights}
    parts = [part(a, x, axis) for part, a in given.items() if a is not None]
    omits = asked.nan == OMIT and name_of(x.dtype) not in check.INTEGERS
    if not parts and not omits:
        return None
    if isinstance(x, DeviceArray):
        return _on_gpu(x, axis, parts, omits)._replace(filling=filling)
    if omits:
        parts.append(~np.isnan(x))
    product = _product(parts)
    counts = _sums(product, x, axis) if summed else None
    return Weights(np.broadcast_to(_bytes(_along(product, x, axis)), x.shape), counts, filling)


def _on_gpu(x: DeviceArray, axis: int, parts: list[Array], omits: bool) -> Weights:
    """What was given is multiplied on the host, and waits for a GPU that makes it; NaN is looked for where x is."""
    place = place_of(x)

    def beside(a: Array) -> Any:
        return place.beside(place.upload(np.ascontiguousarray(a), x.device), x)

    product = _product(parts) if parts else None
    array = None if product is None else beside(_bytes(_along(product, x, axis)))
    if omits or array is None or product is None:
        array = place.without_nan(x, array)
        return Weights(array, place.sums_of(array, axis), 0.0)
    sums = beside(_sums(product, x, axis))
    return Weights(array._view(np.broadcast_to(array.addresses, x.shape)), sums, 0.0)


def _enough(weights: Weights) -> None:
    """More than one value for each channel that has any."""
    counts = to_host(weights.counts)
    few = (counts > 0.0) & (counts <= 1.0)
    if few.any():
        channel = int(few.argmax())
        raise ValueError(
            "the batch's own statistics need weights of more than 1 together in each channel that has any, got "
            f"{counts[channel]:g} in channel {channel}; mask that channel wholly, count more elements, scale weights "
            "so that they say how often each counts, or normalize with running statistics"
        )


def _product(parts: list[Array]) -> Array:
    """All of them as one, each of whose axes is 1 or x's."""
    made = parts[0]
    for part in parts[1:]:
        made = made & part if made.dtype == part.dtype == bool else made * part
    return made


def _along(a: Array, x: Any, axis: int) -> Array:
    """Weights that lie along x: those of positions in full, so that the channel axis alone may be 1.

    Where lanes are of several channels and positions, each element has its own: a byte each, of a mask.
    """
    if a.shape[axis] != 1:
        return a
    inner = math.prod(x.shape[axis + 1 :])
    shape = tuple(1 if k == axis else n for k, n in enumerate(x.shape))
    if a.shape != shape:
        a = np.ascontiguousarray(np.broadcast_to(a, shape))
    if inner < LANES and (inner > 1 or x.shape[axis] < LANES):
        a = np.repeat(a, x.shape[axis], axis=axis)  # half the time of a broadcast copy
    return a


def _bytes(a: Array) -> Array:
    """A mask as its bytes."""
    return a.view(np.uint8) if a.dtype == bool else a


def _sums(a: Array, x: Any, axis: int) -> Array:
    """(C,) float64: the sum of each channel's weights, as often as they are repeated."""
    repeated = float(math.prod(n for k, n in enumerate(x.shape) if k != axis and a.shape[k] == 1))
    if a.shape[axis] == 1:
        total = np.count_nonzero(a) if a.dtype == bool else a.sum(dtype=np.float64)
        return np.full(x.shape[axis], total * repeated)
    others = tuple(k for k in range(1, x.ndim) if k != axis)
    if a.dtype != bool:
        sums = a.sum(axis=(0, *others), dtype=np.float64)
    else:  # bytes add up as such, which is ten times as fast, as long as they cannot overflow
        few = [np.add.reduce(a[k : k + 255].view(np.uint8), axis=0, dtype=np.uint8) for k in range(0, len(a), 255)]
        sums = sum((part.sum(axis=tuple(k - 1 for k in others), dtype=np.float64) for part in few), np.zeros(1))
    return np.ascontiguousarray(np.broadcast_to(sums * repeated, x.shape[axis : axis + 1]))


def _mask(mask: Any, x: Array, axis: int) -> Array:
    array = check.array_of(to_host(located(mask, "mask")), "mask")
    if array.dtype != bool:
        raise TypeError(
            f"mask must be an array of bool, True where an element counts, got {array.dtype}; "
            "write mask.astype(bool), or pass weights"
        )
    return _beside(array, "mask", x, axis)


def _weights(weights: Any, x: Array, axis: int) -> Array:
    array = check.data(to_host(located(weights, "weights")), "weights", check.NUMBERS)
    kind: Any = np.float32 if name_of(array.dtype) in ("float16", "bfloat16", *check.INTEGERS) else np.float64
    if array.dtype.type is not np.float32:
        array = array.astype(kind, copy=False)
    if not ((array >= 0) & (array < np.inf)).all():
        wrong = array[~((array >= 0) & (array < np.inf))].flat[0]
        raise ValueError(f"weights must be finite and at least 0, got {wrong:g}; pass 0 for what does not count")
    if array.ndim == 1 and x.ndim > 2:
        array = array.reshape(-1, *(1,) * (x.ndim - 1))
    return _beside(array, "weights", x, axis)


def _within(lengths: Any, x: Array, axis: int) -> Array:
    """Whether each position lies within its sample's length."""
    array = check.array_of(to_host(located(lengths, "lengths")), "lengths")
    if x.ndim != 3:
        raise ValueError(f"lengths must come with x of 3 dimensions, (N, C, L) or (N, L, C), got {x.shape}; pass mask=")
    if array.dtype.kind not in "iu":
        raise TypeError(f"lengths must be whole numbers, got an array of {array.dtype}; pass np.asarray(lengths, int)")
    along = 3 - axis
    if array.shape != x.shape[:1]:
        raise ValueError(
            f"lengths must have shape {x.shape[:1]}, one for each sample of x, got {array.shape}; pass so many"
        )
    if array.size and not 0 <= int(array.min()) <= int(array.max()) <= x.shape[along]:
        wrong = array.min() if array.min() < 0 else array.max()
        raise ValueError(f"lengths must be from 0 to {x.shape[along]}, the length of x, got {wrong}; clip them")
    shape = (1, 1, -1) if along == 2 else (1, -1, 1)
    within: Array = np.arange(x.shape[along]).reshape(shape) < array.reshape(-1, 1, 1)
    return within


def _beside(a: Array, name: str, x: Array, axis: int) -> Array:
    """With the axes of x, each of x's size or 1."""
    given = a.shape
    if a.ndim == x.ndim - 1:
        a = a.reshape(*a.shape[:axis], 1, *a.shape[axis:])
    if a.ndim != x.ndim or any(n not in (1, m) for n, m in zip(a.shape, x.shape, strict=True)):
        positions = tuple(n for k, n in enumerate(x.shape) if k != axis)
        sample = f", {x.shape[:1]} for one value a sample" if name == "weights" and x.ndim > 2 else ""
        raise ValueError(
            f"{name} must have shape {positions}, one value for each position of x, or {x.shape}{sample}, with 1 in "
            f"place of any of them, got {given}; check the layout, or give it the axes of x"
        )
    return a
