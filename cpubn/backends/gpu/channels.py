"""What the CUDA backend does to vectors of one value a channel, by algebra.py: a thread for each channel.

Vectors are float32 or float64 and flat, results float64; they never leave the device.
"""
# mypy: allow-untyped-defs, allow-untyped-calls

import functools
from typing import Any

import numpy as np
from numba import cuda

from cpubn.backends.gpu.types import algebra


@functools.cache
def affine(real: Any) -> Any:
    """A kernel: centre, scale and shift (3, C) that apply statistics to data computed in `real`."""

    @cuda.jit
    def kernel(mean, low, var, weight, bias, eps, coefficients, channels):
        for c in range(cuda.grid(1), channels, cuda.gridsize(1)):
            middle = np.float64(mean[c])
            centre = algebra.centre(middle, real)
            scale, shift = algebra.affine(
                middle, low[c], np.float64(var[c]), np.float64(weight[c]), np.float64(bias[c]), eps, centre
            )
            coefficients[c], coefficients[channels + c], coefficients[2 * channels + c] = centre, scale, shift

    return kernel


@cuda.jit
def inference_gradient(var, weight, eps, coefficients, channels):
    """Centre, scale and shift (3, C) of dx = dy * weight * rstd."""
    for c in range(cuda.grid(1), channels, cuda.gridsize(1)):
        scale = np.float64(weight[c]) * algebra.rstd(np.float64(var[c]), eps)
        coefficients[c], coefficients[channels + c], coefficients[2 * channels + c] = 0.0, scale, 0.0


@cuda.jit
def weight_gradient(sums, var, eps, gradient, channels):
    """dweight = sum(dy * (x - mean)) * rstd; sums (2, C)."""
    for c in range(cuda.grid(1), channels, cuda.gridsize(1)):
        gradient[c] = sums[channels + c] * algebra.rstd(np.float64(var[c]), eps)


@cuda.jit
def update_running(running_mean, running_var, stats, count, momentum, channels):
    """r = (1 - momentum) * r + momentum * batch, of the mean and of the unbiased variance; stats (3, C)."""
    for c in range(cuda.grid(1), channels, cuda.gridsize(1)):
        running_mean[c] = algebra.running_update(np.float64(running_mean[c]), stats[c], momentum)
        batch = algebra.unbiased(stats[2 * channels + c], count)
        running_var[c] = algebra.running_update(np.float64(running_var[c]), batch, momentum)


@cuda.jit
def variance(m2, freedom, var, channels):
    """var = m2 / freedom."""
    for c in range(cuda.grid(1), channels, cuda.gridsize(1)):
        var[c] = m2[c] / freedom


@cuda.jit
def deviation(m2, freedom, std, channels):
    """std = sqrt(m2 / freedom)."""
    for c in range(cuda.grid(1), channels, cuda.gridsize(1)):
        std[c] = algebra.sqrt(m2[c] / freedom)


@cuda.jit
def merge(count, mean_a, low_a, m2_a, other_count, mean_b, low_b, m2_b, mean, low, m2, channels):
    """Moments of both sets of samples together."""
    for c in range(cuda.grid(1), channels, cuda.gridsize(1)):
        mean[c], low[c], m2[c] = algebra.merge(
            count, mean_a[c], low_a[c], m2_a[c], other_count, mean_b[c], low_b[c], m2_b[c]
        )


@cuda.jit
def accumulate(a, b, more_a, more_b, channels):
    """a += more_a and b += more_b."""
    for c in range(cuda.grid(1), channels, cuda.gridsize(1)):
        a[c] += more_a[c]
        b[c] += more_b[c]


@cuda.jit
def fill(a, value, size):
    """a = value."""
    for j in range(cuda.grid(1), size, cuda.gridsize(1)):
        a[j] = value
