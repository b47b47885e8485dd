"""Moments of a batch, and their merge: batches, files and processes add up to the statistics of all of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np

from cpubn import _algebra, _check, _check_state
from cpubn._types import Array, Vector


@dataclass(frozen=True, eq=False)
class Moments:
    """Count, mean and sum of squared deviations of every channel.

    ``count`` is the number of values a channel; ``mean`` and ``m2 = sum((x - mean)**2)`` are float64 of shape (C,).
    ``low`` is what the mean lost when it was rounded to float64; leave it out in moments from figures of your own.
    """

    count: int
    mean: Vector
    m2: Vector
    low: Vector = field(default=cast("Vector", None), repr=False)

    def __post_init__(self) -> None:
        low = np.zeros(np.shape(self.mean)) if self.low is None else self.low
        given = {"mean": self.mean, "m2": self.m2, "low": low}
        count = _check.count(self.count, "count", "the values per channel")
        for name, value in {"count": count, **_check_state.own_vectors(given)}.items():
            object.__setattr__(self, name, value)

    @classmethod
    def of(cls, count: int, stats: Array) -> Moments:
        """From a kernel's own figures, (3, C) mean, low and m2, which need no check."""
        moments = object.__new__(cls)
        for name, value in (("count", count), ("mean", stats[0]), ("m2", stats[2]), ("low", stats[1])):
            object.__setattr__(moments, name, value)
        return moments

    def var(self, ddof: int = 0) -> Vector:
        """Variance, (C,) float64: ``m2 / (count - ddof)``; ddof=0 normalizes a batch, ddof=1 is what running_var keeps.

        Raises ValueError where ``count`` is not above ``ddof``, TypeError if that is no number.
        """
        return self.m2 / _check_state.degrees_of_freedom(self.count, ddof)

    def merge(self, other: Moments) -> Moments:
        """Moments of both sets of values together (Chan, Golub and LeVeque, 1983); ``a + b`` and ``sum`` do the same.

        Raises TypeError if ``other`` is no Moments, ValueError if it has another number of channels.
        """
        _check_state.mergeable(self, other)
        if self.count == 0 or other.count == 0:
            return other if self.count == 0 else self
        with np.errstate(all="ignore"):  # a channel that holds NaN or Inf stays non-finite, without a warning
            mean, low, m2 = _algebra.merge(
                float(self.count), self.mean, self.low, self.m2, float(other.count), other.mean, other.low, other.m2
            )
        return Moments(self.count + other.count, mean, m2, low)

    def __add__(self, other: Any) -> Moments:
        return self.merge(other) if isinstance(other, Moments) else NotImplemented

    def __radd__(self, other: Any) -> Moments:
        """0 + moments, with which sum() starts."""
        return self if isinstance(other, int) and other == 0 else NotImplemented
