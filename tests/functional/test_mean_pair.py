"""The mean as a pair: float64 gradients at a large mean, from layers and from Moments, against the truth of x alone."""

import cases
import numpy as np
import oracle
import pytest
from test_backward import check
from test_fused_backward import check as check_fused

import cpubn

# Where the first word of the mean alone misses the bound by far.
RATIO = 9e5
SHAPES = [("NCHW", (6, 3, 41)), ("NCHW", (2, 3, 3000)), ("NHWC", (123, 5)), ("NHWC", (700, 3, 2))]
each_shape = pytest.mark.parametrize(("layout", "shape"), SHAPES, ids=str)


def case(shape, layout, gradient):
    """dy, x, a weight and a bias, and x's own mean and variance in long double."""
    n, channels, *inner = shape
    rows = cases.offset(RATIO)(cases.rng_of("pair", shape), channels, n * int(np.prod(inner)))
    x = cases.place(rows, shape, layout, np.float64)
    return cases.make_gradient(gradient, x, layout), x, *cases.vectors(channels), *oracle.moments(x, layout)


@each_shape
@pytest.mark.parametrize("gradient", cases.GRADIENTS)
def test_gradients_from_moments(gradient, shape, layout, backend):
    dy, x, weight, _, mean, var = case(shape, layout, gradient)
    expected = oracle.batch_norm_backward(dy, x, mean, var, weight, layout=layout)
    how = {"layout": layout, "backend": backend}
    _, batch = cpubn.batch_norm(x, None, None, training=True, return_moments=True, **how)
    check(cpubn.batch_norm_backward(dy, x, batch, batch.var(), weight, **how), expected, np.float64)
    half = len(x) // 2
    merged = cpubn.moments(x[:half], **how) + cpubn.moments(x[half:], **how)
    check(cpubn.batch_norm_backward(dy, x, merged, merged.var(), weight, **how), expected, np.float64)


@each_shape
@pytest.mark.parametrize("gradient", cases.GRADIENTS)
def test_gradients_of_layers(gradient, shape, layout, backend):
    dy, x, weight, _, mean, var = case(shape, layout, gradient)
    expected = oracle.batch_norm_backward(dy, x, mean, var, weight, layout=layout)
    bn = cpubn.BatchNorm1d(len(weight), layout=layout, dtype="float64", backend=backend)
    bn.weight[...] = weight
    bn(x)
    check((bn.backward(dy), bn.weight_grad, bn.bias_grad), expected, np.float64)


@each_shape
@pytest.mark.parametrize("activation", ["silu", "tanh", "relu"])
def test_gradients_through_an_activation(activation, shape, layout, backend):
    if backend == "numba":
        activation = "silu"
    dy, x, weight, bias, mean, var = case(shape, layout, "independent")
    z = oracle.batch_norm(x, mean, var, weight, bias, layout=layout).y
    for kink in oracle.activation_of(activation).kinks:
        dy[abs(z - kink) < 1e-6] = 0
    batch = cpubn.moments(x, layout=layout, backend=backend)
    how = {"bias": bias, "activation": activation, "layout": layout, "backend": backend}
    got = cpubn.batch_norm_backward(dy, x, batch, batch.var(), weight, **how)
    check_fused(got, dy, x, (mean, var, weight, bias), activation, None, layout=layout)
    bn = cpubn.BatchNorm1d(len(weight), layout=layout, activation=activation, dtype="float64", backend=backend)
    bn.weight[...], bn.bias[...] = weight, bias
    bn(x)
    got = bn.backward(dy), bn.weight_grad, bn.bias_grad
    check_fused(got, dy, x, (mean, var, weight, bias), activation, None, layout=layout)


def test_the_second_word_is_what_it_takes(backend):
    """The bound is missed without it, at the truth of x: else these tests would not show anything."""
    dy, x, weight, _, mean, var = case((2, 3, 3000), "NCHW", "constant")
    expected = oracle.batch_norm_backward(dy, x, mean, var, weight)
    batch = cpubn.moments(x, backend=backend)
    got = cpubn.batch_norm_backward(dy, x, batch.mean, batch.var(), weight, backend=backend)
    assert oracle.worst(got[0], expected.dx, expected.dx_bound) > 10


def same(got, expected):
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("activation", [None, "silu"])
def test_moments_that_have_no_second_word_are_their_mean(activation, backend):
    dy, x, weight, _, _, _ = case((6, 3, 41), "NCHW", "correlated")
    batch = cpubn.moments(x, backend=backend)
    own = cpubn.Moments(batch.count, batch.mean, batch.m2)
    how = {"activation": activation, "backend": backend}
    got = cpubn.batch_norm_backward(dy, x, own, batch.var(), weight, **how)
    same(got, cpubn.batch_norm_backward(dy, x, batch.mean, batch.var(), weight, **how))


@pytest.mark.parametrize("activation", [None, "silu"])
def test_inference_takes_the_mean_that_it_normalized_with(activation, backend):
    dy, x, weight, _, _, _ = case((6, 3, 41), "NCHW", "correlated")
    batch = cpubn.moments(x, backend=backend)
    how = {"training": False, "activation": activation, "backend": backend}
    got = cpubn.batch_norm_backward(dy, x, batch, batch.var(), weight, **how)
    same(got, cpubn.batch_norm_backward(dy, x, batch.mean, batch.var(), weight, **how))


def test_moments_of_other_channels_are_refused(backend):
    dy, x, _, _, _, _ = case((6, 3, 41), "NCHW", "correlated")
    other = cpubn.moments(np.ones((5, 4)))
    with pytest.raises(ValueError, match=r"mean must have shape \(3,\).*got \(4,\)"):
        cpubn.batch_norm_backward(dy, x, other, other.var(), backend=backend)


def test_the_gradient_must_not_be_put_into_the_moments(backend):
    dy, x, _, _, _, _ = case((6, 3), "NCHW", "correlated")
    memory = np.zeros((6, 3))
    batch = cpubn.Moments.of(6, (np.zeros(3), memory[1], np.ones(3)))
    with pytest.raises(ValueError, match=r"out must not overlap .*mean, got"):
        cpubn.batch_norm_backward(dy, x, batch, np.ones(3), out=memory, backend=backend)
