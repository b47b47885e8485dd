"""Convolution in plain NumPy: what a layer computes, slowly, for checking a fold where there is no framework."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from cpubn.ask import check
from cpubn.folding.layer import AffineLayer
from cpubn.typing import Array, Vector

PerAxis: TypeAlias = int | Sequence[int]
Numbers: TypeAlias = tuple[int, ...]  # one for each spatial axis


@dataclass(frozen=True)
class Geometry:
    """How a kernel moves over its input, in torch's terms."""

    kernel: Numbers
    stride: Numbers
    padding: Numbers
    dilation: Numbers
    output_padding: Numbers
    transposed: bool

    @classmethod
    def of(
        cls,
        kernel: Numbers,
        stride: PerAxis,
        padding: PerAxis,
        dilation: PerAxis,
        output_padding: PerAxis,
        transposed: bool,
    ) -> Geometry:
        rank = len(kernel)
        extra = per_axis(output_padding, "output_padding", rank, 0)
        if any(extra) and not transposed:
            raise ValueError(
                f"output_padding must be 0 where transposed=False, got {output_padding!r}; "
                "it belongs to a transposed convolution"
            )
        return cls(
            kernel,
            per_axis(stride, "stride", rank, 1),
            per_axis(padding, "padding", rank, 0),
            per_axis(dilation, "dilation", rank, 1),
            extra,
            transposed,
        )

    @property
    def reach(self) -> Numbers:
        """From a kernel's first tap to its last: dilation * (kernel - 1)."""
        return tuple(d * (k - 1) for d, k in zip(self.dilation, self.kernel, strict=True))

    def sizes(self, x: Array) -> Numbers:
        """The spatial shape of the output for x of shape (N, in, *spatial)."""
        axes = zip(x.shape[2:], self.stride, self.padding, self.reach, self.output_padding, strict=True)
        if self.transposed:
            sizes = tuple((n - 1) * s - 2 * p + r + extra + 1 for n, s, p, r, extra in axes)
        else:
            sizes = tuple((n + 2 * p - r - 1) // s + 1 for n, s, p, r, _ in axes)
        if any(n < 1 for n in sizes):
            raise ValueError(
                f"the layer's output must have at least 1 position on each axis, got spatial shape {sizes} for x of "
                f"{x.shape[2:]}; pass a larger x, or check padding and dilation"
            )
        return sizes


def per_axis(value: Any, name: str, rank: int, low: int) -> Numbers:
    """One whole number for all spatial axes, or one for each."""
    values = tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else (value,) * rank
    if len(values) != rank:
        raise ValueError(
            f"{name} must be one number, or {rank}, one for each spatial axis of weight, got {value!r}; "
            "pass what the layer has"
        )
    numbers = tuple(check.count(v, name, f"{low} or more") for v in values)
    if any(v < low for v in numbers):
        raise ValueError(f"{name} must be at least {low}, got {value!r}; pass what the layer has")
    return numbers


def convolve(x: Array, layer: AffineLayer, geometry: Geometry, pad: Vector) -> Array:
    """y[n, o, i] = bias[o] + sum over c, k of weight[o, c, k] * x[n, c, i * stride + k * dilation - padding].

    x is (N, in, *spatial) in float64, and `pad`, (in,), what stands around it. A transposed convolution is that by the
    flipped kernel, with stride 1, over x with stride - 1 zeros between its samples and all of the kernel's reach around
    it; its padding is cut off the output (Dumoulin and Visin, 2016, arXiv:1603.07285, section 4).
    """
    sizes = geometry.sizes(x)
    if geometry.transposed:
        after = tuple(r + extra for r, extra in zip(geometry.reach, geometry.output_padding, strict=True))
        x = _surround(_spread(x, geometry.stride), geometry.reach, after, pad)
        kernel = np.flip(layer.grouped, tuple(range(3, layer.grouped.ndim)))
        uncut = tuple(n + 2 * p for n, p in zip(sizes, geometry.padding, strict=True))
        y = _correlate(x, kernel, uncut, (1,) * len(sizes), geometry.dilation)
        y = y[_spatial(slice(p, p + n) for n, p in zip(sizes, geometry.padding, strict=True))]
    else:
        x = _surround(x, geometry.padding, geometry.padding, pad)
        y = _correlate(x, layer.grouped, sizes, geometry.stride, geometry.dilation)
    return y + _over_space(layer.bias, y)


def _correlate(x: Array, kernel: Array, sizes: Numbers, stride: Numbers, dilation: Numbers) -> Array:
    """(N, out, *sizes), tap by tap, for a kernel of (groups, out / groups, in / groups, *kernel)."""
    groups, per_group = kernel.shape[:2]
    x = x.reshape(len(x), groups, kernel.shape[2], *x.shape[2:])
    y = np.zeros((len(x), groups, per_group, *sizes))
    for tap in np.ndindex(*kernel.shape[3:]):
        axes = zip(tap, dilation, sizes, stride, strict=True)
        window = x[_spatial(slice(k * d, k * d + (n - 1) * s + 1, s) for k, d, n, s in axes)]
        y += np.einsum("ngi...,goi->ngo...", window, kernel[_spatial(tap)])
    return y.reshape(len(x), groups * per_group, *sizes)


def _spread(x: Array, stride: Numbers) -> Array:
    """x with stride - 1 zeros between its samples."""
    spread = np.zeros((*x.shape[:2], *((n - 1) * s + 1 for n, s in zip(x.shape[2:], stride, strict=True))))
    spread[_spatial(slice(None, None, s) for s in stride)] = x
    return spread


def _surround(x: Array, before: Numbers, after: Numbers, pad: Vector) -> Array:
    """x with so many values of `pad` on either side."""
    sides = list(zip(before, x.shape[2:], after, strict=True))
    surrounded = np.empty((*x.shape[:2], *map(sum, sides)))
    surrounded[...] = _over_space(pad, x)
    surrounded[_spatial(slice(b, b + n) for b, n, _ in sides)] = x
    return surrounded


def _spatial(index: Any) -> tuple[Any, ...]:
    """An index of the spatial axes, which come last."""
    return (..., *index)


def _over_space(vector: Vector, x: Array) -> Array:
    """One value for each channel, in a shape that broadcasts against x of shape (N, channels, *spatial)."""
    return vector.reshape(-1, *(1,) * (x.ndim - 2))
