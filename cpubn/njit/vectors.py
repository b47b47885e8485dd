"""Vectors of channels, of any type and stride, as the contiguous ones of float64 that a call takes, and back."""

# mypy: disable-error-code="untyped-decorator, attr-defined, no-any-return"

from __future__ import annotations

from typing import Any, NamedTuple

from llvmlite import ir
from numba.core import cgutils, types
from numba.np import arrayobj

from cpubn.njit.asked import is_plain
from cpubn.njit.call import DOUBLE, POINTER, SIZE, Call
from cpubn.njit.errors import refuse

LONGEST = 53  # bits of a whole number that float64 has


class Vector(NamedTuple):
    name: str
    type: Any
    value: Any

    @property
    def is_there(self) -> bool:
        return isinstance(self.type, types.Array)

    @property
    def is_copied(self) -> bool:
        return self.is_there and not is_plain(self.type)


def copies(*kinds: Any) -> int:
    """How many of these types a call must copy."""
    return sum(Vector("", kind, None).is_copied for kind in kinds)


class Vectors:
    """Those of one call; `room`: a pointer to (k, channels) float64 for the k that are copied."""

    def __init__(self, call: Call, room: Any, layout: str) -> None:
        self.call, self.context, self.builder = call, call.context, call.builder
        self.room, self.layout = room, layout
        self.row = 0
        self.places: dict[str, Any] = {}

    def read(self, *vectors: Vector) -> None:
        for vector in vectors:
            if vector.is_there:
                self._check_shape(vector)
        for vector in vectors:
            if vector.is_there:
                self.call.set(self._field(vector), self.builder.bitcast(self._doubles(vector), POINTER))

    def write_back(self, *vectors: Vector) -> None:
        """What a call updated of vectors that were copied."""
        for vector in vectors:
            if vector.is_copied:
                made = self._array(vector)
                with cgutils.for_range(self.builder, self.call.channels) as loop:
                    number = self.builder.load(self.builder.gep(self.places[vector.name], [loop.index]))
                    number = self.context.cast(self.builder, number, types.float64, vector.type.dtype)
                    arrayobj.store_item(
                        self.context, self.builder, vector.type, number, self._element(vector, made, loop.index)
                    )

    @staticmethod
    def _field(vector: Vector) -> str:
        return "mean_low" if vector.name == "the low word of mean" else vector.name

    def _array(self, vector: Vector) -> Any:
        return self.context.make_array(vector.type)(self.context, self.builder, vector.value)

    def _element(self, vector: Vector, made: Any, index: Any) -> Any:
        return cgutils.get_item_pointer(self.context, self.builder, vector.type, made, [index], wraparound=False)

    def _check_shape(self, vector: Vector) -> None:
        [length] = cgutils.unpack_tuple(self.builder, self._array(vector).shape)
        numbers = [(types.intp, n) for n in (self.call.channels, length)]
        text = (
            f"{vector.name} must have shape ({{}},), the channels of x (layout {self.layout!r}), got ({{}},); "
            "pass one value per channel, or check the layout"
        )
        wrong = self.builder.icmp_signed("!=", length, self.call.channels)
        refuse(self.context, self.builder, wrong, ValueError, text, numbers)

    def _doubles(self, vector: Vector) -> Any:
        """Where its numbers stand as float64 end to end."""
        made, builder = self._array(vector), self.builder
        if not vector.is_copied:
            return made.data
        place = builder.gep(self.room, [builder.mul(SIZE(self.row), self.call.channels)])
        self.row += 1
        self.places[vector.name] = place
        with cgutils.for_range(builder, self.call.channels) as loop:
            number = arrayobj.load_item(self.context, builder, vector.type, self._element(vector, made, loop.index))
            self._check_exact(vector, number)
            number = self.context.cast(builder, number, vector.type.dtype, types.float64)
            builder.store(number, builder.gep(place, [loop.index]))
        return place

    def _check_exact(self, vector: Vector, number: Any) -> None:
        """A whole number has at most LONGEST bits between its first and last one that is set."""
        kind, builder = vector.type.dtype, self.builder
        if not isinstance(kind, types.Integer) or kind.bitwidth < 64:
            return
        size = number
        if kind.signed:
            size = builder.select(builder.icmp_signed("<", number, number.type(0)), builder.neg(number), number)
        shifted = builder.lshr(size, builder.cttz(builder.or_(size, size.type(1 << 63)), ir.IntType(1)(0)))
        text = (
            f"{vector.name} must hold whole numbers that float64 has, got {{}}; "
            f"round it first, for example with np.asarray({vector.name}, dtype='float64')"
        )
        wrong = builder.icmp_unsigned(">=", shifted, size.type(1 << LONGEST))
        refuse(self.context, builder, wrong, ValueError, text, [(kind, number)])


def room_of(context: Any, builder: Any, kind: Any, value: Any) -> Any:
    """A pointer to the rows of an array (k, channels) float64, or of None."""
    if isinstance(kind, types.NoneType):
        return cgutils.get_null_value(DOUBLE.as_pointer())
    return context.make_array(kind)(context, builder, value).data
