"""What the data path does to arrays and vectors on a GPU: host.py's functions, and the way there and back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from cpubn.backends import host
from cpubn.backends.gpu import channels, passes, target
from cpubn.backends.gpu.arrays import DeviceArray, is_on_gpu
from cpubn.backends.gpu.memory import FLOAT64, array_of, constant, empty, upload, workspace
from cpubn.backends.prologue import bytes_of
from cpubn.typing import Array


def room(x: DeviceArray, shape: tuple[int, ...], *, kept: bool) -> DeviceArray:
    """For what a kernel finds out about x; zeros where x is empty, and no kernel runs."""
    made = empty(x, shape, FLOAT64) if kept else workspace(x, shape, "room")
    if not x.size:
        fill(made, 0.0)
    return made


def to_device(a: Any, device: int | None = None) -> Any:
    """An array of numba.cuda on that device, or the current one; of what is on a GPU already, itself."""
    return a if a is None or is_on_gpu(a) else upload(np.asarray(a), device).owner


def to_host(a: Any) -> Array:
    """Of what is on a GPU; waits for what makes it."""
    given = array_of(a)
    found = require(given, given.dtype)
    copied: Array = target.to_host(found.addresses, found.owner, found.stream, found.device)
    return copied


def copy(a: DeviceArray) -> DeviceArray:
    return astype(a, a.dtype)


def astype(a: DeviceArray, dtype: np.dtype[Any]) -> DeviceArray:
    made = empty(a, a.shape, dtype)
    assign(made, a)
    return made


def reshape(a: DeviceArray, shape: Any) -> DeviceArray:
    """A view if there is one, else a copy."""
    try:
        return a.reshape(shape)
    except ValueError:
        return copy(a).reshape(shape)


def assign(to: DeviceArray, source: DeviceArray) -> None:
    if to.size:
        passes.copy(source, to)


def reordered(bits: DeviceArray, shape: tuple[int, ...], steps: tuple[int, ...]) -> DeviceArray:
    made = empty(bits, (bytes_of(math.prod(shape)),), bits.dtype)
    passes.reorder(bits, shape, steps, made)
    return made


def result(a: DeviceArray) -> Any:
    """As the caller gets it: the caller's own, or an array of numba.cuda."""
    _hand_back(a)
    return a.given if a.given is not None else target.array_of(a.addresses, a.owner, a.stream, a.device)


def require(a: DeviceArray, dtype: np.dtype[Any]) -> DeviceArray:
    return a if a.flags.c_contiguous and a.dtype == dtype else astype(a, dtype)


def vector(v: DeviceArray) -> DeviceArray:
    return require(v, v.dtype if v.dtype.type in (np.float32, np.float64) else FLOAT64)


def affine(
    dtype: np.dtype[Any], statistics: Sequence[Any], weight: DeviceArray, bias: DeviceArray, eps: float
) -> DeviceArray:
    real: Any = dtype.type
    mean, low, var = statistics
    made = workspace(mean, (3, mean.size), "affine")
    low = constant(mean, mean.size, 0.0) if low is None else low
    _each_channel(channels.affine(real), mean, mean, low, var, weight, bias, eps, made)
    return made


def weight_gradient(sums: DeviceArray, var: DeviceArray, eps: float) -> DeviceArray:
    made = empty(sums, var.shape, FLOAT64)
    _each_channel(channels.weight_gradient, sums, sums, var, eps, made)
    return made


def update_running(
    running_mean: DeviceArray, running_var: DeviceArray, tracked: Any, stats: DeviceArray, count: Any, momentum: float
) -> None:
    moved = running_mean, running_var, stats
    if isinstance(count, DeviceArray):
        _each_channel(channels.update_running_by_counts, stats, *moved, count, momentum)
    else:
        _each_channel(channels.update_running, stats, *moved, float(count), momentum)
    if tracked is not None:
        tracked += 1
    _hand_back(running_mean)
    _hand_back(running_var)


def variance(m2: DeviceArray, freedom: Any, *, root: bool = False) -> DeviceArray:
    made = empty(m2, m2.shape, m2.dtype)
    own = upload(freedom, m2.device) if np.ndim(freedom) else constant(m2, m2.size, float(freedom))
    _each_channel(channels.deviation if root else channels.variance, m2, m2, own, made)
    return made


def merge(
    count: Any, stats: tuple[DeviceArray, ...], other_count: Any, other: tuple[DeviceArray, ...]
) -> tuple[DeviceArray, ...]:
    if isinstance(count, np.ndarray) or isinstance(other_count, np.ndarray):  # on the host, where the counts are
        merged = host.merge(count, tuple(map(to_host, stats)), other_count, tuple(map(to_host, other)))
        return tuple(upload(v, stats[0].device) for v in merged)
    made = tuple(empty(v, v.shape, v.dtype) for v in stats)
    other = tuple(beside(v, stats[0]) for v in other)
    _each_channel(channels.merge, stats[0], float(count), *stats, float(other_count), *other, *made)
    return made


def without_nan(x: DeviceArray, weights: DeviceArray | None) -> DeviceArray:
    """Weights of x's shape, 0 where it is NaN; None for ones."""
    if weights is None:
        weights = upload(np.ones((1,) * x.ndim, np.uint8), x.device)
    weights = beside(weights._view(np.broadcast_to(weights.addresses, x.shape)), x)
    made = empty(x, x.shape, weights.dtype)
    if x.size:
        passes.without_nan(x, weights, made)
    return made


def sums_of(weights: DeviceArray, axis: int) -> DeviceArray:
    """(C,) float64: of contiguous weights, the sum of each channel's."""
    shape = math.prod(weights.shape[:axis]), weights.shape[axis], math.prod(weights.shape[axis + 1 :])
    sums = empty(weights, (2, shape[1]), FLOAT64)
    if weights.size:
        passes.sum_weights(weights.reshape(shape), sums)
    else:
        fill(sums, 0.0)
    return sums[0]


def accumulate(totals: Sequence[DeviceArray], new: Sequence[DeviceArray]) -> None:
    totals = [beside(total, new[0]) for total in totals]
    _each_channel(channels.accumulate, new[0], *totals, *new)
    for total in totals:
        _hand_back(total)


def write(targets: Sequence[Any], values: Sequence[Array]) -> None:
    """The count of a layer's batches stays on the host."""
    for to, v in zip(targets, values, strict=True):
        if isinstance(to, DeviceArray):
            assign(to, upload(v, to.device))
        else:
            to[...] = v


def fill(to: DeviceArray, value: float) -> None:
    """Of a contiguous array."""
    _each_channel(channels.fill, to.reshape(-1), to, float(value))


def _each_channel(kernel: Any, v: DeviceArray, *arguments: Any) -> None:
    """On v's stream, for as many channels as its last axis has."""
    if v.size:
        count = v.shape[-1]
        passes.run(kernel, passes.in_turn(count), v, *arguments, count)


def beside(a: DeviceArray, x: DeviceArray) -> DeviceArray:
    """For work on x's stream, which then waits for what makes it."""
    if a.stream == x.stream:
        return a
    target.wait(x.stream, a.stream, a.device)
    return DeviceArray(a.addresses, a.owner, x.stream, a.device, a.given, a.home)


def _hand_back(a: DeviceArray) -> None:
    """What is launched on its owner's stream from now on runs after what was on this one."""
    if a.home != a.stream:
        target.wait(a.home, a.stream, a.device)
