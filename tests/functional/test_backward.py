"""Backward: within the contract's bounds of long double at the same means, and against central differences."""

from functools import lru_cache, partial

import cases
import numpy as np
import oracle
import pytest
from pairs import pairs

import cpubn

# The scope has pytest run the backends of one case in turn, so that they share the oracle's answer.
each = partial(pytest.mark.parametrize, scope="module")


@lru_cache(maxsize=4)
def case(family, gradient, shape, layout, dtype, training):
    """dy, x, the float64 statistics that backward is given, a weight, and what to expect."""
    x = cases.make(family, shape, layout, dtype)
    dy = cases.make_gradient(gradient, x, layout)
    mean, var = (v.astype(float) for v in oracle.moments(x, layout)) if training else cases.running(x, layout)
    weight, _ = cases.vectors(shape[1])
    return dy, x, mean, var, weight, oracle.batch_norm_backward(dy, x, mean, var, weight, 1e-5, training, layout)


def check(got, expected, dtype):
    dx, dweight, dbias = got
    assert dx.dtype == dtype
    assert dweight.dtype == dbias.dtype == np.float64
    assert oracle.worst(dx, expected.dx, expected.dx_bound) <= 1
    assert oracle.worst(dweight, expected.dweight, expected.dweight_bound) <= 1
    assert oracle.worst(dbias, expected.dbias, expected.dbias_bound) <= 1


@each(("of", "walk", "training"), pairs(cases.FAMILY_OF_DTYPE, [*cases.WALKS], [True, False]))
def test_every_family(of, walk, training, backend):
    family, dtype = of
    layout, shape = cases.WALKS[walk]
    dy, x, mean, var, weight, expected = case(family, "correlated", shape, layout, dtype, training)
    got = cpubn.batch_norm_backward(dy, x, mean, var, weight, training=training, layout=layout, backend=backend)
    check(got, expected, dtype)


@each(("of", "gradient", "walk"), pairs(cases.FAMILY_OF_DTYPE, [*cases.GRADIENTS], [*cases.SHORT_WALKS]))
def test_every_gradient_of_every_family(of, gradient, walk, backend):
    family, dtype = of
    layout, shape = cases.SHORT_WALKS[walk]
    dy, x, mean, var, weight, expected = case(family, gradient, shape, layout, dtype, True)
    check(cpubn.batch_norm_backward(dy, x, mean, var, weight, layout=layout, backend=backend), expected, dtype)


@each("training", [True, False])
@each("layout", ["NCHW", "NHWC"])
@each("shape", [s for s in cases.SHAPES if np.prod(s) < 1_000_000], ids=str)
def test_every_shape(shape, layout, training, backend):
    dy, x, mean, var, weight, expected = case("offset 100", "correlated", shape, layout, np.float32, training)
    got = cpubn.batch_norm_backward(dy, x, mean, var, weight, training=training, layout=layout, backend=backend)
    check(got, expected, np.float32)


@each("shape", [s for s in cases.SHAPES if np.prod(s) < 100_000], ids=str)
def test_every_shape_in_float64(shape, backend):
    dy, x, mean, var, weight, expected = case("ramp", "independent", shape, "NCHW", np.float64, True)
    check(cpubn.batch_norm_backward(dy, x, mean, var, weight, backend=backend), expected, np.float64)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", cases.DTYPES)
@pytest.mark.parametrize("weight_dtype", [None, *cases.DTYPES])
def test_weight_of_either_type_or_none(weight_dtype, dtype, training, backend):
    dy, x, mean, var, weight, _ = case("offset 1", "independent", (6, 33, 20), "NCHW", dtype, training)
    weight = None if weight_dtype is None else weight.astype(weight_dtype)
    expected = oracle.batch_norm_backward(dy, x, mean, var, weight, training=training)
    check(cpubn.batch_norm_backward(dy, x, mean, var, weight, training=training, backend=backend), expected, dtype)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", cases.DTYPES)
def test_float32_statistics_are_taken_as_they_are(dtype, training, backend):
    dy, x, mean, var, _, _ = case("offset 100", "independent", (6, 33, 20), "NCHW", dtype, training)
    mean, var = mean.astype(np.float32), var.astype(np.float32)
    got = cpubn.batch_norm_backward(dy, x, mean, var, training=training, backend=backend)
    check(got, oracle.batch_norm_backward(dy, x, mean, var, training=training), dtype)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("size", [1e-40, 1e-20, 1e20, 3e37])
@pytest.mark.parametrize("eps", [1e-90, 1e-5, 1e30])
def test_every_size_of_gradient_and_eps(eps, size, training, backend):
    _, x, mean, var, _, _ = case("mixed scales", "independent", (50, 5, 30), "NCHW", np.float64, training)
    dy = cases.make_gradient("independent", x) * size
    expected = oracle.batch_norm_backward(dy, x, mean, var, eps=eps, training=training)
    got = cpubn.batch_norm_backward(dy, x, mean, var, eps=eps, training=training, backend=backend)
    check(got, expected, np.float64)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("size", [1e-40, 1e-37, 1e-20, 1e20, 1e37])
def test_every_size_of_float32_gradient(size, training, backend):
    _, x, mean, var, _, _ = case("offset 100", "independent", (50, 5, 30), "NCHW", np.float32, training)
    dy = (cases.make_gradient("correlated", x.astype(float)) * size / 30).astype(np.float32)
    expected = oracle.batch_norm_backward(dy, x, mean, var, training=training)
    check(cpubn.batch_norm_backward(dy, x, mean, var, training=training, backend=backend), expected, np.float32)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", [(7, 3), (4, 5, 6)], ids=str)
def test_gradients_against_central_differences(shape, training, backend):
    """Of the loss sum(dy * y), in every entry of x, weight and bias."""
    rng = cases.rng_of("differences", shape)
    x, dy = rng.standard_normal((2, *shape))
    weight, bias = rng.standard_normal((2, shape[1]))
    mean, var = cases.running(x)
    if training:
        batch = cpubn.moments(x, backend=backend)
        mean, var = batch.mean, batch.var()

    def loss(x, weight, bias):
        running = (None, None) if training else (mean, var)
        return (dy * cpubn.batch_norm(x, *running, weight, bias, training, backend=backend)).sum()

    got = cpubn.batch_norm_backward(dy, x, mean, var, weight, training=training, backend=backend)
    arguments = [x, weight, bias]
    for place, (argument, gradient) in enumerate(zip(arguments, got, strict=True)):
        expected = np.empty_like(argument)
        for index in np.ndindex(argument.shape):
            step = np.zeros_like(argument)
            step[index] = 1e-5
            ahead, behind = arguments.copy(), arguments.copy()
            ahead[place], behind[place] = argument + step, argument - step
            expected[index] = (loss(*ahead) - loss(*behind)) / 2e-5
        np.testing.assert_allclose(gradient, expected, rtol=1e-7, atol=1e-8)


def test_the_gradient_of_training_is_orthogonal_to_constants_and_to_x_hat(backend):
    dy, x, mean, var, _, _ = case("offset 1", "independent", (30, 5, 40), "NCHW", np.float64, True)
    dx, _, _ = cpubn.batch_norm_backward(dy, x, mean, var, eps=1e-12, backend=backend)
    scale = abs(dx).sum(axis=(0, 2))
    x_hat = oracle.batch_norm(x, eps=1e-12).y
    np.testing.assert_array_less(abs(dx.sum(axis=(0, 2))), 1e-12 * scale)
    np.testing.assert_array_less(abs((dx * x_hat).sum(axis=(0, 2))), 1e-8 * scale)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("shape", [(0, 3), (0, 3, 4, 3), (2, 3, 0, 3), (4, 0), (0, 0)])
def test_an_empty_batch_and_zero_channels_give_empty_and_zero_gradients(shape, layout, training, backend):
    channels = shape[1]
    x = np.empty(shape, np.float32)
    got, dweight, dbias = cpubn.batch_norm_backward(
        x, x, np.zeros(channels), np.ones(channels), training=training, layout=layout, backend=backend
    )
    assert got.shape == shape
    np.testing.assert_array_equal((dweight, dbias), np.zeros((2, channels)))
