"""Coefficients at the edges of float32: channels that must be computed in float64, among channels that need not be."""

import cases
import numpy as np
import oracle
import pytest
import views

import cpubn
from cpubn.ask import check

LAYOUTS = [("NCHW", (4, 3, 1000)), ("NCHW", (80, 3, 50)), ("NHWC", (4000, 3))]
M = 4000


def spread(samples, layout, shape):
    """An array whose middle channel holds `samples`, and whose others are ordinary."""
    a = cases.make("offset 1", shape, layout)
    middle = a[:, 1] if layout == "NCHW" else a[..., 1]
    middle[...] = samples.reshape(middle.shape)
    return a


def huge_gradient(rng):
    """x_hat * s beyond float32, though dx is not: s alone is below 2**100."""
    x = rng.normal(size=M)
    x[:2] = 40
    x_hat = (x - x.mean()) / x.std()
    dy = -1e30 * x_hat
    dy[:2] = np.finfo(np.float32).max, -np.finfo(np.float32).max
    return x, dy, 0.1


def denormal_mean_of_the_gradient(rng):
    x = rng.normal(size=M)
    x_hat = (x - x.mean()) / x.std()
    dy = 1e-36 * x_hat + 1e-42
    dy[np.argmin(abs(x_hat))] = 0
    return x, dy, 1e5


def denormal_product(rng):
    """s is a normal number, and x_hat * s is not."""
    half = rng.normal(size=M // 2)
    x = np.concatenate((half, -half))
    dy = 2e-38 * x
    x[0], dy[0] = 1e-4, 0
    return x, dy, 1e5


@pytest.mark.parametrize(("layout", "shape"), LAYOUTS)
@pytest.mark.parametrize("case", [huge_gradient, denormal_mean_of_the_gradient, denormal_product])
def test_gradients_at_the_edges_of_float32(case, layout, shape, backend):
    samples, gradient, weight = case(np.random.default_rng(0))
    x, dy = spread(samples, layout, shape), spread(gradient, layout, shape)
    batch = cpubn.moments(x, layout=layout, backend=backend)
    statistics = batch.mean, batch.var(), np.array([1.0, weight, 1.0])
    expected = oracle.batch_norm_backward(dy, x, *statistics, layout=layout)
    got = cpubn.batch_norm_backward(dy, x, *statistics, layout=layout, backend=backend)[0]
    assert oracle.worst(got, expected.dx, expected.dx_bound) <= 1


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("mean", [1e39, -1e300])
@pytest.mark.parametrize(("layout", "shape"), LAYOUTS)
def test_gradients_about_a_mean_beyond_float32(layout, shape, mean, training, backend):
    """From which x is infinitely far in float32: its products are summed once more about another pivot."""
    x = cases.make("offset 1", shape, layout)
    dy = cases.make_gradient("independent", x, layout)
    statistics = np.array([0.0, mean, 1.0]), np.ones(3)
    how = {"training": training, "layout": layout}
    expected = oracle.batch_norm_backward(dy, x, *statistics, **how)
    dx, dweight, dbias = cpubn.batch_norm_backward(dy, x, *statistics, **how, backend=backend)
    assert oracle.worst(dweight, expected.dweight, expected.dweight_bound) <= 1
    assert oracle.worst(dbias, expected.dbias, expected.dbias_bound) <= 1
    assert training or oracle.worst(dx, expected.dx, expected.dx_bound) <= 1


@pytest.mark.parametrize(("layout", "shape"), LAYOUTS)
@pytest.mark.parametrize("wide", [(0,), (1,), (2,), (0, 2), (0, 1, 2)])
def test_wide_channels_stand_anywhere(wide, layout, shape, backend):
    x = cases.make("offset 1", shape, layout)
    weight = np.array([1.0, -2.0, 3.0])
    weight[list(wide)] = 1e-40
    expected = oracle.batch_norm(x, weight=weight, layout=layout)
    for out in (None, x):
        got = cpubn.batch_norm(x, None, None, weight, training=True, layout=layout, out=out, backend=backend)
        assert oracle.worst(got, expected.y, expected.bound) <= 1


def test_misaligned_vectors_are_copied_before_kernels_read_them():
    x = cases.make("offset 1", (4, 3, 8), "NCHW")
    vectors = [views.misaligned(v, 1) for v in (np.ones(3), np.zeros(3), np.zeros(3), np.ones(3))]
    weight, bias, mean, var = (check.vector(v, "weight", 3, "NCHW") for v in vectors)
    assert all(v.flags.aligned and v.flags.c_contiguous for v in (weight, bias, mean, var))
    got = cpubn.batch_norm(x, vectors[2], vectors[3], vectors[0], vectors[1])
    np.testing.assert_array_equal(got, cpubn.batch_norm(x, mean, var, weight, bias))
