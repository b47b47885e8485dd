"""What memory allows: a loop that does next to nothing, over the bytes that a pass must move, on the same threads.

y = a * x for both forward passes, dx = a * dy + x for backward, sum(x) for moments. Half types are taken for half as
many floats, a residual for a dy; images are bytes to floats, quantized data bytes to bytes. Compiled C++, or Numba
without a compiler. For the cost of a call, a Python function that does nothing.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from cpubn.bench.case import Case, Prepared
from cpubn.bench.contestants import LIMIT, Contestant, Prepare
from cpubn.bench.edge import FUSED, HALF, INPUT, QUANTIZED, Fused
from cpubn.bench.native import compile_page
from cpubn.typing import Array


def contestants(threads: int) -> list[Contestant]:
    try:
        limit: Compiled | Jitted = Compiled(threads)
    except ImportError:
        limit = Jitted(threads)
    loops: dict[str, Prepare] = dict.fromkeys(("eval", "train", *FUSED), limit.scale)
    loops |= {"backward": limit.combine, "moments": limit.sum, "add_relu": limit.combine_residual}
    loops |= {op: loops[op.partition("_")[0]] for op in HALF}
    loops |= dict.fromkeys(INPUT, limit.widen) | dict.fromkeys(QUANTIZED, limit.flip)
    return [Contestant(LIMIT, "NCHW", loops | {"overhead": empty_call}, limit.note)]


def empty_call(case: Case, layout: str) -> Prepared:
    return unchecked(case, lambda: None)


def unchecked(case: Case, call: Callable[[], object]) -> Prepared:
    """It computes no batch norm, so its result is not looked at."""
    return Prepared(call, lambda: case.expected)


def floats(a: Array) -> Array:
    """Its bytes as a row of float32, whatever they stand for."""
    return a.ravel().view(np.float32)


class Compiled:
    note = "a C++ loop without non-temporal stores, output reused"

    def __init__(self, threads: int) -> None:
        self.threads: int = threads
        self.page: ctypes.CDLL = load()

    def scale(self, case: Case, layout: str) -> Prepared:
        return self._prepare(case, self.page.scale, case.x(), case.y())

    def combine(self, case: Case, layout: str) -> Prepared:
        return self._prepare(case, self.page.combine, case.dy(), case.x(), case.y())

    def combine_residual(self, case: Fused, layout: str) -> Prepared:
        return self._prepare(case, self.page.combine, case.residual(), case.x(), case.y())

    def widen(self, case: Case, layout: str) -> Prepared:
        return self._prepare(case, self.page.widen, case.x(), case.y())

    def flip(self, case: Case, layout: str) -> Prepared:
        return self._prepare(case, self.page.flip, case.x(), case.y())

    def sum(self, case: Case, layout: str) -> Prepared:
        return self._prepare(case, self.page.sum, case.x())

    def _prepare(self, case: Case, function: Callable[..., Any], *arrays: Any) -> Prepared:
        arguments: list[Any] = [ctypes.c_void_p(a.ctypes.data) for a in arrays]
        if function not in (self.page.sum, self.page.flip):
            arguments.append(ctypes.c_float(1.5))
        size = arrays[0].nbytes // (1 if function in (self.page.widen, self.page.flip) else 4)
        arguments += [ctypes.c_int64(size), ctypes.c_int(self.threads)]
        return unchecked(case, lambda: function(*arguments))


@cache
def load() -> ctypes.CDLL:
    page = compile_page("limit.cpp")
    page.sum.restype = ctypes.c_float
    return page


class Jitted:
    note = "a Numba loop, output reused"

    def __init__(self, threads: int) -> None:
        import numba

        numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))
        jit = numba.njit(parallel=threads > 1, fastmath=True)

        @jit  # type: ignore[untyped-decorator]
        def scale(x: Any, y: Any, a: Any) -> None:
            for i in numba.prange(x.size):
                y[i] = a * x[i]

        @jit  # type: ignore[untyped-decorator]
        def combine(dy: Any, x: Any, dx: Any, a: Any) -> None:
            for i in numba.prange(x.size):
                dx[i] = a * dy[i] + x[i]

        @jit  # type: ignore[untyped-decorator]
        def total(x: Any) -> Any:
            s = np.float32(0)
            for i in numba.prange(x.size):
                s += x[i]
            return s

        @jit  # type: ignore[untyped-decorator]
        def flip(x: Any, y: Any) -> None:
            for i in numba.prange(x.size):
                y[i] = x[i] ^ -128

        self._scale, self._combine, self._total, self._flip = scale, combine, total, flip

    def scale(self, case: Case, layout: str) -> Prepared:
        x, y, a = floats(case.x()), floats(case.y()), np.float32(1.5)
        return unchecked(case, lambda: self._scale(x, y, a))

    def combine(self, case: Case, layout: str) -> Prepared:
        return self._combined(case, case.dy())

    def combine_residual(self, case: Fused, layout: str) -> Prepared:
        return self._combined(case, case.residual())

    def widen(self, case: Case, layout: str) -> Prepared:
        x, y, a = case.x().ravel(), case.y().ravel(), np.float32(1.5)
        return unchecked(case, lambda: self._scale(x, y, a))

    def flip(self, case: Case, layout: str) -> Prepared:
        x, y = case.x().ravel(), case.y().ravel()
        return unchecked(case, lambda: self._flip(x, y))

    def _combined(self, case: Case, other: Any) -> Prepared:
        other, x, y, a = floats(other), floats(case.x()), floats(case.y()), np.float32(1.5)
        return unchecked(case, lambda: self._combine(other, x, y, a))

    def sum(self, case: Case, layout: str) -> Prepared:
        x = case.x().ravel()
        return unchecked(case, lambda: self._total(x))
