"""One bit an element: on which side of its kinks a piecewise-linear activation was, all that its gradient needs."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cpubn._epilogue import Activation, rounded
from cpubn._types import Array

# Elements taken together, a multiple of 8: what they need on the way stays in the first cache levels.
BLOCK = 65536


class Signs(NamedTuple):
    """The bits in the order of `axes`, of an activation's output."""

    bits: NDArray[np.uint8]
    axes: tuple[int, ...]
    activation: Activation

    @classmethod
    def of(cls, y: Array, activation: Activation) -> Signs:
        axes = tuple(sorted(range(y.ndim), key=lambda axis: -abs(y.strides[axis])))
        flat = y.transpose(axes).reshape(-1)
        bits = np.empty(-(-flat.size // 8), np.uint8)
        low, high = bounds(activation, y.dtype)
        for start in range(0, flat.size, BLOCK):
            block = flat[start : start + BLOCK]
            # NaN hands its gradient on, but for leaky_relu's: as the functions have it, and torch.
            inside = block > low if activation.name == "leaky_relu" else ~(block <= low)
            if high < np.inf:
                inside &= ~(block >= high)
            bits[start // 8 : (start + BLOCK) // 8] = np.packbits(inside)
        return cls(bits, axes, activation)

    def gradient(self, dy: Array, out: Array | None) -> Array:
        """dy where the derivative is 1, and 0 (leaky_relu: slope * dy) elsewhere; `out` may be dy."""
        ordered = dy.transpose(self.axes)
        given = ordered.reshape(-1)
        g = np.empty(ordered.shape, dy.dtype.newbyteorder("=")).transpose(np.argsort(self.axes)) if out is None else out
        made = g.transpose(self.axes).reshape(-1)
        for start in range(0, given.size, BLOCK):
            these = slice(start, start + BLOCK)
            inside = np.unpackbits(self.bits[start // 8 : (start + BLOCK) // 8], count=len(given[these])).view(bool)
            outside = np.zeros((), dy.dtype)
            if self.activation.name == "leaky_relu":
                outside = given[these] * rounded(self.activation.low, dy.dtype)
            made[these] = np.where(inside, given[these], outside)
        if not np.may_share_memory(made, g):
            g.transpose(self.axes)[...] = made.reshape(ordered.shape)
        return g


def bounds(activation: Activation, dtype: np.dtype[Any]) -> tuple[Any, Any]:
    """The derivative is 1 where the output lies between them; as the output was rounded."""
    low, high = (activation.low, activation.high) if activation.name == "clip" else (0.0, np.inf)
    return rounded(low, dtype), rounded(6.0 if activation.name == "relu6" else high, dtype)


def kept_of(activation: Activation | None, y: Array) -> Array | Signs | None:
    """What an activation's gradient needs of its output: signs, or all of it, or nothing, and z is computed again."""
    if activation is None or activation.of_output(y.dtype) is None:
        return None
    return Signs.of(y, activation) if activation.is_relu_kind else y
