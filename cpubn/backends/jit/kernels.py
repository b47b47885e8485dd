"""What Numba compiles for a call: the loops of sums.py and apply.py for one activation, shared out to threads.

Kernels are kept on disk under names that change with any source that they are made of: Numba watches their own alone.
"""
# mypy: allow-untyped-defs, allow-untyped-calls

import functools
import hashlib
import inspect
from types import FunctionType
from typing import Any

import numba
from numba import prange

from cpubn import _activations, _algebra, _elementary
from cpubn.backends.jit import apply, control, formulas, lanes, pivots, prologue, samples, sums
from cpubn.backends.jit.apply import backward_part, forward_part
from cpubn.backends.jit.control import calm, each, restore
from cpubn.backends.jit.pivots import column_pivots, row_pivot
from cpubn.backends.jit.prologue import compiled
from cpubn.backends.jit.sums import fold_columns, sum_columns, sum_rows

SOURCES = _activations, _algebra, _elementary, apply, control, formulas, lanes, pivots, prologue, samples, sums
VERSION = hashlib.sha256("".join(map(inspect.getsource, SOURCES)).encode()).hexdigest()[:16]


def kept(function: Any, name: str, on_disk: bool = True) -> Any:
    """Of `parallel`, the loops compiled when they are first called, and kept on disk where there is a folder for that.

    One thread has loops of its own: a forked child may not enter Numba's parallel ones.
    """

    @functools.cache
    def compiled(parallel: bool) -> Any:
        own = FunctionType(function.__code__, function.__globals__, closure=function.__closure__)
        own.__qualname__ = f"{function.__name__}_{name}_{'parallel_' if parallel else ''}{VERSION}"
        how = {"error_model": "numpy", "nogil": True, "parallel": parallel}
        if on_disk:
            try:
                return numba.njit(own, cache=True, **how)
            except RuntimeError:  # no folder that can be written, no source to watch
                pass
        return numba.njit(own, **how)

    return compiled


def lane_function(function: Any) -> Any:
    """Of lanes and two bounds: one of _activations, or a user's own, lane by lane; None for none."""
    if function is None or function in (*_activations.FUNCTIONS, *_activations.GRADIENTS):
        return function

    def own(z: Any, low: Any, high: Any) -> Any:
        return each(function, z)

    return numba.njit(own, error_model="numpy")


def _named(function: Any) -> tuple[Any, str, bool]:
    on_disk = function is None or function in (*_activations.FUNCTIONS, *_activations.GRADIENTS)
    return lane_function(function), getattr(function, "__name__", "none"), on_disk


@functools.cache
def rows(function: Any) -> Any:
    derive, name, on_disk = _named(function)

    def sum_rows_of(x, source, walk, table, wanted, parts):
        for unit in prange(walk.spans * walk.channels):
            before = calm()
            span, c = unit // walk.channels, unit % walk.channels
            if wanted[c]:
                s, q = 0.0, 0.0
                for chunk in range(span * walk.span, min((span + 1) * walk.span, walk.chunks)):
                    more_s, more_q = sum_rows(derive, x, source, walk, c, chunk, table)
                    s, q = s + more_s, q + more_q
                parts[span, 0, c], parts[span, 1, c] = s, q
            restore(before)

    return kept(sum_rows_of, name, on_disk)


@functools.cache
def columns(function: Any) -> Any:
    derive, name, on_disk = _named(function)

    def sum_columns_of(x, source, walk, table, together, sums_of_columns, parts):
        width = walk.channels * walk.inner * walk.together
        strips = -(-width // (128 // x.itemsize))
        blocks = -(-strips // together)
        for unit in prange(walk.chunks * blocks):
            before = calm()
            chunk, first = unit // blocks, unit % blocks * together
            s, q = sums_of_columns[chunk, 0], sums_of_columns[chunk, 1]
            sum_columns(derive, x, source, walk, chunk, table, first, min(strips, first + together), s, q)
            restore(before)
        for span in prange(walk.spans):
            before = calm()
            parts[span] = 0.0
            for chunk in range(span * walk.span, min((span + 1) * walk.span, walk.chunks)):
                fold_columns(walk, sums_of_columns[chunk, 0], parts[span, 0])
                fold_columns(walk, sums_of_columns[chunk, 1], parts[span, 1])
            restore(before)

    return kept(sum_columns_of, name, on_disk)


@functools.cache
def means() -> Any:
    def find_pivots(x, walk, totals):
        if walk.columns:
            before = calm()
            column_pivots(x, walk, totals)
            restore(before)
        else:
            for c in prange(walk.channels):
                before = calm()
                totals[c] = row_pivot(x, walk, c)
                restore(before)

    return kept(find_pivots, "means")


@compiled
def runs_of(shape, table, part, parts):
    """The runs of a thread: one of columns, or inner ones."""
    if table.period > 0:
        return part, part + 1
    return shape[0] * shape[1] * part // parts, shape[0] * shape[1] * (part + 1) // parts


@compiled
def run_bounds(shape, table, run, part, parts):
    """Where a run starts and ends, and its column or channel."""
    n = shape[0] * shape[1] * shape[2]
    if table.period > 0:
        return n * part // parts, n * (part + 1) // parts, n * part // parts % table.period
    return run * shape[2], (run + 1) * shape[2], run % shape[1]


@functools.cache
def forward(function: Any) -> Any:
    activate, name, on_disk = _named(function)

    def apply_forward(x, ends, y, shape, table, parts):
        for part in prange(parts):
            before = calm()
            start, stop = runs_of(shape, table, part, parts)
            for run in range(start, stop):
                first, after, column = run_bounds(shape, table, run, part, parts)
                if after > first:
                    forward_part(activate, x, ends, y, first, after - first, table, column)
            restore(before)

    return kept(apply_forward, name, on_disk)


@functools.cache
def backward(function: Any) -> Any:
    derive, name, on_disk = _named(function)

    def apply_backward(x, source, g, is_scale, dx, shape, table, parts):
        for part in prange(parts):
            before = calm()
            start, stop = runs_of(shape, table, part, parts)
            for run in range(start, stop):
                first, after, column = run_bounds(shape, table, run, part, parts)
                if after > first:
                    n = after - first
                    backward_part(derive, x, source, g, is_scale, dx, first, n, table, column)
            restore(before)

    return kept(apply_backward, name, on_disk)
