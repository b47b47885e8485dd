"""What the data path does to arrays and vectors on the host; gpu/vectors.py has the same for those on a GPU."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from itertools import repeat
from operator import setitem
from typing import Any

import numpy as np

from cpubn.backends import register
from cpubn.backends.prologue import bytes_of
from cpubn.maths import algebra
from cpubn.typing import Array, Count, Vector


def empty(x: Array, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """A new array where x is."""
    return np.empty(shape, dtype)


def room(x: Array, shape: tuple[int, ...], *, kept: bool) -> Vector:
    """For what a kernel finds out about x: float64 zeros, whether it is kept beyond the call or not."""
    return np.zeros(shape)


def constant(x: Array, count: int, value: float) -> Vector:
    return np.full(count, value)


def copy(a: Array) -> Array:
    return np.array(a)


def astype(a: Array, dtype: np.dtype[Any]) -> Array:
    """A copy of another type, in its order of memory."""
    return a.astype(dtype)


def reshape(a: Array, shape: Any) -> Array:
    """A view if there is one, else a copy."""
    return a.reshape(shape)


def assign(to: Array, source: Array) -> None:
    """to[...] = source, of the same shape and perhaps another type."""
    with np.errstate(all="ignore"):
        to[...] = source


def reordered(bits: Array, shape: tuple[int, ...], steps: tuple[int, ...]) -> Array:
    """Signs in the order of the axes of that shape, along which they lie so many bits apart."""
    count = math.prod(shape)
    flags = np.unpackbits(bits, count=count, bitorder="little")
    ordered = np.lib.stride_tricks.as_strided(flags, shape, steps, writeable=False)
    made = np.zeros(bytes_of(count), np.uint8)
    made[: -(-count // 8)] = np.packbits(ordered.reshape(-1), bitorder="little")
    return made


def result(a: Array) -> Array:
    """As the caller gets it."""
    return a


def require(a: Array, dtype: np.dtype[Any]) -> Array:
    """As a contiguous, aligned array of that type."""
    return np.require(a, dtype, ["C", "A"])


def vector(v: Array) -> Vector:
    """A vector as kernels take it."""
    return require(v, np.dtype(np.float64))


def affine(dtype: np.dtype[Any], statistics: Sequence[Any], weight: Vector, bias: Vector, eps: float) -> Array:
    """(3, C) float64: centre, scale and shift by which data computed in `dtype` is normalized.

    statistics: mean, its low word or None, and var.
    """
    mean, low, var = statistics
    with np.errstate(all="ignore"):
        centre = algebra.centre(mean, dtype.type)
        low = 0.0 if low is None else low
        return np.stack((centre, *algebra.affine(mean, low, var, weight, bias, eps, centre)))


def weight_gradient(sums: Array, var: Vector, eps: float) -> Vector:
    """sum(dy * (x - mean)) * rstd; sums (2, C)."""
    with np.errstate(all="ignore"):  # a channel that holds NaN or Inf stays non-finite, without a warning
        return sums[1] * algebra.rstd(var, eps)  # type: ignore[no-any-return]


def update_running(
    running_mean: Array, running_var: Array, tracked: Array | None, stats: Array, count: Any, momentum: float
) -> None:
    """Move the running statistics in place; stats (3, C) of a batch of `count` values a channel, or (C,) of each."""
    mean, _, m2 = stats
    with np.errstate(all="ignore"):
        targets, values = [running_mean, running_var], []
        for running, batch in zip(targets, (mean, algebra.unbiased(m2, count)), strict=True):
            made = algebra.running_update(running.astype(np.float64), batch, momentum)
            made = np.where(count == 0, running, made)
            values.append(made.astype(running.dtype))
        if tracked is not None:
            targets.append(tracked)
            values.append(tracked + 1)
        write(targets, values)


@register.calm()
def variance(m2: Vector, freedom: Any, *, root: bool = False) -> Vector:
    with np.errstate(all="ignore"):
        return np.sqrt(m2 / freedom) if root else m2 / freedom  # type: ignore[no-any-return]


@register.calm()
def merge(count: Count, stats: tuple[Vector, ...], other_count: Count, other: tuple[Vector, ...]) -> tuple[Vector, ...]:
    """Mean, its low word and m2 of both sets of samples together; of counts by channel some may be 0."""
    (mean_a, low_a, m2_a), (mean_b, low_b, m2_b) = stats, other
    n, n_other = np.asarray(count, np.float64), np.asarray(other_count, np.float64)
    with np.errstate(all="ignore"):
        merged: tuple[Vector, ...] = algebra.merge(n, mean_a, low_a, m2_a, n_other, mean_b, low_b, m2_b)
    if n.ndim or n_other.ndim:
        for empty, full in ((n_other == 0.0, stats), (n == 0.0, other)):
            merged = tuple(np.where(empty, v, m) for v, m in zip(full, merged, strict=True))
    return merged


@register.calm()
def accumulate(totals: Sequence[Vector], new: Sequence[Vector]) -> None:
    """total += v, of two of them."""
    with np.errstate(all="ignore"):  # opposite infinities add up to NaN, without a warning
        for total, v in zip(totals, new, strict=True):
            total += v


def write(targets: Sequence[Array], values: Sequence[Array]) -> None:
    """to[...] = v, which is on the host, of all targets or none: no interrupt comes between two of them."""
    # One call of C's, within which Python takes no step.
    deque(map(setitem, targets, repeat(...), values), maxlen=0)  # type: ignore[arg-type]


def fill(to: Vector, value: float) -> None:
    to[...] = value


def beside(a: Array, x: Array) -> Array:
    """For work together with x."""
    return a
