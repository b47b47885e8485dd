"""The threads of Numba's parallel loops."""

from __future__ import annotations

import contextlib
import os
import threading
import warnings
from collections.abc import Iterator

import numba
from numba.core.errors import NumbaWarning

_alone = threading.Lock()


def _unlock_child() -> None:
    """A lock that another thread held at the fork would stay held in the child."""
    global _alone
    _alone = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_unlock_child)


@contextlib.contextmanager
def team(threads: int) -> Iterator[int]:
    """Numba's parallel loops run that many threads, as far as there are, and afterwards as many as the caller had set.

    One at a time where the layer is workqueue, which aborts the process when two threads enter it, or is not known yet.
    """
    threads = min(threads, thread_limit())
    if threads == 1:
        yield 1
        return
    with contextlib.nullcontext() if threading_layer() in ("tbb", "omp") else _alone:
        if not threading_layer():
            with warnings.catch_warnings():  # of a TBB too old, in whose stead another layer is taken
                warnings.simplefilter("ignore", NumbaWarning)
                numba.get_num_threads()
        before = numba.get_num_threads()
        if before == threads:  # each call of Numba's takes a microsecond or two
            yield threads
            return
        numba.set_num_threads(threads)
        try:
            yield threads
        finally:
            numba.set_num_threads(before)


def thread_limit() -> int:
    """The most threads that Numba runs: what it was started with (NUMBA_NUM_THREADS)."""
    return int(numba.config.NUMBA_NUM_THREADS)


def threading_layer() -> str:
    """Numba's threading layer: "tbb", "omp" or "workqueue"; "" before the first parallel call of the process."""
    try:
        return str(numba.threading_layer())
    except ValueError:
        return ""
