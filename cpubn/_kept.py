"""What a layer keeps of a forward for its backward, and where layers keep nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

from cpubn._signs import Signs
from cpubn._types import Array

_grad: ContextVar[bool] = ContextVar("cpubn_grad", default=True)
keeps = _grad.get


@contextmanager
def no_grad() -> Iterator[None]:
    """Inside a `with` block, or a function that is decorated by it, layers keep nothing for backward, in either mode.

    What a layer kept of an earlier call it lets go of at its next one in the block. The choice is the current thread's
    or asyncio task's alone. As torch.no_grad.
    """
    token = _grad.set(False)
    try:
        yield
    finally:
        _grad.reset(token)


class Kept(NamedTuple):
    """Of a forward, by reference."""

    x: Array
    batch: Any  # its Moments; None where it normalized with the running statistics
    residual: Array | None = None
    had_residual: bool = False
    output: Array | Signs | None = None  # what the activation's gradient needs of it
    overwritten: str | None = None  # what backward would need


class Nothing(NamedTuple):
    """Why there is nothing, and what to do."""

    why: str
    cure: str


NOT_CALLED = Nothing("the layer was not called", "call the layer first")
USED = Nothing("backward was called already", "call the layer again, or keep its input by backward(dy, retain=True)")
IN_NO_GRAD = Nothing("its last call was within cpubn.no_grad()", "call it outside of that")
MOVED = Nothing("the layer's state was loaded, reset or moved since", "call the layer again")
