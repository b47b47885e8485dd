"""The walk: any array as a view of shape (outer, channel, inner), in the order of its memory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from cpubn.backends.place import place_of, plain
from cpubn.backends.weights import Weights
from cpubn.typing import Array


class Walk(NamedTuple):
    """The order in which an array is read: its axes from the outermost in memory to the innermost."""

    axes: tuple[int, ...]
    channel: int  # the place in axes of the channels'
    shape: tuple[int, int, int]  # (outer, channel, inner)

    @property
    def samples(self) -> int:
        """Values per channel."""
        return self.shape[0] * self.shape[2]

    def merges(self, a: Array) -> bool:
        """Whether the outer axes, and the inner ones, are one axis each in a's memory, so that it can be viewed."""
        return self.steps(a.shape, a.strides) is not None

    def steps(self, shape: Sequence[int], strides: Sequence[int]) -> tuple[int, int, int] | None:
        """An array's strides along (outer, channel, inner), or None where it cannot be viewed so."""
        groups = self.axes[: self.channel], (self.axes[self.channel],), self.axes[self.channel + 1 :]
        outer, channel, inner = (_step(shape, strides, axes) for axes in groups)
        return None if outer is None or channel is None or inner is None else (outer, channel, inner)

    def view(self, a: Array, dtype: np.dtype[Any] | None = None) -> Array:
        """`a` as (outer, channel, inner), native and aligned: a view where strides and dtype allow it, else a copy."""
        a, place = plain(a), place_of(a)
        if dtype is not None and a.dtype != dtype:
            a = place.astype(a, dtype)
        elif not (a.flags.aligned and a.dtype.isnative):
            a = place.astype(a, a.dtype.newbyteorder("="))
        return place.reshape(a.transpose(self.axes), self.shape)  # type: ignore[no-any-return]


def along(weights: Weights | None, walk: Walk) -> Weights | None:
    """Weights with their array as (outer, channel, inner)."""
    return weights and weights._replace(array=walk.view(weights.array))


def walk_of(x: Array, axis: int) -> Walk:
    """The walk along x's memory, so that views of any order are read in theirs; a function of x's strides alone."""
    natural = _walk(x, range(axis), axis, range(axis + 1, x.ndim))
    if x.flags.c_contiguous and x.shape[axis] > 1:
        return natural
    sorted_walk = _sorted_walk(x, axis)
    if 0 in x.strides and (natural.merges(x) or not sorted_walk.merges(x)):
        return natural  # broadcast axes have no order of their own
    return sorted_walk


def _sorted_walk(x: Array, axis: int) -> Walk:
    """The walk by falling strides, a broadcast axis outermost."""
    stride = [abs(s) or math.inf for s in x.strides]
    single = [a for a in range(x.ndim) if x.shape[a] == 1 and a != axis]
    others = sorted((a for a in range(x.ndim) if x.shape[a] != 1 and a != axis), key=lambda a: -stride[a])
    if x.shape[axis] > 1:
        cut = sum((stride[a], axis) > (stride[axis], a) for a in others)
    else:  # one channel stands anywhere: make its inner runs as long as they go
        cut = len(others)
        while cut and _step(x.shape, x.strides, others[cut - 1 : cut + 1]) is not None:
            cut -= 1
    return _walk(x, (*single, *others[:cut]), axis, others[cut:])


def _walk(x: Array, outer: Sequence[int], axis: int, inner: Sequence[int]) -> Walk:
    sizes = math.prod(x.shape[a] for a in outer), x.shape[axis], math.prod(x.shape[a] for a in inner)
    return Walk((*outer, axis, *inner), len(outer), sizes)


def _step(shape: Sequence[int], strides: Sequence[int], axes: Sequence[int]) -> int | None:
    """The stride of axes as one, or None where one of them does not step by the whole of the next."""
    long = [a for a in axes if shape[a] != 1]
    if any(strides[a] != strides[b] * shape[b] for a, b in pairwise(long)):
        return None
    return strides[long[-1]] if long else 0


def new_output(x: Array, walk: Walk, dtype: np.dtype[Any]) -> Array:
    """A new array of x's shape and order of memory."""
    made = place_of(x).empty(x, tuple(x.shape[a] for a in walk.axes), dtype)
    return made.transpose(np.argsort(walk.axes))  # type: ignore[no-any-return]
