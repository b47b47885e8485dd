"""The epilogue: what becomes of z = (x - mean) * rstd * weight + bias before it is written.

y = activation(z + residual)            and, of quantized data, round(y / scale) + zero_point, saturating
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from cpubn.maths.activations import TABLE, Entry, Sides
from cpubn.typing import Array


class Activation(NamedTuple):
    """An activation as kernels take it: a code, which is its place in the table from 1 on, and its numbers.

    A user's own function, compiled by Numba, has code 0.
    """

    code: int
    low: float = 0.0
    high: float = 0.0
    function: Any = None
    derivative: Any = None

    @property
    def entry(self) -> Entry | None:
        """Of the table; None for a user's own."""
        return TABLE[self.code - 1] if self.code else None

    @property
    def sides(self) -> Sides | None:
        """What one bit of the output tells of the derivative; None where that is not enough."""
        entry = self.entry
        return None if entry is None or entry.sides is None else entry.sides(self.low, self.high)

    def of_output(self, dtype: np.dtype[Any]) -> Activation | None:
        """What has its derivative as a function of the output, which was rounded to `dtype`; None if nothing."""
        entry = self.entry
        if entry is None or entry.of_output is None or (entry.sides is not None and self.sides is None):
            return None
        if entry.is_clip:
            return self._replace(low=float(rounded(self.low, dtype)), high=float(rounded(self.high, dtype)))
        return self

    @property
    def given(self) -> Any:
        """What it was made from."""
        entry = self.entry
        if entry is None:
            return self.function if self.derivative is None else (self.function, self.derivative)
        parameters = self[1 : 1 + len(entry.parameters)]
        is_usual = parameters == tuple(parameter.default for parameter in entry.parameters)
        return entry.name if is_usual else (entry.name, *parameters)


@lru_cache(maxsize=64)
def rounded(parameter: float, dtype: np.dtype[Any]) -> Any:
    """A parameter as it comes out of a kernel: in the type that is computed in, then in that of the data."""
    with np.errstate(all="ignore"):
        return dtype.type(parameter if dtype.type is np.float64 else np.float32(parameter))


def is_for_gpu(function: Any) -> bool:
    """Whether numba.cuda compiled it, which need not be imported to tell."""
    return type(function).__module__.startswith(("numba.cuda", "numba_cuda"))


class Quantization(NamedTuple):
    """q = round(min(max(y * inverse + zero_point, low), high)), ties to even; NaN becomes the lowest."""

    inverse: float  # 1 / scale
    zero_point: float
    low: float
    high: float

    def of(self, y: Array) -> Array:
        inverse, zero_point, low, high = map(y.dtype.type, self)
        with np.errstate(all="ignore"):
            q = y * inverse + zero_point
        q = np.where(q > low, q, low)
        return np.asarray(np.rint(np.where(q < high, q, high)))


class Epilogue(NamedTuple):
    activation: Activation | None = None
    residual: Array | None = None  # (outer, channel, inner)
    quantization: Quantization | None = None


PLAIN = Epilogue()
