"""Masks, lengths, weights and omitted NaN on a GPU: as on the host."""

import gpu
import masked
import numpy as np
import oracle
import pytest
from gpu import get, moments_on_host, put

import cpubn

pytestmark = gpu.SILENT
EPS = 1e-5
CASES = [
    ("NCHW", (3, 2, 40), "lengths", np.float32),
    ("NCHW", (3, 2, 41), "positions", np.float64),
    ("NHWC", (30, 3), "elements", np.float32),
    ("NCHW", (4, 3, 3, 3), "empty channel", np.float32),
    ("NHWC", (5, 2, 9), "weights", np.float32),
    ("NCHW", (5, 2, 9), "float64 weights", np.float32),
    ("NCHW", (5, 2, 9), "samples", np.float64),
    ("NCHW", (5, 2, 9), "NaN", np.float32),
    ("NHWC", (5, 2, 9), "all of them", np.float32),
]
each_case = pytest.mark.parametrize(("layout", "shape", "kind", "dtype"), CASES, ids=str)


@each_case
def test_against_the_oracle(layout, shape, kind, dtype):
    x, dy, how, weights = masked.case(kind, shape, layout, dtype)
    mean, var, count = masked.moments(x, weights, layout)
    running, named = put((np.zeros(shape[1]), np.ones(shape[1]))), {"layout": layout, **how}
    y, batch = cpubn.batch_norm(put(x), *running, training=True, return_moments=True, masked_output=2.0, **named)
    mean_bound, var_bound = oracle.moments_bounds(mean, var, dtype)
    on_host = moments_on_host(batch)
    np.testing.assert_allclose(batch.count, np.float64(count), rtol=1e-13)
    assert oracle.worst(on_host.mean, mean, mean_bound) <= 1
    assert oracle.worst(on_host.var(), var, var_bound) <= 1
    np.testing.assert_allclose(get(batch.var()), on_host.var(), rtol=1e-14)
    expected = oracle.batch_norm(masked.clean(x, weights, mean, layout), mean, var, None, None, EPS, layout, dtype)
    y = get(y)
    assert (y[weights == 0] == 2).all()
    assert oracle.worst(y[weights > 0], expected.y[weights > 0], expected.bound[weights > 0]) <= 1
    some = count > 0
    unbiased = np.where(some, 0.9 + 0.1 * var * count / np.where(some, count - 1, 1), 1)
    np.testing.assert_allclose(get(running[1]), np.float64(unbiased), rtol=1e-6)
    np.testing.assert_allclose(get(running[0]), np.float64(0.1 * mean), rtol=1e-6)
    exact = masked.backward(dy, x, weights, mean, var, None, EPS, layout)
    dx, dweight, dbias = cpubn.batch_norm_backward(put(dy), put(x), batch, batch.var(), **named)
    assert oracle.worst(get(dx), exact.dx, exact.dx_bound) <= 1
    assert oracle.worst(get(dweight), exact.dweight, exact.dweight_bound) <= 1
    assert oracle.worst(get(dbias), exact.dbias, exact.dbias_bound) <= 1


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("activation", [None, "relu", "silu"])
def test_a_layer_as_on_the_host(activation, training):
    x, dy, how, _ = masked.case("elements", (4, 3, 9), "NCHW", np.float32)
    results = []
    for to in (np.asarray, put):
        bn = cpubn.BatchNorm1d(3, activation=activation, backend=None if to is put else "numpy")
        if to is put:
            bn.to_device()
        bn.train(training)
        y = bn(to(x), to(np.abs(dy)), **how)
        dx = bn.backward(to(dy))
        given = y, dx, bn.residual_grad, bn.weight_grad, bn.bias_grad, bn.running_var
        results.append([a if to is np.asarray else get(a) for a in given])
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_masked_moments_merge_on_the_host():
    x, _, how, _ = masked.case("elements", (6, 2, 9), "NCHW", np.float64)
    parts = [cpubn.moments(put(x[k::2]), mask=how["mask"][k::2]) for k in range(2)]
    whole, got = cpubn.moments(x, backend="numpy", **how), moments_on_host(parts[0] + parts[1])
    np.testing.assert_array_equal(got.count, whole.count)
    np.testing.assert_allclose(got.m2, whole.m2, rtol=1e-12)


def test_a_mask_may_be_on_the_gpu():
    x, _, how, _ = masked.case("positions", (4, 3, 9), "NCHW", np.float32)
    expected = get(cpubn.batch_norm(put(x), None, None, training=True, **how))
    np.testing.assert_array_equal(
        get(cpubn.batch_norm(put(x), None, None, training=True, mask=put(how["mask"]))), expected
    )
