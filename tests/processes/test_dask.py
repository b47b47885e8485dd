"""Moments of dask arrays: one's bits for the same chunks, whatever ran where, and what is refused."""

import numpy as np
import pytest
from conftest import need_library

for library in ("dask", "distributed"):
    need_library(library, "frameworks")
import dask.array
from dask.delayed import Delayed

import cpubn.dask

X = (np.random.default_rng(0).normal(size=(60, 5, 4, 6)) + 1e4).astype(np.float32)


def blocks(x, rows):
    return [x[i : i + rows] for i in range(0, len(x), rows)]


@pytest.mark.parametrize("scheduler", ["synchronous", "threads"])
@pytest.mark.parametrize("layout", ["NCHW", "channels_last"])
def test_blocks_add_up_in_their_order(layout, scheduler):
    x = X if layout == "NCHW" else np.ascontiguousarray(X.transpose(0, 2, 3, 1))
    lazy = cpubn.dask.moments(dask.array.from_array(x, chunks=(4, -1, -1, -1)), layout=layout)
    assert isinstance(lazy, Delayed)
    m = lazy.compute(scheduler=scheduler)
    assert m == cpubn.Moments.merge_all(cpubn.moments(block, layout=layout) for block in blocks(x, 4))
    whole = cpubn.moments(x, layout=layout)
    assert m.count == whole.count
    np.testing.assert_allclose(m.mean, whole.mean, rtol=1e-12)
    np.testing.assert_allclose(m.var(), whole.var(), rtol=1e-6)


@pytest.mark.parametrize("rows", [1, 2, 3, 7, 9, 20, 60])
def test_the_tree_is_that_of_merge_all(rows):
    m = cpubn.dask.moments(dask.array.from_array(X, chunks=(rows, -1, -1, -1))).compute(scheduler="synchronous")
    assert m == cpubn.Moments.merge_all(map(cpubn.moments, blocks(X, rows)))


@pytest.mark.parametrize("chunks", [(7, 5, 4, 6), (60, 2, 4, 6), (9, 1, 3, 5), (60, 5, 4, 6)])
def test_any_chunks(chunks):
    m = cpubn.dask.moments(dask.array.from_array(X.astype(np.float64), chunks=chunks)).compute(scheduler="synchronous")
    wanted = cpubn.moments(X.astype(np.float64))
    assert m.count == wanted.count
    np.testing.assert_allclose(m.mean, wanted.mean, rtol=1e-12)
    np.testing.assert_allclose(m.var(), wanted.var(), rtol=1e-12)


def test_split_channels_are_brought_together():
    whole, split = (dask.array.from_array(X, chunks=(20, c, -1, -1)) for c in (5, 2))
    assert cpubn.dask.moments(whole).compute() == cpubn.dask.moments(split).compute()


def test_rows_of_unknown_number_and_none():
    x = dask.array.from_array(X[:, :, 0, 0], chunks=(20, -1))
    chosen = x[x[:, 0] > 1e4]
    wanted = X[X[:, 0, 0, 0] > 1e4][:, :, 0, 0]
    m = cpubn.dask.moments(chosen).compute(scheduler="synchronous")
    assert m.count == len(wanted)
    np.testing.assert_allclose(m.mean, wanted.mean(0, dtype=np.float64), rtol=1e-12)
    assert cpubn.dask.moments(x[:0]).compute() == cpubn.Moments.empty(5)


@pytest.mark.parametrize(
    ("make", "options", "error", "words"),
    [
        (lambda: X, {}, TypeError, "x must be a dask array, got ndarray; make one by dask.array.from_array"),
        (lambda: dask.array.ones(5), {}, ValueError, "x must have 2 to 5 dimensions"),
        (lambda: dask.array.ones((2,) * 6), {}, ValueError, "x must have 2 to 5 dimensions"),
        (lambda: dask.array.ones((2, 3), dtype=complex), {}, TypeError, "complex"),
        (lambda: dask.array.ones((2, 3)), {"layout": "NCXW"}, ValueError, "layout must be"),
        (lambda: dask.array.ones((2, 3)), {"backend": "fast"}, ValueError, "backend must be"),
        (lambda: dask.array.ones((4, 3))[:, dask.array.ones(3) > 0], {}, ValueError, "a known number of channels"),
    ],
)
def test_what_is_refused_is_refused_before_anything_runs(make, options, error, words):
    with pytest.raises(error, match=words):
        cpubn.dask.moments(make(), **options)
