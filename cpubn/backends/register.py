"""The control register of floating-point arithmetic, while the data path computes in Python beside the kernels."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import ContextDecorator
from functools import cache
from typing import Any

from cpubn.backends.compiled import variants


class calm(ContextDecorator):  # noqa: N801  # a function, to who uses it
    """Round to nearest and keep subnormal numbers meanwhile, whatever another library has set for this thread.

    Without compiled kernels and without Numba, which alone promise their bits, the register stays as it is.
    """

    def __enter__(self) -> None:
        begin, end = _words()
        self.end: Callable[[int], object] = end
        self.before: int = begin()

    def __exit__(self, *error: object) -> None:
        self.end(self.before)

    def _recreate_cm(self) -> calm:
        """Of its own for each call of a function that is decorated."""
        return calm()


def _words() -> tuple[Callable[[], int], Callable[[int], object]]:
    planner = _compiled()
    if planner is not None:
        return planner.calm, planner.restore
    control: Any = sys.modules.get("cpubn.backends.jit.control")  # if Numba has been asked for
    if control is not None:
        return control.calm_thread, control.restore_thread
    return int, bool  # which do nothing


@cache
def _compiled() -> Any:
    return None if variants.absence("baseline") else variants.planner()
