"""What g is made of in the Numba backend, as in backends/compiled/prologue.pxd: g = dy * activation'(z).

Where an array is not there, its place is none, for which `gradient_of` is compiled without it.
"""
# mypy: allow-untyped-defs

from typing import NamedTuple

import numpy as np
from numba import types

from cpubn.backends.jit.lanes import lanes, select, unpack
from cpubn.backends.jit.samples import after, lane_count, load, pointer, store
from cpubn.backends.jit.typed import Body, Place, Type, Value, compiled, overload
from cpubn.maths.activations import Formula


class Source(NamedTuple):
    """What g is made of, and the derivative's parameters; where g is written as well, and whether dx is g * scale.

    See `is_there`.
    """

    dy: Place
    residual: Place
    kept: Place
    signs: Place
    slope: Value
    low: Value
    high: Value
    g: Place
    is_scale: bool


@compiled
def bits_at(packed: Place, bit: int) -> np.uint32:
    """The 32 bits from that one on; behind the last one there is room."""
    first, word = bit // 8, np.uint64(0)
    for k in range(5):
        word |= np.uint64(packed[first + k]) << np.uint64(8 * k)
    return np.uint32((word >> np.uint64(bit % 8)) & np.uint64(0xFFFFFFFF))


@compiled
def placed(source: Source) -> Source:
    """Of arrays, where their elements stand."""
    dy, residual, kept = pointer(source.dy), pointer(source.residual), pointer(source.kept)
    signs, g = pointer(source.signs), pointer(source.g)
    return Source(dy, residual, kept, signs, source.slope, source.low, source.high, g, source.is_scale)


def is_there(place: Type) -> bool:
    """Of a type."""
    return isinstance(place, types.CPointer)


def gradient_of(derive: Formula | None, source: Source, i: int, z: Value) -> Value:
    """g of the lanes from element i on, whose z is given but for the residual."""
    raise NotImplementedError


@overload(gradient_of, error_model="numpy")
def gradient_by(derive: Type, source: Type, i: Type, z: Type) -> Body:
    _, residual, kept, signs = map(is_there, source.types[:4])
    if signs:

        def by_signs(derive, source, i, z):
            g, zero = load(source.dy, i), lanes(source.slope - source.slope)
            flags = unpack(bits_at(source.signs, i), zero)
            return select(flags, g, zero if source.slope == 0 else g * source.slope)

        return by_signs
    if isinstance(derive, types.NoneType):
        return lambda derive, source, i, z: load(source.dy, i)
    if kept:
        return lambda derive, source, i, z: load(source.dy, i) * derive(load(source.kept, i), source.low, source.high)
    if residual:
        return lambda derive, source, i, z: (
            load(source.dy, i) * derive(z + load(source.residual, i), source.low, source.high)
        )
    return lambda derive, source, i, z: load(source.dy, i) * derive(z, source.low, source.high)


def part_of(place: Place, first: int, n: int, filling: Value, to: Place) -> Place:
    """n elements, and behind them lanes to fill the others with, put elsewhere; of none none."""
    raise NotImplementedError


@overload(part_of, error_model="numpy")
def part_of_samples(place: Type, first: Type, n: Type, filling: Type, to: Type) -> Body:
    if not is_there(place):
        return lambda place, first, n, filling, to: place

    def part(place, first, n, filling, to):
        store(to, 0, filling)
        for k in range(n):
            to[k] = place[first + k]
        return to

    return part


def part_of_signs(place: Place, first: int, to: Place) -> Place:
    """32 bits, put elsewhere."""
    raise NotImplementedError


@overload(part_of_signs, error_model="numpy")
def part_of_bits(place: Type, first: Type, to: Type) -> Body:
    if not is_there(place):
        return lambda place, first, to: place

    def part(place, first, to):
        word = bits_at(place, first)
        for k in range(5):
            to[k] = np.uint8((np.uint64(word) >> np.uint64(8 * k)) & np.uint64(255))
        return to

    return part


@compiled
def part_of_source(source: Source, first: int, n: int, filling: Value, to: Place, signs_to: Place) -> Source:
    """A part of what g is made of, put in three blocks; room for g is the fourth."""
    count = lane_count(to)
    dy, residual = (
        part_of(source.dy, first, n, filling, to),
        part_of(source.residual, first, n, filling, after(to, count)),
    )
    kept, signs = (
        part_of(source.kept, first, n, filling, after(to, 2 * count)),
        part_of_signs(source.signs, first, signs_to),
    )
    g = part_of(source.g, first, n, filling, after(to, 3 * count))
    return Source(dy, residual, kept, signs, source.slope, source.low, source.high, g, source.is_scale)
