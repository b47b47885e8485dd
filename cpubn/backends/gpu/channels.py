"""What the CUDA backend does to vectors of one value a channel, by algebra.py: a thread for each channel.

Vectors are float32 or float64 and flat, results float64; they never leave the device.
"""
# mypy: allow-untyped-defs

import functools
from typing import Any

import numpy as np
from numba import cuda

from cpubn.backends.gpu.target import Flat, Kernel, launched
from cpubn.backends.gpu.types import algebra


@functools.cache
def affine(real: Any) -> Kernel:
    """A kernel: centre, scale and shift (3, C) that apply statistics to data computed in `real`."""

    @launched
    def kernel(mean, low, var, weight, bias, eps, coefficients, channels):
        for c in range(cuda.grid(1), channels, cuda.gridsize(1)):
            middle = np.float64(mean[c])
            centre = algebra.centre(middle, real)
            scale, shift = algebra.affine(
                middle, low[c], np.float64(var[c]), np.float64(weight[c]), np.float64(bias[c]), eps, centre
            )
            coefficients[c], coefficients[channels + c], coefficients[2 * channels + c] = centre, scale, shift

    return kernel


@functools.cache
def gradient(real: Any) -> Kernel:
    """A kernel: centre, r, s, k and scale (5, C) of dx, for data computed in `real`, by sums (2, C) that are given."""

    @launched
    def kernel(counts, mean, low, var, weight, eps, sums, coefficients, channels):
        for c in range(cuda.grid(1), channels, cuda.gridsize(1)):
            middle, v, w = np.float64(mean[c]), np.float64(var[c]), np.float64(weight[c])
            centre = algebra.centre(middle, real)
            s0, s1 = sums[c], sums[channels + c]
            r, s, k, scale = algebra.gradient(counts[c], middle, low[c], v, w, eps, centre, s0, s1)
            coefficients[c], coefficients[channels + c], coefficients[2 * channels + c] = centre, r, s
            coefficients[3 * channels + c], coefficients[4 * channels + c] = k, scale

    return kernel


@launched
def inference_gradient(var: Flat, weight: Flat, eps: float, coefficients: Flat, channels: int) -> None:
    """Centre, scale and shift (3, C) of dx = dy * weight * rstd."""
    for c in range(cuda.grid(1), channels, cuda.gridsize(1)):
        scale = np.float64(weight[c]) * algebra.rstd(np.float64(var[c]), eps)
        coefficients[c], coefficients[channels + c], coefficients[2 * channels + c] = 0.0, scale, 0.0


@launched
def weight_gradient(sums: Flat, var: Flat, eps: float, gradient: Flat, channels: int) -> None:
    """dweight = sum(dy * (x - mean)) * rstd; sums (2, C)."""
    for c in range(cuda.grid(1), channels, cuda.gridsize(1)):
        gradient[c] = sums[channels + c] * algebra.rstd(np.float64(var[c]), eps)


@launched
def update_running(
    running_mean: Flat, running_var: Flat, stats: Flat, count: float, momentum: float, channels: int
) -> None:
    """r = (1 - momentum) * r + momentum * batch, of the mean and of the unbiased variance; stats (3, C)."""
    for c in range(cuda.grid(1), channels, cuda.gridsize(1)):
        running_mean[c] = algebra.running_update(np.float64(running_mean[c]), stats[c], momentum)
        batch = algebra.unbiased(stats[2 * channels + c], count)
        running_var[c] = algebra.running_update(np.float64(running_var[c]), batch, momentum)


@launched
def update_running_by_counts(
    running_mean: Flat, running_var: Flat, stats: Flat, counts: Flat, momentum: float, channels: int
) -> None:
    """The same of as many values as each channel has; one without any stays as it is."""
    for c in range(cuda.grid(1), channels, cuda.gridsize(1)):
        if counts[c] > 0.0:
            running_mean[c] = algebra.running_update(np.float64(running_mean[c]), stats[c], momentum)
            batch = algebra.unbiased(stats[2 * channels + c], counts[c])
            running_var[c] = algebra.running_update(np.float64(running_var[c]), batch, momentum)


@launched
def variance(m2: Flat, freedom: Flat, var: Flat, channels: int) -> None:
    """var = m2 / freedom."""
    for c in range(cuda.grid(1), channels, cuda.gridsize(1)):
        var[c] = m2[c] / freedom[c]


@launched
def deviation(m2: Flat, freedom: Flat, std: Flat, channels: int) -> None:
    """std = sqrt(m2 / freedom)."""
    for c in range(cuda.grid(1), channels, cuda.gridsize(1)):
        std[c] = algebra.sqrt(m2[c] / freedom[c])


@launched
def merge(
    count: float,
    mean_a: Flat,
    low_a: Flat,
    m2_a: Flat,
    other_count: float,
    mean_b: Flat,
    low_b: Flat,
    m2_b: Flat,
    mean: Flat,
    low: Flat,
    m2: Flat,
    channels: int,
) -> None:
    """Moments of both sets of samples together."""
    for c in range(cuda.grid(1), channels, cuda.gridsize(1)):
        mean[c], low[c], m2[c] = algebra.merge(
            count, mean_a[c], low_a[c], m2_a[c], other_count, mean_b[c], low_b[c], m2_b[c]
        )


@launched
def accumulate(a: Flat, b: Flat, more_a: Flat, more_b: Flat, channels: int) -> None:
    """a += more_a and b += more_b."""
    for c in range(cuda.grid(1), channels, cuda.gridsize(1)):
        a[c] += more_a[c]
        b[c] += more_b[c]


@launched
def fill(a: Flat, value: float, size: int) -> None:
    """a = value."""
    for j in range(cuda.grid(1), size, cuda.gridsize(1)):
        a[j] = value
