"""Moments: of data, their counts, and what is left of some without others."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from cpubn.ask import check, forward
from cpubn.ask.walk import along
from cpubn.ask.weights import Asked, weights_of
from cpubn.backends import choice, host, register
from cpubn.backends.compiled import variants
from cpubn.backends.place import located, place_of
from cpubn.backends.weights import Weights
from cpubn.maths import algebra
from cpubn.typing import Array, Backend, Count, Layout, Vector

FIELDS = "count", "mean", "m2", "low"
# What the moments of float64 data are right to: the mean in deviations, m2 relative to itself.
ACCURACY = 1e-12
LARGEST = 2**63 - 1


def counted(x: ArrayLike, layout: Layout, backend: Backend | None, which: Asked | None) -> tuple[Any, Any]:
    """The values per channel of x, and their mean, low and m2; `which` of them count."""
    if layout is not check.NCHW and layout is not check.NHWC:
        layout = check.layout_name(layout)
    return counted_by(x, layout, backend, which and weights_of(x, layout, which, summed=True))


def counted_by(x: ArrayLike, layout: str, backend: Backend | None, own: Weights | None) -> tuple[Any, Any]:
    """The same by weights."""
    calls = choice.compiled_calls(backend)
    found = calls and (calls.moments(x, layout, own) or calls.moments(variants.borrowed()(x), layout, own))
    if found:
        return found  # type: ignore[no-any-return]
    x = located(x, "x")
    kernels = choice.kernels_for(x, backend)
    with register.calm():
        array, walk = forward.sample(x, layout, kernels.ANY_TYPE)
        if calls and place_of(array) is host:
            return calls.moments(check.as_array(x), layout, own)  # type: ignore[no-any-return]
        stats = place_of(array).room(array, (3, walk.shape[1]), kept=True)
        if array.size:
            kernels.moments(array, stats, choice.threads(array.nbytes), along(own, walk))
    return walk.samples if own is None else own.counts, stats


def own_count(given: Any, channels: int) -> Count:
    """A whole number, or where channels differ one for each: int64, or float64 of weights."""
    what = "the values per channel"
    if isinstance(given, bool | Integral) or np.ndim(given) == 0:
        return check.count(given, "count", what)
    array = check.on_host(given, "count", check.NUMBERS)
    if array.shape != (channels,):
        raise ValueError(f"count must be one number or have shape ({channels},), got {array.shape}; pass {what}")
    largest = LARGEST if array.dtype.kind in "iu" else np.finfo(np.float64).max
    wrong = ~((array >= 0) & (array <= largest))  # NaN is
    if wrong.any():
        kind = "below 2**63" if array.dtype.kind in "iu" else "finite"
        raise ValueError(f"count must be at least 0 and {kind} in every channel, got {array[wrong][0]}; pass {what}")
    return np.array(array, np.int64 if array.dtype.kind in "iu" else np.float64)


def is_empty(count: Count) -> bool:
    return not (count.any() if isinstance(count, np.ndarray) else count)


def added(count: Count, other: Count) -> Count:
    """The sum of two counts, which are exact where they are whole."""
    whole = all(np.asarray(c).dtype.kind == "i" for c in (count, other))
    if whole and np.any(np.asarray(count) > LARGEST - np.asarray(other)):
        raise ValueError(
            f"the counts must add up to less than 2**63, got {np.max(count)} and {np.max(other)} values per channel; "
            "keep the moments of the two apart"
        )
    return count + other


def without(
    count: Count, stats: tuple[Vector, ...], other_count: Count, other: tuple[Vector, ...]
) -> tuple[Count, tuple[Vector, ...]]:
    """What is left of moments, (mean, low, m2) each, without a part of theirs; Moments.remove has the bounds."""
    left = _difference(count, other_count)
    n, n_other = np.asarray(count, np.float64), np.asarray(other_count, np.float64)
    with np.errstate(all="ignore"):
        mean, low, m2 = algebra.unmerge(n, stats[0], stats[1], stats[2], n_other, other[0], other[1], other[2])
        rest = np.broadcast_to(np.asarray(left, np.float64), mean.shape)
        none = rest == 0.0
        noise = 3.0 * ACCURACY * stats[2] * np.sqrt(np.where(none, 1.0, n / rest))
        m2 = np.where(none, stats[2] - other[2], m2)
        apart = abs((stats[0] - other[0]) + (stats[1] - other[1]))
        far = (n > 0.0) & (apart > ACCURACY * (np.sqrt(stats[2] / n) + abs(stats[0])))
        single = none | (rest == 1.0)  # m2 is 0 of one value
        foreign = (m2 < -noise) | (single & (m2 > noise)) | (none & far)
        lost = ~single & (m2 <= noise) & (noise > 0.0)
    if foreign.any():
        raise ValueError(
            f"other must be part of these moments, got some that are not, in channel {int(foreign.argmax())}; "
            "remove what was merged, of the same values in the same order"
        )
    if lost.any():
        k = int(lost.argmax())
        raise ValueError(
            f"some digits must be left of m2, got in channel {k} {m2[k]:.3g} of {stats[2][k]:.3g}, which is within "
            "its rounding errors; compute the moments of what stays anew, from its values"
        )
    known = ~np.isnan(m2)
    mean, low = (np.where(none, np.where(known, 0.0, np.nan), v) for v in (mean, low))
    return left, (mean, low, np.where(single & known, 0.0, m2))


def _difference(count: Count, other: Count) -> Count:
    left = count - other
    if np.asarray(left).dtype.kind == "f":  # sums of weights are rounded
        left = np.where(abs(left) <= ACCURACY * count, 0.0, left)
    if np.any(np.less(left, 0)):
        raise ValueError(
            f"other must be part of these moments, got {np.max(other)} values per channel of theirs, "
            f"{np.max(count)}; remove what was merged"
        )
    return left


def fields(given: Any) -> dict[str, Any]:
    """Of moments as a mapping, which may lack low."""
    if not isinstance(given, Mapping):
        raise TypeError(
            f"moments must be a mapping from names to numbers, got {type(given).__name__}; pass a to_dict()"
        )
    missing, unexpected = sorted({*FIELDS[:3]} - {*given}), sorted(map(str, {*given} - {*FIELDS}))
    if missing or unexpected:
        raise ValueError(
            f"moments must have the keys {', '.join(FIELDS)}, got {', '.join(map(str, given)) or 'none'} "
            f"(missing: {', '.join(missing) or 'none'}; unexpected: {', '.join(unexpected) or 'none'}); "
            "pass a to_dict()"
        )
    return dict(given)


def whole(array: Array) -> Any:
    """Of a file's count that is one number, that."""
    return array.item() if array.ndim == 0 else array
