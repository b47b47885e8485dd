"""Masks, lengths, weights and omitted NaN: results are those of the elements that count, and no other reaches any."""

from functools import lru_cache, partial

import cases
import masked
import numpy as np
import oracle
import pytest
from conftest import need_backend

import cpubn

# Rows, short rows, columns wide and narrow, those of few elements; of several chunks, and at the edges of lanes.
WALKS = [
    ("NCHW", (6, 5, 40)), ("NCHW", (3, 4, 300)), ("NCHW", (9, 7, 7, 7)), ("NCHW", (40, 3, 5, 5)),
    ("NCHW", (2, 2, 70001)),
    ("NHWC", (50, 3)), ("NHWC", (40, 33)), ("NHWC", (12, 40, 10)), ("NHWC", (1100, 65)),
]  # fmt: skip
EPS = 1e-5
# The scope has pytest run the backends of one case in turn, so that they share the oracle's answer.
each = partial(pytest.mark.parametrize, scope="module")
each_walk = pytest.mark.parametrize(("layout", "shape"), WALKS, ids=str)
each_kind = pytest.mark.parametrize("kind", masked.KINDS)
# Lengths are of three dimensions.
CASES = [(*walk, kind) for walk in WALKS for kind in masked.KINDS if kind != "lengths" or len(walk[1]) == 3]
each_case = each(("layout", "shape", "kind"), CASES, ids=str)
each_dtype = each("dtype", cases.DTYPES)


@lru_cache(maxsize=4)
def case(layout, shape, kind, dtype):
    """What masked.case gives, and the moments by the oracle."""
    x, dy, how, weights = masked.case(kind, shape, layout, dtype)
    return x, dy, how, weights, masked.moments(x, weights, layout)


@lru_cache(maxsize=4)
def trained(layout, shape, kind, dtype):
    """Of the same batch: weight, bias, y and gradients by the oracle."""
    x, dy, _, weights, (mean, var, _) = case(layout, shape, kind, dtype)
    weight, bias = cases.vectors(shape[1])
    y = oracle.batch_norm(masked.clean(x, weights, mean, layout), mean, var, weight, bias, EPS, layout, dtype)
    return weight, bias, y, masked.backward(dy, x, weights, mean, var, weight, EPS, layout)


@each_dtype
@each_case
def test_moments(layout, shape, kind, dtype, backend):
    x, _, how, _, (mean, var, count) = case(layout, shape, kind, dtype)
    got = cpubn.moments(x, layout=layout, backend=backend, **how)
    mean_bound, var_bound = oracle.moments_bounds(mean, var, dtype)
    np.testing.assert_allclose(got.count, np.float64(count), rtol=1e-13)
    assert oracle.worst(got.mean, mean, mean_bound) <= 1
    assert oracle.worst(got.var(), var, var_bound) <= 1


@each_dtype
@each_case
def test_training_and_backward(layout, shape, kind, dtype, backend):
    x, dy, how, weights, (mean, var, count) = case(layout, shape, kind, dtype)
    weight, bias, expected, exact = trained(layout, shape, kind, dtype)
    running = np.zeros(shape[1]), np.ones(shape[1])
    named = {"layout": layout, "backend": backend, **how}
    y, batch = cpubn.batch_norm(
        x, *running, weight, bias, True, eps=EPS, return_moments=True, masked_output=-3.0, **named
    )
    assert oracle.worst(np.where(weights > 0, y, -3.0), y, np.zeros(y.shape)) == 0
    assert oracle.worst(y[weights > 0], expected.y[weights > 0], expected.bound[weights > 0]) <= 1
    some = count > 0
    assert ((running[0] == 0) == ~some).all()
    unbiased = var * count / np.where(some, count - 1, 1)
    assert oracle.worst(running[0], 0.1 * mean, 1e-6 * abs(mean)) <= 1
    assert oracle.worst(running[1], np.where(some, 0.9 + 0.1 * unbiased, 1), 1e-6 * (1 + unbiased)) <= 1
    dx, dweight, dbias = cpubn.batch_norm_backward(dy, x, batch, batch.var(), weight, eps=EPS, **named)
    assert oracle.worst(dx, exact.dx, exact.dx_bound) <= 1
    assert oracle.worst(dweight, exact.dweight, exact.dweight_bound) <= 1
    assert oracle.worst(dbias, exact.dbias, exact.dbias_bound) <= 1


@each_kind
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_inference(layout, kind, backend):
    x, dy, how, weights = masked.case(kind, (5, 3, 70), layout, np.float32)
    mean, var, _ = masked.moments(x, weights, layout)
    weight, bias = cases.vectors(3)
    given, named = (np.float64(mean), np.float64(var) + 1, weight), {"layout": layout, "backend": backend, **how}
    expected = oracle.batch_norm(masked.clean(x, weights, mean, layout), *given, bias, EPS, layout, np.float32)
    y = cpubn.batch_norm(x, *given, bias, **named)
    assert oracle.worst(y, np.where(weights > 0, expected.y, 0), np.where(weights > 0, expected.bound, 0)) <= 1
    scale = oracle.per_channel(weight / np.sqrt(given[1] + EPS), x, layout, 1.0)
    dx, *_ = cpubn.batch_norm_backward(dy, x, *given, training=False, **named)
    exact = np.where(weights > 0, dy, 0) * scale
    assert oracle.worst(dx, exact, 1e-6 * abs(exact)) <= 1


@pytest.mark.parametrize("activation", ["silu", "relu", None])
@pytest.mark.parametrize("kind", ["positions", "elements", "weights"])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_layers_remember_what_counts(layout, kind, activation, backend):
    """With a residual, and garbage in it, too: as the functions, and 0 where nothing counts."""
    x, dy, how, weights = masked.case(kind, (5, 3, 70), layout, np.float32)
    residual = np.where(weights > 0, np.flip(np.nan_to_num(dy)), np.nan).astype(np.float32)
    bn = cpubn.BatchNorm1d(3, layout=layout, activation=activation, backend=backend)
    for training in True, False:
        bn.train(training)
        y = bn(x, residual, **how)
        assert np.isfinite(y).all()
        assert not y[weights == 0].any()
        mean, var, _ = masked.moments(x, weights, layout) if training else (bn.running_mean, bn.running_var, 0)
        clean = masked.clean(x, weights, mean, layout)
        z = oracle.batch_norm(clean, mean, var, None, None, EPS, layout, np.float32)
        fused = oracle.fused(z, activation, np.where(weights > 0, residual, 0))
        assert oracle.worst(y[weights > 0], fused.y[weights > 0], fused.bound[weights > 0]) <= 1
        bn.zero_grad()
        dx = bn.backward(dy)
        off = np.where(weights > 0, z.y + np.where(weights > 0, residual, 0), 1)
        g = np.where(weights > 0, np.nan_to_num(dy) * oracle.activation_of(activation).derivative(off), 0)
        np.testing.assert_allclose(bn.residual_grad, g, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(bn.bias_grad, masked.channels(g, layout).sum(axis=1), rtol=1e-4, atol=1e-4)
        assert not dx[weights == 0].any()
        assert np.isfinite(dx).all()


@pytest.mark.parametrize("dtype", ["float16", np.float32, np.float64])
@pytest.mark.parametrize("kind", ["positions", "elements", "weights", "float64 weights"])
@each_walk
def test_garbage_moves_no_bit_and_threads_none(layout, shape, kind, dtype, threads_restored):
    need_backend("cython")
    x, dy, how, weights = masked.case(kind, shape, layout, np.float32)
    x, dy = (x / 1024).astype(dtype), dy.astype(dtype)

    def results(x, dy):
        running = np.zeros(shape[1]), np.ones(shape[1])
        y, m = cpubn.batch_norm(
            x, *running, training=True, layout=layout, return_moments=True, activation="silu", **how
        )
        return y, m.mean, m.m2, *running, *cpubn.batch_norm_backward(dy, x, m, m.var(), layout=layout, **how)

    cpubn.set_num_threads(1)
    expected = results(x, dy)
    cpubn.set_num_threads(3)
    for got in results(x, dy), results(*(np.where(weights > 0, a, a.dtype.type(7)) for a in (x, dy))):
        for a, b in zip(got, expected, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("kind", ["positions", "elements", "weights", "float64 weights"])
@each_walk
def test_instruction_sets_give_the_same_bits(layout, shape, kind, isa):
    from cpubn.backends.compiled import variants
    from cpubn.backends.weights import Weights

    x, _, _, weights = masked.case(kind, shape, layout, np.float32)
    axis = oracle.channel_axis(x, layout)
    walk = (-1, x.shape[axis], int(np.prod(x.shape[axis + 1 :])))
    own = weights.view(np.uint8) if weights.dtype == bool else weights
    given = Weights(own.reshape(walk), np.float64(masked.channels(own, layout).sum(axis=1, dtype=float)), 0.0)
    expected, got = (np.zeros((3, walk[1])) for _ in range(2))
    variants.load("baseline").moments(x.reshape(walk), expected, 1, given)
    variants.load(isa).moments(x.reshape(walk), got, 2, given)
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("kind", ["elements", "weights"])
@each_walk
def test_backward_of_every_instruction_set_sums_what_counts(layout, shape, kind, isa):
    """Counts of weights do not say that sums are given."""
    from cpubn.backends import reference
    from cpubn.backends.compiled import variants
    from cpubn.backends.prologue import NO_PROLOGUE, Statistics
    from cpubn.backends.weights import Weights

    x, dy, _, weights = masked.case(kind, shape, layout, np.float32)
    mean, var, count = np.ascontiguousarray(masked.moments(x, weights, layout), np.float64)
    axis = oracle.channel_axis(x, layout)
    x, dy, own = (
        np.ascontiguousarray(a).reshape(-1, x.shape[axis], int(np.prod(x.shape[axis + 1 :]))) for a in (x, dy, weights)
    )
    given = Weights(own.view(np.uint8) if own.dtype == bool else own, count, 0.0)
    statistics = Statistics(mean, np.zeros_like(mean), var, np.ones_like(mean), EPS, True)
    results = []
    for kernels in reference, variants.load(isa):
        sums, dx = np.full((2, len(mean)), np.nan), np.full_like(x, np.nan)
        kernels.backward(dy, x, statistics, NO_PROLOGUE, sums, dx, 1, given)
        results.append((sums, dx))
    for expected, got in zip(*results, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5 * abs(expected).max())


@pytest.mark.parametrize("view", [np.s_[::2], np.s_[:, :, ::-1], np.s_[:, ::2, 3:]])
def test_any_strides_of_data_and_masks(view, backend):
    x, _, how, _ = masked.case("elements", (8, 6, 50), "NCHW", np.float32)
    mask = how["mask"]
    for mask_of_view in (np.asfortranarray(mask)[view], mask[view]):
        for x_of_view in (np.asfortranarray(x)[view], x[view]):
            got = cpubn.batch_norm(x_of_view, None, None, training=True, mask=mask_of_view, backend=backend)
            plain = np.ascontiguousarray(x[view]), np.ascontiguousarray(mask[view])
            expected = cpubn.batch_norm(plain[0], None, None, training=True, mask=plain[1], backend=backend)
            np.testing.assert_allclose(got, expected, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("shape", [(7, 1), (2, 3, 5), (3, 4, 50)], ids=str)
def test_weights_of_float64_that_lanes_are_not_loaded_from(shape, backend):
    """They are too few, or too far apart."""
    x = cases.make("offset 1", shape)
    statistics = np.zeros(shape[1]), np.ones(shape[1])
    for weights in (np.ones(shape), np.ones((*shape, 2))[..., 0]):
        y = cpubn.batch_norm(x, *statistics, eps=0, weights=weights, backend=backend)
        np.testing.assert_array_equal(y, x)
        dx, *_ = cpubn.batch_norm_backward(x, x, *statistics, eps=0, training=False, weights=weights, backend=backend)
        np.testing.assert_array_equal(dx, x)


@pytest.mark.parametrize("dtype", cases.DTYPES)
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_a_constant_channel_of_any_weights_has_variance_zero(layout, dtype, backend):
    x = cases.make("constant", (8, 7, 9), layout, dtype)
    got = cpubn.moments(x, weights=cases.rng_of("any").random(x.shape), layout=layout, backend=backend)
    np.testing.assert_array_equal(got.var(), np.zeros(7))
    np.testing.assert_array_equal(got.mean, x.reshape(8, 7, 9)[0, :, 0] if layout == "NCHW" else x[0, 0])


def test_in_place_and_into_another_layout(backend):
    x, _, how, _ = masked.case("positions", (4, 5, 40), "NCHW", np.float32)
    expected = cpubn.batch_norm(x, None, None, training=True, backend=backend, **how)
    turned = cpubn.batch_norm(x, None, None, training=True, out_layout="NHWC", backend=backend, **how)
    np.testing.assert_array_equal(np.moveaxis(turned, -1, 1), expected)
    np.testing.assert_array_equal(
        cpubn.batch_norm(x, None, None, training=True, out=x, backend=backend, **how), expected
    )


def test_moments_of_masked_batches_add_up(backend):
    x, _, how, weights = masked.case("empty channel", (20, 3, 40), "NCHW", np.float64)
    parts = [cpubn.moments(x[k::4], mask=how["mask"][k::4], backend=backend) for k in range(4)]
    whole = sum(parts)
    mean, var, count = masked.moments(x, weights, "NCHW")
    np.testing.assert_array_equal(whole.count, count)
    np.testing.assert_allclose(whole.mean, np.float64(mean), rtol=1e-14)
    np.testing.assert_allclose(whole.var(), np.float64(var), rtol=1e-12)
    assert whole == whole.merge(cpubn.Moments.empty(3))
    with pytest.raises(ValueError, match="needs more than 1 values per channel, got 1"):
        cpubn.moments(x, mask=np.arange(20 * 40).reshape(20, 40) == 0, backend=backend).var(1)


WRONG = [
    ({"mask": np.ones((4, 3))}, TypeError, r"mask must be an array of bool, .*got float64; write mask.astype\(bool\)"),
    ({"mask": np.ones((4, 3), bool)}, ValueError, r"mask must have shape \(4, 9\), .* got \(4, 3\)"),
    ({"mask": np.ones(4, bool)}, ValueError, r"mask must have shape \(4, 9\), .* got \(4,\)"),
    ({"lengths": [1, 2, 3]}, ValueError, r"lengths must have shape \(4,\), one for each sample of x, got \(3,\)"),
    ({"lengths": [1, 2, 3, 10]}, ValueError, "lengths must be from 0 to 9, the length of x, got 10"),
    ({"lengths": [1, 2, 3, -1]}, ValueError, "lengths must be from 0 to 9, the length of x, got -1"),
    ({"lengths": [1.0, 2, 3, 3]}, TypeError, "lengths must be whole numbers, got an array of float64"),
    ({"weights": [1.0, -1, 0, 1]}, ValueError, "weights must be finite and at least 0, got -1"),
    ({"weights": [1.0, np.nan, 0, 1]}, ValueError, "weights must be finite and at least 0, got nan"),
    ({"weights": ["a"] * 4}, TypeError, "weights must be an array of"),
    ({"nan": "skip"}, ValueError, "nan must be 'propagate' or 'omit', got 'skip'"),
    ({"masked_output": "0"}, TypeError, "masked_output must be a number, got '0'"),
    ({"weights": [0.01] * 4}, ValueError, "weights of more than 1 together in each channel that has any, got 0.36 in"),
]


@pytest.mark.parametrize(("given", "kind", "message"), WRONG, ids=[str(k) for k in range(len(WRONG))])
def test_errors_before_anything_is_written(given, kind, message, backend):
    x = np.ones((4, 3, 9), np.float32)
    running, bn = (np.zeros(3), np.ones(3)), cpubn.BatchNorm1d(3, backend=backend)
    with pytest.raises(kind, match=message):
        cpubn.batch_norm(x, *running, training=True, backend=backend, **given)
    with pytest.raises(kind, match=message):
        bn(x, **given)
    assert not running[0].any()
    assert (running[1] == 1).all()
    assert bn.num_batches_tracked == 0


def test_sums_of_parts_have_no_masks(backend):
    x = np.ones((4, 3, 9), np.float32)
    m = cpubn.moments(x)
    with pytest.raises(ValueError, match="sums must be None with mask, lengths, weights or nan"):
        cpubn.batch_norm_backward(x, x, m, m.var(), sums=np.zeros((2, 3)), mask=np.ones((4, 9), bool), backend=backend)


def test_what_is_written_may_be_no_mask(backend):
    mask = np.ones((4, 3, 12), bool)
    out = mask.reshape(-1).view(np.float32).reshape(1, 3, 12)
    with pytest.raises(ValueError, match="out must not overlap mask or weights"):
        cpubn.batch_norm(
            np.ones((1, 3, 12), np.float32), np.zeros(3), np.ones(3), out=out, mask=mask[:1], backend=backend
        )
