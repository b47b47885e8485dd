"""Validation: everything that can be wrong with what a user passes is found here, before anything is written.

Each message says what must hold, what was got and what to do.
"""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from cpubn.ask import remedy
from cpubn.ask.walk import Walk
from cpubn.backends.gpu.arrays import DeviceArray
from cpubn.backends.interface import name_of
from cpubn.backends.place import located, place_of, plain
from cpubn.backends.signs import Signs
from cpubn.typing import Array, AxisOrder, Vector

SINGLE_OR_DOUBLE = "float32", "float64"
FLOATS = "float16", "bfloat16", *SINGLE_OR_DOUBLE
INTEGERS = "uint8", "int8", "uint16", "int16"
SAMPLES = *FLOATS, *INTEGERS  # of what is only read
NUMBERS = *SAMPLES, "uint32", "int32", "uint64", "int64"  # of vectors that are only read
NCHW: AxisOrder = "NCHW"
NHWC: AxisOrder = "NHWC"
ALIASES: dict[AxisOrder, tuple[str, ...]] = {
    NCHW: ("channels_first", "NC", "NCL", "NCDHW"),
    NHWC: ("channels_last", "NLC", "NDHWC"),
}
LAYOUTS = {name.upper(): order for order, names in ALIASES.items() for name in (order, *names)}


def data(a: ArrayLike, name: str, kinds: tuple[str, ...] = SINGLE_OR_DOUBLE) -> Array:
    """An array of one of some types, of either byte order."""
    array = array_of(a, name)
    if name_of(array.dtype) not in kinds:
        wanted = "float32" if "float32" in kinds else kinds[0]
        named = (*FLOATS, "integers") if kinds is NUMBERS else kinds
        of = "" if array.ndim == 0 and array.dtype.kind == "O" else f" of {array.dtype}"
        raise TypeError(
            f"{name} must be an array of {alternatives(named)}, got {type(getattr(a, 'given', a)).__name__}{of}; "
            f"{remedy.for_numbers(a, array, name, wanted)}"
        )
    return array


def array_of(a: Any, name: str) -> Array:
    """An array of any type, without a mask."""
    if type(a) is not np.ndarray:
        unmasked(a, name)
    array: Array = located(a, name)
    try:
        return plain(array)  # type: ignore[no-any-return]
    except Exception as error:  # a list of lists of many lengths, or a tensor that needs detaching first
        raise TypeError(f"{name} must be an array, got {remedy.for_an_array(a, name, error)}") from None


def as_array(a: Any) -> Any:
    """An array of what was found to be right; None as it is, as are a forward's signs."""
    return a if a is None or isinstance(a, Signs) else np.asarray(located(a, "it"))


def unmasked(a: Any, name: str) -> None:
    """What is neither a masked array nor has one in it, whose mask NumPy would leave out without a word."""
    inside = (np.ma.MaskedArray, list, tuple)
    left, seen = [a], set()
    while left:
        found = left.pop()
        if isinstance(found, np.ma.MaskedArray):
            where = "" if found is a else f" in a {type(a).__name__}"
            raise TypeError(
                f"{name} must be a plain array, got a masked array{where}; fill it first with {name}.filled(value)"
            )
        if isinstance(found, (list, tuple)) and id(found) not in seen:
            seen.add(id(found))
            left += (element for element in found if isinstance(element, inside))


def on_host(a: ArrayLike, name: str, kinds: tuple[str, ...] = SINGLE_OR_DOUBLE) -> Array:
    """The same of an array on the host, where it is computed with."""
    array = located(a, name)
    if isinstance(array, DeviceArray):
        raise TypeError(
            f"{name} must be on the host, got one on GPU {array.device}; copy it there, for example with "
            f"{name}.copy_to_host(), a layer with its to_host()"
        )
    return data(a, name, kinds)


def alternatives(names: tuple[str, ...]) -> str:
    return " or ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def together(x: Any, others: dict[str, Any], like: str = "x") -> dict[str, Any]:
    """The other arrays of a call, which must be where x is; on a GPU, x's stream then waits for what makes them."""
    found = {name: located(other, name) for name, other in others.items()}
    for name, other in found.items():
        if other is None:
            continue
        if isinstance(x, DeviceArray) != isinstance(other, DeviceArray):
            if isinstance(x, DeviceArray):
                way = f"copy it there once, with numba.cuda.to_device({name}), or a layer with its to_device()"
                if name == "out":
                    way = allocation(x, np.shape(other), np.asarray(other).dtype)
                raise TypeError(
                    f"{name} must be on GPU {x.device} like {like}, got {type(other).__name__} on the host; {way}"
                )
            raise TypeError(
                f"{name} must be on the host like {like}, got one on GPU {other.device}; copy {like} to that GPU, "
                f"or {name} to the host, a layer with its to_host()"
            )
        if isinstance(x, DeviceArray):
            if x.device != other.device:
                raise ValueError(
                    f"{name} must be on GPU {x.device} like {like}, got one on GPU {other.device}; copy it to that one"
                )
            found[name] = place_of(x).beside(other, x)
    return found


def layout_name(layout: Any, name: str = "layout") -> AxisOrder:
    """The one of the two orders that a layout means."""
    if layout is NCHW or layout is NHWC:
        return layout
    order = LAYOUTS.get(layout.upper()) if isinstance(layout, str) else None
    if order is None:
        raise ValueError(
            f"{name} must be 'NCHW' (channels on axis 1, for any rank) or 'NHWC' (channels last), got {layout!r}; "
            f"other names are {', '.join(map(repr, ALIASES[NCHW]))} and {', '.join(map(repr, ALIASES[NHWC]))}"
        )
    return order


def batch(x: ArrayLike, layout: str, kinds: tuple[str, ...] = FLOATS) -> tuple[Array, int]:
    """The data of a batch, and its channel axis."""
    layout = layout_name(layout)
    array = data(x, "x", kinds)
    if not 2 <= array.ndim <= 5:
        way = "a single sample needs a batch axis: x[np.newaxis]" if array.ndim < 2 else "reshape some axes into one"
        raise ValueError(f"x must have 2 to 5 dimensions, got {array.ndim} with shape {array.shape}; {way}")
    return array, channel_axis(array, layout)


def channel_axis(x: Array, layout: str) -> int:
    """Of a layout as `layout_name` has it."""
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


def vector(v: ArrayLike, name: str, count: int, layout: str, kinds: tuple[str, ...] = NUMBERS) -> Vector:
    """A per-channel vector of shape (count,), contiguous; on the host as aligned float64."""
    array = data(v, name, kinds)
    if array.shape != (count,):
        way = remedy.for_a_vector(v, array.shape, count, name, "pass one value per channel, or check the layout")
        raise ValueError(
            f"{name} must have shape ({count},), the channels of x (layout {layout!r}), got {array.shape}; {way}"
        )
    exact(array, name)
    return place_of(array).vector(array)  # type: ignore[no-any-return]


def exact(array: Array, name: str) -> None:
    """Whole numbers that float64 has, which are all of up to 32 bits."""
    if array.dtype.kind not in "iu" or array.itemsize < 8:
        return
    if isinstance(array, DeviceArray):  # finding out would wait for the GPU
        raise TypeError(
            f"{name} must have at most 32 bits a whole number on a GPU, got {array.dtype}; "
            f"convert it, for example with {name}.astype('float64')"
        )
    for value in array.ravel().tolist():
        if int(float(value)) != value:
            raise ValueError(
                f"{name} must hold whole numbers that float64 has, got {value}; "
                f"round it first, for example with np.asarray({name}, dtype='float64')"
            )


def channel_vector(v: ArrayLike, name: str) -> Array:
    """A vector whose length says how many channels there are."""
    array = data(v, name, NUMBERS)
    if array.ndim != 1:
        way = remedy.for_a_vector(v, array.shape, None, name, "pass one value per channel")
        raise ValueError(f"{name} must have shape (C,), got {array.shape}; {way}")
    return array


def optional_vector(x: Array, v: ArrayLike | None, name: str, count: int, layout: str, default: float) -> Vector:
    """A vector where x is; `default` in every channel for None."""
    return place_of(x).constant(x, count, default) if v is None else vector(v, name, count, layout)


def running_pair(mean: Any, var: Any, count: int, layout: str, *, training: bool) -> tuple[Vector, Vector] | None:
    """Running statistics, or None where there are none, as may be in training, which updates those that there are."""
    if (mean is None) != (var is None):
        missing = "running_mean" if mean is None else "running_var"
        raise ValueError(f"running_mean and running_var must come together, got no {missing}; pass both or neither")
    if mean is not None:
        kinds = SINGLE_OR_DOUBLE if training else NUMBERS
        mean = vector(mean, "running_mean", count, layout, kinds)
        return mean, vector(var, "running_var", count, layout, kinds)
    if not training:
        raise ValueError(
            "running_mean and running_var must be given where training=False, got None; "
            "pass them, or training=True to normalize with the batch's own statistics"
        )
    return None


def in_place(v: Any, name: str, who: str) -> None:
    """A vector that is written to where it is: on a GPU by kernels that know no strides."""
    if not v.flags.writeable:
        raise ValueError(f"{name} must be writeable, because {who} updates it, got a read-only array; pass a copy")
    if isinstance(v, DeviceArray) and not v.flags.c_contiguous:
        raise ValueError(f"{name} must be contiguous on a GPU, got strides {v.strides}; pass a copy")


def allocation(out: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> str:
    function = "numba.cuda.device_array" if isinstance(out, DeviceArray) else "np.empty"
    return f"allocate it with {function}({shape}, {dtype.name!r})"


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


def flag(value: Any, name: str) -> bool:
    """True or False, and nothing that merely counts as one: bool("False") is True."""
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name} must be True or False, got {value!r}; pass a bool")
    return bool(value)


def count(value: Any, name: str, what: str) -> int:
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} must be a whole number, got {value!r}; pass {what}")
    number = int(value)
    if number < 0:
        raise ValueError(f"{name} must be at least 0, got {value}; pass {what}")
    if number >= 2**63:
        raise ValueError(f"{name} must be below 2**63, got a number of {number.bit_length()} bits; pass {what}")
    return number


def dtype_of(dtype: DTypeLike) -> np.dtype[Any] | None:
    """A dtype, or None where that names none."""
    try:
        return None if dtype is None else np.dtype(dtype)
    except Exception:  # TypeError most of the time; SyntaxError of ",", ValueError of a negative count
        return None
