"""Running statistics from moments: of a data set, or of all batches of a block, which move them once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from cpubn.ask import check, state
from cpubn.backends import register
from cpubn.backends.place import to_host
from cpubn.layers.vectors import LayerVectors, put
from cpubn.maths import algebra
from cpubn.maths.tree import Tree
from cpubn.statistics import Moments
from cpubn.typing import Array, Vector


class Accumulation:
    """A layer's stand-in: it makes the layer's calls in training. From several threads they come as they come."""

    def __init__(self) -> None:
        self.tree: Tree[Moments] = Tree()
        self._lock = Lock()

    def __call__(self, layer: Any, x: ArrayLike, residual: Any, given: tuple[Any, Any]) -> Array:
        y, batch = layer._by_batch_statistics(x, residual, given, moves=False)
        if batch is not None:
            self.take(batch)
        return y  # type: ignore[no-any-return]

    def take(self, batch: Moments) -> None:
        with self._lock:
            self.tree = self.tree.plus(batch)


class Accumulates(LayerVectors):
    """A layer whose running statistics move by moments, beside those of its own batches."""

    momentum: float | None

    def update_from(self, moments: Moments, *, momentum: float = 1.0) -> None:
        """Move the running statistics by moments, for example those of a whole data set, as if they were one batch's::

            running_mean = (1 - momentum) * running_mean + momentum * moments.mean
            running_var  = (1 - momentum) * running_var  + momentum * moments.var(ddof=1)

        With a momentum of 1 they take their place, and be what was there NaN. Backward of an earlier call in eval mode
        has no input then.

        Raises
        ------
        ValueError, TypeError : before anything is written: other channels, fewer than 2 values in one, no Moments.

        Examples
        --------
        >>> bn, x = cpubn.BatchNorm1d(3), np.arange(24.0).reshape(8, 3)
        >>> bn.update_from(sum(cpubn.moments(part) for part in np.split(x, 4)))
        >>> np.array_equal(bn.running_mean, x.mean(axis=0))
        True
        """
        state.of_kind(moments, Moments, "moments")
        state.enough_moments(moments, self.num_features)
        self._move_by(moments, check.momentum(momentum))

    @register.calm()
    def _move_by(self, moments: Moments, momentum: float) -> None:
        """Channels of less than two values stay as they are."""
        running = self._updatable("update_from")
        few = np.less_equal(moments.count, 1)
        values: dict[str, Any] = {}
        with np.errstate(all="ignore"):
            var = algebra.unbiased(to_host(moments.m2), np.where(few, 2.0, moments.count))
            for (name, vector), new in zip(running.items(), (to_host(moments.mean), var), strict=True):
                before = to_host(vector)
                if momentum < 1.0:  # 0 times infinity is NaN
                    new = algebra.running_update(before.astype(np.float64), new, momentum)
                values[name] = np.where(few, before, new.astype(before.dtype))
        if self._tracked is not None:
            values["num_batches_tracked"] = self._tracked + 1
        self._overwrite(values, "update_from")

    def _updatable(self, who: str) -> dict[str, Vector]:
        """The running statistics, which can be written to."""
        running = dict(zip(("running_mean", "running_var"), self._running(), strict=True))
        state.updatable(running, {}, who)
        for name, vector in running.items():
            check.vector(vector, name, self.num_features, self.layout, check.SINGLE_OR_DOUBLE)
        return running

    @contextmanager
    def accumulate(self) -> Iterator[None]:
        """Gradient accumulation: in the `with` block every batch is normalized by its own statistics, as in training
        outside, but the running ones move once, at its end, by those of all batches together, as of one batch.

        So the running statistics are those of the large batch, whose variance that of small batches is not. Nothing is
        changed where the block raises, and where it has no call in training. The block is the layer's, whichever
        threads call it; with several, rounding depends on who comes first. In eval mode calls are as ever.

        Raises
        ------
        ValueError : there are no running statistics.
        RuntimeError : within another such block of the same layer.

        Examples
        --------
        >>> bn, x = cpubn.BatchNorm1d(3, momentum=1.0), np.arange(24.0).reshape(8, 3)
        >>> with bn.accumulate():
        ...     parts = [bn(part) for part in np.split(x, 4)]
        >>> np.array_equal(bn.running_var, x.var(axis=0, ddof=1))
        True
        """
        self._running()
        if self._stand_in is not None:
            raise RuntimeError(
                "accumulate must have ended before it begins again, got a block within one of this layer"
            )
        made = Accumulation()
        put(self, "_stand_in", made)
        try:
            yield
        finally:
            put(self, "_stand_in", None)
        total = made.tree.total()
        if total is not None and np.any(np.greater(total.count, 1)):
            self._move_by(total, self._momentum())

    def _momentum(self) -> float:
        return 1.0 / ((self.num_batches_tracked or 0) + 1) if self.momentum is None else self.momentum
