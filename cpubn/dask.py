"""Moments of dask arrays: those of every block, merged in a tree whose order is that of the blocks."""

from __future__ import annotations

from math import isnan

import numpy as np

try:
    import dask.array
    from dask.delayed import Delayed, delayed
except ImportError as error:
    raise ImportError(f'cpubn.dask needs dask; install it with: pip install "cpubn[dask]" ({error})') from error

from cpubn import functional
from cpubn.ask.check import NCHW, layout_name
from cpubn.statistics import Moments
from cpubn.typing import Backend, Layout

__all__ = ["moments"]

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
    if not isinstance(x, dask.array.Array):
        raise TypeError(
            f"x must be a dask array, got {type(x).__name__}; make one by dask.array.from_array(x, chunks=...), or "
            "call cpubn.moments(x)"
        )
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
