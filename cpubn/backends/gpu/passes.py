"""The CUDA backend: the same functions and arguments as the others, of arrays that live on a GPU.

The loops stand in sums.py, apply.py and channels.py, how they are shared out in tiles.py. Every launch goes to the
stream of the array that it reads; none waits for another, and nothing comes back to the host. `threads`, the host's, is
taken and not used.
"""

import math
from typing import Any, TypeAlias

import numpy as np
from numba.core.errors import NumbaError

from cpubn.backends.epilogue import PLAIN, Activation, Epilogue
from cpubn.backends.gpu import apply, channels, launch, tiles
from cpubn.backends.gpu.arrays import DeviceArray
from cpubn.backends.gpu.memory import constant, empty, workspace
from cpubn.backends.gpu.sums import chunk_sums, merge_gradients, merge_moments
from cpubn.backends.gpu.tiles import tile_of
from cpubn.backends.gpu.weighted import first_counted, merge_sums
from cpubn.backends.interface import name_of
from cpubn.backends.prologue import Bits, Prologue, Statistics
from cpubn.backends.weights import Weights

Array: TypeAlias = DeviceArray

# Samples are of any type: a kernel converts what it reads and writes.
ANY_TYPE = True
# Of the most blocks that take elements in turn.
ENOUGH = 4096
NONE = Activation(0)
NOWHERE = 0, 0, 0, 0


def moments(x: Array, stats: Array, threads: int, weights: Weights | None = None) -> None:
    """mean, low word of the mean and sum((x - mean)**2) of each channel.

    x (O, C, I) of any type; stats (3, C) float64.
    Chunks about their own first samples, in pairs of the data's type, merged in float64 in a fixed order.
    Reads x once.
    """
    _moments(x, stats, computed_in(x), weights)


def normalize(
    x: Array, affine: Array, epilogue: Epilogue, y: Array, threads: int, weights: Weights | None = None
) -> None:
    """y = epilogue((x - centre) * scale + shift).

    x, y (O, C, I) of any type, which may be the same; affine (3, C) float64: centre, scale, shift.
    A float32 channel is computed in float64 where float32 cannot hold its coefficients or might overflow on the way.
    Reads x and the residual once, writes y once.
    """
    activation, residual, quantization = epilogue
    settings = _function(activation, "function"), residual is not None, quantization is not None, weights is not None
    _elementwise(apply.forward, settings, (x, residual, weights), affine, epilogue, y)


def train_forward(
    x: Array, weight: Array, bias: Array, eps: float, stats: Array, epilogue: Epilogue, y: Array, threads: int,
    weights: Weights | None = None,
) -> None:  # fmt: skip
    """y = epilogue((x - mean) / sqrt(var + eps) * weight + bias) with x's own moments, which go to stats.

    x, y (O, C, I) of any type, which may be the same; weight, bias (C,), stats (3, C) float64.
    Three launches: sums of chunks, their merge and the coefficients, y. The coefficients stay on the device.
    Reads x twice and the residual once, writes y once.
    """
    affine = workspace(x, (3, x.shape[1]), "coefficients")
    _moments(x, stats, computed_in(x, y), weights, (affine, weight, bias, float(eps)))
    normalize(x, affine, epilogue, y, threads, weights)


def gradient_sums(
    dy: Array, x: Array, statistics: Statistics, prologue: Prologue, sums: Array, threads: int,
    weights: Weights | None = None,
) -> None:  # fmt: skip
    """sum(g) and sum(g * (x - mean)) of each channel, with g = dy * activation'(z) where the prologue has one.

    dy, x (O, C, I) of any type; sums (2, C) float64; the prologue's g <- g, which may be dy.
    In pairs of the data's type: differences and products are split into what they round to and the rest.
    Reads dy and x once, and g once more where it is not dy.
    """
    _gradient(_through(dy, x, statistics, prologue, None, weights), x, statistics, sums, None, weights)


def backward(
    dy: Array, x: Array, statistics: Statistics, prologue: Prologue, sums: Array, dx: Array, threads: int,
    weights: Weights | None = None,
) -> None:  # fmt: skip
    """dx = scale * ((g - k) - ((x - centre) * r) * s), by `algebra.gradient` of the gradient sums; or scale * g.

    dy, x, dx (O, C, I) of any type, of which dx may be dy or x; sums (2, C) float64, if they are not given, and the
    prologue's g as of `gradient_sums`.
    Three launches, as in `train_forward`, after one that makes g: where dx will stand, if that is not x.
    Reads g and x twice, or in inference g twice and x once, writes dx once.
    """
    room = None if np.may_share_memory(dx.addresses, x.addresses) else dx
    g = _through(dy, x, statistics, prologue, room, weights)
    coefficients = workspace(x, (5, x.shape[1]), "coefficients") if statistics.training else None
    if statistics.counts is None:
        _gradient(g, x, statistics, sums, coefficients, weights)
    elif coefficients is not None:
        mean, low, var, weight, eps, _, counts = statistics
        _each_channel(channels.gradient(computed_in(x)), x, counts, mean, low, var, weight, eps, sums, coefficients)
    if coefficients is not None:
        _elementwise(apply.backward, (weights is not None,), (g, x, weights), coefficients, PLAIN, dx)
    else:
        affine = workspace(x, (3, x.shape[1]), "affine")
        _each_channel(channels.inference_gradient, x, statistics.var, statistics.weight, statistics.eps, affine)
        normalize(g, affine, PLAIN, dx, threads, None if weights is None else weights._replace(filling=0.0))


def pack_signs(y: Array, low: float, high: float, nan: bool, bits: Array, threads: int) -> None:
    """bits[j] = not (y[j] <= low or y[j] >= high); of NaN, `nan`. A bound of NaN is none.

    y (n,) of any type; bits (ceil(n / 8) + 8,) uint8, the first element in the lowest bit; the last 8 are left alone.
    A thread for each byte: no two write to one.
    Reads y once.
    """
    kernel = apply.pack_signs(name_of(y.dtype))
    run(kernel, in_turn(bits.size), y, y, float(low), float(high), bool(nan), bits, y.size)


def _moments(
    x: Array, stats: Array, real: Any, weights: Weights | None,
    normalizing: tuple[Array, Array, Array, float] | None = None,
) -> None:  # fmt: skip
    """normalizing: where the coefficients go, weight, bias and eps."""
    tile, name = tile_of(x.shape, sums=True), name_of(x.dtype)
    if weights is not None:
        own, w, at = _readable(weights)
        parts, pivots = workspace(x, (4, tile.chunks, tile.channels), "parts"), workspace(x, (tile.channels,), "pivots")
        run(first_counted(name, computed_in(x), own), tile.channels, x, x, x.where, w, at, tuple(tile), pivots)
        kernel = chunk_sums(name, computed_in(x), False, own)
        run(kernel, tile.blocks, x, parts, NOWHERE, x, x.where, w, at, pivots, parts, tuple(tile), parts)
        ends = *(normalizing or (stats, parts, parts, 0.0)), normalizing is not None, tile.chunks
        _each_channel(merge_sums(real), x, parts, pivots, weights.counts, stats, *ends)
        return
    parts = workspace(x, (3, tile.chunks, tile.channels), "parts")
    kernel = chunk_sums(name, computed_in(x), False)
    run(kernel, tile.blocks, x, parts, NOWHERE, x, x.where, parts, NOWHERE, parts, parts, tuple(tile), parts)
    arguments = parts, stats, *(normalizing or (stats, parts, parts, 0.0)), normalizing is not None, tuple(tile)
    run(merge_moments(real), tile.channels, x, *arguments, threads=tiles.MERGERS)


def _through(
    dy: Array, x: Array, statistics: Statistics, prologue: Prologue, room: Array | None, weights: Weights | None
) -> Array:
    """g, 0 where a weight is: without a prologue dy, which sums and dx then leave out where it does not count."""
    g = _activated(dy, x, statistics, prologue, room)
    if weights is not None and (g is not dy or prologue.g is not None):
        made: Any = g if prologue.g is None else prologue.g
        normalize(g, _as_it_is(x), PLAIN, made, 1, weights._replace(filling=0.0))
        return made  # type: ignore[no-any-return]
    return g


def _as_it_is(x: Array) -> Array:
    """(3, C): coefficients that leave an element as it is."""
    affine, ones = workspace(x, (3, x.shape[1]), "as it is"), constant(x, x.shape[1], 1.0)
    _each_channel(channels.inference_gradient, x, ones, ones, 0.0, affine)
    return affine


def _activated(dy: Array, x: Array, statistics: Statistics, prologue: Prologue, room: Array | None) -> Array:
    """g, which without an activation is dy: in the prologue's own array, else in `room`, else in a new one."""
    given: Any = prologue
    activation, bias, residual, kept, signs, wanted = given
    if activation is None and signs is None:
        if wanted is not None:
            copy(dy, wanted)
        return dy
    if wanted is None:
        wanted = empty(x, x.shape, dy.dtype) if room is None else room
    g: Array = wanted
    zeros = constant(x, 3 * x.shape[1], 0.0)
    if signs is not None:
        _elementwise(apply.signed, (), (dy, signs, None), zeros, Epilogue(Activation(0, signs.slope)), g)
        return g
    which = "gradient" if kept is None else "of_output"
    settings = _function(activation, which), residual is not None, kept is None
    if kept is not None:
        _elementwise(apply.through, settings, (dy, kept, residual), zeros, Epilogue(activation), g)
        return g
    mean, low, var, weight, eps, *_ = statistics
    affine = workspace(x, (3, x.shape[1]), "affine")
    _each_channel(channels.affine(computed_in(x)), x, mean, low, var, weight, bias, eps, affine)
    _elementwise(apply.through, settings, (dy, x, residual), affine, Epilogue(activation), g)
    return g


def _gradient(
    dy: Array, x: Array, statistics: Statistics, sums: Array, coefficients: Array | None, weights: Weights | None
) -> None:
    mean, low, var, weight, eps, *_ = statistics
    tile = tile_of(x.shape, sums=True)
    parts = workspace(x, (2, tile.chunks, tile.channels), "parts")
    own, w, at = ("", parts, NOWHERE) if weights is None else _readable(weights)
    kernel = chunk_sums(name_of(x.dtype), computed_in(x), True, own)
    run(kernel, tile.blocks, x, dy, dy.where, x, x.where, w, at, mean, low, tuple(tile), parts)
    wanted, counts = coefficients is not None, parts if weights is None else weights.counts
    given = (coefficients if wanted else sums, var, weight, mean, low, float(eps), wanted)
    arguments = parts, sums, *given, counts, weights is not None, tuple(tile)
    run(merge_gradients(computed_in(x)), tile.channels, x, *arguments, threads=tiles.MERGERS)


def _elementwise(
    formula: Any, settings: tuple[Any, ...], inputs: tuple[Any, ...], coefficients: Array, epilogue: Epilogue,
    y: Array,
) -> None:  # fmt: skip
    """formula of up to three inputs, of which one may be Bits, or Weights, and None is one that it does not read."""
    first: Any = inputs[0]
    given = [_readable(first if a is None else a) for a in inputs]
    names = *(name for name, _, _ in given), name_of(y.dtype)
    tile = tile_of(first.shape, sums=False)
    activation, _, quantization = epilogue
    numbers = (*(activation or NONE)[1:3], *(quantization or (0.0,) * 4), getattr(inputs[2], "filling", 0.0))
    kernel = apply.elementwise(names, computed_in(*(a for _, a, _ in given), y), formula, *settings)
    places = [part for _, *both in given for part in both]
    arguments = (*places, coefficients, tuple(map(float, numbers)), tuple(tile), y, y.where)
    try:
        run(kernel, tile.blocks, first, *arguments)
    except NumbaError as error:
        function = settings[0] if settings else None
        if not callable(function):
            raise
        raise TypeError(
            f"activation must be a function of one number that numba.cuda compiles for {first.dtype}, got "
            f"{function!r}, with which that fails: {error}; try it in a kernel of your own first"
        ) from error


def _readable(a: Any) -> tuple[str, Array, tuple[int, ...]]:
    """The name of what reads it, its memory and where in that its elements are."""
    a = a.array if isinstance(a, Weights) else a
    if isinstance(a, Bits):
        bits: Any = a.bits
        return "bits", bits, (0, *a.strides)
    return name_of(a.dtype), a, a.where


def _function(activation: Activation | None, which: str) -> Any:
    """What `activation_of` takes: the name of that formula of an activation, or the user's own function."""
    if activation is None:
        return None
    if activation.entry is None:
        return activation.function if which == "function" else activation.derivative
    return getattr(activation.entry, which).__name__


def computed_in(*arrays: Array) -> Any:
    """float64 if one of them is of it, else float32."""
    return np.float64 if any(a.dtype == np.float64 for a in arrays) else np.float32


def in_turn(size: int) -> int:
    """Blocks for so many elements: a thread each, or some in turn."""
    return min(-(-size // tiles.THREADS), ENOUGH)


def run(kernel: Any, blocks: int, x: Array, *arguments: Any, threads: int | None = None) -> None:
    """On the device and stream of x; of arrays a kernel takes the memory."""
    launch.launch(kernel, blocks, threads or tiles.THREADS, x, arguments)


def _each_channel(kernel: Any, x: Array, *arguments: Any) -> None:
    """On x's stream."""
    run(kernel, in_turn(x.shape[1]), x, *arguments, x.shape[1])


def reorder(bits: Array, shape: tuple[int, ...], steps: tuple[int, ...], made: Array) -> None:
    """Bits in the order of up to 5 axes of that shape, along which they lie so many apart."""
    size, axes = math.prod(shape), 5 - len(shape)
    shape, steps = (*(1,) * axes, *shape), (*(0,) * axes, *steps)
    run(apply.reorder, in_turn(made.size), bits, bits, shape, steps, made, size)


def without_nan(x: Array, weights: Array, made: Array) -> None:
    """made = weights, and 0 where x is NaN; of up to 5 axes, `made` contiguous."""
    axes, (x_start, *x_steps), (w_start, *w_steps) = 5 - x.ndim, x.where, weights.where
    zero = (0,) * axes
    arguments = x, x_start, (*zero, *x_steps), weights, w_start, (*zero, *w_steps), made, ((1,) * axes + x.shape)
    run(apply.without_nan(name_of(x.dtype), name_of(weights.dtype)), in_turn(x.size), x, *arguments)


def sum_weights(weights: Array, sums: Array) -> None:
    """sums (2, C) float64: in the first row the sum of each channel's weights (O, C, I)."""
    zeros: Any = constant(weights, weights.shape[1], 0.0)
    _gradient(weights, weights, Statistics(zeros, zeros, zeros, zeros, 0.0, False), sums, None, None)


def copy(x: Array, y: Array) -> None:
    """y = x, of up to 5 axes and any strides, converted as NumPy's astype does."""
    axes = 5 - x.ndim
    (x_start, *x_steps), (y_start, *y_steps) = x.where, y.where
    one, zero = (1,) * axes, (0,) * axes
    arguments = (x, x_start, (*zero, *x_steps), y, y_start, (*zero, *y_steps), (*one, *x.shape))
    run(apply.copy(name_of(x.dtype), name_of(y.dtype)), in_turn(x.size), x, *arguments)
