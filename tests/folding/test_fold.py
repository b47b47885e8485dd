"""Folding without a framework: what it returns, and what verify_fold says of it."""

import re

import cases
import numpy as np
import pytest
from conftest import need_library
from folds import BIAS, FORM, MATRIX, RNG, WEIGHT, norm_of

import cpubn

FLOATS = {"float16": 2e-2, "bfloat16": 2e-1, "float32": 2e-6, "float64": 1e-13}
BY_HAND = cases.named([1.0, -1.0], [3.0, 8.0], [2.0, -3.0], [0.5, 0.25]) | {"eps": 1.0}


def test_after_a_convolution_by_hand():
    bn = cpubn.FrozenBatchNorm(**BY_HAND)  # scale 1 and -1
    weight, bias = cpubn.fold_conv(np.array([[[1.0, 2.0]], [[3.0, 4.0]]]), np.array([10.0, 20.0]), bn)
    np.testing.assert_array_equal(weight, [[[1.0, 2.0]], [[-3.0, -4.0]]])
    np.testing.assert_array_equal(bias, [9.5, -20.75])


def test_before_a_convolution_by_hand():
    bn = cpubn.FrozenBatchNorm(**BY_HAND)  # shift -0.5 and -0.75
    weight, bias, pad = cpubn.fold_into_next_conv(np.array([[[1.0, 2.0], [3.0, 4.0]]]), np.array([10.0]), bn)
    np.testing.assert_array_equal(weight, [[[1.0, 2.0], [-3.0, -4.0]]])
    np.testing.assert_array_equal(bias, [10.0 - 0.5 * 3.0 - 0.75 * 7.0])
    np.testing.assert_array_equal(pad, [0.5, -0.75])


def every_fold(weight, matrix, bias):
    """Weight, bias and pad of each fold, with the options that verify it."""
    yield cpubn.fold_conv(weight, bias, norm_of(6), **FORM), weight, norm_of(6), FORM
    yield cpubn.fold_into_next_conv(weight, bias, norm_of(4), **FORM), weight, norm_of(4), FORM | {"norm_first": True}
    yield cpubn.fold_linear(matrix, bias, norm_of(6)), matrix, norm_of(6), {}
    yield cpubn.fold_into_next_linear(matrix, bias, norm_of(4)), matrix, norm_of(4), {"norm_first": True}


def dtype_of(name):
    if name != "bfloat16":
        return np.dtype(name)
    need_library("ml_dtypes", "half")
    import ml_dtypes

    return np.dtype(ml_dtypes.bfloat16)


@pytest.mark.parametrize("bias", [BIAS, None], ids=["bias", "no bias"])
@pytest.mark.parametrize("name", FLOATS)
def test_results_are_in_the_dtype_of_the_weight(name, bias):
    dtype = dtype_of(name)
    weight, matrix = WEIGHT.astype(dtype), MATRIX.astype(dtype)
    exact = every_fold(weight.astype(np.float64), matrix.astype(np.float64), bias)
    for (got, original, bn, options), (expected, *_) in zip(every_fold(weight, matrix, bias), exact, strict=True):
        for a, b in zip(got, expected, strict=True):
            assert a.dtype == dtype
            np.testing.assert_array_equal(a, b.astype(dtype))  # rounded once
        assert got[0].shape == original.shape
        assert cpubn.verify_fold(original, bias, bn, got, **options) < FLOATS[name]


def test_weights_are_read_in_any_order_and_not_written():
    expected = cpubn.fold_conv(WEIGHT, BIAS, norm_of(6), **FORM)
    read_only = WEIGHT.copy()
    read_only.flags.writeable = False
    for weight in (
        read_only,
        np.asfortranarray(WEIGHT),
        np.repeat(WEIGHT, 2, axis=1)[:, ::2],
        WEIGHT.astype(">f8"),
        WEIGHT.tolist(),
    ):
        for a, b in zip(cpubn.fold_conv(weight, BIAS, norm_of(6), **FORM), expected, strict=True):
            np.testing.assert_array_equal(a, b)
    original = WEIGHT.copy()
    for _ in every_fold(WEIGHT, MATRIX, BIAS):
        np.testing.assert_array_equal(WEIGHT, original)


@pytest.mark.parametrize("layer", [cpubn.BatchNorm1d, cpubn.BatchNorm2d, cpubn.BatchNorm3d])
def test_a_layer_folds_as_its_frozen_self_in_either_mode(layer):
    bn = layer(6, eps=0.25, layout="NHWC")
    bn.load_state_dict({name: RNG.uniform(0.5, 2.0, 6) for name in ("weight", "bias", "running_mean", "running_var")})
    expected = cpubn.fold_conv(WEIGHT, BIAS, bn.freeze(), **FORM)
    for _ in range(2):
        for a, b in zip(cpubn.fold_conv(WEIGHT, BIAS, bn, **FORM), expected, strict=True):
            np.testing.assert_array_equal(a, b)
        bn.eval()


def test_a_layer_without_affine_folds_its_statistics():
    bn = cpubn.BatchNorm1d(6, affine=False)
    bn.running_mean[...], bn.running_var[...] = 2.0, 4.0 - bn.eps
    weight, bias = cpubn.fold_linear(MATRIX, None, bn)
    np.testing.assert_allclose(weight, MATRIX / 2, rtol=1e-15)
    np.testing.assert_allclose(bias, np.full(6, -1.0), rtol=1e-15)


def test_a_bias_near_a_large_mean_keeps_its_digits():
    bn = cpubn.FrozenBatchNorm(**cases.named([1e9], [1e-8]), eps=0.0)
    _, bias = cpubn.fold_linear([[1.0]], [1e9 + 0.5], bn)
    np.testing.assert_allclose(bias, [5e3], rtol=1e-12)


def test_a_depthwise_kernel_of_keras():
    """(*kernel, in, multiplier) is HWIO of in groups, output channel in * multiplier + m."""
    kernel, bn = RNG.normal(size=(3, 2, 4, 2)), norm_of(8)
    weight, bias = cpubn.fold_conv(kernel.reshape(3, 2, 1, 8), None, bn, groups=4, kernel_layout="HWIO")
    scale = (bn.weight / np.sqrt(bn.running_var + bn.eps)).reshape(4, 2)
    np.testing.assert_allclose(weight.reshape(kernel.shape), kernel * scale, rtol=1e-14)
    assert bias.shape == (8,)


@pytest.mark.parametrize("transposed", [False, True])
def test_layouts_are_two_orders_of_the_same(transposed):
    bn, hwio = norm_of(6), (2, 3, 1, 0)
    weight = WEIGHT.reshape(4, 3, 3, 2) if transposed else WEIGHT
    form = {"groups": 2, "transposed": transposed}
    expected, expected_bias = cpubn.fold_conv(weight, BIAS, bn, **form)
    got, bias = cpubn.fold_conv(weight.transpose(hwio), BIAS, bn, kernel_layout="HWIO", **form)
    np.testing.assert_array_equal(got, expected.transpose(hwio))
    np.testing.assert_array_equal(bias, expected_bias)


def test_verification_finds_what_is_wrong():
    geometry = {"groups": 2, "stride": 2, "padding": (1, 2), "dilation": (2, 1)}
    weight, bias = cpubn.fold_conv(WEIGHT, BIAS, norm_of(6), **FORM)
    assert cpubn.verify_fold(WEIGHT, BIAS, norm_of(6), (weight, bias), **geometry) < 1e-13
    off = bias + np.array([0, 0, 0.25, 0, 0, 0])
    got = cpubn.verify_fold(WEIGHT, BIAS, norm_of(6), (weight, off), **geometry)
    assert got == pytest.approx(0.25)
    assert np.isnan(cpubn.verify_fold(WEIGHT, BIAS, norm_of(6), (weight, bias * np.nan), **geometry))

    geometry |= {"norm_first": True}
    weight, bias, pad = cpubn.fold_into_next_conv(WEIGHT, BIAS, norm_of(4), **FORM)
    assert cpubn.verify_fold(WEIGHT, BIAS, norm_of(4), (weight, bias, pad), **geometry) < 1e-13
    for no_pad in ((weight, bias), (weight, bias, None), [weight, bias, 0 * pad]):
        assert cpubn.verify_fold(WEIGHT, BIAS, norm_of(4), no_pad, **geometry) > 0.1


def test_verification_finds_a_stride_that_was_not_so():
    form = {"groups": 2, "transposed": True}
    folded = cpubn.fold_into_next_conv(WEIGHT.reshape(4, 3, 3, 2), BIAS, norm_of(4), stride=1, **form)
    weight, form = WEIGHT.reshape(4, 3, 3, 2), form | {"norm_first": True}
    assert cpubn.verify_fold(weight, BIAS, norm_of(4), folded, dilation=2, output_padding=(1, 0), **form) < 1e-13
    assert cpubn.verify_fold(weight, BIAS, norm_of(4), folded, stride=2, **form) > 0.1


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_verification_takes_data_in_the_layout_of_bn(layout, dtype):
    x = RNG.normal(size=(2, 4, 5, 6)).astype(dtype)
    if layout == "NHWC":
        x = x.transpose(0, 2, 3, 1)
    weight, bias = cpubn.fold_conv(WEIGHT, BIAS, norm_of(6), **FORM)
    bn = norm_of(6, layout)
    assert 0.0 < cpubn.verify_fold(WEIGHT, BIAS, bn, (weight, bias), 1e6 * x, **FORM) < 1e-6
    assert cpubn.verify_fold(WEIGHT, BIAS, bn, (weight, bias + 1.0), x, **FORM) == pytest.approx(1.0)
    assert cpubn.verify_fold(WEIGHT, BIAS, bn, (weight, bias + 1.0), x[:0], **FORM) == 0.0


def test_a_dead_channel_has_no_pad_value_unless_it_is_zero():
    dead = norm_of(4, weight=(2, 0.0))
    with pytest.raises(
        ValueError, match=r"scale 0 and shift \S+ in channel 2: .*; keep bn, or pass zero_padding=False"
    ):
        cpubn.fold_into_next_conv(WEIGHT, BIAS, dead, **FORM)
    *folded, pad = cpubn.fold_into_next_conv(WEIGHT, BIAS, dead, zero_padding=False, **FORM)
    assert pad is None
    assert cpubn.verify_fold(WEIGHT, BIAS, dead, tuple(folded), norm_first=True, **FORM) < 1e-13
    cpubn.fold_into_next_linear(MATRIX, BIAS, dead)

    zero = norm_of(4, weight=(2, 0.0), bias=(2, 0.0))
    folded = cpubn.fold_into_next_conv(WEIGHT, BIAS, zero, **FORM)
    assert folded[2][2] == 0.0
    assert cpubn.verify_fold(WEIGHT, BIAS, zero, folded, norm_first=True, padding=2, **FORM) < 1e-13


@pytest.mark.parametrize("stride", [None, 2, (1, 2)])
@pytest.mark.parametrize("zero_padding", [True, False])
def test_a_shift_before_a_transposed_convolution(stride, zero_padding):
    match = rf"stride must be 1 .*, got stride={re.escape(str(stride))} and shift \S+ in channel 0: .* or keep bn"
    with pytest.raises(ValueError, match=match):
        cpubn.fold_into_next_conv(
            WEIGHT.reshape(4, 3, 3, 2), BIAS[:3], norm_of(4), transposed=True, stride=stride, zero_padding=zero_padding
        )


def test_an_activation_stands_behind_but_not_between():
    bn = norm_of(6)
    plain = cpubn.fold_conv(WEIGHT, BIAS, bn, **FORM)
    vectors = cases.named(bn.running_mean, bn.running_var, bn.weight, bn.bias)
    bn = cpubn.FrozenBatchNorm(**vectors, activation="relu")
    for a, b in zip(cpubn.fold_conv(WEIGHT, BIAS, bn, **FORM), plain, strict=True):
        np.testing.assert_array_equal(a, b)
    assert cpubn.verify_fold(WEIGHT, BIAS, bn, plain, **FORM) < 1e-13
    match = "bn must have no activation .*, got 'relu', which stands between the two; keep bn"
    with pytest.raises(ValueError, match=match):
        cpubn.fold_into_next_conv(RNG.normal(size=(2, 6, 3)), None, bn)
    with pytest.raises(ValueError, match=match):
        cpubn.fold_into_next_linear(RNG.normal(size=(2, 6)), None, bn)
