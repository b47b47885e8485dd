"""What stands around the data of a convolution."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from cpubn.ask import check
from cpubn.typing import Array, Layout, Vector

PerAxis: TypeAlias = int | Sequence[int]
Pads: TypeAlias = PerAxis | Sequence[tuple[int, int]]
Padding: TypeAlias = Pads | Literal["same", "valid"]
Numbers: TypeAlias = tuple[int, ...]  # one for each spatial axis
Pairs: TypeAlias = tuple[tuple[int, int], ...]  # before and after, for each spatial axis


def surround(x: ArrayLike, padding: Pads, values: ArrayLike, *, layout: Layout = "NCHW") -> Array:
    """x with a value for each channel around it: what a convolution reads where fold_into_next_conv returns a pad.

    Parameters
    ----------
    x : float16, bfloat16, float32 or float64, of rank 3 to 5
        ``(N, C, *spatial)``, or in layout "NHWC" ``(N, *spatial, C)``.
    padding : how many on each side: a number, or one for each spatial axis, or a pair (before, after) for each.
    values : (C,), of any number type; in x's dtype they stand in the result.
    layout : of x.

    Returns
    -------
    A new array of x's dtype, in x's layout.

    Raises
    ------
    ValueError, TypeError : saying what must hold, what was got and what to do.

    Examples
    --------
    >>> cpubn.surround(np.zeros((1, 1, 2)), 1, [7.0])
    array([[[7., 0., 0., 7.]]])
    """
    array, axis = check.batch(check.on_host(x, "x", check.FLOATS), layout)
    if array.ndim < 3:
        raise ValueError(f"x must have 3 to 5 dimensions, got shape {array.shape}; it has no spatial axes to pad")
    pairs = pairs_per_axis(padding, array.ndim - 2)
    vector = check.vector(values, "values", array.shape[axis], layout)
    return surrounded(array, pairs, np.asarray(vector, np.float64), axis)


def surrounded(x: Array, pairs: Pairs, values: Vector, axis: int = 1) -> Array:
    """The same, checked."""
    spatial = [a for a in range(1, x.ndim) if a != axis]
    shape, inside = list(x.shape), [slice(None)] * x.ndim
    for a, (before, after) in zip(spatial, pairs, strict=True):
        shape[a] += before + after
        inside[a] = slice(before, before + x.shape[a])
    result = np.empty(shape, x.dtype)
    with np.errstate(over="ignore"):
        result[...] = values.reshape([-1 if a == axis else 1 for a in range(x.ndim)])
    result[tuple(inside)] = x
    return result


def per_axis(value: Any, name: str, rank: int, low: int) -> Numbers:
    """One whole number for all spatial axes, or one for each."""
    values = tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else (value,) * rank
    if len(values) != rank:
        raise ValueError(
            f"{name} must be one number, or {rank}, one for each spatial axis, got {value!r}; pass what the layer has"
        )
    numbers = tuple(check.count(v, name, f"{low} or more") for v in values)
    if any(v < low for v in numbers):
        raise ValueError(f"{name} must be at least {low}, got {value!r}; pass what the layer has")
    return numbers


def pairs_per_axis(value: Any, rank: int) -> Pairs:
    """The numbers before and after each spatial axis, from one, one for each or a pair for each."""
    if isinstance(value, Sequence) and not isinstance(value, str) and any(isinstance(v, Sequence) for v in value):
        if len(value) != rank or not all(isinstance(v, Sequence) and len(v) == 2 for v in value):
            raise ValueError(
                f"padding must be one number, or {rank} numbers or pairs (before, after), one for each spatial axis, "
                f"got {value!r}; pass what the layer has"
            )
        before, after = (per_axis([pair[side] for pair in value], "padding", rank, 0) for side in (0, 1))
        return tuple(zip(before, after, strict=True))
    return tuple((n, n) for n in per_axis(value, "padding", rank, 0))
