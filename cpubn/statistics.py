"""Moments of a batch, and their merge: batches, files and processes add up to the statistics of all of them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Self, cast

import numpy as np
from numpy.typing import ArrayLike

from cpubn.ask import check, moments, state
from cpubn.ask.weights import PROPAGATE, asked
from cpubn.backends.place import located, place_of, to_host
from cpubn.maths.tree import Tree
from cpubn.typing import Array, Backend, Count, Layout, Missing, Values, Vector

VECTORS = "mean", "low", "m2"


@dataclass(frozen=True, eq=False)
class Moments:
    """Count, mean and sum of squared deviations of every channel.

    They are equal where count and all bits of the vectors are, and one NaN is any other. They cannot be hashed, nor
    assigned to; ``update`` and ``remove`` change them, all at once, ``+``, ``-`` and ``merge`` make new ones.

    Parameters
    ----------
    count : number of values a channel, below 2**63, or where it differs by channel an array (C,), int64 or float64
        With a mask, lengths, weights or omitted NaN it is float64, the sum of weights; a channel of 0 has mean, m2 and
        variance 0.
    mean : (C,), kept as float64, as all vectors are: copies, where the batch was, of one on a GPU arrays of numba.cuda.
    m2 : (C,), ``sum((x - mean)**2)``.
    low : (C,), what the mean lost when it was rounded to float64, which backward needs
        Leave it out in moments from figures of your own.

    Attributes
    ----------
    count, mean, m2, low : as they were given.

    Raises
    ------
    ValueError, TypeError : figures that cannot be moments, such as a negative m2.

    Examples
    --------
    >>> a, b = cpubn.Moments(2, mean=[1.0], m2=[2.0]), cpubn.Moments(2, mean=[3.0], m2=[2.0])
    >>> (a + b).mean.tolist(), (a + b).var().tolist()
    ([2.0], [2.0])
    >>> total = cpubn.Moments.empty(3)
    >>> for seed in range(4):
    ...     batch = np.random.default_rng(seed).normal(size=(8, 3))
    ...     total = total.update(batch)
    >>> total.count
    32
    """

    count: Count
    mean: Vector
    m2: Vector
    low: Vector = field(default_factory=lambda: cast("Vector", None), repr=False)

    def __post_init__(self) -> None:
        low = np.zeros(np.shape(self.mean)) if self.low is None else self.low
        own: dict[str, Any] = {**state.own_vectors({"mean": self.mean, "m2": self.m2, "low": low})}
        own["count"] = moments.own_count(self.count, own["mean"].size)
        for name, value in own.items():
            object.__setattr__(self, name, value)

    @classmethod
    def empty(cls, channels: int) -> Moments:
        """Of no values: what a sum starts from, ``sum(parts, Moments.empty(C))``; merged, it gives the other.

        Parameters
        ----------
        channels : how many, a whole number; else ValueError or TypeError.
        """
        zeros = np.zeros(check.count(channels, "channels", "the number of channels"))
        return cls(0, zeros, zeros)

    @classmethod
    def of(cls, count: Count, stats: Sequence[Array]) -> Moments:
        """From a kernel's own figures, mean, low and m2, which need no check."""
        if type(count) is not int:
            count = to_host(count)
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
        """Variance: ``m2 / (count - ddof)``.

        Parameters
        ----------
        ddof : 0 for what a batch is normalized by, 1 for what running_var keeps.

        Returns
        -------
        (C,) float64.

        Raises
        ------
        ValueError, TypeError : ``count`` is not above ``ddof``, or that is no number.
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

        Raises
        ------
        TypeError, ValueError : ``other`` is no Moments, or of other channels, or of so many values that they are 2**63.
        """
        state.mergeable(self, other)
        for one, rest in ((self, other), (other, self)):
            if moments.is_empty(one.count):
                return Moments.of(rest.count, rest._vectors)
        count = moments.added(self.count, other.count)
        return Moments.of(
            count, place_of(self._vectors[0]).merge(self.count, self._vectors, other.count, other._vectors)
        )

    @classmethod
    def merge_all(cls, parts: Iterable[Moments]) -> Moments:
        """All of them together, merged in pairs, and these in pairs: a tree, whose shape their number alone decides.

        So the same parts in the same order give the same bits, wherever they were computed, and rounding errors grow
        with log2 of their number: the whole's to 1e-12, where each part is right to that. Of a generator no more than
        log2 of their number are held at a time.

        Raises
        ------
        ValueError, TypeError : as merge does; ValueError also where there are no parts.

        Examples
        --------
        >>> parts = [cpubn.moments(np.full((4, 1), k)) for k in range(3)]
        >>> cpubn.Moments.merge_all(parts).mean
        array([1.])
        """
        tree: Tree[Moments] = Tree()
        for part in parts:
            state.of_kind(part, cls)
            tree = tree.plus(part)
        total = tree.total()
        if total is None:
            raise ValueError("parts must hold Moments, got none; put Moments.empty(C) before the others")
        return total

    def update(
        self, x: ArrayLike, *, layout: Layout = "NCHW", backend: Backend | None = None, mask: Values = None,
        lengths: Values = None, weights: Values = None, nan: Missing = PROPAGATE,
    ) -> Self:  # fmt: skip
        """Take in the values of ``x``, and return these moments themselves.

        Not for several threads at once: let each have moments of its own, and merge them.

        Parameters
        ----------
        x, layout, backend, mask, lengths, weights, nan : as in ``cpubn.moments``.

        Raises
        ------
        ValueError, TypeError : as ``moments`` and ``merge`` do, with nothing changed.
        """
        which = asked(mask, lengths, weights, nan)
        return self._become(self.merge(Moments.of(*moments.counted(x, layout, backend, which))))

    def remove(self, other: Moments) -> Self:
        """Take out what was merged or updated before, and return these moments themselves, on the host::

            mean_left = mean + (mean - mean_other) * n_other / n_left
            m2_left = m2 - m2_other - (mean - mean_other)**2 * n * n_other / n_left         (merge, solved for a part)

        Digits cancel: where these moments are right to 1e-12, the mean that is left is right to ``1e-12 * std() * n /
        n_left``, and m2 to ``3e-12 * m2 * sqrt(n / n_left)``. A channel that is not finite stays so.

        Parameters
        ----------
        other : what went in; values summed in another order differ by what the kernels may (float32: 1e-6).

        Raises
        ------
        ValueError, TypeError : with nothing changed: no digit of m2_left is known by that bound, or ``other`` cannot
            have been part of these.
        """
        state.of_kind(other, Moments)
        return self._become(self - other)

    def _become(self, other: Moments) -> Self:
        object.__setattr__(self, "__dict__", vars(other).copy())  # in one step, whatever interrupts it
        return self

    def __add__(self, other: Any) -> Moments:
        return self.merge(other) if isinstance(other, Moments) else NotImplemented

    def __radd__(self, other: Any) -> Moments:
        """0 + moments, with which sum() starts."""
        zero = isinstance(other, int) and other == 0
        return Moments.of(self.count, self._vectors) if zero else NotImplemented

    def __sub__(self, other: Any) -> Moments:
        if not isinstance(other, Moments):
            return NotImplemented
        state.mergeable(self, other)
        stats, others = (tuple(map(to_host, (m.mean, m.low, m.m2))) for m in (self, other))
        if moments.is_empty(other.count):
            return Moments.of(self.count, stats)
        return Moments.of(*moments.without(self.count, stats, other.count, others))

    def to_dict(self) -> dict[str, Any]:
        """Count, mean, m2 and low as numbers and lists of numbers, which JSON keeps bit by bit."""
        state = self.__getstate__()
        return {name: np.asarray(state[name]).tolist() for name in moments.FIELDS}

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> Moments:
        """What ``to_dict`` gave, or a mapping with these keys and arrays; ``low`` may be absent.

        Raises
        ------
        ValueError, TypeError : for other keys and numbers that cannot be moments, and for what are no numbers.
        """
        return cls(**moments.fields(given))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write them to an .npz file of exactly that name, the whole of it or none."""
        from cpubn.ask import files  # here and below, because it takes modules that most programs do not need

        files.write_archive(path, self.__getstate__())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Moments:
        """What ``save`` wrote. Nothing in the file is executed.

        Raises
        ------
        ValueError, OSError : it is another file or a damaged one, or cannot be opened.
        """
        from cpubn.ask import files

        with files.archive_of(files.file_path(path)) as (keys, take):
            with files.holding(path, "a file of Moments.save"):
                moments.fields(dict.fromkeys(keys))
            given = {key: moments.whole(take(key)) for key in keys}
        with files.holding(path, "a file of Moments.save"):
            return cls.from_dict(given)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Moments):
            return NotImplemented
        pairs = ([to_host(getattr(m, name)) for m in (self, other)] for name in VECTORS)
        return np.array_equal(self.count, other.count) and all(_same_bits(a, b) for a, b in pairs)

    __hash__: ClassVar[None]  # type: ignore[assignment]


def _same_bits(a: Vector, b: Vector) -> bool:
    """Of numbers; NaN is NaN."""
    if a.shape != b.shape:
        return False
    same = np.ascontiguousarray(a).view(np.int64) == np.ascontiguousarray(b).view(np.int64)
    return bool((same | (np.isnan(a) & np.isnan(b))).all())
