"""What stands around a convolution and between it and its norm: padding of every kind, pooling, other axes."""

import numpy as np
import pytest
from folds import BIAS, FORM, MATRIX, RNG, WEIGHT, norm_of

import cpubn
from cpubn import convert

PADDINGS = [0, 2, (1, 0), ((1, 0), (0, 2)), [[0, 3], [1, 1]], "same", "valid"]
positive = {"weight": (slice(None), 1.5)}


@pytest.mark.parametrize("padding", PADDINGS, ids=repr)
@pytest.mark.parametrize("stride", [1, 2, (1, 3)])
@pytest.mark.parametrize("transposed", [False, True])
def test_verification_takes_every_padding(padding, stride, transposed):
    weight = WEIGHT.reshape(4, 3, 3, 2) if transposed else WEIGHT
    how = FORM | {"transposed": transposed}
    geometry = {"stride": stride, "padding": padding, "dilation": (1, 2)}
    folded = cpubn.fold_conv(weight, BIAS, norm_of(6), **how)
    assert cpubn.verify_fold(weight, BIAS, norm_of(6), folded, **how, **geometry) < 1e-13
    if not transposed:
        folded = cpubn.fold_into_next_conv(weight, BIAS, norm_of(4), **how)
        assert cpubn.verify_fold(weight, BIAS, norm_of(4), folded, **how, **geometry, norm_first=True) < 1e-13
        got = cpubn.verify_fold(weight, BIAS, norm_of(4), folded[:2], **how, **geometry, norm_first=True)
        padded = padding not in (0, "valid")
        assert (got > 1e-3) == padded


def test_same_needs_no_output_padding():
    form = {"groups": 2, "transposed": True, "padding": "same", "output_padding": 1}
    weight = WEIGHT.reshape(4, 3, 3, 2)
    with pytest.raises(ValueError, match=r"output_padding must be 0 where padding is 'same', .*got 1"):
        cpubn.verify_fold(weight, BIAS, norm_of(6), (weight, BIAS), **form)


def test_a_variance_below_zero_is_verified():
    """running_var + eps is above 0, and only that is divided by."""
    bn = norm_of(4, running_var=(1, -5e-6))
    folded = cpubn.fold_into_next_conv(WEIGHT, BIAS, bn, **FORM)
    assert cpubn.verify_fold(WEIGHT, BIAS, bn, folded, norm_first=True, padding=1, **FORM) < 1e-10


def test_norms_of_convert_are_folded():
    bn = norm_of(6)
    norm = convert.Norm.of(bn)
    for got, expected in zip(
        cpubn.fold_conv(WEIGHT, BIAS, norm, **FORM), cpubn.fold_conv(WEIGHT, BIAS, bn, **FORM), strict=True
    ):
        np.testing.assert_array_equal(got, expected)
    folded = cpubn.fold_linear(MATRIX, BIAS, norm)
    assert cpubn.verify_fold(MATRIX, BIAS, norm, folded) < 1e-13


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_surrounding_by_hand(layout, dtype):
    x = np.arange(24, dtype=dtype).reshape(2, 3, 2, 2)
    expected = np.pad(x, ((0, 0), (0, 0), (1, 0), (2, 1)))
    outside = np.pad(np.zeros_like(x), ((0, 0), (0, 0), (1, 0), (2, 1)), constant_values=1).astype(bool)
    expected[outside] = np.broadcast_to(np.array([7, 8, 9], dtype)[:, None, None], expected.shape)[outside]
    given = x if layout == "NCHW" else x.transpose(0, 2, 3, 1)
    got = cpubn.surround(given, ((1, 0), (2, 1)), [7.0, 8.0, 9.0], layout=layout)
    assert got.dtype == dtype
    assert got.flags.c_contiguous
    np.testing.assert_array_equal(got, expected if layout == "NCHW" else expected.transpose(0, 2, 3, 1))
    np.testing.assert_array_equal(cpubn.surround(given, 0, [7, 8, 9], layout=layout), given)
    assert cpubn.surround(x[:0], (1, 2), [7, 8, 9]).shape == (0, 3, 4, 6)


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"x": np.ones((2, 4))}, ValueError, r"x must have 3 to 5 dimensions, got shape \(2, 4\)"),
        ({"x": np.ones((2, 4, 3), int)}, TypeError, "x must be .*float32"),
        ({"values": np.ones(3)}, ValueError, r"values must have shape \(4,\), the channels of x"),
        ({"values": None}, TypeError, "values must be"),
        ({"padding": -1}, ValueError, "padding must be at least 0, got -1"),
        ({"padding": 1.5}, TypeError, "padding must be a whole number, got 1.5"),
        (
            {"padding": (1, 2, 3)},
            ValueError,
            r"padding must be one number, or 1, one for each spatial axis, got \(1, 2",
        ),
        ({"padding": "same"}, TypeError, "padding must be a whole number, got 'same'"),
        ({"layout": "CNL"}, ValueError, "layout must be"),
    ],
)
def test_wrong_surroundings(change, error, match):
    with pytest.raises(error, match=match):
        cpubn.surround(**{"x": np.ones((2, 4, 5)), "padding": 1, "values": np.ones(4)} | change)


@pytest.mark.parametrize("shape", [(5, 4), (2, 3, 4), (2, 3, 1, 4)])
def test_data_of_linear_layers_has_its_channels_last(shape):
    x, bn = RNG.normal(size=shape), norm_of(6, "NHWC")
    folded = cpubn.fold_linear(MATRIX, BIAS, bn)
    assert 0.0 < cpubn.verify_fold(MATRIX, BIAS, bn, folded, 1e3 * x) < 1e-10
    before = norm_of(4, "NHWC")
    folded = cpubn.fold_into_next_linear(MATRIX, BIAS, before)
    assert cpubn.verify_fold(MATRIX, BIAS, before, folded, x, norm_first=True) < 1e-13
    if len(shape) > 2:
        with pytest.raises(ValueError, match=r"x must have .*(channels on axis 1|\(N, L, C\) with bn of layout NHWC)"):
            cpubn.verify_fold(MATRIX, BIAS, norm_of(6), cpubn.fold_linear(MATRIX, BIAS, norm_of(6)), x)


@pytest.mark.parametrize("pooling", ["average", "max"])
def test_a_fold_passes_pooling(pooling):
    after, before = norm_of(6, **positive), norm_of(4, **positive)
    folded = cpubn.fold_conv(WEIGHT, BIAS, after, **FORM, pooling=pooling)
    assert cpubn.verify_fold(WEIGHT, BIAS, after, folded, **FORM, padding=1, pooling=pooling) < 1e-13
    folded = cpubn.fold_into_next_conv(WEIGHT, BIAS, before, **FORM, pooling=pooling)
    how = FORM | {"norm_first": True, "padding": ((1, 0), (0, 1)), "pooling": pooling}
    assert cpubn.verify_fold(WEIGHT, BIAS, before, folded, **how) < 1e-13


def test_a_maximum_is_passed_by_no_negative_weight():
    zero, negative = norm_of(6, weight=(slice(None), 0.0)), norm_of(6, weight=(slice(None), -1.0))
    folded = cpubn.fold_conv(WEIGHT, BIAS, zero, **FORM, pooling="max")
    assert cpubn.verify_fold(WEIGHT, BIAS, zero, folded, **FORM, pooling="max") < 1e-13
    folded = cpubn.fold_conv(WEIGHT, BIAS, negative, **FORM, pooling="average")
    assert cpubn.verify_fold(WEIGHT, BIAS, negative, folded, **FORM, pooling="average") < 1e-13
    assert cpubn.verify_fold(WEIGHT, BIAS, negative, folded, **FORM, pooling="max") > 0.1
    match = r"bn must have no negative weight to pass a max pooling, .*got scale -\S+ in channel 0; keep bn"
    with pytest.raises(ValueError, match=match):
        cpubn.fold_conv(WEIGHT, BIAS, negative, **FORM, pooling="max")
    with pytest.raises(ValueError, match=match):
        cpubn.fold_into_next_conv(WEIGHT, BIAS, norm_of(4, weight=(0, -1.0)), **FORM, pooling="max")
    for pooling in ("min", 1, ["max"]):
        with pytest.raises(ValueError, match="pooling must be 'average', 'max' or None, got"):
            cpubn.fold_conv(WEIGHT, BIAS, zero, **FORM, pooling=pooling)
    with pytest.raises(ValueError, match="pooling must be None beside a linear layer"):
        cpubn.verify_fold(MATRIX, BIAS, zero, (MATRIX, BIAS), pooling="max")
    with pytest.raises(ValueError, match="at least 2 positions on each axis to pool, got spatial shape"):
        cpubn.verify_fold(WEIGHT, BIAS, zero, (WEIGHT, BIAS), np.ones((1, 4, 3, 4)), **FORM, pooling="max")
