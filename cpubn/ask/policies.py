"""Batches in training that give no statistics, or wrong ones: what is to be done with them, and a forward by that.

    on_single     channels of one value: "raise", or "running": they are normalized by the running statistics
    on_empty      channels of none:      "keep" their running statistics, or "raise"
    on_nonfinite  NaN and infinity:      "propagate" into running statistics, "raise", or "skip" the update

What is refused has written nothing, and a skipped update moves nothing.
"""

from __future__ import annotations

import math
import sys
import warnings
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from cpubn.ask import check, forward, state
from cpubn.ask.moments import counted_by
from cpubn.ask.weights import PROPAGATE
from cpubn.backends import choice, register
from cpubn.backends.gpu.arrays import DeviceArray
from cpubn.backends.place import located, place_of, to_host
from cpubn.backends.weights import Weights
from cpubn.typing import Array, Backend, Vector

RAISE: Literal["raise"] = "raise"
RUNNING: Literal["running"] = "running"
KEEP: Literal["keep"] = "keep"
SKIP: Literal["skip"] = "skip"
# The first of each is what is done unless another is asked for.
CHOICES = {"on_single": (RAISE, RUNNING), "on_empty": (KEEP, RAISE), "on_nonfinite": (PROPAGATE, RAISE, SKIP)}


@dataclass
class Policies:
    """Of a layer, or of one call."""

    on_single: Any = RAISE
    on_empty: Any = KEEP
    on_nonfinite: Any = PROPAGATE

    def __post_init__(self) -> None:
        self.warned = False
        for name, choices in CHOICES.items():
            value = getattr(self, name)
            if not isinstance(value, str) or value not in choices:
                wanted = check.alternatives(tuple(map(repr, choices)))
                raise ValueError(f"{name} must be {wanted}, got {value!r}; leave it out for {choices[0]!r}")

    def others(self) -> dict[str, str]:
        """Those that are not as usual."""
        return {name: value for name, value in asdict(self).items() if value != CHOICES[name][0]}

    def with_values(self, count: Any) -> None:
        """Refuse channels without any value where that is wanted; count: one number, or (C,)."""
        if self.on_empty == RAISE and not np.all(count):
            where = "" if np.ndim(count) == 0 else f" in channel {int(np.argmin(count))}"
            raise ValueError(
                f"each channel must have values with on_empty='raise', got none{where}; leave out batches without any, "
                "or let running statistics stay by on_empty='keep'"
            )

    def apart(self, count: Any) -> Any:
        """Which channels, of one number or (C,), are normalized by the running statistics."""
        if self.on_single != RUNNING:
            return np.False_
        return np.greater(count, 0) & np.less_equal(count, 1)

    def takes(self, stats: Any) -> bool:
        """Whether mean, low word and m2 may go into running statistics; ValueError where they are refused."""
        if self.on_nonfinite == PROPAGATE:
            return True
        mean, _, m2 = map(to_host, stats)
        wrong = ~(np.isfinite(mean) & np.isfinite(m2))
        if not wrong.any():
            return True
        channels = np.flatnonzero(wrong)
        named = ", ".join(map(str, channels[:8])) + ", ..." * (channels.size > 8)
        text = f"got others in channel{'s' * (channels.size > 1)} {named}"
        if self.on_nonfinite == RAISE:
            raise ValueError(
                f"mean and variance of the batch must be finite with on_nonfinite='raise', {text}; look for NaN and "
                "infinity in x, or let such batches pass by on_nonfinite='skip'"
            )
        if not self.warned:
            self.warned = True
            warnings.warn(
                f"mean and variance of a batch should be finite, {text}; running statistics stay as they were, and "
                "further batches are skipped without a word",
                RuntimeWarning,
                stacklevel=_callers_level(),
            )
        return False


USUAL = Policies()


def _callers_level() -> int:
    """Of a warning's caller, the first frame outside of this package."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("cpubn."):
        level, frame = level + 1, frame.f_back
    return level


def chosen(on_single: Any, on_empty: Any, on_nonfinite: Any) -> Policies | None:
    """None where all are as usual, as in most calls."""
    if on_single is RAISE and on_empty is KEEP and on_nonfinite is PROPAGATE:
        return None
    policies = Policies(on_single, on_empty, on_nonfinite)
    return policies if policies.others() else None


class Trained(NamedTuple):
    """What came of a batch."""

    y: Array
    count: Any
    stats: Any  # the batch's own mean, low word and m2
    by: tuple[Any, Any] | None  # count and stats that it was normalized by; None: the running ones
    weights: Weights | None  # as backward wants them
    taken: bool  # whether its statistics may go into running ones


class Batch(NamedTuple):
    """As forward_through is given it."""

    x: Any
    vectors: tuple[Any, ...]
    how: tuple[Any, ...]
    backend: Backend | None
    moves: bool = True  # whether the running statistics do

    @property
    def still(self) -> tuple[Any, ...]:
        """The vectors, without running statistics that would move."""
        return None, None, *self.vectors[2:4], None

    @property
    def to_move(self) -> tuple[Any, ...]:
        return self.vectors if self.moves else self.still

    def own(self) -> tuple[Any, Any]:
        """Count and stats."""
        return counted_by(self.x, self.how[2], self.backend, self.how[4])

    def running(self, channels: int) -> tuple[Vector, Vector]:
        """Mean and variance to normalize by."""
        mean, var, *_ = self.vectors
        if mean is None and var is None:
            raise ValueError(
                "running statistics must be there for on_single='running', got none; track or pass them, or leave "
                "on_single out"
            )
        eps = check.epsilon(self.how[1], training=True)
        pair = check.running_pair(mean, var, channels, self.how[2], training=False)
        state.divisor(pair[1], eps)  # type: ignore[index]
        return pair  # type: ignore[return-value]


def trained(policies: Policies, batch: Batch) -> Trained:
    """forward_through in training, by policies."""
    layout, weights = batch.how[2], batch.how[4]
    x, axis = check.batch(located(batch.x, "x"), layout)
    count = math.prod(x.shape[:axis] + x.shape[axis + 1 :]) if weights is None else to_host(weights.counts)
    policies.with_values(count)
    apart = policies.apart(count)
    if not apart.any():
        return _by_own(policies, batch, x, axis)
    running = batch.running(x.shape[axis])
    if not np.all(apart | np.equal(count, 0)):
        return _by_both(policies, batch, apart, running)
    found = batch.own()
    taken = policies.takes(found[1])
    y, *_ = forward.forward_through(batch.x, (*batch.vectors[:4], None), batch.how, False, False, batch.backend)
    return Trained(y, *found, None, weights, taken)


def _by_own(policies: Policies, batch: Batch, x: Array, axis: int) -> Trained:
    """Where all channels have enough values. The running statistics move once the batch has been judged."""
    judged = policies.on_nonfinite == PROPAGATE
    if policies.on_nonfinite == RAISE and batch.how[-1] is not None:  # before out is written
        judged = policies.takes(batch.own()[1])
    running = None if judged or not batch.moves else _running(batch, x, axis)
    vectors = batch.to_move if judged else batch.still
    y, count, stats = forward.forward_through(batch.x, vectors, batch.how, True, True, batch.backend)
    taken = policies.takes(stats)
    if running and taken and x.size:
        with register.calm():
            place_of(running[0]).update_running(*running, batch.vectors[4], stats, count, check.momentum(batch.how[0]))
    return Trained(y, count, stats, (count, stats), batch.how[4], taken)


def _running(batch: Batch, x: Array, axis: int) -> tuple[Any, Any] | None:
    """The running statistics, if there are any, as they can be moved."""
    names = (*forward.VECTORS, "residual", "out")
    given = dict(zip(names, (*batch.vectors[:4], batch.how[5], batch.how[-1]), strict=True))
    mean, var, *others = check.together(x, given).values()
    if check.running_pair(mean, var, x.shape[axis], batch.how[2], training=True) is None:
        return None
    apart_from = {"x": x, **dict(zip(names[2:], others, strict=True))}
    state.updatable({"running_mean": mean, "running_var": var}, apart_from)
    return mean, var


def _by_both(policies: Policies, batch: Batch, apart: Any, running: Any) -> Trained:
    """Channels apart by the running statistics, the others by their own.

    For backward their count is infinite: they are statistics of so many values that this batch moves them by nothing.
    """
    x, weights = located(batch.x, "x"), batch.how[4]
    kernels = choice.kernels_for(x, batch.backend)
    with register.calm():
        plan = forward.forward(x, batch.to_move, batch.how, True)
        place = place_of(plan.output.x)
        _, stats = batch.own()
        taken = policies.takes(stats)
        count, (mean, var) = to_host(weights.counts), map(to_host, running)
        used = np.where(apart, 1.0, np.maximum(count, 1.0))
        by = np.where(apart, (mean, np.zeros_like(mean), var), to_host(stats))
        statistics = [_beside(v, x) for v in (*by[:2], by[2] / used)]
        y = plan.output.apply(
            place.affine(plan.output.computed_in, statistics, plan.weight, plan.bias, plan.eps), kernels
        )
        if plan.running and taken:
            place.update_running(*plan.updated, stats, _beside(np.where(apart, 0.0, count), x), plan.momentum)
    infinite = weights._replace(counts=_beside(np.where(apart, np.inf, count), x))
    y = y if batch.how[-1] is None or isinstance(x, DeviceArray) else batch.how[-1]
    return Trained(y, weights.counts, stats, (used, [_beside(v, x) for v in by]), infinite, taken)


def _beside(a: Array, x: Any) -> Any:
    """What was found on the host, where x is."""
    place = place_of(x)
    return place.beside(place.upload(a, x.device), x) if isinstance(x, DeviceArray) else a
