"""What a layer keeps of a forward for its backward, and where layers keep nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import numpy as np

from cpubn.backends.overlap import overlap
from cpubn.backends.signs import Signs
from cpubn.backends.weights import Weights
from cpubn.typing import Array

_grad: ContextVar[bool] = ContextVar("cpubn_grad", default=True)
keeps: Callable[[], bool] = _grad.get


@contextmanager
def no_grad() -> Iterator[None]:
    """Inside a `with` block, or a function that is decorated by it, layers keep nothing for backward, in either mode.

    What a layer kept of an earlier call it lets go of at its next one in the block. The choice is the current thread's
    or asyncio task's alone. As torch.no_grad.

    Returns
    -------
    A context manager.

    Examples
    --------
    >>> bn = cpubn.BatchNorm1d(2)
    >>> with cpubn.no_grad():
    ...     y = bn(np.ones((4, 2)))
    >>> bn.backward(y)
    Traceback (most recent call last):
    RuntimeError: backward needs the input of the last forward, got none: its last call was within cpubn.no_grad()...
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
    residual: Array | None
    had_residual: bool
    output: Array | Signs | None  # what the activation's gradient needs of it
    witness: Any  # of those three and of the layer's weight and bias; None: there is none
    calls: Any  # the compiled ones that bore it, or None
    overwritten: str | None = None  # what backward would need
    comm: Any = None  # over whose ranks the batch was spread
    weights: Weights | None = None

    def is_as_it_was(self, weight: Any, bias: Any) -> bool:
        read = self.x, self.output, self.residual, weight, bias, self.weights and self.weights.array
        return self.witness in (None, witness_of(read, self.calls))

    def noted(self, written: Array) -> Kept:
        """With what of it was overwritten."""
        for name, array in {"residual": self.residual, "input": self.x}.items():
            if array is not None and overlap(written, array):
                return self._replace(overwritten=name)
        return self


COMM = Kept._fields.index("comm")  # each backward asks, and a whole record takes 0.3 us


def witness_of(read: tuple[Any, ...], calls: Any) -> Any:
    """A few of each array's numbers, spread over it, by which a change shows; nothing of what is not on the host."""
    if calls is not None:
        return calls.witness(read)
    arrays = (a for a in read if isinstance(a, np.ndarray))
    return tuple((a.shape, a[tuple(slice(None, None, max(1, n // 4)) for n in a.shape)].tobytes()) for a in arrays)


class Nothing(NamedTuple):
    """Why there is nothing, and what to do."""

    why: str
    cure: str


NOT_CALLED = Nothing("the layer was not called", "call the layer first")
USED = Nothing("backward was called already", "call the layer again, or keep its input by backward(dy, retain=True)")
IN_NO_GRAD = Nothing("its last call was within cpubn.no_grad()", "call it outside of that")
MOVED = Nothing("the layer's state was loaded, reset or moved since", "call the layer again")


def whole(kept: tuple[Any, ...] | Nothing, weight: Any, bias: Any) -> Kept:
    """What a backward needs; RuntimeError where it is not there, or was changed."""
    if isinstance(kept, Nothing):
        raise RuntimeError(f"backward needs the input of the last forward, got none: {kept.why}; {kept.cure}")
    found = Kept(*kept)
    if found.overwritten:
        raise RuntimeError(
            f"backward needs the {found.overwritten} of the last forward, got one that was overwritten by out; "
            "give the forward an output of its own"
        )
    if not found.is_as_it_was(weight, bias):
        raise RuntimeError(
            f"backward needs what the last forward read{'' if found.output is None else ' and gave'}, got arrays "
            "that were changed since; change copies of them, or call backward first"
        )
    return found


def comm_of(kept: tuple[Any, ...] | Nothing, comm: Any) -> Any:
    """Over whose ranks a backward goes: its forward's or, where nothing is kept, the layer's, which then hear of it."""
    return comm if isinstance(kept, Nothing) else kept[COMM]
