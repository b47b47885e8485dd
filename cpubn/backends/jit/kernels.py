"""What Numba compiles for a call: the loops of sums.py and apply.py for one activation, shared out to threads.

Kernels are kept on disk under names that change with any source that they are made of: Numba watches their own alone.
"""
# mypy: allow-untyped-defs

import functools
import hashlib
import inspect
from types import FunctionType
from typing import Any

import numba
import numpy as np
from numba import prange

from cpubn.backends.jit import apply, control, formulas, lanes, llvm, pivots, prologue, samples, sums, typed
from cpubn.backends.jit.apply import Table, Task, apply_part, placed_task
from cpubn.backends.jit.control import calm, each, restore
from cpubn.backends.jit.pivots import column_pivots, row_pivot
from cpubn.backends.jit.prologue import Source, placed
from cpubn.backends.jit.samples import after, lane_count, pointer
from cpubn.backends.jit.sums import Walk, bounds, fold_columns, sum_columns, sum_rows
from cpubn.backends.jit.typed import Place, compiled
from cpubn.maths import activations, algebra, elementary
from cpubn.maths.activations import Formula

STRIPS = 8  # of columns that a thread sums together
SOURCES = (
    *(activations, algebra, elementary),
    *(apply, control, formulas, lanes, llvm, pivots, prologue, samples, sums, typed),
)
VERSION = hashlib.sha256("".join(map(inspect.getsource, SOURCES)).encode()).hexdigest()[:16]


def kept(function: Any, name: str, on_disk: bool = True) -> Any:
    """Of `parallel`, the loops compiled when they are first called, and kept on disk where there is a folder for that.

    One thread has loops of its own: a forked child may not enter Numba's parallel ones.
    """

    @functools.cache
    def loops(parallel: bool) -> Any:
        own = FunctionType(function.__code__, function.__globals__, closure=function.__closure__)
        own.__qualname__ = f"{function.__name__}_{name}_{'parallel_' if parallel else ''}{VERSION}"
        how = {"error_model": "numpy", "nogil": True, "parallel": parallel}
        if on_disk:
            try:
                return numba.njit(own, cache=True, **how)
            except RuntimeError:  # no folder that can be written, no source to watch
                pass
        return numba.njit(own, **how)

    return loops


def lane_function(function: Any) -> Any:
    """Of lanes and two bounds: one of activations, or a user's own, lane by lane; None for none."""
    if function is None or function in activations.FORMULAS:
        return function

    def own(z: Any, low: Any, high: Any) -> Any:
        return each(function, z)

    return numba.njit(own, error_model="numpy")


def _named(function: Any) -> tuple[Any, str, bool]:
    on_disk = function is None or function in activations.FORMULAS
    return lane_function(function), getattr(function, "__name__", "none"), on_disk


# What a thread does. It is given arrays once, and goes on with where their elements stand: see `samples.pointer`.


@compiled
def sum_channels(
    derive: Formula | None,
    x: Place,
    source: Source,
    walk: Walk,
    table: Place,
    parts: Place,
    thread: np.int64,
    threads: int,
) -> None:
    """Spans of the chunks of channels."""
    x, source, table, parts = pointer(x), placed(source), pointer(table), pointer(parts)
    first, last = bounds(walk.spans * walk.channels, threads, thread)
    for unit in range(first, last):
        span, c = unit // walk.channels, unit % walk.channels
        s, q = 0.0, 0.0
        for chunk in range(span * walk.span, min((span + 1) * walk.span, walk.chunks)):
            more_s, more_q = sum_rows(derive, x, source, walk, c, chunk, table)
            s, q = s + more_s, q + more_q
        parts[2 * span * walk.channels + c], parts[(2 * span + 1) * walk.channels + c] = s, q


@compiled
def sum_strips(
    derive: Formula | None,
    x: Place,
    source: Source,
    walk: Walk,
    table: Place,
    columns: Place,
    thread: np.int64,
    threads: int,
) -> None:
    """Chunks of strips of columns, some strips together."""
    x, source, table, columns = pointer(x), placed(source), pointer(table), pointer(columns)
    width = walk.channels * walk.inner * walk.together
    strips = (width - 1) // lane_count(x) + 1
    blocks = (strips - 1) // STRIPS + 1
    first, last = bounds(walk.chunks * blocks, threads, thread)
    for unit in range(first, last):
        chunk, k = unit // blocks, unit % blocks * STRIPS
        s = after(columns, 2 * chunk * width)
        sum_columns(derive, x, source, walk, chunk, table, k, min(strips, k + STRIPS), s, after(s, width))


@compiled
def fold_spans(walk: Walk, columns: Place, parts: Place) -> None:
    """The columns of spans of chunks to the sums of channels."""
    columns, parts = pointer(columns), pointer(parts)
    width = walk.channels * walk.inner * walk.together
    for span in range(walk.spans):
        s = after(parts, 2 * span * walk.channels)
        for c in range(2 * walk.channels):
            s[c] = 0.0
        for chunk in range(span * walk.span, min((span + 1) * walk.span, walk.chunks)):
            own = after(columns, 2 * chunk * width)
            fold_columns(walk, own, s)
            fold_columns(walk, after(own, width), after(s, walk.channels))


@compiled
def runs_of(shape: tuple[int, int, int], table: Table, thread: np.int64, threads: int) -> tuple[int, int, int, int]:
    """Where a thread's runs start, their length and number, and the first one's column or channel."""
    outer, channels, inner = shape
    if table.period > 0:
        first, last = bounds(outer * channels * inner, threads, thread)
        return first, last - first, min(1, last - first), first % table.period
    start, stop = bounds(outer * channels, threads, thread)
    return start * inner, inner, stop - start, start % channels


@compiled
def table_at(table: Table) -> Table:
    """Of an array, where its elements stand."""
    return Table(pointer(table.values), table.length, table.period, table.past)


@compiled
def apply_runs(
    function: Formula | None,
    x: Place,
    task: Task,
    y: Place,
    shape: tuple[int, int, int],
    table: Table,
    thread: np.int64,
    threads: int,
) -> None:
    x, y, task = pointer(x), pointer(y), placed_task(task)
    table, (first, n, runs, column) = table_at(table), runs_of(shape, table, thread, threads)
    for _ in range(runs):
        apply_part(function, x, task, y, first, n, table, column)
        first, column = first + n, column + 1 if column + 1 < shape[1] else 0


# What is called: the same by all threads. Their number is unsigned within a parallel loop, signed where it is compiled
# first: of one type, what they call is compiled once.


@functools.cache
def rows(function: Any) -> Any:
    derive, name, on_disk = _named(function)

    def sum_all_rows(x, source, walk, table, parts, threads):
        for thread in prange(threads):
            before = calm()
            sum_channels(derive, x, source, walk, table, parts, np.int64(thread), threads)
            restore(before)

    return kept(sum_all_rows, name, on_disk)


@functools.cache
def columns(function: Any) -> Any:
    derive, name, on_disk = _named(function)

    def sum_all_columns(x, source, walk, table, sums_of_columns, parts, threads):
        for thread in prange(threads):
            before = calm()
            sum_strips(derive, x, source, walk, table, sums_of_columns, np.int64(thread), threads)
            restore(before)
        before = calm()
        fold_spans(walk, sums_of_columns, parts)
        restore(before)

    return kept(sum_all_columns, name, on_disk)


# Pivots are found by one thread: so little is read that two took as long, and a parallel loop takes a second to
# compile.


@functools.cache
def row_means() -> Any:
    def find_row_pivots(x, walk, totals):
        before = calm()
        x, totals = pointer(x), pointer(totals)
        for c in range(walk.channels):
            totals[c] = row_pivot(x, walk, c)
        restore(before)

    return kept(find_row_pivots, "means")(False)


@functools.cache
def column_means() -> Any:
    def find_column_pivots(x, walk, columns, totals):
        before = calm()
        column_pivots(pointer(x), walk, pointer(columns), pointer(totals))
        restore(before)

    return kept(find_column_pivots, "means")(False)


@functools.cache
def elements(function: Any) -> Any:
    function, name, on_disk = _named(function)

    def apply_to_all(x, task, y, shape, table, threads):
        for thread in prange(threads):
            before = calm()
            apply_runs(function, x, task, y, shape, table, np.int64(thread), threads)
            restore(before)

    return kept(apply_to_all, name, on_disk)
