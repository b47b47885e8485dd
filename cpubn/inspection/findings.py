"""What can be wrong with a batch norm: every kind of finding, and the criterion that a channel or a norm is held to.

scale = weight / sqrt(running_var + eps)        shift = bias - running_mean * scale        y = scale * x + shift
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from cpubn.maths import algebra
from cpubn.typing import Vector

Kind: TypeAlias = Literal[
    "broken",
    "negative variance",
    "not updated",
    "dead",
    "near-constant",
    "equal weights",
    "float16 overflow",
    "float16 underflow",
    "int8 outlier",
    "int8 underflow",
    "mean drift",
    "variance drift",
]
Mask: TypeAlias = NDArray[np.bool_]

# What each of them means to who reads it, and what the values of its channels are.
MEANINGS: Final[dict[Kind, tuple[str, str]]] = {
    "broken": ("inference gives NaN or infinity", "running_var + eps"),
    "negative variance": ("no variance is; eps makes up for it", "running_var"),
    "not updated": ("running_mean 0 and running_var 1, as in a new layer", "running_var"),
    "dead": ("weight 0, or an output that does not vary", "deviation of the output"),
    "near-constant": ("one deviation is less than a step of float32 at the mean", "running_var"),
    "equal weights": ("the same in all channels: never trained, or none was wanted", "weight"),
    "float16 overflow": ("scale or shift is infinite in float16", "scale or shift"),
    "float16 underflow": ("scale becomes 0 in float16", "scale"),
    "int8 outlier": ("with one int8 step for all channels, it rounds half of them to 0", "scale"),
    "int8 underflow": ("with one int8 step for all channels, it rounds to 0", "scale"),
    "mean drift": ("the batch's mean is over a deviation away", "deviations"),
    "variance drift": ("the batch's variance is over 4 times larger or smaller", "ratio"),
}

STEP = 2.0**-24  # half a step of float32, relative: less than that is lost beside a number
INT8_STEPS = 127
DEVIATIONS, RATIO = 1.0, 4.0


@dataclass(frozen=True)
class Numbers:
    """The vectors of a batch norm in float64, as they are: nothing is refused here."""

    mean: Vector
    var: Vector
    weight: Vector | None
    bias: Vector | None
    eps: float
    tracked: int | None  # None where it is not known

    @property
    def affine(self) -> tuple[Vector, Vector]:
        """scale and shift, by the formula that a fold takes."""
        ones, zeros = np.ones(self.mean.size), np.zeros(self.mean.size)
        weight, bias = (ones if self.weight is None else self.weight), (zeros if self.bias is None else self.bias)
        with np.errstate(all="ignore"):
            scale, shift = algebra.affine(self.mean, 0.0, self.var, weight, bias, self.eps, zeros)
        return scale, shift

    @property
    def output_deviation(self) -> Vector:
        """That of weight * x_hat + bias over data of the running statistics: |weight| * sqrt(var / (var + eps))."""
        var = np.maximum(self.var, 0.0)
        with np.errstate(all="ignore"):
            unit = np.where(var == 0.0, 0.0, np.sqrt(var / (var + self.eps)))
        return unit if self.weight is None else np.abs(self.weight) * unit


@dataclass(frozen=True)
class Drift:
    """How far a batch is from what the running statistics say; without drift 0, 1 and 0.

    deviations : (batch mean - running_mean) / sqrt(running_var + eps), the mean of what the norm makes of the batch
        before weight and bias.
    ratio : (batch variance + eps) / (running_var + eps), of the unbiased variance of the batch.
    distance : sqrt(deviations^2 + (sqrt(ratio) - 1)^2), the 2-Wasserstein distance between normal distributions of
        these means and variances, in running deviations (Schneider et al., 2020, arXiv:2006.16971, section 3).
    count : values per channel in the batch. Of few, the mean strays by 1 / sqrt(count) deviations all by itself.
    """

    deviations: Vector
    ratio: Vector
    distance: Vector
    count: int

    @classmethod
    def between(cls, numbers: Numbers, mean: Vector, var: Vector, count: int) -> Drift:
        with np.errstate(all="ignore"):
            deviations = (mean - numbers.mean) / np.sqrt(numbers.var + numbers.eps)
            ratio = (var + numbers.eps) / (numbers.var + numbers.eps)
            distance = np.hypot(deviations, np.sqrt(ratio) - 1.0)
        return cls(deviations, ratio, distance, count)


def found_in(numbers: Numbers, drift: Drift | None) -> Iterator[tuple[Kind, Mask, Vector]]:
    """Every kind that occurs, which channels have it, and the values that it was seen by."""
    scale, shift = numbers.affine
    divisor = numbers.var + numbers.eps
    broken = ~(np.isfinite(scale) & np.isfinite(shift) & np.isfinite(divisor) & (divisor > 0.0))
    judged: dict[Kind, tuple[Mask, Vector]] = {
        "broken": (broken, divisor),
        "negative variance": (numbers.var < 0.0, numbers.var),
        "not updated": (_everywhere(numbers, _as_new(numbers)), numbers.var),
        **_constant(numbers, ~broken),
        "equal weights": (
            _everywhere(numbers, _equal(numbers.weight)),
            scale if numbers.weight is None else numbers.weight,
        ),
    }
    dead = judged["dead"][0]
    judged |= _float16(scale, shift, ~broken, ~dead) | _int8(scale, ~broken, ~dead)
    if drift is not None:
        with np.errstate(invalid="ignore"):
            judged["mean drift"] = np.abs(drift.deviations) > DEVIATIONS, drift.deviations
            judged["variance drift"] = (drift.ratio > RATIO) | (drift.ratio < 1.0 / RATIO), drift.ratio
    yield from ((kind, mask, values) for kind, (mask, values) in judged.items() if mask.any())


def _everywhere(numbers: Numbers, holds: bool) -> Mask:
    """Of a finding about the norm as a whole."""
    return np.full(numbers.mean.size, holds)


def _as_new(numbers: Numbers) -> bool:
    return not numbers.tracked and not numbers.mean.any() and bool((numbers.var == 1.0).all())


def _equal(weight: Vector | None) -> bool:
    return weight is not None and weight.size > 1 and bool((weight == weight[0]).all())


def _constant(numbers: Numbers, sound: Mask) -> dict[Kind, tuple[Mask, Vector]]:
    lively = np.where(sound, numbers.output_deviation, 0.0)
    beside = np.full(lively.size, lively.max(initial=0.0))
    if numbers.bias is not None:
        beside = np.maximum(beside, np.abs(numbers.bias))
    # np.spacing is the distance to the next float32, NaN where the mean is beyond them all.
    with np.errstate(all="ignore"):
        step = np.spacing(np.abs(numbers.mean).astype(np.float32)).astype(np.float64)
        narrow = (np.sqrt(np.maximum(numbers.var, 0.0)) < step) | (numbers.var < algebra.TINY)
    return {
        "dead": (sound & ((lively == 0.0) | (lively < STEP * beside)), lively),
        "near-constant": (sound & narrow, numbers.var),
    }


def _float16(scale: Vector, shift: Vector, sound: Mask, alive: Mask) -> dict[Kind, tuple[Mask, Vector]]:
    with np.errstate(all="ignore"):
        halves = scale.astype(np.float16), shift.astype(np.float16)
    over = np.isinf(halves[0]), np.isinf(halves[1])
    return {
        "float16 overflow": (sound & (over[0] | over[1]), np.where(over[0], scale, shift)),
        "float16 underflow": (sound & alive & (halves[0] == 0.0), scale),
    }


def _int8(scale: Vector, sound: Mask, alive: Mask) -> dict[Kind, tuple[Mask, Vector]]:
    """One step for all channels, that of the largest scale: step = max |scale| / 127."""
    size = np.where(sound, np.abs(scale), 0.0)
    if not size.any():
        none = np.zeros(size.size, bool)
        return {"int8 outlier": (none, scale), "int8 underflow": (none, scale)}
    middle = float(np.median(size[size > 0.0]))
    with np.errstate(all="ignore"):
        codes = np.rint(size / (size.max() / INT8_STEPS))
        outlier = np.rint(middle / (size / INT8_STEPS)) == 0.0
    return {
        "int8 outlier": (sound & (size > 0.0) & outlier, scale),
        "int8 underflow": (sound & alive & (codes == 0.0), scale),
    }
