"""Arrays as the Numba kernels take them: flat, contiguous ones that can be written, of one type; others are copied.

Copies are of some channels at a time, so that they stay small and in the cache.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from cpubn.backends.epilogue import Activation
from cpubn.backends.jit.apply import Table
from cpubn.backends.jit.prologue import Source
from cpubn.backends.jit.sums import Walk
from cpubn.backends.prologue import PADDING, Prologue, Statistics
from cpubn.maths import algebra
from cpubn.maths.order import LANES, order_of
from cpubn.typing import Array

CACHE, LONG = 32 << 20, 1024  # results go past the cache where so much moves, in runs that long
NONE: Array = np.empty((0, 0))


def is_plain(a: Array | None) -> bool:
    """Whether kernels take an array as it is."""
    return a is None or bool(a.flags.c_contiguous and a.flags.writeable)


def plain(a: Array) -> Array:
    """The array itself, or a copy where it is none that kernels take: to Numba a read-only one is of another type."""
    return np.require(a, requirements=["C", "W"])


def flat(a: Array | None) -> Any:
    """The elements of an array; for None what kernels take for it."""
    return NONE if a is None else plain(a).reshape(-1)


def groups(x: Array, channels: Array, *arrays: Array | None) -> Iterator[Any]:
    """All of the channels where every array is plain; else so few at a time that their copies take 256 KB."""
    if len(channels) == x.shape[1] and all(map(is_plain, arrays)):
        yield slice(None)
        return
    copied = sum(a is not None for a in arrays) * x.shape[0] * x.shape[2] * x.itemsize
    step = max(1, (1 << 18) // copied)
    for first in range(0, len(channels), step):
        group = channels[first : first + step]
        start, stop = int(group[0]), int(group[-1]) + 1
        yield slice(start, stop) if stop - start == len(group) else group


class Terms(NamedTuple):
    """Arrays (O, C, I), signs as flags, and the activation that g is made by; None where there is none."""

    dy: Array | None = None
    residual: Array | None = None
    kept: Array | None = None
    signs: Array | None = None
    slope: float = 0.0
    activation: Activation | None = None

    def of(self, channels: Array, real: Any) -> Terms:
        """Those of some channels, in another type."""
        dy, residual, kept = (None if a is None else plain(a[:, channels].astype(real, copy=False)) for a in self[:3])
        return self._replace(
            dy=dy, residual=residual, kept=kept, signs=None if self.signs is None else self.signs[:, channels]
        )

    def source(self, real: Any, g: Array | None = None, is_scale: bool = False) -> Source:
        """As kernels take them, which compute in `real`."""
        low, high = (self.activation or Activation(0))[1:3]
        packed = NONE
        if self.signs is not None:
            packed = np.append(np.packbits(self.signs, bitorder="little"), np.zeros(PADDING, np.uint8))
        with np.errstate(all="ignore"):
            dy, residual, kept = map(flat, self[:3])
            return Source(dy, residual, kept, packed, real(self.slope), real(low), real(high), flat(g), is_scale)

    @property
    def derivative(self) -> Any:
        if self.activation is None:
            return None
        entry = self.activation.entry
        if entry is None:
            return self.activation.derivative
        return entry.gradient if self.kept is None else entry.of_output


def terms_of(dy: Array, x: Array, prologue: Prologue) -> Terms:
    """What g is made of, its signs bit by bit made flags of x's shape."""
    if prologue.signs is None:
        return Terms(dy, prologue.residual, prologue.kept, activation=prologue.activation)
    bits, strides, slope = prologue.signs
    places = sum(
        np.arange(n).reshape([-1 if a == b else 1 for b in range(3)]) * strides[a] for a, n in enumerate(x.shape)
    )
    flags = np.unpackbits(bits[:-PADDING], bitorder="little")[places]
    return Terms(dy, signs=flags, slope=slope)


def table_of(rows: Array, shape: tuple[int, ...], real: Any, arrays: int) -> Table:
    """Coefficients in the data's type, by column or by channel, for a pass over so many arrays of a shape."""
    past = np.prod(shape) * arrays * np.dtype(real).itemsize > CACHE and not LANES <= shape[2] < LONG
    with np.errstate(all="ignore"):
        if shape[2] >= LANES:
            return Table(np.ascontiguousarray(rows, real).reshape(-1), shape[1], 0, bool(past))
        columns = np.repeat(rows, shape[2], axis=1).astype(real)
    period = columns.shape[1] * -(-LANES // columns.shape[1])
    table = np.take(columns, np.arange(period + LANES) % columns.shape[1], axis=1)
    return Table(np.ascontiguousarray(table).reshape(-1), period + LANES, period, bool(past))


def enough(channels: Array, walk: Walk, lanes: int) -> Any:
    """Those channels, and behind them others, if their columns would not fill the lanes."""
    others = np.setdiff1d(np.arange(walk.channels), channels)
    missing = -(-lanes // (walk.inner * walk.together)) - len(channels) if walk.columns else 0
    if missing <= 0 or not len(others):
        start, stop = int(channels[0]), int(channels[-1]) + 1
        return slice(start, stop) if stop - start == len(channels) else channels
    return np.concatenate((channels, others[:missing]))


def walk_of(shape: tuple[int, ...]) -> Walk:
    outer, channels, inner = shape
    return Walk(outer, channels, inner, *order_of(outer, channels, inner))


def serial_for(activation: Activation | None, threads: int) -> int:
    """What a function of a user's raises would be lost in Numba's own threads."""
    return threads if activation is None or activation.function is None else 1


def affine_of(x: Array, statistics: Statistics, bias: Array | None) -> Array:
    """centre, scale and shift that the forward had."""
    mean, low, var, weight, eps, *_ = statistics
    with np.errstate(all="ignore"):
        centre = algebra.centre(mean, x.dtype.type)
        return np.stack((centre, *algebra.affine(mean, low, var, weight, 0.0 if bias is None else bias, eps, centre)))
