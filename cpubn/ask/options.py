"""Validation of what decides the output: its type and layout, the activation, the residual, the quantization."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from functools import cache
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from cpubn.ask import check, remedy
from cpubn.backends.epilogue import Activation, Quantization, is_for_gpu
from cpubn.backends.gpu.arrays import DeviceArray
from cpubn.backends.interface import bfloat16, name_of
from cpubn.backends.overlap import is_same, overlap, overlaps_itself
from cpubn.maths.activations import CODES, TABLE, Entry
from cpubn.typing import Array, AxisOrder

CHOICE = ", ".join(entry.form for entry in TABLE)


def activation(value: Any) -> Activation | None:
    """What `activation` names; None for none."""
    if value is None or isinstance(value, Activation):
        return value
    if type(value) is str and value in CODES:
        return of_name(value)
    if is_compiled(value):
        return Activation(0, function=value)
    name, *parameters = value if isinstance(value, (tuple, list)) and value else (value,)
    if is_compiled(name):
        if len(parameters) != 1 or not is_compiled(parameters[0]):
            raise TypeError(
                f"activation must be a function or a pair (function, derivative), got {value!r}; "
                "pass both compiled by numba.njit"
            )
        return Activation(0, function=name, derivative=parameters[0])
    if callable(name):
        raise TypeError(
            f"activation must be one of {CHOICE}, or a scalar function that Numba compiles, got {value!r}; "
            "decorate the function with @numba.njit, for arrays on a GPU with @numba.cuda.jit(device=True)"
        )
    if not isinstance(name, str) or name not in CODES:
        raise ValueError(
            f"activation must be one of {CHOICE}, or a function compiled by numba.njit, got {value!r}; "
            "names are in lower case"
        )
    return of_table(value, TABLE[CODES[name] - 1], parameters)


@cache  # found anew, it took a call 3 us
def of_name(name: str) -> Activation:
    return of_table(name, TABLE[CODES[name] - 1], ())


def of_table(value: Any, entry: Entry, parameters: Sequence[Any]) -> Activation:
    """An activation of the table, with the parameters that `value` has, or the usual ones."""
    given = parameters or [p.default for p in entry.parameters if p.default is not None]
    if len(given) != len(entry.parameters):
        raise ValueError(f"activation must be {entry.form}, got {value!r}; pass it in that form")
    try:
        numbers = [check.number(p, "it", "a number", -np.inf, np.inf, 0.1) for p in given]
    except (TypeError, ValueError) as error:
        raise ValueError(f"activation must be {entry.form} with numbers, got {value!r}; pass floats") from error
    made = Activation(CODES[entry.name], *(numbers or entry.numbers))
    if entry.rule is not None and not entry.rule.holds(made.low, made.high):
        rule = entry.rule
        raise ValueError(f"activation must be {entry.form} with {rule.wanted}, got {value!r}; {rule.remedy}")
    return made


def is_compiled(value: Any) -> bool:
    """Whether it is a function compiled by Numba, which need not be imported to tell.

    Raises TypeError for a kernel of numba.cuda, which no other can call.
    """
    options = getattr(value, "targetoptions", None)
    if options is not None and is_for_gpu(value) and not options.get("device"):
        raise TypeError(
            f"activation must be a device function, got the kernel {value!r}; compile it by numba.cuda.jit(device=True)"
        )
    return callable(value) and inspect.isfunction(getattr(value, "py_func", None))


def differentiable(value: Activation | None) -> None:
    if value is not None and value.function is not None and value.derivative is None:
        raise ValueError(
            f"activation must come with its derivative for a gradient, got {value.function!r} alone; "
            "pass the pair (function, derivative), both compiled by numba.njit"
        )


def dtype(value: DTypeLike | None, x: Array) -> np.dtype[Any]:
    """The type of the output: x's own where none is asked for."""
    if value is None:
        if name_of(x.dtype) in check.INTEGERS:
            raise ValueError(f"dtype must be given where x is of {x.dtype}, got None; pass dtype='float32'")
        native: np.dtype[Any] = x.dtype.newbyteorder("=")
        return native
    return floating(value)


def floating(value: DTypeLike) -> np.dtype[Any]:
    kind = bfloat16() if isinstance(value, str) and value == "bfloat16" else check.dtype_of(value)
    if kind is None or name_of(kind) not in check.FLOATS:
        raise TypeError(
            f"dtype must be {check.alternatives(check.FLOATS)}, got {kind or repr(value)}; "
            "pass the type that the next layer takes, usually 'float32'"
        )
    native: np.dtype[Any] = kind.newbyteorder("=")
    return native


def out_layout(value: Any, layout: str) -> AxisOrder:
    return check.layout_name(layout) if value is None else check.layout_name(value, "out_layout")


def residual(value: Any, shape: tuple[int, ...], kind: np.dtype[Any]) -> Array | None:
    """What is added before the activation: an array of the result's shape and dtype."""
    return None if value is None else of_result(value, "residual", shape, kind)


def of_result(value: Any, name: str, shape: tuple[int, ...], kind: np.dtype[Any]) -> Array:
    array = check.data(value, name, check.FLOATS)
    if array.shape != shape:
        raise ValueError(
            f"{name} must have the result's shape {shape}, got {array.shape}; pass one value for each of y"
        )
    if array.dtype.type != kind.type:
        raise TypeError(
            f"{name} must have the result's dtype {kind.name}, got {array.dtype}; "
            f"convert it with {name}.astype({kind.name!r})"
        )
    return array


def output(
    out: Any, shape: tuple[int, ...], dtype: np.dtype[Any], instead_of: dict[str, Any], apart_from: dict[str, Any]
) -> None:
    """An array to write to: it may be one of `instead_of`, and must overlap nothing else."""
    if not isinstance(out, (np.ndarray, DeviceArray)) or isinstance(out, np.ma.MaskedArray):
        way = remedy.for_a_target(out, "out", check.allocation(out, shape, dtype))
        raise TypeError(f"out must be a writable array, got {type(out).__name__}; {way}")
    if out.shape != shape:
        raise ValueError(
            f"out must have the result's shape {shape}, got {out.shape}; {check.allocation(out, shape, dtype)}"
        )
    if out.dtype.type != dtype.type:
        raise TypeError(
            f"out must have the result's dtype {dtype.name}, got {out.dtype}; {check.allocation(out, shape, dtype)}"
        )
    if not out.flags.writeable:
        raise ValueError("out must be writeable, got a read-only array; pass a copy of it: out.copy()")
    if overlaps_itself(out):
        raise ValueError(f"out must not overlap itself, got strides {out.strides} for shape {out.shape}; pass a copy")
    for name, other in (*instead_of.items(), *apart_from.items()):
        if other is None or not overlap(out, other):
            continue
        if name in apart_from:
            raise ValueError(f"out must not overlap {name}, got memory that does; pass an array of its own")
        if not is_same(out, other):
            raise ValueError(
                f"out must be {check.alternatives(tuple(n for n, a in instead_of.items() if a is not None))} itself "
                f"or apart from it, got memory that partly overlaps {name}; pass an array of its own"
            )


def gradient(dy: Any, x: Array) -> Array:
    """A gradient of x's shape and dtype."""
    array = check.data(dy, "dy", check.FLOATS)
    if array.shape != x.shape:
        raise ValueError(f"dy must have x's shape {x.shape}, got {array.shape}; pass the gradient of the output")
    if array.dtype.type != x.dtype.type:
        raise TypeError(f"dy must have x's dtype {x.dtype}, got {array.dtype}; convert it with dy.astype(x.dtype)")
    return array


def quantization(out_scale: Any, out_zero_point: Any, kind: np.dtype[Any]) -> Quantization:
    zero = zero_point(out_zero_point, "out_zero_point", kind)
    return Quantization(1.0 / scale(out_scale, "out_scale"), zero, *map(float, limits(kind)))


def quantized_dtype(value: DTypeLike) -> np.dtype[Any]:
    kind = check.dtype_of(value)
    if kind is None or kind.name not in ("int8", "uint8"):
        raise TypeError(f"dtype must be int8 or uint8, got {kind or repr(value)}; pass the type of the quantized data")
    return kind


def quantized_data(x: Array, kind: np.dtype[Any]) -> None:
    if x.dtype != kind:
        raise TypeError(
            f"x must be an array of {kind}, got {x.dtype}; quantize it so, by the scale and zero point given, "
            "or build FrozenBatchNorm.quantized with another dtype"
        )


def scale(value: Any, name: str) -> float:
    """Real units of one step of quantized data."""
    return check.number(value, name, "a number from 1e-30 to 1e30", 1e-30, 1e30, 0.05)


def zero_point(value: Any, name: str, kind: np.dtype[Any]) -> float:
    """The quantized number that stands for 0."""
    low, high = limits(kind)
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} must be a whole number from {low} to {high}, got {value!r}; pass an int")
    if not low <= int(value) <= high:
        raise ValueError(
            f"{name} must be a whole number from {low} to {high}, as {kind} holds, got {value}; "
            "pass 0 for symmetric int8 data, 128 for uint8"
        )
    return float(value)


def limits(kind: np.dtype[Any]) -> tuple[int, int]:
    return int(np.iinfo(kind).min), int(np.iinfo(kind).max)


def parameter_dtype(dtype: DTypeLike) -> np.dtype[Any]:
    """The dtype of weight and bias."""
    kind = check.dtype_of(dtype)
    if kind is None or kind.name not in check.SINGLE_OR_DOUBLE:
        raise TypeError(
            f"dtype must be float32 or float64, got {kind or repr(dtype)}; the data's own dtype need not be the same"
        )
    return kind.newbyteorder("=")
