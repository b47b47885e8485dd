"""Batches with one value in a channel, or with none: on_single and on_empty of the layers and batch_norm."""

import copy

import numpy as np
import oracle
import pytest
from policed import C, arrays, check_same, each_activation, each_dtype, each_shape, layer, made

import cpubn


@each_activation
@each_dtype
@pytest.mark.parametrize("residual", [False, True])
def test_one_value_is_normalized_by_the_running_statistics(residual, dtype, activation, backend):
    x, dy = made((1, C), dtype), made((1, C), dtype, 2)
    added = made((1, C), dtype, 3) if residual else None
    bn = layer(on_single="running", activation=activation, backend=backend)
    other = layer(activation=activation, backend=backend).eval()
    before = bn.state_dict()
    np.testing.assert_array_equal(bn(x, added), other(x, added))
    check_same(bn.state_dict(), before)
    np.testing.assert_array_equal(bn.backward(dy), other.backward(dy))
    check_same(arrays(bn), arrays(other))
    if residual:
        np.testing.assert_array_equal(bn.residual_grad, other.residual_grad)
    bn(made((2, C)))
    assert bn.num_batches_tracked == 2


def test_one_value_in_place_and_into_an_output(backend):
    x = made((1, C, 1))
    bn = layer(on_single="running", backend=backend)
    y, out = bn(x), np.empty_like(x)
    assert bn(x, out=out) is out
    np.testing.assert_array_equal(out, y)
    bn(x, out=x)
    np.testing.assert_array_equal(x, y)
    with pytest.raises(RuntimeError, match="overwritten"):
        bn.backward(x)


@each_activation
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@each_shape
def test_channels_of_one_value_among_others(layout, shape, dtype, activation, backend):
    """They are normalized as in inference, forward and backward, the others by their own statistics, as ever."""
    x, dy = made(shape, dtype), made(shape, dtype, 2)
    mask = np.ones(shape, bool)
    by_channel = np.moveaxis(mask, 1 if layout == "NCHW" else -1, 0)
    by_channel[0].flat[1:] = False
    how = {"layout": layout, "activation": activation, "backend": backend}
    bn, own, running = layer(on_single="running", **how), layer(**how), layer(**how).eval()
    without = mask.copy()
    np.moveaxis(without, 1 if layout == "NCHW" else -1, 0)[0] = False
    y, dx = bn(x, mask=mask), bn.backward(dy)
    expected, gradient = own(x, mask=without), own.backward(dy)
    inference, of_inference = running(x, mask=mask), running.backward(dy)
    single = oracle.per_channel(np.arange(C) == 0, x, layout, False)
    tolerance = 1e-5 if dtype is np.float32 else 1e-12
    np.testing.assert_allclose(y, np.where(single, inference, expected), rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(dx, np.where(single, of_inference, gradient), rtol=tolerance, atol=tolerance)
    for name in ("weight_grad", "bias_grad"):
        both = np.where(np.arange(C) == 0, getattr(running, name), getattr(own, name))
        np.testing.assert_allclose(getattr(bn, name), both, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(bn.running_mean, own.running_mean, rtol=1e-12)
    np.testing.assert_allclose(bn.running_var, own.running_var, rtol=1e-6)
    assert bn.num_batches_tracked == 2


def test_channels_of_one_value_in_place(backend):
    x, mask = made((6, C, 5)), np.ones((6, C, 5), bool)
    mask[1:, 2], mask[0, 2, 1:] = False, False
    bn = layer(on_single="running", backend=backend)
    expected = copy.deepcopy(bn)(x, mask=mask)
    assert bn(x, out=x, mask=mask) is x
    np.testing.assert_array_equal(x, expected)


def test_weights_that_add_up_to_one_at_most(backend):
    x = made((6, C))
    bn, other = layer(on_single="running", backend=backend), layer(backend=backend).eval()
    before = bn.state_dict()
    np.testing.assert_array_equal(bn(x, weights=np.full((6, 1), 1 / 8)), other(x))
    check_same(bn.state_dict(), before)


def test_masked_channels_beside_those_of_one_value(backend):
    """Of which none has a batch's statistics."""
    x, mask = made((6, C)), np.zeros((6, C), bool)
    mask[2, 1] = True
    bn, other = layer(on_single="running", backend=backend), layer(backend=backend).eval()
    before = bn.state_dict()
    y = bn(x, mask=mask, masked_output=7.0)
    np.testing.assert_array_equal(y, np.where(mask, other(x), np.float32(7)))
    check_same(bn.state_dict(), before)
    dy = made((6, C), seed=2)
    np.testing.assert_array_equal(bn.backward(dy), np.where(mask, other.backward(dy), 0))


def test_by_the_function(backend):
    x, running = made((1, C)), (np.arange(3.0), np.ones(3))
    before = [r.copy() for r in running]
    y, batch = cpubn.batch_norm(x, *running, training=True, on_single="running", return_moments=True, backend=backend)
    np.testing.assert_array_equal(y, cpubn.batch_norm(x, *running, backend=backend))
    np.testing.assert_array_equal(running, before)
    assert batch.count == 1
    np.testing.assert_array_equal(batch.mean, x[0])
    like = cpubn.batch_norm(x.tolist(), *running, training=True, on_single="running", backend=backend)
    np.testing.assert_allclose(like, y, rtol=1e-6)
    with pytest.raises(ValueError, match="running statistics must be there for on_single='running', got none"):
        cpubn.batch_norm(x, None, None, training=True, on_single="running", backend=backend)
    with pytest.raises(ValueError, match="need more than 1 value per channel"):
        cpubn.batch_norm(x, *running, training=True, on_nonfinite="skip", backend=backend)
    with pytest.raises(TypeError, match="x must be"):
        cpubn.batch_norm(x.astype(np.uint8), *running, training=True, on_single="running", dtype="float32")
    with pytest.raises(ValueError, match="eps must be above 0 in training"):
        cpubn.batch_norm(x, *running, training=True, eps=0.0, on_single="running", backend=backend)


def test_one_value_needs_running_statistics():
    with pytest.raises(ValueError, match="track_running_stats must be True with on_single='running', got False"):
        cpubn.BatchNorm1d(C, track_running_stats=False, on_single="running")
    bn = layer(on_single="running")
    bn.track_running_stats = False  # from now on they stay
    bn(made((1, C)))
    bn.running_mean = bn.running_var = None
    with pytest.raises(ValueError, match="running statistics must be there for on_single='running', got none"):
        bn(made((1, C)))


@pytest.mark.parametrize("shape", [(0, C), (0, C, 4), (4, C, 0)])
def test_empty_batches(shape, backend):
    bn = layer(backend=backend)
    before = bn.state_dict()
    assert bn(np.ones(shape)).shape == shape
    bn.on_empty = "raise"
    with pytest.raises(ValueError, match="each channel must have values with on_empty='raise', got none; leave out"):
        bn(np.ones(shape))
    check_same(bn.state_dict(), before)


def test_channels_without_values(backend):
    x, mask = made((6, C)), np.ones((6, C), bool)
    mask[:, 2] = False
    bn = layer(backend=backend)
    kept = bn.running_mean[2]
    bn(x, mask=mask)
    assert bn.running_mean[2] == kept
    bn.on_empty = "raise"
    before, out = arrays(bn), x.copy()
    with pytest.raises(ValueError, match=r"each channel must have values .* got none in channel 2"):
        bn(out, mask=mask, out=out)
    np.testing.assert_array_equal(out, x)
    check_same(arrays(bn), before)
    x[:, 2] = np.nan
    with pytest.raises(ValueError, match="got none in channel 2"):
        cpubn.batch_norm(x, None, None, training=True, nan="omit", on_empty="raise", backend=backend)


def test_batches_without_channels_are_not_empty(backend):
    x = np.ones((4, 0))
    assert cpubn.batch_norm(x, None, None, training=True, on_empty="raise", backend=backend).shape == (4, 0)
