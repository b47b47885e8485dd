"""Which arrays share memory, on the host or on a GPU."""

from __future__ import annotations

from typing import Any

import numpy as np

from cpubn.backends.place import addresses


def is_same(a: Any, b: Any) -> bool:
    a, b = addresses(a), addresses(b)
    return a is b or (
        a.ctypes.data == b.ctypes.data and a.shape == b.shape and a.strides == b.strides and a.dtype == b.dtype
    )


def overlap(a: Any, b: Any) -> bool:
    a, b = addresses(a), addresses(b)
    if not np.may_share_memory(a, b):
        return False
    try:
        return np.shares_memory(a, b, max_work=100_000)  # type: ignore[arg-type]  # the stub knows only 0 and -1
    except np.exceptions.TooHardError:
        return True


def overlaps_itself(a: Any) -> bool:
    """Whether two elements share memory; exotic strides that cannot be told apart cheaply count as overlapping."""
    if not a.size:
        return False
    reach = a.itemsize
    for stride, size in sorted((abs(s), n) for s, n in zip(a.strides, a.shape, strict=True) if n > 1):
        if stride < reach:
            return True
        reach += stride * (size - 1)
    return False
