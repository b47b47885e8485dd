"""Strides are free: any view gives the right answer in its own memory order, and is never modified or copied whole."""

from itertools import permutations

import cases
import numpy as np
import oracle
import pytest
import views

import cpubn


def check(x, layout, backend, dy=None):
    """Moments, forward in both modes and backward in both modes, of x as it lies in memory."""
    channels = x.shape[1 if layout == "NCHW" else -1]
    dtype = x.dtype.newbyteorder("=")
    weight, bias = cases.vectors(channels)
    mean, var = cases.running(x, layout)
    before = x.copy()
    how = {"layout": layout, "backend": backend}
    native = np.asarray(x, dtype)

    for training in (True, False):
        statistics = (None, None) if training else (mean, var)
        expected = oracle.batch_norm(native, *statistics, weight, bias, layout=layout)
        got = cpubn.batch_norm(x, *statistics, weight, bias, training, **how)
        assert got.dtype == dtype
        assert views.keeps_order(got, x)
        assert oracle.worst(got, expected.y, expected.bound) <= 1

    dy = cases.make_gradient("independent", native, layout) if dy is None else dy
    for training in (True, False):
        expected = oracle.batch_norm_backward(dy.astype(dtype), native, mean, var, weight, 1e-5, training, layout)
        got, dweight, dbias = cpubn.batch_norm_backward(dy, x, mean, var, weight, training=training, **how)
        assert got.dtype == dtype
        assert views.keeps_order(got, x)
        assert oracle.worst(got, expected.dx, expected.dx_bound) <= 1
        assert oracle.worst(dweight, expected.dweight, expected.dweight_bound) <= 1
        assert oracle.worst(dbias, expected.dbias, expected.dbias_bound) <= 1

    expected = oracle.moments(native, layout)
    mean_bound, var_bound = oracle.moments_bounds(*expected, dtype)
    got = cpubn.moments(x, **how)
    assert oracle.worst(got.mean, expected[0], mean_bound) <= 1
    assert oracle.worst(got.var(), expected[1], var_bound) <= 1
    np.testing.assert_array_equal(x, before)


@pytest.mark.parametrize("dtype", cases.DTYPES)
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("name", [*views.STRIDES, *views.BROADCAST])
def test_every_kind_of_view(name, layout, dtype, backend):
    check(views.make(name, np.dtype(dtype)), layout, backend)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("order", list(permutations(range(4))), ids=str)
def test_every_order_of_axes(order, layout, backend):
    check(views.in_order(cases.make("offset 1", (3, 4, 5, 6)), order), layout, backend)


@pytest.mark.parametrize("name", [*views.STRIDES, *views.BROADCAST])
@pytest.mark.parametrize("x_name", ["contiguous", "channels last"])
def test_a_gradient_may_lie_otherwise_than_x(x_name, name, backend):
    check(views.make(x_name), "NCHW", backend, dy=views.make(name))


@pytest.mark.parametrize("make", [list, views.backwards, views.read_only, views.swapped, views.misaligned])
def test_vectors_may_be_lists_and_views_of_any_kind(make, backend):
    x = views.make("contiguous")
    dy = cases.make_gradient("independent", x)
    vectors = [np.linspace(1, 2, 6) + place for place in range(4)]
    made = [make(v) for v in vectors]
    expected = [cpubn.batch_norm(x, *vectors, backend=backend)]
    expected += cpubn.batch_norm_backward(dy, x, *vectors[:3], backend=backend)
    got = [cpubn.batch_norm(x, *made, backend=backend)]
    got += cpubn.batch_norm_backward(dy, x, *made[:3], backend=backend)
    for g, e in zip(got, expected, strict=True):
        np.testing.assert_array_equal(g, e)


def test_nested_lists_and_subclasses_give_plain_arrays(backend, tmp_path):
    x = views.make("contiguous", np.dtype(np.float64))
    expected = cpubn.batch_norm(x, None, None, training=True, backend=backend)
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    for same in (x.tolist(), mapped):
        got = cpubn.batch_norm(same, None, None, training=True, backend=backend)
        assert type(got) is np.ndarray
        np.testing.assert_array_equal(got, expected)
