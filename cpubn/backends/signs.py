"""One bit an element: on which side of its kinks a piecewise-linear activation was, all that its gradient needs."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cpubn.backends import choice, register
from cpubn.backends.epilogue import Activation, rounded
from cpubn.backends.place import place_of
from cpubn.backends.prologue import Bits, bytes_of
from cpubn.maths.activations import Sides
from cpubn.typing import Array, Backend


class Signs(NamedTuple):
    """The bits in the order of `axes`, of an activation's output: set where the derivative is 1."""

    bits: NDArray[np.uint8]
    axes: tuple[int, ...]
    shape: tuple[int, ...]  # of the output
    slope: float  # the derivative elsewhere

    @classmethod
    def of(cls, y: Array, sides: Sides, kernels: Any) -> Signs:
        axes, flat = _in_order(y)
        bits = place_of(y).empty(y, (bytes_of(y.size),), np.dtype(np.uint8))
        with register.calm():
            kernels.pack_signs(flat, *sides[:2], sides.nan, bits, choice.threads(y.nbytes))
        return cls(bits, axes, y.shape, sides.slope)

    def along(self, walk: Any) -> Bits:
        """As a kernel reads them beside a walk of an array of their shape: by three strides.

        They are as a rule in x's order; in that of an `out` of another order three strides may not do.
        """
        steps, step = [0] * len(self.shape), 1
        for axis in reversed(self.axes):
            steps[axis], step = step, step * self.shape[axis]
        strides = walk.steps(self.shape, steps)
        if strides is not None:
            return Bits(self.bits, strides, self.slope)
        ordered, along = (tuple(values[axis] for axis in walk.axes) for values in (self.shape, steps))
        bits = place_of(self.bits).reordered(self.bits, ordered, along)
        _, channels, inner = walk.shape
        return Bits(bits, (channels * inner, inner, 1), self.slope)


def _in_order(a: Array) -> tuple[tuple[int, ...], Array]:
    """Its axes as they lie in memory, and its elements in that order, native and aligned."""
    if a.flags.c_contiguous and a.flags.aligned and a.dtype.isnative:
        return tuple(range(a.ndim)), a.reshape(-1)
    axes, place = tuple(sorted(range(a.ndim), key=lambda axis: -abs(a.strides[axis]))), place_of(a)
    return axes, place.require(place.reshape(a.transpose(axes), -1), a.dtype.newbyteorder("="))


def kept_of(activation: Activation | None, y: Array, backend: Backend | None, *, signs: bool) -> Array | Signs | None:
    """What an activation's gradient needs of its output: signs, or all of it, or nothing, and z is computed again."""
    told = None if activation is None else _told(activation, y.dtype)
    if told is None or told is True:
        return y if told else None
    return Signs.of(y, told, choice.kernels_for(y, backend)) if signs else None


@lru_cache(maxsize=64)
def _told(activation: Activation, dtype: np.dtype[Any]) -> Sides | Literal[True] | None:
    """What of the derivative an output of that dtype tells: on which side it is, all, or nothing."""
    if activation.of_output(dtype) is None:
        return None
    sides = activation.sides
    if sides is None:
        return True
    low, high = (float(rounded(bound, dtype)) for bound in sides[:2])
    return sides._replace(low=low, high=high)
