"""What the CUDA backend does to every element: y, dx and g from coefficients of its channel, copies, and signs.

A formula is value(a, b, c, v, numbers) of an element each of up to three arrays, v being its channel's coefficients.
"""
# mypy: allow-untyped-defs

import functools
from typing import Any

import numpy as np
from numba import cuda

from cpubn.backends.gpu import tiles
from cpubn.backends.gpu.target import Flat, Kernel, device, launched
from cpubn.backends.gpu.types import activation_of, algebra, reader, rounder, writer
from cpubn.backends.gpu.walk import channel_of, offset_of, offsets_of, share_of, steps_of

MOST_COEFFICIENTS = 5


@functools.cache
def forward(real: Any, activation: Any, residual: bool, quantized: bool, weighted: bool) -> Any:
    """a is x, b the residual: y = activation((x - centre) * scale + shift + residual), and its quantized number.

    c is the weight, of 0 where y is something else.
    """
    activate, nearest = activation_of(real, activation), rounder(real)

    @device
    def value(a, b, c, v, numbers):
        z = (a - v[0]) * v[1] + v[2]
        if residual:
            z += b
        y = activate(z, real(numbers[0]), real(numbers[1]))
        if quantized:
            q = y * real(numbers[2]) + real(numbers[3])
            low, high = real(numbers[4]), real(numbers[5])
            q = q if q > low else low
            y = ((q if q < high else high) + nearest) - nearest
        if weighted and not c > real(0.0):
            y = real(numbers[6])
        return y

    return value


@functools.cache
def through(real: Any, activation: Any, residual: bool, affine: bool) -> Any:
    """a is dy, b is x, c the residual: g = dy * activation'((x - centre) * scale + shift + residual)."""
    derivative = activation_of(real, activation)

    @device
    def value(a, b, c, v, numbers):
        z = (b - v[0]) * v[1] + v[2] if affine else b
        if residual:
            z += c
        return a * derivative(z, real(numbers[0]), real(numbers[1]))

    return value


@functools.cache
def signed(real: Any) -> Any:
    """a is dy, b its sign: g = dy where that is 1, otherwise slope * dy, or 0 where the slope is 0."""

    @device
    def value(a, b, c, v, numbers):
        slope = real(numbers[0])
        return a if b != real(0.0) else (a * slope if slope != real(0.0) else real(0.0))

    return value


@functools.cache
def backward(real: Any, weighted: bool) -> Any:
    """a is dy, b is x, c the weight: dx = scale * ((dy - w * k) - w * ((x - centre) * r) * s), and 0 where w is 0."""

    @device
    def value(a, b, c, v, numbers):
        if weighted:
            z = ((b - v[0]) * v[1]) * v[2]
            return v[4] * ((a - c * v[3]) - c * z) if c > real(0.0) else real(0.0)
        return v[4] * ((a - v[3]) - ((b - v[0]) * v[1]) * v[2])

    return value


@functools.cache
def elementwise(names: tuple[str, ...], real: Any, formula: Any, *arguments: Any) -> Kernel:
    """A kernel that puts formula(real, *arguments)'s values into y; names: the types of a, b, c and y.

    a, b, c, y flat, with their places; coefficients (3 or, of a gradient, 5, C) float64, flat; numbers (7,).
    A channel whose coefficients float32 cannot hold is computed in float64. Before the first of some elements is
    stored all of them are asked for: y may be x, so the compiler must not move a later load before a store.
    Reads every array that the formula uses once, writes y once.
    """
    gradient = formula is backward
    single = _loop(names, real, formula(real, *arguments), gradient)
    double = _loop(names, np.float64, formula(np.float64, *arguments), gradient)
    narrow = real is np.float32

    @launched
    def kernel(a, a_place, b, b_place, c, c_place, coefficients, numbers, tile, y, y_place):
        thread, block = cuda.threadIdx.x, cuda.blockIdx.x
        lane, start, count = share_of(tile, thread, block)
        _, channel = channel_of(tile, thread, block)
        if count > 0:
            channels, sample, wide = tile[0], start + lane, False
            if narrow:
                v0, v1 = coefficients[channel], coefficients[channels + channel]
                v2 = coefficients[2 * channels + channel]
                if gradient:
                    v3, v4 = coefficients[3 * channels + channel], coefficients[4 * channels + channel]
                    wide = algebra.backward_is_wide(v0, v1, v2, v3, v4)
                else:
                    wide = algebra.forward_is_wide(v0, v1, v2)
            if wide:
                double(
                    a, a_place, b, b_place, c, c_place, coefficients, numbers, tile, y, y_place, channel, sample, count
                )
            else:
                single(
                    a, a_place, b, b_place, c, c_place, coefficients, numbers, tile, y, y_place, channel, sample, count
                )

    return kernel


def _loop(names: tuple[str, ...], real: Any, value: Any, gradient: bool) -> Any:
    """A device function that applies a formula to a lane's samples of a chunk."""
    read_a, read_b, read_c = (reader(name, real) for name in names[:3])
    write, unroll, rows = writer(names[3]), tiles.UNROLL, 5 if gradient else 3

    @device
    def loop(a, a_place, b, b_place, c, c_place, coefficients, numbers, tile, y, y_place, channel, sample, count):
        inner, lanes = tile[1], tile[5]
        a_at, b_at = offset_of(a_place, tile, channel, sample), offset_of(b_place, tile, channel, sample)
        c_at, y_at = offset_of(c_place, tile, channel, sample), offset_of(y_place, tile, channel, sample)
        (a_step, a_wrap), (b_step, b_wrap) = steps_of(a_place, tile), steps_of(b_place, tile)
        (c_step, c_wrap), (y_step, y_wrap) = steps_of(c_place, tile), steps_of(y_place, tile)
        i_step, i = lanes % inner, sample % inner
        v = cuda.local.array(MOST_COEFFICIENTS, real)
        for row in range(rows):
            v[row] = real(coefficients[row * tile[0] + channel])
        of_a = cuda.local.array(unroll, real)
        of_b = cuda.local.array(unroll, real)
        of_c = cuda.local.array(unroll, real)
        places = cuda.local.array(unroll, np.int64)
        for j in range(0, count, unroll):
            for k in range(unroll):
                if j + k < count:
                    of_a[k], of_b[k], of_c[k], places[k] = read_a(a, a_at), read_b(b, b_at), read_c(c, c_at), y_at
                    a_at, b_at, c_at, y_at, i = a_at + a_step, b_at + b_step, c_at + c_step, y_at + y_step, i + i_step
                    if i >= inner:
                        a_at, b_at, c_at, y_at = a_at + a_wrap, b_at + b_wrap, c_at + c_wrap, y_at + y_wrap
                        i -= inner
            for k in range(unroll):
                if j + k < count:
                    write(y, places[k], value(of_a[k], of_b[k], of_c[k], v, numbers))

    return loop


@functools.cache
def copy(name: str, to: str) -> Kernel:
    """A kernel that puts x into y, element by element: both of 5 axes, by their strides; as NumPy's astype."""
    real = np.float64 if "float64" in (name, to) else np.float32
    read, write = reader(name, real), writer(to)

    @launched
    def kernel(x, x_start, x_steps, y, y_start, y_steps, shape):
        size = shape[0] * shape[1] * shape[2] * shape[3] * shape[4]
        for j in range(cuda.grid(1), size, cuda.gridsize(1)):
            x_at, y_at = offsets_of(j, shape, x_steps, y_steps)
            write(y, y_start + y_at, read(x, x_start + x_at))

    return kernel


@functools.cache
def pack_signs(name: str) -> Kernel:
    """A kernel that sets bits[j] = not (y[j] <= low or y[j] >= high), and to `nan` where y[j] is NaN."""
    real = np.float64 if name == "float64" else np.float32
    read = reader(name, real)

    @launched
    def kernel(y, low, high, nan, bits, size):
        for byte in range(cuda.grid(1), (size + 7) // 8, cuda.gridsize(1)):
            packed = 0
            for k in range(8):
                j = byte * 8 + k
                if j < size:
                    value = read(y, j)
                    between = nan if value != value else not (value <= real(low) or value >= real(high))
                    packed += (1 << k) if between else 0
            bits[byte] = np.uint8(packed)

    return kernel


@functools.cache
def without_nan(name: str, of_weights: str) -> Kernel:
    """A kernel that puts w into `made`, and 0 where x is NaN: all of 5 axes, by their strides."""
    real = np.float64 if "float64" in (name, of_weights) else np.float32
    read, read_weights, write = reader(name, real), reader(of_weights, real), writer(of_weights)

    @launched
    def kernel(x, x_start, x_steps, w, w_start, w_steps, made, shape):
        size = shape[0] * shape[1] * shape[2] * shape[3] * shape[4]
        for j in range(cuda.grid(1), size, cuda.gridsize(1)):
            x_at, w_at = offsets_of(j, shape, x_steps, w_steps)
            value = read(x, x_start + x_at)
            write(made, j, read_weights(w, w_start + w_at) if value == value else real(0.0))

    return kernel


@launched
def reorder(bits: Flat, shape: tuple[int, ...], steps: tuple[int, ...], made: Flat, size: int) -> None:
    """Bits in the order of 5 axes of that shape, along which they lie `steps` apart: a thread for each byte."""
    for byte in range(cuda.grid(1), (size + 7) // 8, cuda.gridsize(1)):
        packed = 0
        for k in range(8):
            rest, at = byte * 8 + k, 0
            if rest < size:
                for axis in range(5):
                    at += rest % shape[4 - axis] * steps[4 - axis]
                    rest //= shape[4 - axis]
                packed += ((bits[at // 8] >> (at % 8)) & 1) << k
        made[byte] = np.uint8(packed)
