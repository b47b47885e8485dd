"""Convolution in plain NumPy: what a layer computes, slowly, for checking a fold where there is no framework."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

from cpubn.folding.layer import AffineLayer
from cpubn.folding.padding import Numbers, Padding, Pairs, PerAxis, pairs_per_axis, per_axis, surrounded
from cpubn.typing import Array, Vector

Pooling: TypeAlias = Literal["average", "max"]


@dataclass(frozen=True)
class Geometry:
    """How a kernel moves over its input, in torch's terms."""

    kernel: Numbers
    stride: Numbers
    padding: Pairs | None  # None: "same"
    dilation: Numbers
    output_padding: Numbers
    transposed: bool

    @classmethod
    def of(
        cls,
        kernel: Numbers,
        stride: PerAxis,
        padding: Padding,
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
        if isinstance(padding, str):
            if padding not in ("same", "valid"):
                raise ValueError(
                    f"padding must be numbers, 'same' or 'valid', got {padding!r}; pass what the layer has"
                )
            if padding == "same" and any(extra):
                raise ValueError(
                    f"output_padding must be 0 where padding is 'same', which says the output's shape, got "
                    f"{output_padding!r}; leave it out"
                )
        return cls(
            kernel,
            per_axis(stride, "stride", rank, 1),
            None if padding == "same" else pairs_per_axis(0 if padding == "valid" else padding, rank),
            per_axis(dilation, "dilation", rank, 1),
            extra,
            transposed,
        )

    @property
    def reach(self) -> Numbers:
        """From a kernel's first tap to its last: dilation * (kernel - 1)."""
        return tuple(d * (k - 1) for d, k in zip(self.dilation, self.kernel, strict=True))

    def pads(self, spatial: Numbers) -> Pairs:
        """What stands before and after each axis of an input of this shape; what a transposed one cuts off its output.

        "same" is TensorFlow's: an output of ceil(n / stride), transposed of n * stride, and of an odd number the
        greater half after. torch's, of stride 1, is the same. Where it is negative, a transposed one has to add.
        """
        if self.padding is not None:
            return self.padding
        pairs = []
        for n, s, r in zip(spatial, self.stride, self.reach, strict=True):
            total = r + 1 - s if self.transposed else max((-(-n // s) - 1) * s + r + 1 - n, 0)
            before = max(total, 0) // 2
            pairs.append((before, total - before))
        return tuple(pairs)

    def sizes(self, x: Array) -> Numbers:
        """The spatial shape of the output for x of shape (N, in, *spatial)."""
        spatial = x.shape[2:]
        axes = zip(spatial, self.stride, self.pads(spatial), self.reach, self.output_padding, strict=True)
        if self.transposed:
            sizes = tuple((n - 1) * s - b - a + r + extra + 1 for n, s, (b, a), r, extra in axes)
        else:
            sizes = tuple((n + b + a - r - 1) // s + 1 for n, s, (b, a), r, _ in axes)
        if any(n < 1 for n in sizes):
            raise ValueError(
                f"the layer's output must have at least 1 position on each axis, got spatial shape {sizes} for x of "
                f"{spatial}; pass a larger x, or check padding and dilation"
            )
        return sizes


def convolve(x: Array, layer: AffineLayer, geometry: Geometry, pad: Vector) -> Array:
    """y[n, o, i] = bias[o] + sum over c, k of weight[o, c, k] * x[n, c, i * stride + k * dilation - padding].

    x is (N, in, *spatial) in float64, and `pad`, (in,), what stands around it. A transposed convolution is that by the
    flipped kernel, with stride 1, over x with stride - 1 zeros between its samples and all of the kernel's reach around
    it; its padding is cut off the output (Dumoulin and Visin, 2016, arXiv:1603.07285, section 4).
    """
    sizes, pads = geometry.sizes(x), geometry.pads(x.shape[2:])
    if geometry.transposed:
        around = tuple(
            (r, r + extra + max(-after, 0))
            for r, extra, (_, after) in zip(geometry.reach, geometry.output_padding, pads, strict=True)
        )
        x = surrounded(_spread(x, geometry.stride), around, pad)
        kernel = np.flip(layer.grouped, tuple(range(3, layer.grouped.ndim)))
        uncut = tuple(n + before + max(after, 0) for n, (before, after) in zip(sizes, pads, strict=True))
        y = _correlate(x, kernel, uncut, (1,) * len(sizes), geometry.dilation)
        y = y[_spatial(slice(before, before + n) for n, (before, _) in zip(sizes, pads, strict=True))]
    else:
        x = surrounded(x, pads, pad)
        y = _correlate(x, layer.grouped, sizes, geometry.stride, geometry.dilation)
    return y + _over_space(layer.bias, y)


def check_pooling(pooling: Any) -> None:
    if pooling is not None and not (isinstance(pooling, str) and pooling in ("average", "max")):
        raise ValueError(f"pooling must be 'average', 'max' or None, got {pooling!r}; no other lets a batch norm pass")


def pool(x: Array, pooling: Pooling) -> Array:
    """The average or the maximum of windows of two on each spatial axis, next to each other."""
    if any(n < 2 for n in x.shape[2:]):
        raise ValueError(
            f"there must be at least 2 positions on each axis to pool, got spatial shape {x.shape[2:]}; pass a larger x"
        )
    for axis in range(2, x.ndim):
        lines = np.moveaxis(x, axis, 0)
        even, odd = lines[: len(lines) // 2 * 2 : 2], lines[1::2]
        x = np.moveaxis(np.maximum(even, odd) if pooling == "max" else (even + odd) / 2, 0, axis)
    return x


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


def _spatial(index: Any) -> tuple[Any, ...]:
    """An index of the spatial axes, which come last."""
    return (..., *index)


def _over_space(vector: Vector, x: Array) -> Array:
    """One value for each channel, in a shape that broadcasts against x of shape (N, channels, *spatial)."""
    return vector.reshape(-1, *(1,) * (x.ndim - 2))
