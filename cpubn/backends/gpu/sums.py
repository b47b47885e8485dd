"""The sums of the CUDA backend: of every chunk by a block, of a channel's chunks by another.

    moments:     s = sum(x - pivot),  q = sum((x - pivot)**2)            the pivot being the chunk's first sample
    gradients:   s = sum(dy),         q = sum(dy * (x - mean))           dy having gone through the prologue

A sum is a pair of numbers of the data's type, whose second collects what rounding took from the first: differences and
products are split into what they round to and the rest (Knuth's two_sum, and a fused multiply-add). In float32 that
keeps 46 bits by 25 operations a sample, which memory hides even where float64 runs at a 64th of the speed; float64
serves the merge alone, and chunks whose sums float32 cannot hold.
"""
# mypy: allow-untyped-defs

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import cuda

from cpubn.backends.gpu import tiles
from cpubn.backends.gpu.target import Kernel, Value, device, fma, launched, product_of
from cpubn.backends.gpu.types import algebra, reader
from cpubn.backends.gpu.walk import channel_of, larger, lesser, offset_of, share_of, steps_of

# A chunk is summed in float64 where the largest terms are below or above these: float32 would lose bits, or overflow.
SMALLEST, LARGEST = 2.0**-100, 2.0**120

two_sum: Callable[[Value, Value], tuple[Value, Value]] = algebra.two_sum
double_product: Callable[[Value, Value], Value] = product_of(np.float64)


@functools.cache
def chunk_sums(name: str, real: Any, gradient: bool, of_weights: str = "") -> Kernel:
    """A kernel that puts every chunk's moments (mean, low, m2), or its gradient sums (s, q), into `parts`.

    dy, x and weights, if they are of a type, flat, with their places; mean, low (C,), of a gradient; parts (3 or 2,
    chunks, C) float64, flat. Weighted moments are sums about the means given: s, q, and then what they lack, (4, ...).
    Reads dy, x and weights once.
    """
    single = _sums(name, real, gradient, of_weights)
    double = _sums(name, np.float64, gradient, of_weights)
    narrow, threads, weighted = real is np.float32, tiles.THREADS, bool(of_weights)

    @launched
    def kernel(dy, dy_place, x, x_place, w, w_place, mean, low, tile, parts):
        room = cuda.shared.array((7, threads), real)
        thread, block = cuda.threadIdx.x, cuda.blockIdx.x
        pivot, s, s_rest, q, q_rest, lost = single(
            dy, dy_place, x, x_place, w, w_place, mean, low, tile, thread, block, room
        )
        if narrow:
            wide_room = cuda.shared.array((7, threads), np.float64)
            if cuda.syncthreads_or(1 if lost else 0):
                pivot, s, s_rest, q, q_rest, lost = double(
                    dy, dy_place, x, x_place, w, w_place, mean, low, tile, thread, block, wide_room
                )
        lane, start, count = share_of(tile, thread, block)
        _, channel = channel_of(tile, thread, block)
        channels, samples, size, chunks = tile[0], tile[2], tile[7], tile[8]
        if lane == 0 and channel < channels:
            place, row = start // size * channels + channel, chunks * channels
            if gradient:
                parts[place] = s + s_rest
                parts[row + place] = q + q_rest
            elif weighted:
                parts[place], parts[row + place] = s, q
                parts[2 * row + place], parts[3 * row + place] = s_rest, q_rest
            else:
                count = lesser(size, samples - start)
                parts[place], parts[row + place], parts[2 * row + place] = close(count, pivot, s, s_rest, q, q_rest)

    return kernel


@device
def close(count: Value, pivot: Value, s: Value, s_rest: Value, q: Value, q_rest: Value) -> tuple[Value, Value, Value]:
    """mean = pivot + s / n, its low word, and m2 = q - s**2 / n, with what the sums keep beyond a float64."""
    n = np.float64(count)
    s, s_rest = two_sum(s, s_rest)
    q, q_rest = two_sum(q, q_rest)
    offset = s / n
    rest = (fma(-offset, n, s) + s_rest) / n
    taken = double_product(s, offset)
    m2 = ((q - taken) - fma(s, offset, -taken)) + (q_rest - (s_rest * offset + s * rest))
    if m2 < 0.0:  # not max(): NaN must stay
        m2 = 0.0
    mean, low = two_sum(pivot, offset)
    return mean, low + rest, m2 + 0.0 * m2  # an infinite m2 becomes NaN


def _sums(name: str, real: Any, gradient: bool, of_weights: str) -> Any:
    """A device function that sums a block's chunk: lane 0 of a channel gets the pivot, s and q as pairs of float64."""
    read, product = reader(name, real), product_of(real)
    unroll, weighted = tiles.UNROLL, bool(of_weights)
    read_weights = reader(of_weights or name, real)

    @device
    def sums(dy, dy_place, x, x_place, w, w_place, mean, low, tile, thread, block, room):
        column, channel = channel_of(tile, thread, block)
        lane, start, count = share_of(tile, thread, block)
        inner, lanes = tile[1], tile[5]
        x_at = dy_at = x_step = x_wrap = dy_step = dy_wrap = i_step = i = w_at = w_step = w_wrap = 0
        pivot = pivot_low = real(0.0)
        if count > 0:
            x_at, dy_at = (
                offset_of(x_place, tile, channel, start + lane),
                offset_of(dy_place, tile, channel, start + lane),
            )
            x_step, x_wrap = steps_of(x_place, tile)
            dy_step, dy_wrap = steps_of(dy_place, tile)
            i_step, i = lanes % inner, (start + lane) % inner
            if weighted:
                w_at = offset_of(w_place, tile, channel, start + lane)
                w_step, w_wrap = steps_of(w_place, tile)
                pivot = real(mean[channel])
            if gradient:
                pivot = real(mean[channel])
                pivot_low = real((mean[channel] - np.float64(pivot)) + low[channel])
            elif not weighted:
                pivot = read(x, offset_of(x_place, tile, channel, start))
        xs = cuda.local.array(unroll, real)
        dys = cuda.local.array(unroll, real)
        ws = cuda.local.array(unroll, real)
        s = s_rest = q = q_rest = largest = largest_factor = largest_product = real(0.0)
        for j in range(0, count, unroll):
            for k in range(unroll):
                if j + k < count:
                    xs[k] = read(x, x_at)
                    if gradient:
                        dys[k] = read(dy, dy_at)
                    if weighted:
                        ws[k] = read_weights(w, w_at)
                        w_at += w_step
                        if i + i_step >= inner:
                            w_at += w_wrap
                    x_at, dy_at, i = x_at + x_step, dy_at + dy_step, i + i_step
                    if i >= inner:
                        x_at, dy_at, i = x_at + x_wrap, dy_at + dy_wrap, i - inner
            for k in range(unroll):
                if j + k < count and (not weighted or ws[k] > real(0.0)):
                    d, d_rest = two_sum(xs[k], -pivot)
                    d_rest -= pivot_low
                    g, g_rest = (dys[k], real(0.0)) if gradient else (d, d_rest)
                    if weighted and not gradient:
                        g = product(ws[k], d)
                        g_rest = fma(ws[k], d, -g) + ws[k] * d_rest
                    s, rest = two_sum(s, g)
                    s_rest += rest + g_rest
                    p = product(g, d)
                    p_rest = fma(g, d, -p) + (g * d_rest + g_rest * d)
                    q, rest = two_sum(q, p)
                    q_rest += rest + p_rest
                    largest, largest_factor = larger(largest, abs(g)), larger(largest_factor, abs(d))
                    largest_product = larger(largest_product, abs(p))
        slot = column * lanes + lane
        if lane < lanes:
            room[0, slot], room[1, slot], room[2, slot], room[3, slot] = s, s_rest, q, q_rest
            room[4, slot], room[5, slot], room[6, slot] = largest, largest_factor, largest_product
        half = 1
        while half < lanes:
            half *= 2
        while half > 1:
            cuda.syncthreads()
            half //= 2
            other = slot + half
            if lane < half and lane + half < lanes:
                for row in range(0, 4, 2):
                    room[row, slot], rest = two_sum(room[row, slot], room[row, other])
                    room[row + 1, slot] += room[row + 1, other] + rest
                for row in range(4, 7):
                    room[row, slot] = larger(room[row, slot], room[row, other])
        lost: Any = False
        if lane == 0 and channel < tile[0]:
            s, s_rest, q, q_rest = room[0, slot], room[1, slot], room[2, slot], room[3, slot]
            largest_factor, largest_product = np.float64(room[5, slot]), np.float64(room[6, slot])
            small = room[4, slot] > 0.0 and (largest_factor < SMALLEST or largest_product < SMALLEST)
            lost = not (s - s == 0.0 and q - q == 0.0) or largest_product > LARGEST or small  # NaN - NaN is not 0
        return np.float64(pivot), np.float64(s), np.float64(s_rest), np.float64(q), np.float64(q_rest), lost

    return sums


@functools.cache
def merge_moments(real: Any) -> Kernel:
    """A kernel that merges a channel's chunks, in turn and then by halves, and prepares what `normalize` takes.

    parts (3, chunks, C), stats (3, C), affine (3, C) float64, flat; weight, bias (C,). Without `wanted` no affine.
    """
    mergers = tiles.MERGERS

    @launched
    def kernel(parts, stats, affine, weight, bias, eps, wanted, tile):
        thread, channel = cuda.threadIdx.x, cuda.blockIdx.x
        channels, samples, size, chunks = tile[0], tile[2], tile[7], tile[8]
        row = chunks * channels
        count = mean = low = m2 = 0.0
        for chunk in range(thread, chunks, mergers):
            n = np.float64(lesser(size, samples - chunk * size))
            place = chunk * channels + channel
            if chunk == thread:
                count, mean, low, m2 = n, parts[place], parts[row + place], parts[2 * row + place]
            else:
                mean, low, m2 = algebra.merge(
                    count, mean, low, m2, n, parts[place], parts[row + place], parts[2 * row + place]
                )
                count += n
        counts = cuda.shared.array(mergers, np.float64)
        means = cuda.shared.array(mergers, np.float64)
        lows = cuda.shared.array(mergers, np.float64)
        m2s = cuda.shared.array(mergers, np.float64)
        counts[thread], means[thread], lows[thread], m2s[thread] = count, mean, low, m2
        half = mergers
        while half > 1:
            cuda.syncthreads()
            half //= 2
            other = thread + half
            if thread < half and counts[other] > 0.0:
                means[thread], lows[thread], m2s[thread] = algebra.merge(
                    counts[thread], means[thread], lows[thread], m2s[thread],
                    counts[other], means[other], lows[other], m2s[other],
                )  # fmt: skip
                counts[thread] += counts[other]
        if thread == 0:
            mean, low, m2 = means[0], lows[0], m2s[0]
            stats[channel], stats[channels + channel], stats[2 * channels + channel] = mean, low, m2
            if wanted:
                centre = algebra.centre(mean, real)
                var, w, b = m2 / np.float64(samples), np.float64(weight[channel]), np.float64(bias[channel])
                scale, shift = algebra.affine(mean, low, var, w, b, eps, centre)
                affine[channel], affine[channels + channel], affine[2 * channels + channel] = centre, scale, shift

    return kernel


@functools.cache
def merge_gradients(real: Any) -> Kernel:
    """A kernel that adds a channel's chunks up, in turn and then by halves, and prepares what dx takes.

    parts (2, chunks, C), sums (2, C), coefficients (5, C) float64, flat: centre, r, s, k, scale.
    mean, low, var, weight (C,); counts (C,), if `weighted`.
    """
    mergers = tiles.MERGERS

    @launched
    def kernel(parts, sums, coefficients, var, weight, mean, low, eps, wanted, counts, weighted, tile):
        thread, channel = cuda.threadIdx.x, cuda.blockIdx.x
        channels, samples, chunks = tile[0], tile[2], tile[8]
        row = chunks * channels
        s0 = s1 = 0.0
        for chunk in range(thread, chunks, mergers):
            s0 += parts[chunk * channels + channel]
            s1 += parts[row + chunk * channels + channel]
        firsts = cuda.shared.array(mergers, np.float64)
        seconds = cuda.shared.array(mergers, np.float64)
        firsts[thread], seconds[thread] = s0, s1
        half = mergers
        while half > 1:
            cuda.syncthreads()
            half //= 2
            if thread < half:
                firsts[thread] += firsts[thread + half]
                seconds[thread] += seconds[thread + half]
        if thread == 0:
            s0, s1 = firsts[0], seconds[0]
            sums[channel], sums[channels + channel] = s0, s1
            if wanted:
                middle, v, w = np.float64(mean[channel]), np.float64(var[channel]), np.float64(weight[channel])
                centre = algebra.centre(middle, real)
                n: Any = np.float64(samples)
                if weighted:
                    n = counts[channel] if counts[channel] > 0.0 else 1.0
                r, s, k, scale = algebra.gradient(n, middle, low[channel], v, w, eps, centre, s0, s1)
                coefficients[channel], coefficients[channels + channel] = centre, r
                coefficients[2 * channels + channel], coefficients[3 * channels + channel] = s, k
                coefficients[4 * channels + channel] = scale

    return kernel
