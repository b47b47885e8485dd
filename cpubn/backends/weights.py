"""What each element of a batch counts for: not at all where it is masked, elsewhere once or as often as it weighs.

W = sum(w),  mean = sum(w * x) / W,  m2 = sum(w * (x - mean)**2),  var = m2 / W                   of each channel
dx = weight * r * (g - w / W * (sum(g) + x_hat * sum(g * x_hat))),  g = 0 where w = 0
"""

from __future__ import annotations

from typing import NamedTuple

from cpubn.typing import Array, Vector


class Weights(NamedTuple):
    """Elements whose weight is 0 reach nothing: y is `filling` there, and dx and g are 0."""

    array: Array  # of x's shape, with steps of 0 where it is broadcast: uint8 of 0 and 1, float32 or float64
    counts: Vector | None  # (C,) float64 where the batch is: W; None where nothing is summed
    filling: float
