"""The Numba backend: the same functions, arguments and bits as the Cython one, compiled when they are first called.

The loops stand in _numba_sums.py and _numba_apply.py. This file lays arrays flat for them and cuts the work for the
number of threads; _numba_compile.py compiles them and enters them.
"""

import functools
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from cpubn import _activations
from cpubn._epilogue import PLAIN, Activation, Epilogue, rounded
from cpubn.kernels import _numba_apply as loops
from cpubn.kernels import _numpy
from cpubn.kernels._numba_compile import call, thread_limit, threading_layer
from cpubn.kernels._numba_sums import LANES, View, Walk
from cpubn.kernels._order import order_of

__all__ = [
    "ANY_TYPE",
    "activation_gradient",
    "apply_signs",
    "gradient_sums",
    "moments",
    "normalize",
    "pack_signs",
    "thread_limit",
    "threading_layer",
    "train_backward",
    "train_forward",
]

Real = NDArray[np.floating[Any]]
Float64 = NDArray[np.float64]
Shape = tuple[int, ...]

# Samples are of the type that is computed in.
ANY_TYPE = False
NONE = Activation(0)
SUMS = loops.SPANS | loops.SUMS
APPLY = loops.APPLY
TRAIN = SUMS | loops.COEFFICIENTS | APPLY
# Columns of a group whose elements lie in a cache line each.
SCATTERED = 256
# Columns are shared out to threads from so many each on, four cache lines of float32, and up to so many bytes; where
# there are fewer spans than threads, 16 times as many. Beyond, whole rows are: (3136, 256) took 193 us so, and not 265.
FEW_COLUMNS, CACHED = 64, 1 << 20
# Elements that are normalized at once, after their coefficients were laid out for at most a 256th of them.
BLOCK = 1 << 18


def moments(x: Real, stats: Float64, threads: int) -> None:
    """mean, low word of the mean and sum((x - mean)**2) of each channel.

    x (O, C, I) real; stats (3, C) float64.
    Chunks about pivots of their own, merged as `_order` says: a pivot far from the mean would cancel.
    Reads x once.
    """
    _run(SUMS, threads, x, out=stats)


def normalize(x: Real, affine: Float64, epilogue: Epilogue, y: Real, threads: int) -> None:
    """y = epilogue((x - centre) * scale + shift).

    x, y (O, C, I) real, which may be the same; affine (3, C) float64: centre, scale, shift.
    A float32 channel is computed in float64 where float32 cannot hold its coefficients or might overflow on the way.
    Reads x and the residual once, writes y once.
    """
    _run(APPLY, threads, x, y=y, coefficients=affine.flatten(), epilogue=epilogue)


def train_forward(
    x: Real,
    weight: Float64,
    bias: Float64,
    eps: float,
    stats: Float64,
    epilogue: Epilogue,
    y: Real,
    threads: int,
) -> None:
    """y = epilogue((x - mean) / sqrt(var + eps) * weight + bias) with x's own moments, which go to stats.

    x, y (O, C, I) real, which may be the same; weight, bias (C,), stats (3, C) float64.
    A thread takes a group of channels from sums to y while it is in cache; a sweep for each would read x twice.
    Reads x and the residual once, writes y once.
    """
    _run(TRAIN, threads, x, y=y, given=(weight, bias), eps=eps, out=stats, epilogue=epilogue)


def gradient_sums(dy: Real, x: Real, mean: Float64, sums: Float64, threads: int) -> None:
    """sum(dy) and sum(dy * (x - mean)) of each channel.

    dy, x (O, C, I) real; mean (C,), sums (2, C) float64.
    Differences and sums in float64, of float32 data too: dx is what little is left of their terms.
    Reads dy and x once.
    """
    _run(SUMS, threads, x, dy=dy, given=(mean,), out=sums)


def train_backward(
    dy: Real, x: Real, mean: Float64, var: Float64, weight: Float64, eps: float, sums: Float64, dx: Real, threads: int
) -> None:
    """dx = scale * ((dy - k) - ((x - centre) * r) * s), by `_algebra.gradient` of the gradient sums, which go to sums.

    dy, x, dx (O, C, I) real, of which dx may be dy or x; mean, var, weight (C,), sums (2, C) float64.
    Groups of channels as in `train_forward`.
    Reads dy and x once, writes dx once.
    """
    _run(TRAIN, threads, x, dy=dy, y=dx, given=(mean, var, weight), eps=eps, out=sums)


def activation_gradient(dy: Real, x: Real, affine: Float64 | None, epilogue: Epilogue, g: Real, threads: int) -> None:
    """g = dy * activation'((x - centre) * scale + shift + residual); without affine, of x as it is.

    dy, x, g (O, C, I) real, of which g may be dy; affine (3, C) float64: centre, scale, shift.
    The derivatives first, by the loops of `normalize`: loops of its own would be compiled for every activation.
    Reads x, the residual and dy once, writes the derivatives and g once.
    """
    if affine is None:
        affine = np.zeros((3, x.shape[1]))
        affine[1] = 1.0
    derivatives = np.empty_like(x)
    _run(APPLY, threads, x, y=derivatives, coefficients=affine.flatten(), epilogue=epilogue, derived=True)
    with np.errstate(all="ignore"):
        np.multiply(dy, derivatives, out=g)


def pack_signs(y: Real, low: float, high: float, nan: bool, bits: NDArray[np.uint8], threads: int) -> None:
    """bits[j] = not (y[j] <= low or y[j] >= high), of NaN `nan`: by NumPy, on one thread."""
    _numpy.pack_signs(y, low, high, nan, bits, threads)


def apply_signs(dy: Real, bits: NDArray[np.uint8], slope: float, g: Real, threads: int) -> None:
    """g[j] = dy[j] where bits[j] is set, otherwise slope * dy[j] or 0: by NumPy, on one thread."""
    _numpy.apply_signs(dy, bits, slope, g, threads)


def _run(
    job: int,
    threads: int,
    x: Real,
    *,
    dy: Real | None = None,
    y: Real | None = None,
    given: tuple[Float64, ...] = (),
    eps: float = 0.0,
    coefficients: Float64 | None = None,
    out: Float64 | None = None,
    epilogue: Epilogue = PLAIN,
    derived: bool = False,
) -> None:
    """Do a job: group by group where that keeps all threads busy, and where not one of its steps after the other."""
    threads = min(threads, thread_limit())
    activation, residual, _ = epilogue
    strides = tuple(x.strides if a is None else a.strides for a in (dy, residual, x, y))
    walk, dy_place, residual_place, x_place, y_place = _cut(x.shape, x.itemsize, strides, threads, job != APPLY)
    coefficient_rows, sum_rows = (3, 3) if dy is None else (5, 2)
    lanes = walk.group * walk.inner if walk.columns else LANES
    columns = max(loops.COLUMNS, lanes) if walk.columns else 1
    arguments = (
        () if dy is None else View(_read_only(_flat(dy)), *dy_place),
        View(_read_only(_flat(x)), *x_place),
        () if residual is None else View(_read_only(_flat(residual)), *residual_place),
        _limits(x.dtype, *(activation or NONE)[1:3]),
        View(np.empty(0, x.dtype) if y is None else _flat(y), *y_place),
        np.array(given, ndmin=2),
        float(eps),
        np.empty(coefficient_rows * walk.channels) if coefficients is None else coefficients,
        np.empty((walk.spans if job & loops.SPANS else 0, sum_rows, walk.channels)),
        np.empty((sum_rows, 0)) if out is None else out,
        np.empty((threads, 4, lanes)),
        np.empty((threads, coefficient_rows * columns), x.dtype),
        walk,
    )
    # Idle for a quarter of the time, threads still beat a second sweep over x.
    busy = -(-walk.groups // threads) * threads * 3 <= walk.groups * 4
    steps = (job,) if busy or job == APPLY else (loops.SPANS, job & (loops.SUMS | loops.COEFFICIENTS), job & APPLY)
    for step in filter(None, steps):
        call(x.dtype.char, arguments, step, threads, _function_of(activation, derived))


@functools.cache
def _limits(dtype: np.dtype[Any], low: float, high: float) -> tuple[Any, Any]:
    return rounded(low, dtype), rounded(high, dtype)


def _function_of(activation: Activation | None, derived: bool) -> Any:
    """What is applied to each z: a function of _activations, or the user's own."""
    if activation is None:
        return None
    if activation.function is not None:
        return activation.derivative if derived else activation.function
    return (_activations.GRADIENTS if derived else _activations.FUNCTIONS)[activation.code - 1]


@functools.lru_cache(maxsize=1024)
def _cut(shape: Shape, itemsize: int, strides: tuple[Shape, ...], threads: int, sums: bool) -> tuple[Any, ...]:
    """The walk over arrays of that shape and those strides, and where in its flat memory each array goes along."""
    outer, channels, inner = shape
    order = order_of(outer, inner)
    places = [_place(shape, itemsize, each, order.columns) for each in strides]
    groups, block = channels, 1
    if order.columns and all(channel == step * inner for _, _, channel, step in places):
        columns = channels * inner
        groups = -(-columns // (loops.COLUMNS if all(step == 1 for *_, step in places) else SCATTERED))
        cached = 16 * CACHED if order.spans < threads else CACHED
        if sums and columns >= threads * FEW_COLUMNS and outer * columns * itemsize <= cached:
            groups = -(-groups // threads) * threads
        groups = min(groups, channels)
        blocks = -(-outer // max(1, BLOCK * groups // columns))
        block = -(-outer // (-(-blocks // threads) * threads))  # as many of one height for each thread
    group = -(-channels // groups)
    _, y_outer, y_channel, _ = places[-1]
    cut = group, -(-channels // group), block, abs(y_outer) >= abs(y_channel)
    return Walk._make((*shape, *order, *cut)), *places


def _place(shape: Shape, itemsize: int, strides: Shape, columns: bool) -> Shape:
    """The start, outer, channel and step of a View."""
    outer, channel, inner = (stride // itemsize for stride in strides)
    start = -sum((n - 1) * min(0, stride) for n, stride in zip(shape, (outer, channel, inner), strict=True))
    if shape[2] == 1:
        inner = channel if columns else 1
    if shape[1] == 1:
        channel = inner * shape[2]
    return start, outer, channel, inner


def _flat(a: Real) -> Real:
    """The memory from the lowest to the highest element of an array with any strides, as one contiguous array."""
    if a.flags.c_contiguous:
        return a.reshape(-1)
    lowest = a[tuple(slice(None, None, -1 if stride < 0 else 1) for stride in a.strides)]
    extent = sum((n - 1) * abs(stride) for n, stride in zip(a.shape, a.strides, strict=True))
    return as_strided(lowest, (extent // a.itemsize + 1,), (a.itemsize,))


def _read_only(a: Real) -> Real:
    """A read-only view: one type of argument, and so one compilation, whatever comes in."""
    view = a.view()
    view.flags.writeable = False
    return view
