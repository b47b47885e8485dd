"""recalibrate(): running statistics that are those of a whole data set."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from typing import Any, TypeAlias

import numpy as np

from cpubn.ask import check
from cpubn.backends.place import to_host
from cpubn.layers import BatchNorm1d, BatchNorm2d, BatchNorm3d
from cpubn.recalibration import checkpoint as files
from cpubn.recalibration.batches import Batches, batches_of
from cpubn.recalibration.checkpoint import Found
from cpubn.recalibration.progress import bar
from cpubn.recalibration.watch import Seen, Watch
from cpubn.statistics import Moments

LAYERS = BatchNorm1d, BatchNorm2d, BatchNorm3d
OneLayer: TypeAlias = BatchNorm1d | BatchNorm2d | BatchNorm3d
EVERY = 60.0  # seconds from one checkpoint to the next


def recalibrate(
    layers: OneLayer | Mapping[str, OneLayer] | Sequence[OneLayer],
    forward: Callable[[Any], Any],
    batches: Any,
    *,
    layer_by_layer: bool = False,
    batch_size: int = 64,
    checkpoint: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> dict[str, Moments]:
    """Put into running statistics those of a whole data set, exactly: each value counts once, whatever batch it is in::

        running_mean = mean of all,  running_var = sum((x - running_mean)**2) / (n - 1)

    torch's update_bn averages the variances within batches, with equal weights of all batches: it misses how the
    batches' means differ, and a small last batch counts as much as the others.

    Parameters
    ----------
    layers : a BatchNorm1d, BatchNorm2d or BatchNorm3d, a list of such or a mapping from names to them.
    forward : a function of one batch that runs the network, which calls these layers. What it returns is not looked at.
    batches : an array (N, ...), np.memmap, or another one with a shape and slices, as of zarr or dask; the path of a
        .npy file or of a folder of them, which are read in the order of their names; an iterable of batches of any
        kind; or a function that returns one, for each pass. Arrays and files are passed on in slices, as NumPy's.
    layer_by_layer : False: one pass over the data, every layer normalizing each batch by its own statistics, as in
        training. A deeper layer's are then those of what training gave it, and hang a little on the batch size. True:
        a pass for each layer, up to that layer, with those before it in eval mode and recalibrated already. So each
        gets the statistics of precisely what inference will give it, whatever the batches, which may be of one value.
        Each layer must be called once for every batch then, in the same order.
    batch_size : samples of a slice.
    checkpoint : a file that is written every minute, and when this is interrupted, by Ctrl-C or an error; called again
        with it, this goes on from there, to the same bits. It is deleted in the end. Another state of the layers, and
        other data at the place where it stopped, are an error.
    progress : show a bar with the time left, where stderr is a terminal and rich is installed (extra ``progress``).

    Returns
    -------
    The Moments of each layer's input by its name; a list's layers are named "0", "1" and so on, one alone "". The
    layers' modes are as before; each has counted one batch more. Where this raises, all of them are as before.

    Raises
    ------
    ValueError, TypeError : the layers have no running statistics or forward does not call them, there are too few
        values, or files and data that cannot be.

    Notes
    -----
    Not for use in several threads with the same layers.

    Examples
    --------
    >>> bn, x = cpubn.BatchNorm1d(3), np.random.default_rng(0).normal(5, 2, (1000, 3))
    >>> found = cpubn.recalibrate(bn, bn, x, batch_size=300)
    >>> np.allclose(bn.running_var, x.var(axis=0, ddof=1), rtol=1e-12)
    True
    """
    size = check.count(batch_size, "batch_size", "the samples of a batch")
    if not size:
        raise ValueError("batch_size must be at least 1, got 0; pass the samples of a batch")
    return over(batches_of(batches, size), layers, forward, layer_by_layer, checkpoint, progress)


def over(
    source: Batches,
    layers: Any,
    forward: Any,
    layer_by_layer: bool,
    checkpoint: str | os.PathLike[str] | None,
    progress: bool,
) -> dict[str, Moments]:
    """`recalibrate` of batches, wherever they go through the network."""
    named = _by_name(layers)
    if not callable(forward):
        raise TypeError(
            f"forward must be a function of a batch, got {type(forward).__name__}; pass what runs the network"
        )
    by_layer, shown = check.flag(layer_by_layer, "layer_by_layer"), check.flag(progress, "progress")
    if by_layer and not source.again:
        raise ValueError(
            "batches must be such that they can be gone through once for each layer, got an iterator; pass a list, an "
            "array, or a function that returns an iterator"
        )
    return _Run(Watch(named, forward, by_layer), source, checkpoint).run(shown)


def _by_name(given: Any) -> dict[str, Any]:
    if isinstance(given, LAYERS):
        named: dict[str, Any] = {"": given}
    elif isinstance(given, Mapping) and all(isinstance(name, str) for name in given):
        named = dict(given)
    elif isinstance(given, list | tuple):
        named = {str(place): layer for place, layer in enumerate(given)}
    else:
        raise TypeError(f"layers must be a layer, a list or a mapping from names to layers, got {type(given).__name__}")
    if not named:
        raise ValueError("layers must hold at least one layer, got none")
    for name, layer in named.items():
        if not isinstance(layer, LAYERS):
            raise TypeError(
                f"{name!r} must be a BatchNorm1d, BatchNorm2d or BatchNorm3d, got {type(layer).__name__}; leave it out"
            )
        if sum(layer is other for other in named.values()) > 1:
            raise ValueError(f"{name!r} must be there once, got it under another name, too")
        if not layer.track_running_stats:
            raise ValueError(f"{name!r} must track running statistics, got track_running_stats=False; leave it out")
        layer._updatable("recalibrate")
        if layer._stand_in is not None:
            raise RuntimeError(f"{name!r} must not be within accumulate() or another recalibration, got one that is")
    return named


class _Run:
    """Of all batches, as often as it takes."""

    def __init__(self, watch: Watch, source: Batches, path: Any) -> None:
        self.watch, self.source, self.path = watch, source, path
        self.layers = watch.layers
        self.fingerprint = "" if path is None else files.fingerprint(self.layers, watch.by_layer)
        self.found = Found()
        if path is not None and os.path.exists(path):
            self.found = files.load(path, self.fingerprint, self.layers)

    def run(self, shown: bool) -> dict[str, Moments]:
        before = {name: _running(layer) for name, layer in self.layers.items()}
        total = self.source.total
        if total is not None and self.watch.by_layer:
            total *= len(self.layers)
        try:
            with self.watch.standing_in(), bar(total, shown) as say:
                found = self._layers(say) if self.watch.by_layer else self._once(say)
        except BaseException:
            for name, layer in self.layers.items():
                layer._overwrite(before[name], "recalibrate")
            if self.path is not None and (self.found.done or self.found.finished):
                files.save(self.path, self.found, self.fingerprint, [*self.layers])
            raise
        if self.path is not None and os.path.exists(self.path):
            os.unlink(self.path)
        return {name: found[name] for name in self.layers}

    def _pass(self, say: Callable[[str], None], expected: Callable[[Seen], None]) -> None:
        """The batches that are left of it."""
        saved = time.monotonic()
        first = self.found.done
        left = self.source.start(max(0, first - 1))
        if first:
            again = list(zip(range(1), left, strict=False))
            if not again or self.source.digest(again[0][1]) != self.found.last:
                raise ValueError(
                    f"batches must be those that the checkpoint {self.path} was made of, got "
                    f"{'others' if again else 'fewer'} at batch {first - 1}; delete it to begin anew"
                )
        with closing(self.source.through(self.watch, left, self.path is not None)) as batches:
            for last, seen in batches:
                expected(seen)
                self.found = self.found.plus(last, seen)
                say("")
                if self.path is not None and time.monotonic() - saved > EVERY:
                    files.save(self.path, self.found, self.fingerprint, [*self.layers])
                    saved = time.monotonic()
        if not self.found.done:
            raise ValueError("batches must hold at least one batch, got none")

    def _once(self, say: Callable[[int, str], None]) -> dict[str, Moments]:
        self._pass(lambda what: say(self.found.done, "one pass"), lambda seen: None)
        self._called(self.found.trees)
        totals = {name: _total(tree) for name, tree in self.found.trees.items()}
        for name, total in totals.items():
            self._update(name, total)
        return totals

    def _layers(self, say: Callable[[int, str], None]) -> dict[str, Moments]:
        for name, total in self.found.finished.items():
            self._update(name, total)
        self._probe()
        count = len(self.layers)
        while len(self.found.finished) < count:
            ready = len(self.found.finished)
            self.watch.finished = {*self.found.finished}
            whole = (self.source.total or 0) * ready
            self._pass(lambda what: say(whole + self.found.done, f"layer {ready + 1} of {count}"), self._same)  # noqa: B023
            ((name, tree),) = self.found.trees.items()
            total = _total(tree)
            self._update(name, total)
            self.found = Found(finished={**self.found.finished, name: total})
        return dict(self.found.finished)

    def _probe(self) -> None:
        """One batch through the whole network, for how often it calls its layers."""
        with self.watch.probing(), closing(self.source.through(self.watch, self.source.start(0), False)) as batches:
            for _, seen in batches:
                calls = [name for name, _ in seen]
                self._called(calls)
                twice = [name for name in self.layers if calls.count(name) > 1]
                if twice:
                    raise ValueError(
                        f"forward must call each layer once for every batch where layer_by_layer is True, got "
                        f"{calls.count(twice[0])} calls of {twice[0]!r}; use one pass, layer_by_layer=False"
                    )
                return

    def _called(self, names: Iterable[str]) -> None:
        absent = [name for name in self.layers if name not in names]
        if absent:
            raise ValueError(
                f"forward must call every layer, got no call of {', '.join(map(repr, absent[:4]))}"
                f"{', ...' * (len(absent) > 4)}; leave out layers that are not in use"
            )

    def _same(self, seen: Seen) -> None:
        first = next(iter(self.found.trees), None)
        if not seen or first not in (None, seen[0][0]):
            got = repr(seen[0][0]) if seen else "none"
            raise ValueError(
                f"forward must reach the same layer first with every batch where layer_by_layer is True, {first!r} in "
                f"this pass, got {got}; use one pass, layer_by_layer=False"
            )

    def _update(self, name: str, total: Moments) -> None:
        try:
            self.layers[name].update_from(total)
        except ValueError as error:
            raise ValueError(f"{name!r}: {error}") from error


def _total(tree: Any) -> Moments:
    total: Moments = tree.total()
    return total


def _running(layer: Any) -> dict[str, Any]:
    """Its running statistics, copied."""
    running = {name: np.array(to_host(getattr(layer, name))) for name in ("running_mean", "running_var")}
    return {**running, "num_batches_tracked": np.array(layer.num_batches_tracked)}
