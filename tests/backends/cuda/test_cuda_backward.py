"""Backward of arrays on a GPU: within the contract's bounds of long double, alone and through activations."""

import cases
import gpu
import numpy as np
import oracle
import pytest
import test_backward
import test_fused_backward
import test_mean_pair
import views
from gpu import get, put

import cpubn
from cpubn.backends.gpu import tiles

pytestmark = gpu.SILENT
CHUNK = tiles.THREADS * tiles.SAMPLES
MANY = 2 * tiles.MERGERS * CHUNK
# shape, layout, family, gradient, dtype, training
CASES = [
    ((3, 3, CHUNK // 2), "NCHW", "offset 1e+07", "correlated", np.float32, True),
    ((CHUNK + 5, 3), "NHWC", "offset 10000", "of x_hat", np.float32, True),
    ((2, 5, 2, 3), "NHWC", "offset 0", "sparse", np.float32, True),
    ((MANY + 1, 1), "NCHW", "offset 100", "independent", np.float32, True),
    ((2, 3, 2, 1, 3), "NCHW", "first far", "constant", np.float32, True),
    ((2, 17), "NCHW", "mixed scales", "independent", np.float32, True),
    ((5, 3, 9), "NHWC", "offset 1e+06", "correlated", np.float64, True),
    ((2, 1, 7), "NCHW", "ramp", "independent", np.float64, True),
    ((3, 7, 5), "NCHW", "constant", "independent", np.float32, True),
    ((3, 4, 5), "NCHW", "tiny", "independent", np.float32, True),
    ((5, 3, 9), "NCHW", "largest", "independent", np.float32, True),
    ((3, 5, 9), "NCHW", "offset 10000", "correlated", np.float32, False),
    ((4, 2, 3, 5), "NHWC", "offset 1", "sparse", np.float64, False),
]


@pytest.mark.parametrize(("shape", "layout", "family", "gradient", "dtype", "training"), CASES, ids=str)
def test_against_the_oracle(shape, layout, family, gradient, dtype, training):
    dy, x, mean, var, weight, expected = test_backward.case(family, gradient, shape, layout, dtype, training)
    got = cpubn.batch_norm_backward(*put((dy, x, mean, var, weight)), training=training, layout=layout)
    assert all(map(gpu.is_ours, got))
    test_backward.check(get(got), expected, dtype)


@pytest.mark.parametrize("dtype", ["float16", gpu.BFLOAT16], ids=str)
@pytest.mark.parametrize("training", [True, False])
def test_half_types(dtype, training):
    dy, x, mean, var, weight, _ = test_backward.case("offset 1", "correlated", (3, 5, 9), "NCHW", np.float64, training)
    dy, x = dy.astype(dtype), x.astype(dtype)
    expected = oracle.batch_norm_backward(dy, x, mean, var, weight, training=training)
    got = cpubn.batch_norm_backward(*put((dy, x, mean, var, weight)), training=training)
    test_backward.check(get(got), expected, dtype)


def test_float32_statistics_are_taken_as_they_are():
    dy, x, mean, var, _, _ = test_backward.case("offset 100", "independent", (3, 3, 7), "NCHW", np.float32, True)
    mean, var = mean.astype(np.float32), var.astype(np.float32)
    got = cpubn.batch_norm_backward(*put((dy, x, mean, var)))
    test_backward.check(get(got), oracle.batch_norm_backward(dy, x, mean, var), np.float32)


def test_the_moments_of_the_forward_are_taken_where_they_are():
    dy, x, mean, var, weight, _ = test_backward.case("offset 100", "independent", (3, 3, 7), "NCHW", np.float32, True)
    _, batch = cpubn.batch_norm(put(x), None, None, put(weight), training=True, return_moments=True)
    got = cpubn.batch_norm_backward(put(dy), put(x), batch.mean, batch.var(), put(weight))
    mean, var = get(batch.mean), get(batch.var())
    test_backward.check(get(got), oracle.batch_norm_backward(dy, x, mean, var, weight), np.float32)


@pytest.mark.parametrize(("layout", "shape"), [("NCHW", (3, 3, 7)), ("NHWC", (CHUNK + 5, 2))], ids=str)
@pytest.mark.parametrize("gradient", ["independent", "correlated", "constant"])
def test_float64_at_a_large_mean(gradient, layout, shape):
    """From Moments and from a layer, whose low word makes the difference."""
    dy, x, weight, _, mean, var = test_mean_pair.case(shape, layout, gradient)
    expected = oracle.batch_norm_backward(dy, x, mean, var, weight, layout=layout)
    given = put((dy, x, weight))
    batch = cpubn.moments(given[1], layout=layout)
    got = cpubn.batch_norm_backward(*given[:2], batch, batch.var(), given[2], layout=layout)
    test_backward.check(get(got), expected, np.float64)
    bn = cpubn.BatchNorm1d(shape[1], layout=layout, dtype="float64")
    bn.weight[...] = weight
    bn.to_device()(given[1])
    got = bn.backward(given[0]), bn.weight_grad, bn.bias_grad
    test_backward.check(get(got), expected, np.float64)


@pytest.mark.parametrize("activation", ["relu", ("leaky_relu", 0.125)], ids=str)
@pytest.mark.parametrize("order", [(0, 1, 2, 3), (0, 2, 3, 1), (3, 2, 1, 0), (0, 1, 3, 2)], ids=str)
def test_a_layer_whose_output_lies_otherwise_than_its_input(order, activation):
    """Signs are read by three strides, or reordered where those will not do."""
    x, dy = np.random.default_rng(3).standard_normal((2, 3, 2, 4, 5)).astype(np.float32)
    bn = cpubn.BatchNorm2d(2, activation=activation).to_device()
    bn(put(x))
    expected = get(bn.backward(put(dy)))
    bn(put(x), out=gpu.Shown(views.in_order(np.zeros_like(x), order)))
    np.testing.assert_array_equal(get(bn.backward(put(dy))), expected)


def test_what_is_not_finite_stays_in_its_channel():
    dy, x, mean, var, weight, _ = test_backward.case("offset 1", "independent", (9, 3, 7), "NCHW", np.float32, True)
    clean = get(cpubn.batch_norm_backward(*put((dy, x, mean, var, weight))))
    bad = dy.copy()
    bad[4, 1, 2] = np.nan
    got = get(cpubn.batch_norm_backward(*put((bad, x, mean, var, weight))))
    np.testing.assert_array_equal(got[0][:, ::2], clean[0][:, ::2])
    assert np.isnan(got[0][:, 1]).all()
    assert np.isnan([got[1][1], got[2][1]]).all()


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", [(0, 3), (4, 0)], ids=str)
def test_an_empty_batch_gives_an_empty_and_zero_gradients(shape, training):
    channels, x = shape[1], put(np.empty(shape, np.float32))
    running = put((np.zeros(channels), np.ones(channels)))
    dx, *rest = cpubn.batch_norm_backward(x, x, *running, training=training)
    assert get(dx).shape == shape
    np.testing.assert_array_equal(get(rest), np.zeros((2, channels)))


@pytest.mark.parametrize("source", ["dy", "x"])
def test_the_gradient_may_take_the_place_of_dy_or_x(source):
    arrays = dict(zip(("dy", "x", "mean", "var", "weight"), test_backward.case(
        "offset 100", "correlated", (CHUNK + 3, 3), "NHWC", np.float32, True), strict=False))  # fmt: skip
    expected, *_ = get(cpubn.batch_norm_backward(*put(list(arrays.values()))))
    given = {name: put(a) for name, a in arrays.items()}
    dx, *_ = cpubn.batch_norm_backward(**given, out=given[source])
    assert dx is given[source]
    np.testing.assert_array_equal(get(dx), expected)


@pytest.mark.parametrize(
    ("activation", "layout", "dtype", "training", "added"),
    [
        (activation, ("NCHW", "NHWC")[i % 2], cases.DTYPES[i % 3 == 1], i % 4 != 2, i % 2 == 0)
        for i, activation in enumerate((None, *cases.ACTIVATIONS))
        if activation or i % 2 == 0
    ],
    ids=str,
)
def test_through_every_activation(activation, layout, dtype, training, added):
    dy, x, residual, vectors = test_fused_backward.arguments((2, 3, 2, 3), layout, dtype, activation, added)
    got = test_fused_backward.backward(
        *(put(dy), put(x), put(vectors)),
        training=training,
        layout=layout,
        activation=activation,
        residual=put(residual),
    )
    test_fused_backward.check(get(got), dy, x, vectors, activation, residual, training, layout)


@pytest.mark.parametrize("source", ["dy", "x"])
@pytest.mark.parametrize(("activation", "kept"), [("relu", True), ("silu", False)])
@pytest.mark.parametrize("training", [True, False])
def test_an_activation_and_the_place_of_dy_or_x(training, activation, kept, source):
    dy, x, residual, vectors = test_fused_backward.arguments((2, 3, 2, 3), "NCHW", np.float32, activation)
    how = {"training": training, "activation": activation, "residual": put(residual)}
    if kept:
        how["y"] = cpubn.batch_norm(put(x), *put(vectors), activation=activation, residual=how["residual"])
    expected = get(test_fused_backward.backward(put(dy), put(x), put(vectors), **how))
    given = {"dy": put(dy), "x": put(x)}
    got = test_fused_backward.backward(**given, vectors=put(vectors), out=given[source], **how)
    for a, b in zip(get(got), expected, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("activation", ["relu", "sigmoid"])
def test_the_output_may_be_given(activation):
    dy, x, residual, vectors = test_fused_backward.arguments((2, 3, 2, 3), "NCHW", np.float32, activation)
    how = {"activation": activation, "residual": put(residual)}
    y = cpubn.batch_norm(put(x), *put(vectors), **how)
    got = test_fused_backward.backward(put(dy), put(x), put(vectors), y=y, **how)
    test_fused_backward.check(get(got), dy, x, vectors, activation, residual)


@pytest.mark.parametrize("activation", [None, "gelu"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_halves_are_the_whole(dtype, activation):
    x = cases.make("offset 100", (5, 3, 2, 3), dtype=dtype)
    dy = cases.make_gradient("independent", x)
    m, parts = cpubn.moments(x), (slice(2), slice(2, 2), slice(2, 5))
    given, how = put((m.mean, m.low, m.m2)), {"activation": activation}
    whole = cpubn.Moments.of(m.count, given)
    expected = cpubn.batch_norm_backward(dy, x, m, m.var(), **how)
    sums = [cpubn.gradient_sums(put(dy[p]), put(x[p]), whole, put(m.var()), **how) for p in parts]
    total = put(sum(get(sums)))
    for part in parts:
        got = get(cpubn.batch_norm_backward(put(dy[part]), put(x[part]), whole, put(m.var()), sums=total, **how))
        for a, b in zip(got, (expected[0][part], *expected[1:]), strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-11 if dtype == np.float64 else 2e-5)


def test_the_same_bits_run_after_run():
    dy, x, mean, var, weight, _ = test_backward.case(
        "offset 10000", "correlated", (MANY // 4 + 1, 3, 2), "NCHW", np.float32, True
    )
    given = put((dy, x, mean, var, weight))
    expected = get(cpubn.batch_norm_backward(*given))
    for got, wanted in zip(get(cpubn.batch_norm_backward(*given)), expected, strict=True):
        np.testing.assert_array_equal(got, wanted)
