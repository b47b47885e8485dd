"""Blocks of an array (outer, channel, inner), small enough to stay in cache, and what of them counts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cpubn.backends.weights import Weights
from cpubn.maths import algebra

Array = NDArray[Any]
Block = tuple[slice, slice, slice]

# Elements of a block: its few float64 temporaries then take under 1 MB together.
BLOCK = 32768


def blocks(shape: tuple[int, ...]) -> Iterator[Block]:
    """Blocks of at most BLOCK elements, all those of a channel one after another."""
    outer, channels, inner = shape
    i = min(inner, BLOCK)
    c = min(channels, BLOCK // i)
    o = min(outer, BLOCK // (i * c))
    for c0 in range(0, channels, c):
        for o0 in range(0, outer, o):
            for i0 in range(0, inner, i):
                yield slice(o0, o0 + o), slice(c0, c0 + c), slice(i0, i0 + i)


def moments_of_block(part: Array, weights: Array | None) -> tuple[Any, Array, Array, Array]:
    """Count, mean, its low word and m2 of each channel of a block; of one without any values 0."""
    if weights is None:
        pivot = part[0, :, 0].astype(np.float64)
        n: Any = float(part.shape[0] * part.shape[2])
        d = w_d = part - pivot[:, None]
    else:
        w = weights.astype(np.float64)
        part = np.where(w > 0.0, part, 0.0).astype(np.float64)
        count = w.sum(axis=(0, 2))
        n = np.where(count > 0.0, count, 1.0)
        first = np.swapaxes(w > 0.0, 0, 1).reshape(w.shape[1], -1).argmax(axis=1)
        pivot = part[first // w.shape[2], np.arange(w.shape[1]), first % w.shape[2]]
        d = np.where(w > 0.0, part - pivot[:, None], 0.0)
        w_d = w * d
    offset = w_d.sum(axis=(0, 2)) / n
    d = d - offset[:, None]
    w_d = d if weights is None else w * d
    mean, low = algebra.two_sum(pivot, offset)
    rest = w_d.sum(axis=(0, 2))
    m2 = np.maximum(np.einsum("oci,oci->c", w_d, d) - rest * (rest / n), 0.0)
    return n if weights is None else count, mean, low + rest / n, m2


def count_of(x: Array, weights: Weights | None) -> Any:
    """Of the values of a channel, by which sums are divided; where there are none the sums are 0."""
    if weights is None:
        return x.shape[0] * x.shape[2]
    counts: Any = weights.counts
    return np.where(counts == 0.0, 1.0, counts)


def where_counted(weights: Weights | None, block: Block, values: Array, filling: float | None = None) -> Array:
    """Values of a block, and in place of those that do not count the filling given, or else that of the weights."""
    if weights is None:
        return values
    filling = weights.filling if filling is None else filling
    return np.where(weights.array[block] > 0, values, values.dtype.type(filling))


def fill_masked(y: Array, weights: Weights, filling: float) -> None:
    """y = filling where nothing counts, block by block."""
    for block in blocks(y.shape):
        np.copyto(y[block], y.dtype.type(filling), where=weights.array[block] == 0)
