"""What folding refuses: shapes, groups and norms that do not fit together, results that are not finite, other types."""

import bad
import cases
import numpy as np
import pytest
from folds import BIAS, FORM, MATRIX, RNG, WEIGHT, norm_of

import cpubn

HUGE, NAN = RNG.normal(size=(6, 2, 3, 2)), RNG.normal(size=(6, 2, 3, 2))
HUGE[5, 1, 2, 1], NAN[1, 0, 0, 0] = 6e4, np.nan
NOT_FINITE = {
    "weight beyond float16": (HUGE, norm_of(6, weight=(5, 9.0)), "weight .*float16.*got .* channel 5; .*wider dtype"),
    "bias beyond float16": (WEIGHT, norm_of(6, bias=(3, -1e5)), "bias .*float16.*got 99999.7 in channel 3; .*wider"),
    "weight of NaN": (NAN, norm_of(6), "weight must be finite .*got nan in channel 1; look there for NaN"),
    "weight of bn of NaN": (WEIGHT, norm_of(6, weight=(4, np.nan)), "weight .*got nan in channel 4; look"),
    "running_mean of inf": (WEIGHT, norm_of(6, running_mean=(2, np.inf)), "bias .*got inf in channel 2; look"),
    "running_var of NaN": (WEIGHT, norm_of(6, running_var=(0, np.nan)), "weight .*got nan in channel 0; look"),
}


@pytest.mark.parametrize(("weight", "bn", "match"), NOT_FINITE.values(), ids=list(NOT_FINITE))
def test_results_that_are_not_finite(weight, bn, match):
    with pytest.raises(ValueError, match=match):
        cpubn.fold_conv(weight.astype(np.float16), BIAS, bn, **FORM)


def test_results_before_a_layer_that_are_not_finite():
    half = WEIGHT.astype(np.float16)
    with pytest.raises(
        ValueError, match=r"pad value must be finite in float16.*got .*channel 2; fold a copy in a wider"
    ):
        cpubn.fold_into_next_conv(half, BIAS, norm_of(4, weight=(2, 1e-7)), **FORM)
    with pytest.raises(ValueError, match=r"weight must be finite in float16.*got .*channel 2; fold a copy in a wider"):
        cpubn.fold_into_next_conv(half, BIAS, norm_of(4, weight=(2, 1e6)), **FORM)
    with pytest.raises(ValueError, match=r"got inf in channel 1; look there for .* infinity in weight, bias and bn"):
        cpubn.fold_into_next_linear(MATRIX, BIAS, norm_of(4, weight=(1, np.inf)))


WEIGHTS = {kind: wrong for kind, wrong in bad.DATA.items() if kind != "half"}


@pytest.mark.parametrize("name", ["weight", "bias"])
@pytest.mark.parametrize(("value", "error", "match"), WEIGHTS.values(), ids=list(WEIGHTS))
def test_wrong_types(name, value, error, match):
    if name == "bias" and value is None:
        return
    with pytest.raises(error, match=f"{name} {match}"):
        cpubn.fold_linear(**{"weight": MATRIX, "bias": BIAS, "bn": norm_of(6)} | {name: value})


CONV = {
    "kernel_layout of images": (
        {"kernel_layout": "NCHW"},
        ValueError,
        "kernel_layout must be .*OIHW.*HWIO.*got 'NCHW'",
    ),
    "kernel_layout of a list": ({"kernel_layout": []}, ValueError, r"kernel_layout must be .*got \[\]"),
    "weight of rank 2": ({"weight": MATRIX}, ValueError, r"weight must have 3 to 5 dim.*got shape \(6, 4\); .*linear"),
    "weight of rank 6": ({"weight": np.ones((1,) * 6)}, ValueError, "weight must have 3 to 5 dimensions"),
    "groups 0": (
        {"groups": 0},
        ValueError,
        r"groups must divide the output channels, axis 0 .*groups=0 .*\(6, 2, 3, 2\)",
    ),
    "groups 4": ({"groups": 4}, ValueError, "groups must divide the output channels, axis 0 of weight, got groups=4"),
    "groups -1": ({"groups": -1}, ValueError, "groups must be at least 0, got -1"),
    "groups 2.0": ({"groups": 2.0}, TypeError, "groups must be a whole number, got 2.0"),
    "groups 4, transposed": ({"groups": 4, "transposed": True}, ValueError, "groups must divide the input channels"),
    "groups 3, HWIO": (
        {"groups": 3, "kernel_layout": "HWIO"},
        ValueError,
        "output channels, axis 3 of weight, got groups=3",
    ),
    "bias of the inputs": (
        {"bias": BIAS[:4]},
        ValueError,
        r"bias must have shape \(6,\), the output .*got \(4,\); pass",
    ),
    "bias of one": ({"bias": 0.5}, ValueError, r"bias must have shape \(6,\), the output channels .*got \(\)"),
    "bn of torch": ({"bn": object()}, TypeError, "bn must be a BatchNorm1d.*got object; build cpubn.FrozenBatchNorm"),
    "bn of 5": (
        {"bn": norm_of(5)},
        ValueError,
        r"bn must have 6 features, the output channels of weight \(shape \(6, 2, 3, 2\), groups=2, .*got 5; check",
    ),
    "bn without statistics": (
        {"bn": cpubn.BatchNorm2d(6, track_running_stats=False)},
        ValueError,
        "must have running statistics .*got one without",
    ),
}


@pytest.mark.parametrize(("change", "error", "match"), CONV.values(), ids=list(CONV))
def test_wrong_convolutions(change, error, match):
    with pytest.raises(error, match=match):
        cpubn.fold_conv(**{"weight": WEIGHT, "bias": BIAS, "bn": norm_of(6), "groups": 2} | change)


def test_wrong_norms_before_a_layer():
    match = (
        r"bn must have 4 features, the input channels of weight \(shape \(6, .*got 6; check which layer bn belongs to"
    )
    with pytest.raises(ValueError, match=match):
        cpubn.fold_into_next_conv(WEIGHT, BIAS, norm_of(6), **FORM)
    with pytest.raises(ValueError, match=match):
        cpubn.fold_into_next_linear(MATRIX, BIAS, norm_of(6))


@pytest.mark.parametrize("fold", [cpubn.fold_linear, cpubn.fold_into_next_linear])
def test_wrong_linear_layers(fold):
    with pytest.raises(ValueError, match=r"weight must have shape \(out, in\), got \(6, 2, 3, 2\); .*fold_conv"):
        fold(WEIGHT, BIAS, norm_of(6))


VERIFY = {
    "folded weight alone": (
        {"folded": (WEIGHT,)},
        TypeError,
        "folded must be .weight, bias. or .*got tuple; pass what",
    ),
    "a folded array": ({"folded": np.ones((2, 3))}, TypeError, "folded must be .weight, bias. or .*got ndarray; pass"),
    "another weight": (
        {"folded": (WEIGHT[:, :1], BIAS)},
        ValueError,
        r"folded weight must .*\(6, 2, .*got \(shape \(6, 1, ",
    ),
    "a pad of the outputs": (
        {"folded": (WEIGHT, BIAS, BIAS)},
        ValueError,
        r"pad must have shape \(4,\), the input .*got",
    ),
    "x of rank 3": ({"x": np.ones((2, 4, 5))}, ValueError, r"x must have 4 dimensions, .*got shape \(2, 4, 5\)"),
    "x of 5 channels": ({"x": np.ones((2, 5, 7, 7))}, ValueError, "x must have 4 channels on axis 1.*got 5"),
    "x of integers": ({"x": np.ones((2, 4, 7, 7), int)}, TypeError, "x must be an array of .*float32 or float64"),
    "x that is too small": (
        {"x": np.ones((2, 4, 2, 7))},
        ValueError,
        r"at least 1 position .*got spatial shape \(0, 6\)",
    ),
    "stride 0": ({"stride": 0}, ValueError, "stride must be at least 1, got 0"),
    "stride of three": ({"stride": (1, 1, 1)}, ValueError, r"stride must be one number, or 2, .*got \(1, 1, 1\)"),
    "padding 'full'": ({"padding": "full"}, ValueError, "padding must be numbers, 'same' or 'valid', got 'full'"),
    "padding of a pair": ({"padding": ((0, 1), 2)}, ValueError, r"padding must be .* pairs \(before, after\).*got"),
    "padding of a triple": (
        {"padding": ((0, 1, 2), (0, 1))},
        ValueError,
        r"padding must be .* pairs \(before, after\)",
    ),
    "padding of one pair": ({"padding": ((0, 1),)}, ValueError, r"padding must be one number, or 2 numbers or pairs"),
    "padding -1 after": ({"padding": ((0, -1), (0, 0))}, ValueError, "padding must be at least 0, got -1"),
    "pooling": ({"pooling": "min"}, ValueError, "pooling must be 'average', 'max' or None, got 'min'"),
    "padding -1": ({"padding": (0, -1)}, ValueError, "padding must be at least 0, got -1"),
    "dilation 1.5": ({"dilation": 1.5}, TypeError, "dilation must be a whole number, got 1.5"),
    "output_padding": ({"output_padding": 1}, ValueError, "output_padding must be 0 where transposed=False, got 1"),
}


@pytest.mark.parametrize(("change", "error", "match"), VERIFY.values(), ids=list(VERIFY))
def test_wrong_verifications(change, error, match):
    arguments = {"weight": WEIGHT, "bias": BIAS, "bn": norm_of(6), "folded": (WEIGHT, BIAS), "groups": 2}
    with pytest.raises(error, match=match):
        cpubn.verify_fold(**arguments | change)


def test_a_quantized_norm_is_refused():
    numbers = {"scale": 0.1, "zero_point": 0, "out_scale": 0.1, "out_zero_point": 0}
    bn = cpubn.FrozenBatchNorm.quantized(**cases.named(np.zeros(6), np.ones(6)), **numbers)
    with pytest.raises(ValueError, match=r"bn must not be quantized.*build cpubn\.FrozenBatchNorm"):
        cpubn.fold_conv(WEIGHT, BIAS, bn)
