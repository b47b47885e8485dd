"""The channel axis of frameworks that count it."""

from __future__ import annotations

from typing import Any

from cpubn.typing import Layout


def layout_of(axis: Any) -> Layout:
    """Keras lists one axis or several, and counts the last from the front once it knows the rank: 3, [3] or -1."""
    one = axis[0] if isinstance(axis, list | tuple) and len(axis) == 1 else axis
    if isinstance(one, bool) or one not in (-1, 1, 2, 3, 4):
        raise ValueError(
            f"axis must be -1 (channels last; also 2, 3 or 4, where that is the last one) or 1, got {axis!r}; "
            "for the last axis of any rank pass -1"
        )
    return "NCHW" if one == 1 else "NHWC"


def axis_of(layout: Layout) -> int:
    return 1 if layout == "NCHW" else -1
