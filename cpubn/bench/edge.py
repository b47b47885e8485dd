"""Cases of what inference on small machines adds: fused activations, half types, images of bytes, quantized data."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from cpubn.bench.case import Case, aligned
from cpubn.bench.layers import Layer
from cpubn.typing import Array


def silu(z: Array) -> Array:
    return np.asarray(z / (1 + np.exp(-z)))


def gelu(z: Array) -> Array:
    """z * (1 + erf(z / sqrt(2))) / 2, erf to 2e-7 (Abramowitz and Stegun, 1964, 7.1.26)."""
    u = np.abs(z) / 2**0.5
    t = 1 / (1 + 0.3275911 * u)
    tail = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    return np.asarray(z * (1 + np.copysign(1 - tail * np.exp(-u * u), z)) / 2)


ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "relu": lambda z: np.maximum(z, 0),
    "hardswish": lambda z: z * np.clip(z + 3, 0, 6) / 6,
    "silu": silu,
    "gelu": gelu,
}


class Fused(Case):
    """y = activation(batch norm in inference + residual); add_relu alone has a residual."""

    def __init__(self, op: str, layer: Layer, seed: int | None = None) -> None:
        super().__init__(op, layer, seed)
        self.activation: Any = op.removeprefix("add_")
        self.adds: bool = op != self.activation
        if self.adds:
            self._arrays["residual", "NCHW"] = aligned(self._rng.standard_normal(layer.shape, np.float32))

    @property
    def nbytes(self) -> int:
        return super().nbytes + self.adds * self.x().nbytes

    def residual(self, layout: str = "NCHW") -> Array | None:
        return self._array("residual", layout) if self.adds else None

    def formula(self) -> Array:
        return self.finished(super().formula())

    def finished(self, affine: Array, layout: str = "NCHW") -> Array:
        """What is left to do when batch norm alone has been computed."""
        residual = self.residual(layout)
        return ACTIVATIONS[self.activation](affine if residual is None else affine + residual)


class Half(Case):
    """A pass in float16 or bfloat16, as in train_float16; statistics, weights and biases stay float32."""

    def __init__(self, op: str, layer: Layer, seed: int | None = None) -> None:
        super().__init__(op, layer, seed)
        import ml_dtypes

        kind = getattr(ml_dtypes, op.partition("_")[2], np.float16)
        self._arrays = {key: aligned(a.astype(kind)) for key, a in self._arrays.items()}
        self.tolerance: float = 4 * float(ml_dtypes.finfo(kind).eps)

    def in_float32(self) -> Case:
        """The same numbers, in arrays of their own."""
        return widened(self, {key: a.astype(np.float32) for key, a in self._arrays.items() if key[1] == "NCHW"})


class Images(Case):
    """Bytes (N, H, W, C) as x("NHWC"), whatever the layout of y: y = (x - mean) / sqrt(var) in float32."""

    def __init__(self, op: str, layer: Layer, seed: int | None = None) -> None:
        super().__init__(op, layer, seed)
        channels = layer.shape[1]
        self.weight: Array = np.ones(channels, np.float32)
        self.bias: Array = np.zeros(channels, np.float32)
        mean, std = (self._rng.uniform(low, low + 30, channels).astype(np.float32) for low in (100, 45))
        self.mean: Array = mean
        self.var: Array = std * std
        self._arrays = {("x", "NCHW"): aligned(self._rng.integers(0, 256, layer.shape, np.uint8))}

    @property
    def y_type(self) -> np.dtype[Any]:
        return np.dtype(np.float32)

    @property
    def nbytes(self) -> int:
        return self.x().nbytes + self.y().nbytes


class Quantized(Case):
    """int8 in and out, x_real = (x - ZERO) * SCALE and likewise y, in int8_relu after a ReLU. Distances: steps of y."""

    SCALE: float = 0.05
    ZERO: int = 3
    OUT_SCALE: float = 0.04
    OUT_ZERO: int = -5
    tolerance: float = 1.0  # in float32, what lies between two steps may go to either
    blank: float = 127

    def __init__(self, op: str, layer: Layer, seed: int | None = None) -> None:
        super().__init__(op, layer, seed)
        self.activation: Any = op.partition("_")[2] or None
        x = np.clip(np.rint(self.x() / self.SCALE) + self.ZERO, -128, 127)
        self._arrays = {("x", "NCHW"): aligned(x.astype(np.int8))}

    def formula(self) -> Array:
        return self.finished(super().formula())

    def finished(self, affine: Array) -> Array:
        """Activated and quantized, but still in float64."""
        z = affine if self.activation is None else ACTIVATIONS[self.activation](affine)
        return np.asarray(np.clip(np.rint(z / self.OUT_SCALE) + self.OUT_ZERO, -128, 127))

    def distance(self, got: Array) -> Array:
        return np.asarray(np.abs(got - self.expected))

    def in_float32(self) -> Case:
        """The real numbers."""
        return widened(self, {("x", "NCHW"): self._x64.astype(np.float32)})

    @property
    def _x64(self) -> Array:
        return np.asarray((self.x().astype(np.float64) - self.ZERO) * self.SCALE)


def widened(case: Case, arrays: Mapping[tuple[str, str], Array]) -> Case:
    """A case as given, but on these arrays."""
    other = copy.copy(case)
    other._arrays = {key: aligned(a) for key, a in arrays.items()}
    return other


FUSED = ("relu", "add_relu", "hardswish", "silu", "gelu")
HALF = tuple(f"{op}_{kind}" for kind in ("float16", "bfloat16") for op in ("eval", "train", "backward"))
INPUT = ("input",)
QUANTIZED = ("int8", "int8_relu")
KINDS: dict[str, type[Case]] = {
    op: kind for ops, kind in ((FUSED, Fused), (HALF, Half), (INPUT, Images), (QUANTIZED, Quantized)) for op in ops
}
EDGE_OPS = tuple(KINDS)


def case_of(op: str, layer: Layer, seed: int | None = None) -> Case:
    """The case of any pass."""
    return KINDS.get(op, Case)(op, layer, seed)
