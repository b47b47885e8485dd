"""The walk: any array as a view of shape (outer, channel, inner), in the order of its memory; and who shares memory."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from cpubn._types import Array


class Walk(NamedTuple):
    """The order in which an array is read: its axes from the outermost in memory to the innermost."""

    axes: tuple[int, ...]
    shape: tuple[int, int, int]  # (outer, channel, inner)

    @property
    def samples(self) -> int:
        """Values per channel."""
        return self.shape[0] * self.shape[2]

    def view(self, a: Array) -> Array:
        """`a` as (outer, channel, inner), native and aligned: a view where its strides allow it, else a copy."""
        if not (a.flags.aligned and a.dtype.isnative):
            a = a.astype(a.dtype.newbyteorder("="))
        return a.transpose(self.axes).reshape(self.shape)


class Target(NamedTuple):
    """An output: the array the caller gets, and the view of it, or scratch, that a kernel writes."""

    array: Array
    view: Array

    def deliver(self, walk: Walk) -> Array:
        """The caller's array, complete."""
        if not np.may_share_memory(self.array, self.view):
            ordered = self.array.transpose(walk.axes)
            ordered[...] = self.view.reshape(ordered.shape)
        return self.array


def walk_of(x: Array, axis: int) -> Walk:
    """The walk along x's memory, so that views of any order are read in theirs; a function of x's strides alone."""
    channels = x.shape[axis]
    if x.flags.c_contiguous and channels > 1:
        return Walk(tuple(range(x.ndim)), (math.prod(x.shape[:axis]), channels, math.prod(x.shape[axis + 1 :])))
    stride = [abs(s) for s in x.strides]
    single = [a for a in range(x.ndim) if x.shape[a] == 1 and a != axis]
    others = sorted((a for a in range(x.ndim) if x.shape[a] != 1 and a != axis), key=lambda a: -stride[a])
    if channels > 1:
        cut = sum(stride[a] > stride[axis] for a in others)
    else:  # one channel stands anywhere: make its inner runs as long as they go
        cut = len(others)
        while cut and (cut == len(others) or x.strides[others[cut - 1]] == _extent(x, others[cut])):
            cut -= 1
    outer, inner = others[:cut], others[cut:]
    sizes = (math.prod(x.shape[a] for a in outer), channels, math.prod(x.shape[a] for a in inner))
    return Walk((*single, *outer, axis, *inner), sizes)


def target_of(out: Array, walk: Walk) -> Target:
    view = walk.view(out)
    return Target(out, view if np.may_share_memory(view, out) else np.empty(walk.shape, view.dtype))


def _extent(x: Array, axis: int) -> int:
    extent: int = x.strides[axis] * x.shape[axis]
    return extent


def is_same(a: Array, b: Array) -> bool:
    return a is b or (
        a.ctypes.data == b.ctypes.data and a.shape == b.shape and a.strides == b.strides and a.dtype == b.dtype
    )


def overlap(a: Array, b: Array) -> bool:
    if not np.may_share_memory(a, b):
        return False
    try:
        return np.shares_memory(a, b, max_work=100_000)  # type: ignore[arg-type]  # the stub knows only 0 and -1
    except np.exceptions.TooHardError:
        return True


def overlaps_itself(a: Array) -> bool:
    """Whether two elements share memory; exotic strides that cannot be told apart cheaply count as overlapping."""
    reach = a.itemsize
    for stride, size in sorted((abs(s), n) for s, n in zip(a.strides, a.shape, strict=True) if n > 1):
        if stride < reach:
            return True
        reach += stride * (size - 1)
    return False
