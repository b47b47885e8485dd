"""The control register of floating-point arithmetic, while the data path computes in Python beside the kernels."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from cpubn.backends.compiled import variants


@contextmanager
def calm() -> Iterator[None]:
    """Round to nearest and keep subnormal numbers meanwhile, whatever another library has set for this thread.

    Without compiled kernels and without Numba, which alone promise their bits, the register stays as it is.
    """
    begin, end = _words()
    before = begin()
    try:
        yield
    finally:
        end(before)


def _words() -> tuple[Callable[[], int], Callable[[int], object]]:
    direct = _compiled()
    if direct is not None:
        return direct.calm, direct.restore
    control: Any = sys.modules.get("cpubn.backends.jit.control")  # if Numba has been asked for
    if control is not None:
        return control.calm_thread, control.restore_thread
    return int, bool  # which do nothing


@cache
def _compiled() -> Any:
    return None if variants.absence("baseline") else variants.planner()
