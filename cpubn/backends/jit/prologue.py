"""What g is made of in the Numba backend, as in backends/compiled/prologue.pxd: g = dy * activation'(z).

Arrays are flat and contiguous; what is not there has a type of its own, by which `gradient_of` is compiled without it.
"""
# mypy: allow-untyped-defs, allow-untyped-calls

from typing import NamedTuple

import numpy as np
from numba import njit, types
from numba.extending import overload

from cpubn.backends.jit.lanes import lanes, select, unpack
from cpubn.backends.jit.samples import load

compiled = njit(error_model="numpy", nogil=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)


class Source(NamedTuple):
    """What g is made of, and the derivative's parameters; see `is_there`."""

    dy: object
    residual: object
    kept: object
    signs: object
    slope: object
    low: object
    high: object


@compiled
def bits_at(packed, bit):
    """The 32 bits from that one on; behind the last one there is room."""
    first, word = bit // 8, np.uint64(0)
    for k in range(5):
        word |= np.uint64(packed[first + k]) << np.uint64(8 * k)
    return np.uint32((word >> np.uint64(bit % 8)) & np.uint64(0xFFFFFFFF))


def is_there(a):
    """Of a type: whether it is a flat array; one of two dimensions stands for none."""
    return isinstance(a, types.Array) and a.ndim == 1


def gradient_of(derive, source, i, z):
    """g of the lanes from element i on, whose z is given but for the residual."""
    raise NotImplementedError


@overload(gradient_of, error_model="numpy")
def gradient_by(derive, source, i, z):
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


def part_of(a, first, n, fill):
    """n elements of a flat array, and numbers to fill the lanes behind them with; of none none."""
    raise NotImplementedError


@overload(part_of, error_model="numpy")
def part_of_array(a, first, n, fill):
    if not is_there(a):
        return lambda a, first, n, fill: a

    def part(a, first, n, fill):
        made = np.empty(fill.size, fill.dtype)
        for k in range(fill.size):
            made[k] = a[first + k] if k < n else fill[k]
        return made

    return part


def part_of_signs(signs, first):
    """The 32 bits from that one on."""
    raise NotImplementedError


@overload(part_of_signs, error_model="numpy")
def part_of_bits(signs, first):
    if not is_there(signs):
        return lambda signs, first: signs

    def part(signs, first):
        word, made = bits_at(signs, first), np.zeros(16, np.uint8)
        for k in range(4):
            made[k] = np.uint8((word >> np.uint32(8 * k)) & np.uint32(255))
        return made

    return part


@compiled
def part_of_source(source, first, n, zeros):
    """A part of what g is made of."""
    dy, residual = part_of(source.dy, first, n, zeros), part_of(source.residual, first, n, zeros)
    kept, signs = part_of(source.kept, first, n, zeros), part_of_signs(source.signs, first)
    return Source(dy, residual, kept, signs, source.slope, source.low, source.high)
