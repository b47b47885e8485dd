"""Calls from C over arrays of two to five axes and any strides: the bits of Python's, and what overlaps is refused."""

from itertools import permutations

import ctable
import numpy as np
import pytest
import views
from conftest import need_backend
from ctable import do
from hypothesis import given, settings, strategies as st

import cpubn
from cpubn.backends.overlap import overlaps_itself


@pytest.fixture(autouse=True)
def compiled():
    need_backend("cython")


VIEWS = [name for name in (*views.STRIDES, *views.BROADCAST) if "swapped" not in name or "axes" in name]


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("name", VIEWS)
def test_every_kind_of_view(name, layout):
    x = views.make(name, np.dtype("float32"))
    channel = 1 if layout == "NCHW" else x.ndim - 1
    how, shape, n = {"layout": layout, "backend": "cython"}, x.shape, x.shape[channel]
    mean, var, weight, bias = np.random.default_rng(0).uniform(0.5, 2.0, (4, n))
    vectors = {"weight": weight, "bias": bias, "eps": 1e-5}

    expected = cpubn.batch_norm(x, mean, var, weight, bias, **how)
    order = ctable.order(x, channel)
    y = np.empty([shape[axis] for axis in order], np.float32).transpose(np.argsort(order))
    assert y.strides == expected.strides
    assert do("normalize", shape, channel, x=x, y=y, mean=mean, var=var, **vectors) == "OK"
    np.testing.assert_array_equal(y, expected)

    stats, m = np.empty((3, n)), cpubn.moments(x, **how)
    assert do("moments", shape, channel, x=x, stats=stats) == "OK"
    np.testing.assert_array_equal(stats, (m.mean, m.low, m.m2))
    assert do("train_forward", shape, channel, x=x, y=y, stats=stats, **vectors) == "OK"
    np.testing.assert_array_equal(y, cpubn.batch_norm(x, None, None, weight, bias, True, **how))
    np.testing.assert_array_equal(stats, (m.mean, m.low, m.m2))

    dy, var = np.asfortranarray(np.random.default_rng(1).normal(size=shape).astype(x.dtype)), m.var()
    sums = np.empty((2, n))
    vectors |= {"x": x, "dy": dy, "mean": m.mean, "mean_low": m.low, "var": var}
    expected = cpubn.batch_norm_backward(dy, x, m, var, weight, **how)
    assert do("gradient_sums", shape, channel, sums=sums, **vectors) == "OK"
    np.testing.assert_array_equal(sums[0], expected[2])
    assert do("train_backward", shape, channel, dx=y, dweight=sums[0], dbias=sums[1], **vectors) == "OK"
    for got, wanted in zip((y, *sums), expected, strict=True):
        np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("order", list(permutations(range(4))), ids=str)
def test_an_array_in_another_order_than_x(order):
    x = np.random.default_rng(0).normal(size=(3, 4, 5, 6)).astype(np.float32)
    y, mean, var = views.in_order(np.zeros_like(x), order), np.ones(4), np.ones(4)
    assert do("normalize", x.shape, 1, x=x, y=y, mean=mean, var=var) == "OK"
    np.testing.assert_array_equal(y, cpubn.batch_norm(x, mean, var, eps=0.0))


def refused(x, **others):
    n = x.shape[1]
    given = {"y": np.zeros_like(x), "mean": np.ones(n), "var": np.ones(n), **others}
    return do("normalize", x.shape, 1, x=x, **given)


def test_halves_of_one_array_are_apart():
    both = np.random.default_rng(0).normal(size=(4, 6, 2, 5)).astype(np.float32)
    x, y = both[:, :3], both[:, 3:]
    expected = cpubn.batch_norm(x, np.ones(3), np.ones(3), eps=0.0)
    assert refused(x, y=y) == "OK"
    np.testing.assert_array_equal(y, expected)


def test_what_overlaps_is_refused():
    x, mean = np.ones((4, 6, 2, 5), np.float32), np.ones(6)
    memory = np.ones(x.nbytes + 4, np.uint8)
    here, there = (memory[k : k + x.nbytes].view(np.float32).reshape(x.shape) for k in (0, 4))
    assert refused(here, y=here) == "OK"
    assert refused(here, y=there) == "OVERLAP"
    assert refused(x, y=there, residual=here) == "OVERLAP"
    assert refused(x, y=here, residual=here) == "OK"
    assert refused(x, y=x[::-1]) == "OVERLAP"
    assert refused(x, y=here, mean=memory[8:56].view(np.float64)) == "OVERLAP"
    assert refused(x, y=np.broadcast_to(here[:1], x.shape)) == "BAD_STRIDES"
    running = {"running_mean": mean, "running_var": mean.copy(), "momentum": 0.1, "eps": 1e-5, "stats": np.ones((3, 6))}
    assert do("train_forward", x.shape, 1, x=x, y=x, **running) == "OK"
    assert do("train_forward", x.shape, 1, x=x, y=x, **running | {"running_var": mean}) == "OVERLAP"
    assert do("train_forward", x.shape, 1, x=x, y=x, weight=mean, **running) == "OVERLAP"
    dx = {"x": x, "mean": mean, "var": mean, "eps": 1e-5, "dy": here}
    assert do("train_backward", x.shape, 1, dx=here, **dx) == "OK"
    assert do("train_backward", x.shape, 1, dx=there, **dx) == "OVERLAP"
    assert do("train_backward", x.shape, 1, dx=x.copy(), g=here, **dx) == "OVERLAP"
    assert do("train_backward", x.shape, 1, dx=x, g=x, **dx) == "OVERLAP"


@given(data=st.data())
@settings(max_examples=300)
def test_who_shares_memory_is_found_as_numpy_finds_it(data):
    """Two views of one buffer, at random."""
    buffer, shape = np.zeros(600, np.float32), tuple(data.draw(st.lists(st.integers(1, 4), min_size=2, max_size=5)))

    def view():
        strides = [data.draw(st.integers(-20, 20)) for _ in shape]
        low = sum(min(0, s * (n - 1)) for s, n in zip(strides, shape, strict=True))
        high = sum(max(0, s * (n - 1)) for s, n in zip(strides, shape, strict=True))
        first = data.draw(st.integers(-low, 599 - high))
        return np.lib.stride_tricks.as_strided(buffer[first:], shape, [4 * s for s in strides])

    x, y = view(), view()
    same = x.ctypes.data == y.ctypes.data and all(
        n == 1 or a == b for a, b, n in zip(x.strides, y.strides, shape, strict=True)
    )
    status = refused(x, y=y)
    if overlaps_itself(y):
        assert status == "BAD_STRIDES"
    else:
        assert status == ("OVERLAP" if not same and np.shares_memory(x, y) else "OK")


@pytest.mark.parametrize(
    ("shape", "channel"), [((4,), 0), ((1, 2, 3, 4, 5, 6)[:5], 5), ((2, 3), -1), ((2, -3), 1), ((1 << 31, 1 << 31), 1)]
)
def test_shapes_that_there_are_not(shape, channel):
    call = ctable.request(shape, channel)
    assert ctable.STATUSES[ctable.table().moments(ctable.byref(call))] == "BAD_SIZE"


def test_empty():
    x = np.zeros((0, 3, 4), np.float32)
    stats = np.ones((3, 3))
    assert do("train_forward", x.shape, 1, x=x, y=x.copy(), stats=stats, eps=1e-5) == "OK"
    assert not stats.any()
