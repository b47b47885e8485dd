"""Running statistics from moments: those of a data set, and those of micro-batches together."""

import contextlib
import copy
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import cases
import numpy as np
import pytest
import views
from test_layers import batches

import cpubn
from cpubn import Moments

X = cases.make("offset 1", (48, 6))
VECTORS = "running_mean", "running_var"


def running(bn):
    return {**{name: getattr(bn, name).copy() for name in VECTORS}, "tracked": bn.num_batches_tracked}


def check_same(got, expected):
    for name, value in expected.items():
        np.testing.assert_array_equal(got[name], value)


@pytest.mark.parametrize("momentum", [0.1, None, 1.0])
def test_the_running_statistics_move_once_by_all(momentum, backend):
    bn, whole = (cpubn.BatchNorm1d(6, momentum=momentum, backend=backend) for _ in range(2))
    for layer in (bn, whole):
        layer(X + 3)
    other = copy.deepcopy(bn)
    with bn.accumulate():
        for part in np.split(X, 4):
            np.testing.assert_array_equal(bn(part), other(part))  # by its own statistics
            assert bn.num_batches_tracked == 1
    whole(X)
    assert bn.num_batches_tracked == 2
    for name in VECTORS:
        np.testing.assert_allclose(getattr(bn, name), getattr(whole, name), rtol=1e-6)
    assert not np.allclose(other.running_var, whole.running_var, rtol=1e-3)


def test_gradients_add_up_as_ever(backend):
    bn, other = (cpubn.BatchNorm1d(6, backend=backend) for _ in range(2))
    x, _, dy = batches((40, 6))
    with bn.accumulate():
        for half in (slice(20), slice(20, None)):
            bn(x[half])
            other(x[half])
            np.testing.assert_array_equal(bn.backward(dy[half]), other.backward(dy[half]))
    np.testing.assert_array_equal(bn.weight_grad, other.weight_grad)


def test_nothing_is_changed_where_the_block_raises():
    bn = cpubn.BatchNorm1d(6)
    before, arrays = running(bn), (bn.running_mean, bn.running_var)
    with contextlib.suppress(KeyError), bn.accumulate():
        bn(X)
        raise KeyError
    check_same(running(bn), before)
    assert bn.running_mean is arrays[0]
    bn(X)
    assert bn.num_batches_tracked == 1


def test_what_cannot_be_updated_at_the_end_changes_nothing():
    bn = cpubn.BatchNorm1d(6)

    def of_read_only_statistics():
        with bn.accumulate():
            bn(X)
            bn.running_var = views.read_only(np.ones(6))

    with pytest.raises(ValueError, match="running_var must be writeable, because update_from updates it"):
        of_read_only_statistics()
    np.testing.assert_array_equal(bn.running_mean, 0)
    assert bn.num_batches_tracked == 0


@pytest.mark.parametrize("calls", [lambda bn: None, lambda bn: bn(X[:0]), lambda bn: bn.eval()(X)])
def test_blocks_without_values_leave_the_layer_alone(calls):
    bn = cpubn.BatchNorm1d(6)
    before = running(bn)
    with bn.accumulate():
        calls(bn)
    check_same(running(bn), before)


def test_a_block_within_a_block_is_refused():
    bn, other = cpubn.BatchNorm1d(6), cpubn.BatchNorm1d(6)
    with bn.accumulate(), other.accumulate():
        bn(other(X))
        with pytest.raises(RuntimeError, match=r"must have ended before it begins again"), bn.accumulate():
            pass
        bn(X)
    assert (bn.num_batches_tracked, other.num_batches_tracked) == (1, 1)
    with bn.accumulate():
        bn(X)


def test_without_running_statistics():
    bn = cpubn.BatchNorm1d(6, track_running_stats=False)
    with pytest.raises(ValueError, match="must have running statistics"), bn.accumulate():
        pass
    with pytest.raises(ValueError, match="must have running statistics"):
        bn.update_from(cpubn.moments(X))


def test_the_block_is_the_layers_in_any_thread():
    bn, barrier = cpubn.BatchNorm1d(6, momentum=1.0), threading.Barrier(4)

    def call(part):
        barrier.wait()
        for _ in range(20):
            bn(part)

    with bn.accumulate(), ThreadPoolExecutor(4) as pool:
        list(pool.map(call, np.split(X, 4)))
    expected = Moments.merge_all([cpubn.moments(X)] * 20)
    assert bn.num_batches_tracked == 1
    np.testing.assert_allclose(bn.running_mean, expected.mean, rtol=1e-6)
    np.testing.assert_allclose(bn.running_var, expected.var(ddof=1), rtol=1e-6)


def test_copies_are_outside_of_the_block():
    bn = cpubn.BatchNorm1d(6)
    with bn.accumulate():
        bn(X)
        for other in (copy.deepcopy(bn), pickle.loads(pickle.dumps(bn))):
            other(X)
            assert other.num_batches_tracked == 1


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", [int, lambda n: np.full(6, n), lambda n: np.full(6, float(n))])
def test_moments_take_the_place_of_the_running_statistics(kind, dtype):
    bn, whole = cpubn.BatchNorm1d(6), cpubn.moments(X)
    bn.running_mean, bn.running_var = np.full(6, np.nan, dtype), np.full(6, np.inf, dtype)
    mine = bn.running_mean
    assert bn.update_from(Moments(kind(whole.count), whole.mean, whole.m2)) is None
    assert bn.running_mean is mine
    np.testing.assert_array_equal(bn.running_mean, whole.mean.astype(dtype))
    np.testing.assert_array_equal(bn.running_var, whole.var(ddof=1).astype(dtype))
    assert bn.num_batches_tracked == 1


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_an_update_is_that_of_a_batch(layout, backend):
    x = cases.make("offset 1", (5, 6, 7, 6))
    bn, other = (cpubn.BatchNorm2d(6, layout=layout, backend=backend) for _ in range(2))
    bn.update_from(cpubn.moments(x, layout=layout, backend=backend), momentum=0.1)
    other(x)
    check_same(running(bn), running(other))


def test_backward_of_inference_has_no_input_then():
    bn = cpubn.BatchNorm1d(6).eval()
    bn(X)
    bn.update_from(cpubn.moments(X))
    with pytest.raises(RuntimeError, match="backward needs the input"):
        bn.backward(X)


@pytest.mark.parametrize(
    ("moments", "how", "error", "match"),
    [
        (3, {}, TypeError, "moments must be Moments, got int"),
        (cpubn.moments(X[:, :5]), {}, ValueError, "moments must have 6 channels like the layer, got 5"),
        (cpubn.moments(X[:1]), {}, ValueError, "at least 2 values per channel, got 1"),
        (Moments(np.array([4, 4, 4, 0, 4, 4]), np.ones(6), np.ones(6)), {}, ValueError, "at least 2 .* got 0"),
        (cpubn.moments(X), {"momentum": 2.0}, ValueError, "momentum must be"),
        (cpubn.moments(X), {"momentum": None}, TypeError, "momentum must be"),
    ],
)
def test_moments_that_are_refused(moments, how, error, match):
    bn = cpubn.BatchNorm1d(6)
    before = running(bn)
    with pytest.raises(error, match=match):
        bn.update_from(moments, **how)
    check_same(running(bn), before)


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("running_var", views.read_only(np.ones(6)), ValueError),
        ("running_var", np.ones(6, int), TypeError),
        ("running_var", np.ones(5), ValueError),
    ],
)
def test_running_statistics_that_cannot_be_updated(name, value, error):
    bn = cpubn.BatchNorm1d(6)
    setattr(bn, name, value)
    with pytest.raises(error, match=f"{name} must"):
        bn.update_from(cpubn.moments(X))
    np.testing.assert_array_equal(bn.running_mean, 0)
