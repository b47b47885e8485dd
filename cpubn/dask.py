"""Moments of dask arrays, those of every block merged in a tree in the order of the blocks; and recalibration."""

from __future__ import annotations

import os
import pickle
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from math import isnan
from typing import Any

import numpy as np

try:
    import cloudpickle
    import dask.array
    from dask.delayed import Delayed, delayed
except ImportError as error:
    raise ImportError(f'cpubn.dask needs dask; install it with: pip install "cpubn[dask]" ({error})') from error

from cpubn import functional
from cpubn.ask.check import NCHW, layout_name
from cpubn.recalibration.batches import Batches, digest_of, noted
from cpubn.recalibration.recalibrate import OneLayer, over
from cpubn.recalibration.watch import Seen, Watch
from cpubn.statistics import Moments
from cpubn.typing import Backend, Layout

__all__ = ["moments", "recalibrate"]

AHEAD = 2  # batches for each thread of the workers, at a time
BRANCHES = 8  # of the tree: parts that one task merges; a power of 2, so that it is merge_all's tree of all of them


def moments(x: dask.array.Array, *, layout: Layout = "NCHW", backend: Backend | None = None) -> Delayed:
    """Count, mean and sum of squared deviations of every channel of a dask array, as one Delayed.

    Each block is read once, by cpubn.moments, and what goes from worker to worker are a few numbers per channel. For
    the same values in the same chunks the result has the same bits under every scheduler, also where tasks ran twice:
    those of ``Moments.merge_all`` of all blocks in their order.

    Parameters
    ----------
    x : dask array of 2 to 5 dimensions, of any type that cpubn.moments takes. Where its chunks split the channels, it
        is rechunked so that they do not.
    layout, backend : as in cpubn.moments; the backend has to be there on the workers.

    Returns
    -------
    Delayed, whose ``compute()`` gives Moments.

    Raises
    ------
    TypeError : if ``x`` is no dask array.
    ValueError, TypeError : as cpubn.moments does, before anything is computed.

    Examples
    --------
    >>> import dask.array
    >>> import cpubn.dask
    >>> x = dask.array.arange(12, chunks=4).reshape(6, 2).astype("float32")
    >>> cpubn.dask.moments(x).compute()
    Moments(count=6, mean=array([5., 6.]), m2=array([70., 70.]))
    """
    _dask_array(x, "x", "cpubn.moments(x)")
    axis = 1 if layout_name(layout) == NCHW else x.ndim - 1
    if x.ndim > axis and isnan(x.shape[axis]):
        raise ValueError(
            f"x must have a known number of channels, got shape {x.shape} in layout {layout!r}; call its "
            "compute_chunk_sizes() first"
        )
    # What is wrong with an array of no values is wrong with every block, and is said here.
    nothing = np.empty([size if i == axis else 0 for i, size in enumerate(x.shape)], x.dtype)
    functional.moments(nothing, layout=layout, backend=backend)
    if x.numblocks[axis] > 1:
        x = x.rechunk({axis: -1})
    of_block, merged = delayed(functional.moments, pure=True), delayed(Moments.merge_all, pure=True)
    parts = [of_block(block, layout=layout, backend=backend) for block in x.to_delayed().ravel()]
    while len(parts) > 1:
        parts = [merged(parts[i : i + BRANCHES]) for i in range(0, len(parts), BRANCHES)]
    return parts[0]


def recalibrate(
    layers: OneLayer | Mapping[str, OneLayer] | Sequence[OneLayer],
    forward: Callable[[Any], Any],
    batches: dask.array.Array,
    *,
    layer_by_layer: bool = False,
    checkpoint: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> dict[str, Moments]:
    """cpubn.recalibrate over a dask array, on the workers of the current client of dask.distributed.

    Each block is a batch, which goes through the network where it is. What comes back are a few numbers per channel of
    each layer, which are merged here in the order of the blocks: running statistics have the same bits as those of
    cpubn.recalibrate over the same blocks in one process, on any number of workers, also where some of them died and
    their blocks went to others.

    Parameters
    ----------
    layers, layer_by_layer, checkpoint, progress : as in cpubn.recalibrate.
    forward : a function of one batch, a NumPy array. It goes to the workers by cloudpickle, together with the layers,
        which it must hold itself: a method, an object or a function of this program, not one of a module that workers
        import and that has layers of its own. What it changes there stays there.
    batches : dask array, (N, ...), in blocks of as many samples as a batch shall have; where its chunks split other
        axes, it is rechunked so that they do not.

    Returns
    -------
    The Moments of each layer's input by its name, as cpubn.recalibrate does.

    Raises
    ------
    TypeError : if ``batches`` is no dask array, or if layers or forward cannot be pickled.
    ValueError, TypeError, RuntimeError : as cpubn.recalibrate does, and what forward raises on a worker, with the
        layers as they were; RuntimeError also where there is no client.

    Examples
    --------
    >>> import dask.array
    >>> import cpubn.dask
    >>> from dask.distributed import Client
    >>> with Client(processes=False, dashboard_address=None):
    ...     bn = cpubn.BatchNorm1d(2)
    ...     x = dask.array.arange(12, chunks=4).reshape(6, 2).astype("float32")
    ...     found = cpubn.dask.recalibrate(bn, bn, x)
    >>> bn.running_mean
    array([5., 6.])
    """
    _dask_array(batches, "batches", "cpubn.recalibrate")
    if not batches.ndim:
        raise ValueError("batches must have a batch axis, got an array of no dimensions; pass (N, ...)")
    client = _client()
    if any(n > 1 for n in batches.numblocks[1:]):
        batches = batches.rechunk(dict.fromkeys(range(1, batches.ndim), -1))
    blocks = list(batches.to_delayed().ravel())

    def digest(block: Delayed) -> str:
        return client.compute(delayed(digest_of)(block)).result()  # type: ignore[no-any-return]

    def through(watch: Watch, left: Iterator[Delayed], digests: bool) -> Generator[tuple[str, Seen]]:
        # A task, that another worker has it where one dies.
        network = client.submit(bytes, _pickled(watch))
        under_way: deque[Any] = deque()
        for block in left:
            under_way.append(client.compute(delayed(_on_worker)(network, block, digests)))
            if len(under_way) > AHEAD * max(1, sum(client.nthreads().values())):
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()

    source = Batches(lambda first: iter(blocks[first:]), len(blocks), True, digest, through)
    return over(source, layers, forward, layer_by_layer, checkpoint, progress)


def _dask_array(x: Any, name: str, otherwise: str) -> None:
    if not isinstance(x, dask.array.Array):
        raise TypeError(
            f"{name} must be a dask array, got {type(x).__name__}; make one by dask.array.from_array(x, chunks=...), "
            f"or call {otherwise}"
        )


def _client() -> Any:
    """That of dask.distributed, by which this program's arrays are computed."""
    try:
        from dask.distributed import default_client  # here, because moments can do without

        return default_client()
    except (ImportError, ValueError) as error:
        raise RuntimeError(
            "recalibrate needs a client of dask.distributed, got none; make one, Client(LocalCluster()) for example, "
            "or call cpubn.recalibrate, which computes the array slice by slice"
        ) from error


def _pickled(watch: Watch) -> bytes:
    try:
        return cloudpickle.dumps(watch)  # type: ignore[no-any-return]
    except Exception as error:
        raise TypeError(
            "layers and forward must be such that cloudpickle takes them to the workers, got "
            f"{type(error).__name__}: {error}; leave open files, locks and communicators out of what forward holds"
        ) from error


def _on_worker(network: bytes, block: Any, digests: bool) -> tuple[str, Seen]:
    """With a network of its own, whatever other threads of the worker do."""
    watch = pickle.loads(network)
    with watch.standing_in():
        return noted(watch, block, digests)
