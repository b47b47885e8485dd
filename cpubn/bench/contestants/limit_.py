"""What memory allows: a loop that does next to nothing, over the bytes that a pass must move, on the same threads.

y = a * x for both forward passes, dx = a * dy + x for backward, sum(x) for moments. Compiled C++, or Numba without a
compiler. For the cost of a call, a Python function that does nothing.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from cpubn.bench.case import Case, Prepared
from cpubn.bench.contestants import LIMIT, Contestant
from cpubn.bench.native import compile_page


def contestants(threads: int) -> list[Contestant]:
    try:
        limit: Compiled | Jitted = Compiled(threads)
    except ImportError:
        limit = Jitted(threads)
    loops = {"eval": limit.scale, "train": limit.scale, "backward": limit.combine, "moments": limit.sum}
    return [Contestant(LIMIT, "NCHW", loops | {"overhead": empty_call}, limit.note)]


def empty_call(case: Case, layout: str) -> Prepared:
    return unchecked(case, lambda: None)


def unchecked(case: Case, call: Callable[[], object]) -> Prepared:
    """It computes no batch norm, so its result is not looked at."""
    return Prepared(call, lambda: case.expected)


class Compiled:
    note = "a C++ loop without non-temporal stores, output reused"

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self.page = load()

    def scale(self, case: Case, layout: str) -> Prepared:
        return self._prepare(case, self.page.scale, case.x(), case.y())

    def combine(self, case: Case, layout: str) -> Prepared:
        return self._prepare(case, self.page.combine, case.dy(), case.x(), case.y())

    def sum(self, case: Case, layout: str) -> Prepared:
        return self._prepare(case, self.page.sum, case.x())

    def _prepare(self, case: Case, function: Callable[..., Any], *arrays: Any) -> Prepared:
        arguments: list[Any] = [ctypes.c_void_p(a.ctypes.data) for a in arrays]
        if function is not self.page.sum:
            arguments.append(ctypes.c_float(1.5))
        arguments += [ctypes.c_int64(arrays[0].size), ctypes.c_int(self.threads)]
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

        self._scale, self._combine, self._total = scale, combine, total

    def scale(self, case: Case, layout: str) -> Prepared:
        x, y, a = case.x().ravel(), case.y().ravel(), np.float32(1.5)
        return unchecked(case, lambda: self._scale(x, y, a))

    def combine(self, case: Case, layout: str) -> Prepared:
        dy, x, dx, a = case.dy().ravel(), case.x().ravel(), case.y().ravel(), np.float32(1.5)
        return unchecked(case, lambda: self._combine(dy, x, dx, a))

    def sum(self, case: Case, layout: str) -> Prepared:
        x = case.x().ravel()
        return unchecked(case, lambda: self._total(x))
