"""One bit an element: on which side of its kinks a piecewise-linear activation was, all that its gradient needs."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cpubn import _dispatch
from cpubn._epilogue import Activation, rounded
from cpubn._place import place_of, plain
from cpubn._types import Array


class Signs(NamedTuple):
    """The bits in the order of `axes`, of an activation's output: set where the derivative is 1."""

    bits: NDArray[np.uint8]
    axes: tuple[int, ...]
    activation: Activation

    @classmethod
    def of(cls, y: Array, activation: Activation, kernels: Any) -> Signs:
        axes = tuple(sorted(range(y.ndim), key=lambda axis: -abs(y.strides[axis])))
        bits = place_of(y).empty(y, (-(-y.size // 8),), np.dtype(np.uint8))
        # NaN hands its gradient on, but for leaky_relu's: as the functions have it, and torch.
        nan = activation.name != "leaky_relu"
        kernels.pack_signs(_flat(y, axes), *bounds(activation, y.dtype), nan, bits, _dispatch.threads(y.nbytes))
        return cls(bits, axes, activation)

    def gradient(self, dy: Array, out: Array | None, kernels: Any) -> Array:
        """dy where the derivative is 1, elsewhere 0 or, of leaky_relu, slope * dy; `out` may be dy."""
        kind = dy.dtype.newbyteorder("=")
        place = place_of(dy)
        if out is None:
            ordered = tuple(dy.shape[axis] for axis in self.axes)
            out = place.empty(dy, ordered, kind).transpose(np.argsort(self.axes))
        g: Array = plain(out)
        made = g.transpose(self.axes)
        direct = made.flags.c_contiguous and made.flags.aligned and made.dtype.isnative
        flat = made.reshape(-1) if direct else place.empty(dy, (made.size,), kind)
        slope = self.activation.low if self.activation.name == "leaky_relu" else 0.0
        kernels.apply_signs(_flat(dy, self.axes), self.bits, slope, flat, _dispatch.threads(dy.nbytes))
        if not direct:
            place.assign(made, flat.reshape(made.shape))
        return g


def _flat(a: Array, axes: tuple[int, ...]) -> Array:
    """Its elements in the order of `axes`, native and aligned."""
    return place_of(a).require(a.transpose(axes).reshape(-1), a.dtype.newbyteorder("="))  # type: ignore[no-any-return]


def bounds(activation: Activation, dtype: np.dtype[Any]) -> tuple[float, float]:
    """The derivative is 1 where the output lies between them, as it was rounded; NaN for no bound."""
    low, high = {"clip": activation[1:3], "relu6": (0.0, 6.0)}.get(activation.name, (0.0, np.nan))
    return float(rounded(low, dtype)), float(rounded(high, dtype))


def kept_of(activation: Activation | None, y: Array, backend: str | None, *, signs: bool) -> Array | Signs | None:
    """What an activation's gradient needs of its output: signs, or all of it, or nothing, and z is computed again."""
    if activation is None or activation.of_output(y.dtype) is None:
        return None
    if not activation.is_relu_kind:
        return y
    return Signs.of(y, activation, _dispatch.kernels_for(y, backend)) if signs else None
