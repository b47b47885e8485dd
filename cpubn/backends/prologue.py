"""What backward is made from, as kernels take it: the statistics that a forward normalized with, and the prologue.

g = dy * activation'(z), before everything else            and then, in training,
dx = weight * r * (g - mean(g) - x_hat * mean(g * x_hat)),  r = 1 / sqrt(var + eps),  x_hat = (x - mean) * r
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cpubn.backends.epilogue import Activation
from cpubn.typing import Array, Vector

# Bytes behind the bits of signs: kernels may read eight at once, from the byte of any bit on.
PADDING = 8


class Statistics(NamedTuple):
    """Vectors are (C,) float64."""

    mean: Vector
    low: Vector  # the mean's second word: zeros where it is unknown, and in inference
    var: Vector  # biased
    weight: Vector
    eps: float
    training: bool  # whether mean and var are the batch's own, through which x reaches dx once more
    counts: Vector | None = None  # of samples that backward's sums are of, which are given; None: it sums x's itself


class Bits(NamedTuple):
    """One bit an element of a walk, set where the derivative is 1; elsewhere it is the slope."""

    bits: NDArray[np.uint8]  # as `pack_signs` makes them, padded
    strides: tuple[int, int, int]  # of outer, channel and inner, in bits
    slope: float  # of 0: the gradient is 0 there, whatever dy is


class Prologue(NamedTuple):
    """How g is made of dy. Arrays are (outer, channel, inner)."""

    activation: Activation | None = None  # its derivative is taken of z or, where `kept` is given, of that
    bias: Vector | None = None  # (C,), for z = (x - centre) * scale + shift + residual, as algebra.affine has it
    residual: Array | None = None
    kept: Array | None = None  # the forward's output, in place of z
    signs: Bits | None = None  # in place of an activation
    g: Array | None = None  # where g is written on the way


NO_PROLOGUE = Prologue()


def bytes_of(count: int) -> int:
    """Bytes that the signs of so many elements take."""
    return -(-count // 8) + PADDING
