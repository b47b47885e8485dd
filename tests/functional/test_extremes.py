"""Values that are not finite, or too large: non-finite results in their own channel, never a plausible number."""

import cases
import numpy as np
import oracle
import pytest

import cpubn

SHAPES = {"long rows": ("NCHW", (3, 5, 300)), "short rows": ("NCHW", (40, 5, 7)), "columns": ("NHWC", (40, 35, 3))}
BAD = [np.nan, np.inf, -np.inf]
CHANNEL = 2

each_case = pytest.mark.parametrize(
    ("bad", "position", "dtype", "walk"),
    [(b, p, d, w) for b in BAD for p in ("first", "middle") for d in cases.DTYPES for w in SHAPES],
)


def channels_first(a, layout):
    return np.moveaxis(a, 1 if layout == "NCHW" else -1, 0)


def spoilt(x, layout, bad, position):
    """A copy of x with one bad value in CHANNEL."""
    copy = x.copy()
    samples = channels_first(copy, layout)[CHANNEL]
    samples[(0, 0) if position == "first" else tuple(n // 2 for n in samples.shape)] = bad
    return copy


def check_only_that_channel_is_spoilt(got, clean, layout):
    got, clean = channels_first(got, layout), channels_first(clean, layout)
    assert not np.isfinite(got[CHANNEL]).any()
    np.testing.assert_array_equal(np.delete(got, CHANNEL, 0), np.delete(clean, CHANNEL, 0))


@each_case
def test_a_bad_value_spoils_its_channel_in_training(bad, position, dtype, walk, backend):
    layout, shape = SHAPES[walk]
    x = cases.make("offset 1", shape, layout, dtype)
    how = {"training": True, "layout": layout, "return_moments": True, "backend": backend}
    running, clean_running = np.zeros((2, shape[1])), np.zeros((2, shape[1]))
    clean, clean_batch = cpubn.batch_norm(x, *clean_running, **how)
    got, batch = cpubn.batch_norm(spoilt(x, layout, bad, position), *running, **how)
    check_only_that_channel_is_spoilt(got, clean, layout)
    for statistics, expected in [
        (batch.mean, clean_batch.mean), (batch.var(), clean_batch.var()), (batch.m2, clean_batch.m2),
        (running[0], clean_running[0]), (running[1], clean_running[1]),
    ]:  # fmt: skip
        check_only_that_channel_is_spoilt(statistics[np.newaxis], expected[np.newaxis], "NCHW")


@each_case
def test_a_bad_value_in_x_spoils_the_channel_of_dx(bad, position, dtype, walk, backend):
    layout, shape = SHAPES[walk]
    x = cases.make("offset 1", shape, layout, dtype)
    dy = cases.make_gradient("independent", x, layout)

    def backward(x):
        batch = cpubn.moments(x, layout=layout, backend=backend)
        return cpubn.batch_norm_backward(dy, x, batch.mean, batch.var(), layout=layout, backend=backend)

    clean, got = backward(x), backward(spoilt(x, layout, bad, position))
    check_only_that_channel_is_spoilt(got[0], clean[0], layout)
    check_only_that_channel_is_spoilt(got[1][np.newaxis], clean[1][np.newaxis], "NCHW")
    np.testing.assert_array_equal(got[2], clean[2])  # dbias never looks at x


@each_case
def test_a_bad_gradient_spoils_its_channel(bad, position, dtype, walk, backend):
    layout, shape = SHAPES[walk]
    x = cases.make("offset 1", shape, layout, dtype)
    dy = cases.make_gradient("independent", x, layout)
    batch = cpubn.moments(x, layout=layout, backend=backend)

    def backward(dy):
        return cpubn.batch_norm_backward(dy, x, batch.mean, batch.var(), layout=layout, backend=backend)

    clean, got = backward(dy), backward(spoilt(dy, layout, bad, position))
    check_only_that_channel_is_spoilt(got[0], clean[0], layout)
    for gradient, expected in zip(got[1:], clean[1:], strict=True):
        check_only_that_channel_is_spoilt(gradient[np.newaxis], expected[np.newaxis], "NCHW")


@each_case
def test_inference_spoils_nothing_but_the_value_itself(bad, position, dtype, walk, backend):
    layout, shape = SHAPES[walk]
    x = cases.make("offset 1", shape, layout, dtype)
    running = cases.running(x, layout)
    clean = cpubn.batch_norm(x, *running, layout=layout, backend=backend)
    expected = spoilt(clean, layout, bad, position)
    got = cpubn.batch_norm(spoilt(x, layout, bad, position), *running, layout=layout, backend=backend)
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("walk", SHAPES)
def test_non_finite_running_statistics_spoil_their_channel(walk, backend):
    layout, shape = SHAPES[walk]
    x = cases.make("offset 1", shape, layout)
    mean, var = cases.running(x, layout)
    clean = cpubn.batch_norm(x, mean, var, layout=layout, backend=backend)
    mean[CHANNEL] = np.nan
    got = cpubn.batch_norm(x, mean, var, layout=layout, backend=backend)
    check_only_that_channel_is_spoilt(got, clean, layout)


@pytest.mark.parametrize("family", ["largest", "largest of one sign", "largest but one"])
@pytest.mark.parametrize("size", [1e150, 1e152, 1e153, 1e154, 1e155, 1e160, 1e200, 1e300, 1e308])
@pytest.mark.parametrize("walk", SHAPES)
def test_float64_too_large_to_square_gives_nan_never_a_plausible_number(walk, size, family, backend):
    layout, shape = SHAPES[walk]
    x = cases.make(family, shape, layout, np.float64) * (size / 3.4e38)
    expected = oracle.batch_norm(x, layout=layout)
    got, batch = cpubn.batch_norm(x, None, None, training=True, layout=layout, return_moments=True, backend=backend)
    error = abs(got - expected.y)
    assert (np.isnan(got) | (error <= expected.bound)).all()
    var_error = abs(batch.var() - expected.var)
    assert (np.isnan(batch.var()) | (var_error <= 1e-12 * expected.var)).all()
    if size >= 1e160:
        assert np.isnan(got).all()
        assert np.isnan(batch.var()).all()


@pytest.mark.parametrize("walk", SHAPES)
def test_one_value_too_large_to_square_gives_nan_in_its_channel(walk, backend):
    layout, shape = SHAPES[walk]
    x = cases.make("offset 1", shape, layout, np.float64)
    how = {"training": True, "layout": layout, "backend": backend}
    got = cpubn.batch_norm(spoilt(x, layout, 1e200, "middle"), None, None, **how)
    check_only_that_channel_is_spoilt(got, cpubn.batch_norm(x, None, None, **how), layout)


def test_chunks_too_far_apart_to_square_their_distance_give_nan(backend):
    """Each sample is a chunk of its own, and constant: only the merge can see that the variance overflows."""
    x = np.zeros((2, 2, 65536))
    x[1, 1] = 1e160
    got, batch = cpubn.batch_norm(x, None, None, training=True, return_moments=True, backend=backend)
    merged = cpubn.moments(x[:1], backend=backend) + cpubn.moments(x[1:], backend=backend)
    assert np.isnan(got[:, 1]).all()
    assert not got[:, 0].any()
    np.testing.assert_array_equal((batch.var(), merged.var()), [[0, np.nan]] * 2)


def test_results_beyond_the_largest_float32_are_infinite_without_a_warning(backend):
    x = cases.make("offset 1", (20, 3, 5))
    got = cpubn.batch_norm(x, None, None, np.full(3, 1e300), training=True, backend=backend)
    np.testing.assert_array_equal(got, np.copysign(np.inf, x - x.mean(axis=(0, 2), keepdims=True, dtype=float)))
