"""Layers whose batches are looked at as they go through their network."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeAlias

from cpubn.ask.weights import Asked
from cpubn.functional import moments
from cpubn.layers.kept import no_grad
from cpubn.layers.vectors import put
from cpubn.statistics import Moments
from cpubn.typing import Array

Seen: TypeAlias = list[tuple[str, Moments]]  # of one batch: layers by name as they were called, and what they saw


class _Reached(BaseException):
    """Ends a forward at the layer whose input was wanted; no `except Exception` of the network's takes it."""


class Watch:
    """Who stands in for each layer, by name, while `forward` runs the network. It can be pickled where these can.

    In one pass each layer normalizes by the batch's own statistics. Layer by layer those that are `finished` infer, and
    the forward ends at the first that is not; but a probe goes through all of the network.
    """

    def __init__(self, layers: dict[str, Any], forward: Callable[[Any], Any], by_layer: bool) -> None:
        self.layers, self.forward, self.by_layer = layers, forward, by_layer
        self.finished: set[str] = set()
        self.probes = False
        self.seen: Seen = []

    @contextmanager
    def standing_in(self) -> Iterator[None]:
        """Within it the network runs by `of`; afterwards the layers are as before."""
        modes = {name: layer.training for name, layer in self.layers.items()}
        try:
            for layer in self.layers.values():
                put(layer, "training", True)
                put(layer, "_stand_in", self.call)
            with no_grad():
                yield
        finally:
            for name, layer in self.layers.items():
                put(layer, "_stand_in", None)
                put(layer, "training", modes[name])

    @contextmanager
    def probing(self) -> Iterator[None]:
        self.probes = True
        try:
            yield
        finally:
            self.probes = False

    def of(self, batch: Any) -> Seen:
        """What the layers see of a batch, within `standing_in`."""
        self.seen = []
        with suppress(_Reached):
            self.forward(batch)
        return self.seen

    def call(self, layer: Any, x: Array, residual: Any, given: tuple[Array | None, Asked | None]) -> Array:
        """In place of the layer's own in training; given: out, and what counts."""
        name = next(name for name, own in self.layers.items() if own is layer)
        if not self.by_layer:
            y, batch = layer._by_batch_statistics(x, residual, given, moves=False)
            if batch is not None:  # else its policies let it pass
                self.seen.append((name, batch))
            return y  # type: ignore[no-any-return]
        out, masked = given
        which = {} if masked is None else masked._asdict()
        if name not in self.finished:
            counted = {key: value for key, value in which.items() if key != "masked_output"}
            self.seen.append((name, moments(x, layout=layer.layout, backend=layer.backend, **counted)))
            if not self.probes:
                raise _Reached
        put(layer, "training", False)
        try:
            return layer(x, residual, out, **which)  # type: ignore[no-any-return]
        finally:
            put(layer, "training", True)
