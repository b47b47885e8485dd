"""Moments of a batch, and their merge: batches, files and processes add up to the statistics of all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np

from cpubn.ask import check, state
from cpubn.backends.place import located, place_of, to_host
from cpubn.typing import Array, Vector

VECTORS = "mean", "low", "m2"


@dataclass(frozen=True, eq=False)
class Moments:
    """Count, mean and sum of squared deviations of every channel.

    ``count`` is the number of values a channel; ``mean`` and ``m2 = sum((x - mean)**2)`` are float64 of shape (C,).
    ``low`` is what the mean lost when it was rounded to float64, which backward needs; leave it out in moments from
    figures of your own. All three are where the batch was: of one on a GPU, arrays of numba.cuda.

    Moments are equal where count and all bits of the three are, and one NaN is any other. They cannot be hashed.
    """

    count: int
    mean: Vector
    m2: Vector
    low: Vector = field(default_factory=lambda: cast("Vector", None), repr=False)

    def __post_init__(self) -> None:
        low = np.zeros(np.shape(self.mean)) if self.low is None else self.low
        given = {"mean": self.mean, "m2": self.m2, "low": low}
        count = check.count(self.count, "count", "the values per channel")
        for name, value in {"count": count, **state.own_vectors(given)}.items():
            object.__setattr__(self, name, value)

    @classmethod
    def empty(cls, channels: int) -> Moments:
        """Of no values: what a sum starts from, ``sum(parts, Moments.empty(C))``; merged, it gives the other."""
        zeros = np.zeros(check.count(channels, "channels", "the number of channels"))
        return cls(0, zeros, zeros)

    @classmethod
    def of(cls, count: int, stats: Sequence[Array]) -> Moments:
        """From a kernel's own figures, mean, low and m2, which need no check."""
        moments = object.__new__(cls)
        vars(moments).update(count=count, _vectors=(stats[0], stats[1], stats[2]))
        if isinstance(stats[0], np.ndarray):
            vars(moments).update(mean=stats[0], low=stats[1], m2=stats[2])
        return moments

    if TYPE_CHECKING:  # which would take it of __getattr__ that there is any attribute

        @property
        def _vectors(self) -> tuple[Any, Any, Any]:
            """Mean, low and m2 as the kernels gave them."""

    else:

        def __getattr__(self, name: str) -> Any:
            """Of a batch on a GPU, whose vectors are made into arrays when they are asked for."""
            if name == "_vectors":
                return tuple(located(vars(self)[vector], vector) for vector in VECTORS)
            if name not in VECTORS:
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
            vector = self._vectors[VECTORS.index(name)]
            vars(self)[name] = place_of(vector).result(vector)
            return vars(self)[name]

    def __getstate__(self) -> dict[str, Any]:
        """A copy or pickle is on the host."""
        return {"count": self.count, **{name: to_host(getattr(self, name)) for name in VECTORS}}

    def var(self, ddof: int = 0) -> Vector:
        """Variance, (C,) float64: ``m2 / (count - ddof)``; ddof=0 normalizes a batch, ddof=1 is what running_var keeps.

        Raises ValueError where ``count`` is not above ``ddof``, TypeError if that is no number.
        """
        return self._spread(ddof, "var")

    def std(self, ddof: int = 0) -> Vector:
        """Standard deviation, (C,) float64: the square root of ``var(ddof)``, with its errors."""
        return self._spread(ddof, "std")

    def _spread(self, ddof: int, name: str) -> Vector:
        freedom, m2 = state.degrees_of_freedom(self.count, ddof, name), self._vectors[2]
        place = place_of(m2)
        return place.result(place.variance(m2, freedom, root=name == "std"))  # type: ignore[no-any-return]

    def merge(self, other: Moments) -> Moments:
        """Moments of both sets of values together (Chan, Golub and LeVeque, 1983); ``a + b`` and ``sum`` do the same.

        Raises TypeError if ``other`` is no Moments, ValueError if it has another number of channels.
        """
        state.mergeable(self, other)
        if self.count == 0 or other.count == 0:
            return other if self.count == 0 else self
        merged = place_of(self._vectors[0]).merge(self.count, self._vectors, other.count, other._vectors)
        return Moments.of(self.count + other.count, merged)

    def __add__(self, other: Any) -> Moments:
        return self.merge(other) if isinstance(other, Moments) else NotImplemented

    def __radd__(self, other: Any) -> Moments:
        """0 + moments, with which sum() starts."""
        return self if isinstance(other, int) and other == 0 else NotImplemented

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Moments):
            return NotImplemented
        pairs = ([to_host(getattr(m, name)) for m in (self, other)] for name in VECTORS)
        return self.count == other.count and all(_same_bits(a, b) for a, b in pairs)

    __hash__: ClassVar[None]  # type: ignore[assignment]


def _same_bits(a: Vector, b: Vector) -> bool:
    """Of numbers; NaN is NaN."""
    if a.shape != b.shape:
        return False
    same = np.ascontiguousarray(a).view(np.int64) == np.ascontiguousarray(b).view(np.int64)
    return bool((same | (np.isnan(a) & np.isnan(b))).all())
