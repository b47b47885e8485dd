"""Forward: within the contract's bound of long double, in training and in inference, for every family and shape."""

from functools import lru_cache, partial

import cases
import numpy as np
import oracle
import pytest

import cpubn

# The scope has pytest run the backends of one case in turn, so that they share the oracle's answer.
each = partial(pytest.mark.parametrize, scope="module")


@lru_cache(maxsize=4)
def training_case(family, shape, layout, dtype):
    x = cases.make(family, shape, layout, dtype)
    weight, bias = cases.vectors(shape[1])
    return x, weight, bias, oracle.batch_norm(x, weight=weight, bias=bias, layout=layout)


@lru_cache(maxsize=4)
def inference_case(family, shape, layout, dtype):
    x = cases.make(family, shape, layout, dtype)
    mean, var = cases.running(x, layout)
    weight, bias = cases.vectors(shape[1])
    return x, mean, var, weight, bias, oracle.batch_norm(x, mean, var, weight, bias, layout=layout)


def check_training(family, shape, layout, dtype, backend):
    x, weight, bias, expected = training_case(family, shape, layout, dtype)
    got, batch = cpubn.batch_norm(
        x, None, None, weight, bias, training=True, layout=layout, return_moments=True, backend=backend
    )
    assert got.dtype == dtype
    assert oracle.worst(got, expected.y, expected.bound) <= 1
    mean_bound, var_bound = oracle.moments_bounds(expected.mean, expected.var, dtype)
    assert oracle.worst(batch.mean, expected.mean, mean_bound) <= 1
    assert oracle.worst(batch.var(), expected.var, var_bound) <= 1


@each("walk", cases.WALKS)
@each(("family", "dtype"), cases.FAMILY_OF_DTYPE)
def test_training_of_every_family(family, dtype, walk, backend):
    layout, shape = cases.WALKS[walk]
    check_training(family, shape, layout, dtype, backend)


@each("layout", ["NCHW", "NHWC"])
@each("shape", cases.SHAPES, ids=str)
def test_training_of_every_shape(shape, layout, backend):
    check_training("offset 100", shape, layout, np.float32, backend)


@each("shape", [s for s in cases.SHAPES if np.prod(s) < 300_000], ids=str)
def test_training_of_every_shape_in_float64(shape, backend):
    check_training("ramp", shape, "NCHW", np.float64, backend)


@each("walk", cases.SHORT_WALKS)
@each(("family", "dtype"), cases.FAMILY_OF_DTYPE)
def test_inference_of_every_family(family, dtype, walk, backend):
    """Nothing is summed, so that no more samples are needed than to go through blocks."""
    layout, shape = cases.SHORT_WALKS[walk]
    x, mean, var, weight, bias, expected = inference_case(family, shape, layout, dtype)
    got = cpubn.batch_norm(x, mean, var, weight, bias, layout=layout, backend=backend)
    assert got.dtype == dtype
    assert oracle.worst(got, expected.y, expected.bound) <= 1


@each("layout", ["NCHW", "NHWC"])
@each("shape", [s for s in cases.SHAPES if np.prod(s) < 1_000_000], ids=str)
def test_inference_of_every_shape(shape, layout, backend):
    x, mean, var, weight, bias, expected = inference_case("offset 100", shape, layout, np.float32)
    got = cpubn.batch_norm(x, mean, var, weight, bias, layout=layout, backend=backend)
    assert oracle.worst(got, expected.y, expected.bound) <= 1


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", cases.DTYPES)
@pytest.mark.parametrize("vector_dtype", cases.DTYPES)
@pytest.mark.parametrize("given", ["neither", "weight", "bias", "both"])
def test_weight_and_bias_of_either_type_or_none(given, vector_dtype, dtype, training, backend):
    x = cases.make("offset 1", (6, 33, 20), dtype=dtype)
    mean, var = cases.running(x, dtype=vector_dtype)
    weight, bias = cases.vectors(33, vector_dtype)
    weight = weight if given in ("weight", "both") else None
    bias = bias if given in ("bias", "both") else None
    expected = oracle.batch_norm(x, *((None, None) if training else (mean, var)), weight, bias)
    got = cpubn.batch_norm(x, mean, var, weight, bias, training, backend=backend)
    assert got.dtype == dtype
    assert oracle.worst(got, expected.y, expected.bound) <= 1


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("eps", [1e-90, 1e-12, 1e-5, 0.5, 1e30])
@pytest.mark.parametrize("family", ["offset 1", "tiny", "largest", "largest but one", "mixed scales"])
def test_every_size_of_eps(family, eps, training, backend):
    x = cases.make(family, (50, 5, 30))
    mean, var = (None, None) if training else cases.running(x)
    expected = oracle.batch_norm(x, mean, var, eps=eps)
    got = cpubn.batch_norm(x, mean, var, training=training, eps=eps, backend=backend)
    assert oracle.worst(got, expected.y, expected.bound) <= 1


def test_inference_may_have_an_eps_of_zero(backend):
    x = cases.make("offset 1", (8, 3, 5))
    mean, var = cases.running(x)
    expected = oracle.batch_norm(x, mean, var, eps=0)
    got = cpubn.batch_norm(x, mean, var, eps=0, backend=backend)
    assert oracle.worst(got, expected.y, expected.bound) <= 1


@pytest.mark.parametrize("walk", cases.WALKS)
@pytest.mark.parametrize("dtype", cases.DTYPES)
def test_a_constant_channel_gives_variance_zero_and_its_bias(dtype, walk, backend):
    layout, (n, _, *inner) = cases.WALKS[walk]
    x = cases.make("constant", (n, 7, *inner), layout, dtype)
    weight, bias = cases.vectors(7, dtype)
    got, batch = cpubn.batch_norm(
        x, None, None, weight, bias, training=True, layout=layout, return_moments=True, backend=backend
    )
    constants = x.reshape(n, 7, -1)[0, :, 0] if layout == "NCHW" else x.reshape(-1, 7)[0]
    np.testing.assert_array_equal(batch.var(), np.zeros(7))
    np.testing.assert_array_equal(batch.mean, constants)
    expected = np.broadcast_to(bias.reshape(oracle.per_channel(bias, x, layout, 0).shape), x.shape)
    np.testing.assert_array_equal(got, expected)


def test_weight_of_the_std_and_bias_of_the_mean_give_x_back(backend):
    x = cases.make("offset 1", (40, 5, 30), dtype=np.float64)
    batch = cpubn.moments(x, backend=backend)
    got = cpubn.batch_norm(x, None, None, np.sqrt(batch.var() + 1e-5), batch.mean, training=True, backend=backend)
    np.testing.assert_allclose(got, x, rtol=1e-12, atol=1e-9)


@pytest.mark.parametrize("dtype", cases.DTYPES)
@pytest.mark.parametrize("momentum", [0, 0.1, 0.75, 1])
def test_running_statistics_take_their_share_of_the_batch(momentum, dtype, backend):
    x = cases.make("offset 100", (11, 33, 9))
    mean, var = oracle.moments(x)
    count = 11 * 9
    got_mean, got_var = np.linspace(-3, 3, 33).astype(dtype), np.linspace(1, 9, 33).astype(dtype)
    expected_mean = (1 - momentum) * got_mean + momentum * mean
    expected_var = (1 - momentum) * got_var + momentum * var * count / (count - 1)
    cpubn.batch_norm(x, got_mean, got_var, training=True, momentum=momentum, backend=backend)
    assert got_mean.dtype == dtype
    assert got_var.dtype == dtype
    np.testing.assert_allclose(got_mean, expected_mean.astype(float), rtol=1e-6)
    np.testing.assert_allclose(got_var, expected_var.astype(float), rtol=1e-6)


def test_running_statistics_may_be_strided_views(backend):
    x = cases.make("offset 1", (11, 33, 9))
    expected = np.zeros(33), np.ones(33)
    cpubn.batch_norm(x, *expected, training=True, backend=backend)
    memory = np.zeros((33, 2)), np.ones(66, np.float64)
    got = memory[0][:, 1], memory[1][::-2]
    cpubn.batch_norm(x, *got, training=True, backend=backend)
    np.testing.assert_array_equal(got, expected)
    np.testing.assert_array_equal(memory[0][:, 0], 0)
    np.testing.assert_array_equal(memory[1][::2], 1)


def test_inference_and_untracked_training_leave_running_statistics_alone(backend):
    x = cases.make("offset 1", (11, 3, 9))
    mean, var = cases.running(x)
    kept = mean.copy(), var.copy()
    cpubn.batch_norm(x, mean, var, backend=backend)
    np.testing.assert_array_equal((mean, var), kept)


@pytest.mark.parametrize("training", [True, False])
def test_return_moments_gives_those_of_the_batch(training, backend):
    x = cases.make("offset 100", (11, 33, 9))
    expected = cpubn.moments(x, backend=backend)
    _, got = cpubn.batch_norm(x, *cases.running(x), training=training, return_moments=True, backend=backend)
    assert got.count == expected.count == 99
    np.testing.assert_array_equal(got.mean, expected.mean)
    np.testing.assert_array_equal(got.m2, expected.m2)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("shape", [(0, 3), (0, 3, 4, 3), (2, 3, 0, 3), (4, 0), (0, 0), (2, 0, 5, 0)])
def test_an_empty_batch_and_zero_channels_give_an_empty_result(shape, layout, training, backend):
    channels = shape[1]
    x = np.empty(shape, np.float32)
    running = np.full(channels, 2.0), np.full(channels, 3.0)
    got, batch = cpubn.batch_norm(x, *running, training=training, layout=layout, return_moments=True, backend=backend)
    assert got.shape == shape
    assert got.dtype == np.float32
    assert batch.mean.shape == (channels,)
    np.testing.assert_array_equal(running, [[2.0] * channels, [3.0] * channels])
