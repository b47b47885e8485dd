"""One pass of one layer: the arrays that every contestant shares, and the result that each must reach."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from cpubn.bench.layers import Layer
from cpubn.typing import Array, Vector

EPS = 1e-5
# Arrays of x's size that a pass must read or write at least: each input once, the output once.
TRAFFIC = {"eval": 2, "train": 2, "backward": 3, "moments": 1, "overhead": 2}
OPS = tuple(TRAFFIC)
PASSES = OPS[:-1]  # over layers
# Peers that sum in float32 stay below 1e-4 on this data; a wrong formula does not.
TOLERANCE = 1e-3


class Prepared(NamedTuple):
    """A contestant, set up: what is timed, and a look at what that left behind (moments: mean and variance, (2, C))."""

    call: Callable[[], object]
    result: Callable[[], Array]


class Case:
    """A pass ("eval", ...) of a layer on fresh random float32 data, in any memory layout.

    x, dy and y are the same memory for all contestants of a layout, so that none has luckier pages than another. They
    start at cache lines, as arrays do that torch or oneDNN make; where NumPy's start is chance, worth up to 15 %.
    weight, bias, mean and var are (C,) float32, mean and var near those of x; batch_mean and batch_var are x's own,
    in float64. edge.py has cases of other types, and with more to compute.
    """

    tolerance: float = TOLERANCE
    blank: float = np.nan  # what no result can be mistaken for
    weight: Array
    bias: Array
    mean: Array
    var: Array

    def __init__(self, op: str, layer: Layer, seed: int | None = None) -> None:
        rng = self._rng = np.random.default_rng(seed)
        channels = layer.shape[1]
        self.op: str = op
        self.layer: Layer = layer
        first = op.partition("_")[0]
        self.computes: str = first if first in TRAFFIC else "eval"  # the pass whose formula it starts from
        self.weight, self.bias, mean, std = (
            rng.uniform(low, low + 1, channels).astype(np.float32) for low in (0.5, -0.5, 0.5, 0.5)
        )
        self.mean, self.var = mean + np.float32(0.1), std * std * np.float32(1.1)
        self._arrays: dict[tuple[str, str], Array] = {}
        x = rng.standard_normal(layer.shape, np.float32)
        x *= self.along(std)
        x += self.along(mean)
        self._arrays["x", "NCHW"] = aligned(x)
        if self.computes == "backward":
            self._arrays["dy", "NCHW"] = aligned(rng.standard_normal(layer.shape, np.float32))

    @property
    def nbytes(self) -> int:
        """What must move through memory at least."""
        return TRAFFIC[self.computes] * self.x().nbytes

    @property
    def y_type(self) -> np.dtype[Any]:
        return self.x().dtype

    def x(self, layout: str = "NCHW") -> Array:
        return self._array("x", layout)

    def dy(self, layout: str = "NCHW") -> Array:
        return self._array("dy", layout)

    def y(self, layout: str = "NCHW") -> Array:
        """Where y, or in backward dx, may be written."""
        if ("y", layout) not in self._arrays:
            self._arrays["y", layout] = aligned(np.zeros(self.x(layout).shape, self.y_type))
        return self._arrays["y", layout]

    @cached_property
    def batch_mean(self) -> Vector:
        return np.asarray(self.x().mean(self.sample_axes, dtype=np.float64))

    @cached_property
    def batch_var(self) -> Vector:
        return np.asarray(self._x64.var(self.sample_axes))

    @cached_property
    def expected(self) -> Array:
        return self.formula()

    def formula(self) -> Array:
        """The plain formula in float64, channels on axis 1 (Ioffe and Szegedy, 2015)."""
        if self.computes == "moments":
            return np.stack((self.batch_mean, self.batch_var))
        inference = self.computes in ("eval", "overhead")
        mean, var = (self.mean, self.var) if inference else (self.batch_mean, self.batch_var)
        rstd = 1 / np.sqrt(self.along(var.astype(np.float64)) + EPS)
        weight, bias = self.along(self.weight), self.along(self.bias)
        x_hat = (self._x64 - self.along(mean)) * rstd
        if self.computes != "backward":
            return np.asarray(x_hat * weight + bias)
        dy = self.dy().astype(np.float64)
        dbias, dweight = (a.mean(self.sample_axes, keepdims=True) for a in (dy, dy * x_hat))
        return np.asarray(weight * rstd * (dy - dbias - x_hat * dweight))

    def error(self, prepared: Prepared, layout: str) -> float:
        """The largest distance from what is expected after one call; nothing that an earlier contestant left counts."""
        self.y(layout).fill(self.blank)
        prepared.call()
        got = prepared.result()
        if self.op != "moments":
            got = in_nchw(got, layout, self.layer.shape)
        return float(self.distance(got).max())

    def distance(self, got: Array) -> Array:
        return np.asarray(np.abs(got - self.expected) / np.maximum(1, np.abs(self.expected)))

    def along(self, vector: Array, layout: str = "NCHW") -> Array:
        """A (C,) vector so that it broadcasts against x."""
        return vector.reshape((-1,) + (1,) * (len(self.layer.shape) - 2) if layout == "NCHW" else (-1,))

    @property
    def sample_axes(self) -> tuple[int, ...]:
        """The axes other than the channels', in NCHW."""
        return (0, *range(2, len(self.layer.shape)))

    @property
    def _x64(self) -> Array:
        return self.x().astype(np.float64)

    def _array(self, name: str, layout: str) -> Array:
        if (name, layout) not in self._arrays:
            self._arrays[name, layout] = aligned(from_nchw(self._arrays[name, "NCHW"], layout))
        return self._arrays[name, layout]


def aligned(a: Array, offset: int = 0) -> Array:
    """A copy that starts `offset` bytes behind the start of a cache line."""
    memory = np.empty(a.nbytes + 64 + offset, np.uint8)
    start = -memory.ctypes.data % 64 + offset
    copy = memory[start : start + a.nbytes].view(a.dtype).reshape(a.shape)
    copy[...] = a
    return copy


def images(a: Array) -> Array:
    """Any rank as (N, C, H, W), which is all the same to batch norm."""
    n, channels, *inner = a.shape
    return a.reshape(n, channels, *(inner if len(inner) == 2 else (1, -1)))


def from_nchw(a: Array, layout: str) -> Array:
    """In a memory layout: "NCHW" and "NHWC" of a's rank, or "nChw16c", (N, C/16, H, W, 16) with zeros to fill up C.

    "nChw8c" is the same in blocks of 8.
    """
    if layout == "NCHW":
        return a
    if layout == "NHWC":
        return np.ascontiguousarray(np.moveaxis(a, 1, -1))
    a = images(a)
    n, channels, *inner = a.shape
    width = int(layout.removeprefix("nChw").removesuffix("c"))
    blocks = -(-channels // width)
    padded: Any = np.zeros((n, width * blocks, *inner), a.dtype)
    padded[:, :channels] = a
    return np.ascontiguousarray(np.moveaxis(padded.reshape(n, blocks, width, *inner), 2, -1))


def in_nchw(a: Array, layout: str, shape: tuple[int, ...]) -> Array:
    """`a` of a memory layout as a view, or where need be a copy, of `shape`: the way back from from_nchw."""
    if layout == "NCHW":
        return a
    if layout == "NHWC":
        return np.moveaxis(a, -1, 1)
    n, blocks, *inner, width = a.shape
    return np.moveaxis(a, -1, 2).reshape(n, blocks * width, *inner)[:, : shape[1]].reshape(shape)
