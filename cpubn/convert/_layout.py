"""The channel axis of frameworks that count it."""

from __future__ import annotations

from typing import Any

from cpubn.typing import Layout


def layout_of(axis: Any) -> Layout:
    if isinstance(axis, bool) or axis not in (-1, 1):
        raise ValueError(f"axis must be -1 (channels last) or 1, got {axis!r}; for the last axis of any rank pass -1")
    return "NCHW" if axis == 1 else "NHWC"


def axis_of(layout: Layout) -> int:
    return 1 if layout == "NCHW" else -1
