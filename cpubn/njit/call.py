"""A cpubn_call of cpubn.h in the stack of a function that Numba compiles: filled, made, and what it answers raised.

All of it is LLVM code that stands in the user's function: no array expressions, which take long to compile.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.np import arrayobj

from cpubn.njit.errors import ABSENCE, Errors, refuse
from cpubn.njit.symbols import symbol

BYTE, INT, DOUBLE = ir.IntType(8), ir.IntType(32), ir.DoubleType()
POINTER, SIZE = BYTE.as_pointer(), cgutils.intp_t
RANK = 5
ARRAYS = "x", "y", "residual", "dy", "dx", "g", "output"
VECTORS = (
    *("mean", "var", "mean_low", "weight", "bias", "running_mean", "running_var", "stats", "sums"),
    *("dweight", "dbias", "affine"),
)
ARRAY = ir.LiteralStructType([POINTER, SIZE, SIZE, SIZE, INT])
AXES = ir.LiteralStructType([INT, INT, ir.ArrayType(SIZE, RANK), ir.ArrayType(ir.ArrayType(SIZE, RANK), len(ARRAYS))])
FIELDS: dict[str, Any] = {
    "size": SIZE,
    "outer": SIZE,
    "channels": SIZE,
    "inner": SIZE,
    "threads": INT,
    "activation": INT,
    "low": DOUBLE,
    "high": DOUBLE,
    "eps": DOUBLE,
    "momentum": DOUBLE,
    "inference": INT,
    **dict.fromkeys(ARRAYS, ARRAY),
    **dict.fromkeys(VECTORS, POINTER),
    "axes": POINTER,
}
CALL = ir.LiteralStructType(list(FIELDS.values()))
PLACES = {name: k for k, name in enumerate(FIELDS)}
TYPES = {"float32": 1, "float64": 2, "uint8": 5, "int8": 6, "uint16": 7, "int16": 8}


class Call:
    """A call over arrays of x's shape, of which `channel` is the channels' axis."""

    def __init__(self, context: Any, builder: Any, x_type: Any, x: Any, channel: int) -> None:
        self.context, self.builder, self.channel = context, builder, channel
        self.struct, self.axes = (cgutils.alloca_once(builder, kind) for kind in (CALL, AXES))
        for place, kind in ((self.struct, CALL), (self.axes, AXES)):
            cgutils.memset(builder, place, SIZE(context.get_abi_sizeof(kind)), 0)
        self.set("size", context.get_abi_sizeof(CALL))
        self.set("axes", builder.bitcast(self.axes, POINTER))
        self.shape = shape_of(context, builder, x_type, x)
        self._set_axes(0, x_type.ndim)
        self._set_axes(1, channel)
        for k, n in enumerate(self.shape):
            self.builder.store(n, self._axes_place(2, k))

    @property
    def channels(self) -> Any:
        return self.shape[self.channel]

    def set(self, name: str, value: Any) -> None:
        place = cgutils.gep_inbounds(self.builder, self.struct, 0, PLACES[name])
        self.builder.store(FIELDS[name](value) if isinstance(value, (int, float)) else value, place)

    def get(self, name: str) -> Any:
        return self.builder.load(cgutils.gep_inbounds(self.builder, self.struct, 0, PLACES[name]))

    def set_row(self, name: str, rows: Any, row: int) -> None:
        """A vector that is one of contiguous rows (k, channels) of float64."""
        place = self.builder.gep(rows, [self.builder.mul(SIZE(row), self.channels)])
        self.set(name, self.builder.bitcast(place, POINTER))

    def set_array(self, name: str, array_type: Any, array: Any, channel: int | None = None) -> None:
        """An array of x's shape, or of that with the channels' axis in another place."""
        if not isinstance(array_type, types.Array):
            return
        made = self.context.make_array(array_type)(self.context, self.builder, array)
        place, data = PLACES[name], self.builder.bitcast(made.data, POINTER)
        self.builder.store(data, cgutils.gep_inbounds(self.builder, self.struct, 0, place, 0))
        kind = INT(TYPES[str(array_type.dtype)])
        self.builder.store(kind, cgutils.gep_inbounds(self.builder, self.struct, 0, place, 4))
        strides = cgutils.unpack_tuple(self.builder, made.strides)
        if channel is not None:
            strides.insert(self.channel, strides.pop(channel))
        for k, stride in enumerate(strides):
            self.builder.store(stride, self._axes_place(3, ARRAYS.index(name), k))

    def set_data(self, name: str, array_type: Any, array: Any) -> None:
        """A vector, or rows of vectors, that are contiguous and of float64."""
        if isinstance(array_type, types.Array):
            made = self.context.make_array(array_type)(self.context, self.builder, array)
            self.set(name, self.builder.bitcast(made.data, POINTER))

    def do(self, *names: str, condition: Any = None, errors: Errors) -> None:
        """Call a function, or the first or second of two by a condition; raise what it answers."""
        signature = ir.FunctionType(INT, [POINTER])
        module = self.builder.module
        functions = [cgutils.get_or_insert_function(module, signature, symbol(name)) for name in names]
        function = functions[0] if condition is None else self.builder.select(condition, *functions)
        status = self.builder.call(function, [self.builder.bitcast(self.struct, POINTER)])
        with self.builder.if_then(cgutils.is_not_null(self.builder, status), likely=False):
            for number, (kind, text) in errors.items():
                wrong = self.builder.icmp_signed("==", status, INT(number))
                refuse(self.context, self.builder, wrong, kind, text)
            self.context.call_conv.return_user_exc(self.builder, ImportError, (ABSENCE,))

    def order(self) -> Any:
        """The axes of x, which has its place in the call, from the outermost in memory to the innermost."""
        rank = len(self.shape)
        axes = cgutils.alloca_once(self.builder, ir.ArrayType(INT, RANK))
        for k in range(rank):  # where there is no function to say so
            self.builder.store(INT(k), cgutils.gep_inbounds(self.builder, axes, 0, k))
        signature = ir.FunctionType(INT, [POINTER, POINTER])
        function = cgutils.get_or_insert_function(self.builder.module, signature, symbol("order"))
        self.builder.call(function, [self.builder.bitcast(place, POINTER) for place in (self.struct, axes)])
        places = (cgutils.gep_inbounds(self.builder, axes, 0, k) for k in range(rank))
        return [self.builder.sext(self.builder.load(place), SIZE) for place in places]

    def _set_axes(self, field: int, value: int) -> None:
        self.builder.store(INT(value), self._axes_place(field))

    def _axes_place(self, *path: int) -> Any:
        return cgutils.gep_inbounds(self.builder, self.axes, 0, *path)


def shape_of(context: Any, builder: Any, array_type: Any, array: Any) -> list[Any]:
    return cgutils.unpack_tuple(  # type: ignore[no-any-return]
        builder, context.make_array(array_type)(context, builder, array).shape
    )


def new_array(context: Any, builder: Any, array_type: Any, shape: list[Any], order: list[Any] | None = None) -> Any:
    """A new array; with an order, of axes from the outermost in memory to the innermost, for one of any layout."""
    if order is None:
        return arrayobj._empty_nd_impl(context, builder, array_type, shape)
    made = arrayobj._empty_nd_impl(context, builder, array_type.copy(layout="C"), shape)
    lengths, strides = (cgutils.alloca_once(builder, ir.ArrayType(SIZE, RANK)) for _ in range(2))
    for k, n in enumerate(shape):
        builder.store(n, cgutils.gep_inbounds(builder, lengths, 0, k))
    step = made.itemsize
    for axis in reversed(order):
        builder.store(step, builder.gep(strides, [SIZE(0), axis], inbounds=True))
        step = builder.mul(step, builder.load(builder.gep(lengths, [SIZE(0), axis], inbounds=True)))
    laid = context.make_array(array_type)(context, builder)
    steps = [builder.load(cgutils.gep_inbounds(builder, strides, 0, k)) for k in range(len(shape))]
    arrayobj.populate_array(
        laid,
        data=made.data,
        shape=made.shape,
        strides=cgutils.pack_array(builder, steps, ty=SIZE),
        itemsize=made.itemsize,
        meminfo=made.meminfo,
    )
    return laid
