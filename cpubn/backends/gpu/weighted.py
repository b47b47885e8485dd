"""Moments of weighted samples on a GPU: where a channel's pivot is found, and how its sums about that close."""
# mypy: allow-untyped-defs

import functools
from typing import Any

import numpy as np
from numba import cuda

from cpubn.backends.gpu import tiles
from cpubn.backends.gpu.sums import close, two_sum
from cpubn.backends.gpu.target import Kernel, launched
from cpubn.backends.gpu.types import algebra, reader
from cpubn.backends.gpu.walk import offset_of


@functools.cache
def first_counted(name: str, real: Any, of_weights: str) -> Kernel:
    """A kernel: pivots (C,) float64 <- of each channel the first sample that counts, 0 where there is none.

    x and w flat, with their places. A block has one channel, whose samples its threads look at side by side.
    Reads x and w until one counts.
    """
    read, read_weights, threads = reader(name, real), reader(of_weights, real), tiles.THREADS

    @launched
    def kernel(x, x_place, w, w_place, tile, pivots):
        thread, channel = cuda.threadIdx.x, cuda.blockIdx.x
        samples = tile[2]
        firsts = cuda.shared.array(threads, np.int64)
        start, found = 0, 0
        while start < samples and not found:
            sample = start + thread
            counts = sample < samples and read_weights(w, offset_of(w_place, tile, channel, sample)) > real(0.0)
            firsts[thread] = 1 if counts else 0
            found = cuda.syncthreads_or(1 if counts else 0)
            start += 0 if found else threads
        if thread == 0:
            pivot = real(0.0)
            if found:
                k = 0
                while firsts[k] == 0:
                    k += 1
                pivot = read(x, offset_of(x_place, tile, channel, start + k))
            pivots[channel] = np.float64(pivot)

    return kernel


@functools.cache
def merge_sums(real: Any) -> Kernel:
    """A kernel that adds up the sums of a channel's chunks, in turn, and prepares what `normalize` takes.

    parts (4, chunks, C), pivots and counts (C,), stats (3, C), affine (3, C) float64, flat; weight, bias (C,). Without
    `wanted` no affine. A thread has a channel.
    """

    @launched
    def kernel(parts, pivots, counts, stats, affine, weight, bias, eps, wanted, chunks, channels):
        row = chunks * channels
        for c in range(cuda.grid(1), channels, cuda.gridsize(1)):
            s = s_rest = q = q_rest = 0.0
            for chunk in range(chunks):
                place = chunk * channels + c
                s, rest = two_sum(s, parts[place])
                s_rest += rest + parts[2 * row + place]
                q, rest = two_sum(q, parts[row + place])
                q_rest += rest + parts[3 * row + place]
            n = counts[c] if counts[c] > 0.0 else 1.0
            mean, low, m2 = close(n, pivots[c], s, s_rest, q, q_rest)
            stats[c], stats[channels + c], stats[2 * channels + c] = mean, low, m2
            if wanted:
                centre = algebra.centre(mean, real)
                scale, shift = algebra.affine(
                    mean, low, m2 / n, np.float64(weight[c]), np.float64(bias[c]), eps, centre
                )
                affine[c], affine[channels + c], affine[2 * channels + c] = centre, scale, shift

    return kernel
