"""Layers and FrozenBatchNorm on a GPU: moving there and back, training and serving there, copies and pickles."""

import copy
import pickle
from threading import Barrier

import cases
import gpu
import numpy as np
import oracle
import pytest
import ranks
import test_fused_backward
from gpu import get, put

import cpubn

pytestmark = gpu.SILENT
VECTORS = "weight", "bias", "weight_grad", "bias_grad", "running_mean", "running_var"


def layer(kind=cpubn.BatchNorm2d, features=3, **how):
    bn = kind(features, **{"dtype": "float64", **how})
    if bn.weight is not None:
        bn.weight[...], bn.bias[...] = cases.vectors(features)
    return bn


def test_there_and_back():
    bn, expected = layer(), layer()
    assert bn.to_device() is bn
    for name in VECTORS:
        got = getattr(bn, name)
        assert gpu.is_ours(got)
        assert got.dtype == getattr(expected, name).dtype
        np.testing.assert_array_equal(get(got), getattr(expected, name))
    kept = bn.weight
    assert bn.to_device().weight is kept
    assert bn.to_host() is bn
    for name in VECTORS:
        assert type(getattr(bn, name)) is np.ndarray
    x = cases.make("offset 1", (2, 3, 2, 2))
    np.testing.assert_array_equal(bn(x), expected(x))


@pytest.mark.parametrize(
    ("activation", "layout", "added"),
    [(None, "NCHW", False), (None, "NHWC", True), ("relu", "NHWC", False), (("leaky_relu", 0.125), "NCHW", True),
     ("sigmoid", "NCHW", False), ("gelu", "NHWC", True)],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("training", [True, False])
def test_forward_and_backward(activation, layout, added, training):
    shape = (2, 3, 2, 4)
    dy, x, residual, vectors = test_fused_backward.arguments(shape, layout, np.float32, activation, added)
    mean, var, weight, bias = vectors
    bn = layer(layout=layout, activation=activation).train(training)
    bn.weight[...], bn.bias[...] = weight, bias
    if not training:
        bn.running_mean[...], bn.running_var[...] = mean, var
    bn.to_device()
    given = (None, None) if training else (mean, var)
    expected = oracle.fused(oracle.batch_norm(x, *given, weight, bias, layout=layout), activation, residual)
    y = bn(put(x), put(residual))
    assert oracle.worst(get(y), expected.y, expected.bound) <= 1
    dx = bn.backward(put(dy), retain=True)
    assert (bn.residual_grad is None) == (not added)
    got = get([dx, bn.weight_grad, bn.bias_grad, *([bn.residual_grad] if added else [])])
    test_fused_backward.check(got, dy, x, vectors, activation, residual, training, layout)
    bn.backward(put(dy))
    np.testing.assert_array_equal(get(bn.weight_grad), 2 * got[1])
    bn.zero_grad()
    np.testing.assert_array_equal(get([bn.weight_grad, bn.bias_grad]), np.zeros((2, 3)))


def test_training_tracks_the_statistics_and_eval_uses_them():
    """As the same layer on the host does."""
    bn, expected = layer(momentum=None).to_device(), layer(momentum=None)
    for seed in range(2):
        x = cases.rng_of("tracked", seed).normal(seed, 2, (2, 3, 2, 3)).astype(np.float32)
        bn(put(x))
        expected(x)
    assert bn.num_batches_tracked == 2
    np.testing.assert_allclose(get(bn.running_mean), expected.running_mean, rtol=1e-6)
    np.testing.assert_allclose(get(bn.running_var), expected.running_var, rtol=1e-6)
    np.testing.assert_allclose(get(bn.eval()(put(x))), expected.eval()(x), rtol=1e-5, atol=1e-5)
    bn.reset_running_stats()
    np.testing.assert_array_equal(get([bn.running_mean, bn.running_var]), [[0] * 3, [1] * 3])
    assert bn.num_batches_tracked == 0


def test_without_affine_and_without_tracking():
    x = cases.make("offset 100", (4, 3))
    bn = layer(cpubn.BatchNorm1d, affine=False, track_running_stats=False).eval().to_device()
    expected = oracle.batch_norm(x)
    assert oracle.worst(get(bn(put(x))), expected.y, expected.bound) <= 1
    assert bn.weight is bn.running_mean is None


def test_state_goes_between_host_and_gpu():
    source, x = layer(), cases.make("offset 1", (2, 3, 2, 2))
    source(x)
    bn = layer().to_device()
    weight = bn.weight
    bn.load_state_dict(source.state_dict())
    assert bn.weight is weight
    state = bn.state_dict()
    assert all(type(value) is np.ndarray or value.shape == () for value in state.values())
    for name, expected in source.state_dict().items():
        np.testing.assert_array_equal(state[name], expected)
    with pytest.raises(ValueError, match=r"weight must have shape \(3,\), got \(4,\)"):
        bn.load_state_dict(state | {"bias": np.ones(3), "weight": np.ones(4)})
    np.testing.assert_array_equal(get(bn.bias), state["bias"])


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda bn: pickle.loads(pickle.dumps(bn))])
def test_a_copy_is_on_the_host(duplicate):
    x = cases.make("offset 1", (2, 3, 2, 2))
    bn = layer(activation="relu").to_device()
    bn(put(x))
    got = duplicate(bn)
    assert type(got.weight) is type(got.running_var) is np.ndarray
    np.testing.assert_array_equal(got.running_var, get(bn.running_var))
    frozen = bn.freeze()
    served = duplicate(frozen)
    assert type(served.weight) is np.ndarray
    np.testing.assert_allclose(served(x), get(frozen(put(x))), rtol=1e-5, atol=1e-5)


def test_a_frozen_layer_is_where_the_layer_is():
    x = cases.make("offset 1", (2, 3, 2, 2))
    bn = layer(activation="relu").to_device()
    bn(put(x))
    expected = get(bn.eval()(put(x)))
    frozen = bn.freeze()
    assert frozen.backend == "cuda"
    assert gpu.is_ours(frozen.running_mean)
    np.testing.assert_array_equal(get(frozen(put(x))), expected)
    for host in (frozen.to_host(), layer().to_device().to_host().freeze()):
        assert host.backend != "cuda"
        assert type(host.weight) is np.ndarray
    again = frozen.to_host().to_device()
    np.testing.assert_array_equal(get(again(put(x))), expected)


@pytest.mark.parametrize(("dtype", "to"), [("float32", "float16"), ("uint8", "float32"), ("float64", None)])
def test_frozen(dtype, to):
    x, residual = cases.make("pixels", (2, 3, 2, 4)).astype(dtype), cases.make("offset 1", (2, 3, 2, 4), "NHWC")
    running, (weight, bias) = cases.running(x.astype(float)), cases.vectors(3)
    kind = np.dtype(to or dtype)
    frozen = cpubn.FrozenBatchNorm(
        **cases.named(*put((*running, weight, bias))), activation="relu", dtype=to, out_layout="NHWC"
    )  # fmt: skip
    assert frozen.backend == "cuda"
    residual = residual.astype(kind)
    precise = np.float64 if dtype == "float64" else np.float32
    exact = oracle.batch_norm(x, *running, weight, bias, dtype=precise)
    last = exact._replace(y=exact.y.transpose(0, 2, 3, 1), bound=exact.bound.transpose(0, 2, 3, 1))
    expected = oracle.fused(last, "relu", residual, kind, precise)
    got = frozen(put(x), put(residual))
    assert oracle.worst(get(got), expected.y, expected.bound) <= 1
    out = put(np.empty_like(residual))
    assert frozen(put(x), put(residual), out) is out
    np.testing.assert_array_equal(get(out), get(got))


def test_moves_of_vectors_that_cannot_be_written_in_place():
    bn = cpubn.BatchNorm1d(3).to_device()
    x = put(cases.make("offset 1", (4, 3)))
    bn(x)
    bn.weight_grad = put(np.zeros(6))[::2]
    for write in (bn.zero_grad, lambda: bn.backward(x)):
        with pytest.raises(ValueError, match="must be contiguous on a GPU, got strides"):
            write()


def test_a_state_may_come_from_a_gpu():
    on_gpu, on_host = cpubn.BatchNorm1d(3).to_device(), cpubn.BatchNorm1d(3)
    for bn in (on_gpu, on_host):
        bn.load_state_dict({**bn.state_dict(), "weight": put(np.full(3, 2.0, np.float32))})
        np.testing.assert_array_equal(bn.state_dict()["weight"], 2)


def test_folding_is_done_on_the_host():
    weight, bn = np.ones((3, 2)), layer(cpubn.BatchNorm1d)
    expected = cpubn.fold_linear(weight, None, bn)
    for norm in (bn.to_device(), bn.freeze()):
        np.testing.assert_array_equal(cpubn.fold_linear(weight, None, norm)[0], expected[0])
    with pytest.raises(TypeError, match=r"weight must be on the host, got one on GPU 0.*copy_to_host\(\)"):
        cpubn.fold_linear(put(weight), None, bn)


def test_the_host_is_found_where_the_default_is_a_gpu():
    with cpubn.use_backend("cuda"):
        assert cpubn.BatchNorm1d(3).to_device().freeze().to_host().backend in cpubn.available_backends()[:-1]


@pytest.mark.parametrize("activation", [None, "relu", "silu"])
def test_an_empty_batch(activation):
    bn = cpubn.BatchNorm1d(3, activation=activation).to_device()
    empty = put(np.empty((0, 3, 4), np.float32))
    for a in (bn(empty), bn.backward(empty), bn.eval()(empty)):
        assert a.shape == (0, 3, 4)
    np.testing.assert_array_equal(get(bn.weight_grad), 0)
    assert bn.num_batches_tracked == 0


def test_ranks_are_on_the_host():
    bn = layer(comm=ranks.Threads(0, Barrier(1), [None])).to_device()
    with pytest.raises(TypeError, match="x must be on the host with comm, got one on GPU 0"):
        bn(put(cases.make("offset 1", (2, 3, 2, 2))))
