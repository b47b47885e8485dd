"""The epilogue: what becomes of z = (x - mean) * rstd * weight + bias before it is written.

y = activation(z + residual)            and, of quantized data, round(y / scale) + zero_point, saturating
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from cpubn.maths import activations
from cpubn.typing import Array

RELU_KINDS = ("relu", "relu6", "leaky_relu", "clip")


class Activation(NamedTuple):
    """An activation as kernels take it: a code, which is the place in activations.NAMES from 1 on, and its parameters.

    A user's own function, compiled by Numba, has code 0.
    """

    code: int
    low: float = 0.0
    high: float = 0.0
    function: Any = None
    derivative: Any = None

    @property
    def name(self) -> str:
        return activations.NAMES[self.code - 1] if self.code else "function"

    @property
    def is_relu_kind(self) -> bool:
        """Whether the derivative has two values, and the output tells which of them holds."""
        return self.name in RELU_KINDS and (self.name != "leaky_relu" or self.low >= 0.0)

    def of_output(self, dtype: np.dtype[Any]) -> Activation | None:
        """What has the same derivative as a function of the output, which was rounded to `dtype`; None if nothing."""
        if self.name == "clip":
            return self._replace(low=float(rounded(self.low, dtype)), high=float(rounded(self.high, dtype)))
        if self.is_relu_kind:
            return self
        code = activations.OF_OUTPUT.get(self.name)
        return None if code is None else self._replace(code=code)

    @property
    def given(self) -> Any:
        """What it was made from."""
        if self.function is not None:
            return self.function if self.derivative is None else (self.function, self.derivative)
        parameters = {"leaky_relu": (self.low,), "clip": (self.low, self.high)}.get(self.name)
        return self.name if parameters is None else (self.name, *parameters)


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
