"""Folded layers beside torch's layers and batch norm; and beside torch's fusion, where that is right."""

import itertools

import cases
import numpy as np
import pytest
from conftest import need_library

import cpubn
from cpubn.folding.convolution import Geometry, convolve
from cpubn.folding.layer import AffineLayer

need_library("torch", "frameworks")

import torch
from torch.nn import functional
from torch.nn.utils import fusion

CONV = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}
CONV_TRANSPOSE = {1: functional.conv_transpose1d, 2: functional.conv_transpose2d, 3: functional.conv_transpose3d}
KERNEL = {1: (3,), 2: (3, 2), 3: (2, 3, 1)}
SIZE = {1: (11,), 2: (7, 8), 3: (6, 7, 5)}
CHANNELS = {
    "plain": (1, 4, 6),
    "grouped": (2, 4, 6),
    "depthwise": (4, 4, 4),
    "multiplied": (4, 4, 8),
}  # groups, in, out
EXACT = {"rtol": 1e-12, "atol": 1e-12}

ranks = pytest.mark.parametrize("rank", [1, 2, 3])
channels = pytest.mark.parametrize("channels", CHANNELS.values(), ids=list(CHANNELS))
transposition = pytest.mark.parametrize("transposed", [False, True], ids=["conv", "transposed"])
layouts = pytest.mark.parametrize("kernel_layout", ["OIHW", "HWIO"])


def norm_of(features, affine=True, dead_bias=0.7):
    """One weight is zero, one negative; `dead_bias` stands beside the zero."""
    rng = np.random.default_rng(features)
    weight, bias = rng.normal(size=(2, features))
    weight[0], weight[1], bias[0] = 0.0, -1.3, dead_bias
    mean, var = rng.normal(size=features), rng.uniform(0.2, 3.0, features)
    given = cases.named(mean, var, *((weight, bias) if affine else ()))
    return cpubn.FrozenBatchNorm(**given, eps=1e-3)


def layer_of(rank, channels, transposed, biased):
    """Weight and bias as torch keeps them."""
    groups, inputs, outputs = channels
    rng = np.random.default_rng(rank)
    first, second = (inputs, outputs) if transposed else (outputs, inputs)
    weight = rng.normal(size=(first, second // groups, *KERNEL[rank]))
    return weight, rng.normal(size=outputs) if biased else None


def data_of(rank, inputs):
    return np.random.default_rng(0).normal(2.0, 3.0, (2, inputs, *SIZE[rank]))


def geometries(transposed):
    """Each stride, padding and dilation with each other; a transposed one also with output padding."""
    for stride, padding, dilation in itertools.product((1, 2), (0, 1), (1, 2)):
        chosen = {"stride": stride, "padding": padding, "dilation": dilation}
        yield chosen
        if transposed and max(stride, dilation) > 1:
            yield chosen | {"output_padding": 1}


def torch_conv(x, weight, bias, transposed, **geometry):
    function = (CONV_TRANSPOSE if transposed else CONV)[x.ndim - 2]
    arguments = [None if a is None else torch.from_numpy(np.ascontiguousarray(a)) for a in (x, weight, bias)]
    return function(*arguments, **geometry).numpy()


def torch_norm(x, bn):
    vectors = map(torch.tensor, (bn.running_mean, bn.running_var, bn.weight, bn.bias))
    return functional.batch_norm(torch.from_numpy(x), *vectors, eps=bn.eps).numpy()


def in_layout(weight, kernel_layout):
    """torch's weight in a layout."""
    return weight if kernel_layout == "OIHW" else weight.transpose(*range(2, weight.ndim), 1, 0)


def in_torch(weight, kernel_layout):
    return weight if kernel_layout == "OIHW" else weight.transpose(-1, -2, *range(weight.ndim - 2))


def surrounded(x, widths, pad):
    """x with a width of `pad` on each side of each spatial axis."""
    wide = np.empty((*x.shape[:2], *(n + 2 * w for n, w in zip(x.shape[2:], widths, strict=True))))
    wide[...] = pad.reshape(-1, *(1,) * len(widths))
    wide[(..., *(slice(w, w + n) for n, w in zip(x.shape[2:], widths, strict=True)))] = x
    return wide


@layouts
@transposition
@channels
@ranks
def test_after_a_convolution(rank, channels, transposed, kernel_layout):
    groups, inputs, outputs = channels
    x = data_of(rank, inputs)
    for biased, affine in itertools.product((True, False), repeat=2):
        weight, bias = layer_of(rank, channels, transposed, biased)
        bn = norm_of(outputs, affine)
        form = {"groups": groups, "transposed": transposed, "kernel_layout": kernel_layout}
        folded, folded_bias = cpubn.fold_conv(in_layout(weight, kernel_layout), bias, bn, **form)
        folded = in_torch(folded, kernel_layout)
        for geometry in geometries(transposed):
            got = torch_conv(x, folded, folded_bias, transposed, groups=groups, **geometry)
            expected = torch_norm(torch_conv(x, weight, bias, transposed, groups=groups, **geometry), bn)
            np.testing.assert_allclose(got, expected, **EXACT)


@layouts
@channels
@ranks
def test_before_a_convolution(rank, channels, kernel_layout):
    groups, inputs, _ = channels
    x = data_of(rank, inputs)
    for biased, affine in itertools.product((True, False), repeat=2):
        weight, bias = layer_of(rank, channels, False, biased)
        bn = norm_of(inputs, affine, dead_bias=0.0)
        folded, folded_bias, pad = cpubn.fold_into_next_conv(
            in_layout(weight, kernel_layout), bias, bn, groups=groups, kernel_layout=kernel_layout
        )
        folded = in_torch(folded, kernel_layout)
        for geometry in geometries(False):
            wide, unpadded = surrounded(x, (geometry["padding"],) * rank, pad), geometry | {"padding": 0}
            got = torch_conv(wide, folded, folded_bias, False, groups=groups, **unpadded)
            expected = torch_conv(torch_norm(x, bn), weight, bias, False, groups=groups, **geometry)
            np.testing.assert_allclose(got, expected, **EXACT)


@ranks
def test_before_a_convolution_without_padding_a_dead_channel_is_constant(rank):
    weight, bias = layer_of(rank, CHANNELS["grouped"], False, True)
    bn, x = norm_of(4), data_of(rank, 4)
    *folded, pad = cpubn.fold_into_next_conv(weight, bias, bn, groups=2, zero_padding=False)
    assert pad is None
    got = torch_conv(x, *folded, False, groups=2)
    np.testing.assert_allclose(got, torch_conv(torch_norm(x, bn), weight, bias, False, groups=2), **EXACT)


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
def test_padding_by_values_of_x_needs_no_pad_value(mode):
    weight, bias = layer_of(2, CHANNELS["plain"], False, True)
    bn, x = norm_of(4), data_of(2, 4)

    def pad(a):
        return functional.pad(torch.from_numpy(a), (1, 1, 1, 1), mode=mode).numpy()

    *folded, _ = cpubn.fold_into_next_conv(weight, bias, bn, zero_padding=False)
    got = torch_conv(pad(x), *folded, False)
    np.testing.assert_allclose(got, torch_conv(pad(torch_norm(x, bn)), weight, bias, False), **EXACT)


@layouts
@channels
@ranks
def test_before_a_transposed_convolution_of_stride_1(rank, channels, kernel_layout):
    groups, inputs, _ = channels
    x, bn = data_of(rank, inputs), norm_of(inputs, dead_bias=0.0)
    weight, bias = layer_of(rank, channels, True, True)
    form = {"groups": groups, "transposed": True, "kernel_layout": kernel_layout}
    folded, folded_bias, pad = cpubn.fold_into_next_conv(in_layout(weight, kernel_layout), bias, bn, stride=1, **form)
    folded = in_torch(folded, kernel_layout)
    for geometry in geometries(True):
        if geometry["stride"] == 1:
            extra, padding = geometry.get("output_padding", 0), geometry["padding"]
            widths = [geometry["dilation"] * (k - 1) + extra for k in KERNEL[rank]]
            cut = geometry | {"padding": [padding + w for w in widths]}
            got = torch_conv(surrounded(x, widths, pad), folded, folded_bias, True, groups=groups, **cut)
            expected = torch_conv(torch_norm(x, bn), weight, bias, True, groups=groups, **geometry)
            np.testing.assert_allclose(got, expected, **EXACT)


@channels
@ranks
def test_before_a_transposed_convolution_of_any_stride_a_scale_folds(rank, channels):
    groups, inputs, _ = channels
    x, vectors = data_of(rank, inputs), norm_of(inputs)
    zeros = np.zeros(inputs)
    bn = cpubn.FrozenBatchNorm(**cases.named(zeros, vectors.running_var, vectors.weight, zeros))
    weight, bias = layer_of(rank, channels, True, True)
    *folded, pad = cpubn.fold_into_next_conv(weight, bias, bn, groups=groups, transposed=True)
    np.testing.assert_array_equal(pad, zeros)
    for geometry in geometries(True):
        got = torch_conv(x, *folded, True, groups=groups, **geometry)
        expected = torch_conv(torch_norm(x, bn), weight, bias, True, groups=groups, **geometry)
        np.testing.assert_allclose(got, expected, **EXACT)


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("biased", [True, False])
def test_linear_layers(biased, affine):
    rng = np.random.default_rng(0)
    weight, bias, x = rng.normal(size=(5, 3)), rng.normal(size=5) if biased else None, rng.normal(size=(6, 3))

    def linear(x, weight, bias):
        return functional.linear(*(None if a is None else torch.from_numpy(a) for a in (x, weight, bias))).numpy()

    after, before = norm_of(5, affine), norm_of(3, affine)
    got = linear(x, *cpubn.fold_linear(weight, bias, after))
    np.testing.assert_allclose(got, torch_norm(linear(x, weight, bias), after), **EXACT)
    got = linear(x, *cpubn.fold_into_next_linear(weight, bias, before))
    np.testing.assert_allclose(got, linear(torch_norm(x, before), weight, bias), **EXACT)


def test_a_linear_layer_over_a_flattened_input_is_a_convolution():
    rng = np.random.default_rng(0)
    weight, bias, x, bn = rng.normal(size=(5, 48)), rng.normal(size=5), rng.normal(size=(6, 4, 3, 4)), norm_of(4)
    folded, folded_bias, _ = cpubn.fold_into_next_conv(weight.reshape(5, 4, 3, 4), bias, bn, zero_padding=False)
    got = x.reshape(6, 48) @ folded.reshape(5, 48).T + folded_bias
    np.testing.assert_allclose(got, torch_norm(x, bn).reshape(6, 48) @ weight.T + bias, **EXACT)


def fused(function, weight, bias, bn, **options):
    arrays = (weight, bias, bn.running_mean, bn.running_var, bn.eps, bn.weight, bn.bias)
    tensors = [torch.tensor(a) if isinstance(a, np.ndarray) else a for a in arrays]
    return [tensor.detach().numpy() for tensor in function(*tensors, **options)]


FUSED = [(name, False) for name in CHANNELS] + [("plain", True)]  # the next test shows why no other is transposed


@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize(("name", "transposed"), FUSED)
@ranks
def test_torch_fuses_the_same(rank, name, transposed, biased):
    channels = groups, _, outputs = CHANNELS[name]
    weight, bias = layer_of(rank, channels, transposed, biased)
    bn = norm_of(outputs)
    got = cpubn.fold_conv(weight, bias, bn, groups=groups, transposed=transposed)
    expected = fused(fusion.fuse_conv_bn_weights, weight, bias, bn, transpose=transposed)
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-13, atol=1e-13)


def test_torch_fuses_linear_layers_the_same():
    weight, bias, bn = np.random.default_rng(0).normal(size=(5, 3)), np.arange(5.0), norm_of(5)
    for a, b in zip(
        cpubn.fold_linear(weight, bias, bn), fused(fusion.fuse_linear_bn_weights, weight, bias, bn), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-13, atol=1e-13)


@ranks
def test_torch_cannot_fuse_a_grouped_transposed_convolution(rank):
    """torch scales axis 1 by all of the output channels, where the weight holds those of one group."""
    weight, bias = layer_of(rank, CHANNELS["depthwise"], True, True)
    wrong, _ = fused(fusion.fuse_conv_bn_weights, weight, bias, norm_of(4), transpose=True)
    assert weight.shape[:2] == (4, 1)
    assert wrong.shape[:2] == (4, 4)
    got, _ = cpubn.fold_conv(weight, bias, norm_of(4), groups=4, transposed=True)
    assert got.shape == weight.shape  # and right: see above

    weight, bias = layer_of(rank, CHANNELS["grouped"], True, True)
    with pytest.raises(RuntimeError, match="must match the size"):
        fused(fusion.fuse_conv_bn_weights, weight, bias, norm_of(6), transpose=True)
    folded = cpubn.fold_conv(weight, bias, norm_of(6), groups=2, transposed=True)
    assert cpubn.verify_fold(weight, bias, norm_of(6), folded, groups=2, transposed=True, stride=2) < 1e-12


@transposition
@channels
@ranks
def test_the_convolution_that_verifies(rank, channels, transposed):
    groups, inputs, _ = channels
    x = data_of(rank, inputs)
    weight, bias = layer_of(rank, channels, transposed, True)
    layer = AffineLayer.conv(weight, bias, groups, transposed, "OIHW")
    for geometry in geometries(transposed):
        numbers = {"output_padding": 0} | geometry
        got = convolve(x, layer, Geometry.of(KERNEL[rank], **numbers, transposed=transposed), np.zeros(inputs))
        expected = torch_conv(x, weight, bias, transposed, groups=groups, **geometry)
        np.testing.assert_allclose(got, expected, **EXACT)
