"""The convolution that verifies beside those of torch and Keras, where they count the padding; and their pooling."""

import os
import warnings

import numpy as np
import pytest
from conftest import need_library
from folds import norm_of

import cpubn
from cpubn.folding.convolution import Geometry, convolve
from cpubn.folding.layer import AffineLayer

os.environ.setdefault("KERAS_BACKEND", "numpy")
for name in ("keras", "torch"):
    need_library(name, "frameworks")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of their own imports
    import keras
    import torch
    from torch.nn import functional

RNG = np.random.default_rng(0)
EXACT = {"rtol": 1e-12, "atol": 1e-12}


def ours(x, weight, transposed=False, kernel_layout="OIHW", **geometry):
    layer = AffineLayer.conv(weight, None, 1, transposed, kernel_layout)
    how = {"stride": 1, "padding": "same", "dilation": 1, "output_padding": 0} | geometry
    return convolve(x, layer, Geometry.of(layer.grouped.shape[3:], **how, transposed=transposed), np.zeros(x.shape[1]))


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("dilation", [1, 2, (2, 1)])
@pytest.mark.parametrize("kernel", [(3, 3), (2, 4), (1, 5)])
def test_same_as_torch_has_it(kernel, dilation):
    x, weight = RNG.normal(size=(2, 3, 7, 8)), RNG.normal(size=(4, 3, *kernel))
    expected = functional.conv2d(torch.from_numpy(x), torch.from_numpy(weight), padding="same", dilation=dilation)
    np.testing.assert_allclose(ours(x, weight, dilation=dilation), expected.numpy(), **EXACT)


@pytest.mark.parametrize("size", [(7, 8), (6, 9), (4, 5)])
@pytest.mark.parametrize("stride", [(1, 1), (2, 2), (3, 2)])
@pytest.mark.parametrize("kernel", [(3, 3), (2, 4), (1, 5)])
@pytest.mark.parametrize("transposed", [False, True])
def test_same_as_keras_has_it(transposed, kernel, stride, size):
    x, weight = RNG.normal(size=(2, 3, *size)), RNG.normal(size=(*kernel, 3, 4))
    run = keras.ops.conv_transpose if transposed else keras.ops.conv
    given = weight.swapaxes(-1, -2) if transposed else weight  # Keras's transposed kernels are (*kernel, out, in)
    expected = run(x.transpose(0, 2, 3, 1).astype(np.float32), given.astype(np.float32), strides=stride, padding="same")
    got = ours(x, given, transposed, "HWIO", stride=stride)
    np.testing.assert_allclose(got.transpose(0, 2, 3, 1), np.asarray(expected), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("pads", [((1, 0), (0, 2)), ((3, 1), (0, 0))])
def test_pads_that_differ_as_torch_pads(pads):
    x, weight = RNG.normal(size=(2, 3, 7, 8)), RNG.normal(size=(4, 3, 3, 2))
    wide = functional.pad(torch.from_numpy(x), (*pads[1], *pads[0]))
    expected = functional.conv2d(wide, torch.from_numpy(weight), stride=2).numpy()
    np.testing.assert_allclose(ours(x, weight, padding=pads, stride=2), expected, **EXACT)
    uncut = functional.conv_transpose2d(torch.from_numpy(x), torch.from_numpy(weight.swapaxes(0, 1).copy()), stride=2)
    (b, a), (left, right) = pads
    cut = uncut[:, :, b : uncut.shape[2] - a, left : uncut.shape[3] - right].numpy()
    np.testing.assert_allclose(ours(x, weight.swapaxes(0, 1), True, padding=pads, stride=2), cut, **EXACT)


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("pooling", ["average", "max"])
def test_a_fold_past_a_pooling_layer_of_torch(pooling, first):
    run = {"average": functional.avg_pool2d, "max": functional.max_pool2d}[pooling]
    x, weight = RNG.normal(size=(2, 4, 9, 8)), RNG.normal(size=(6, 4, 3, 3))
    bn = norm_of(4 if first else 6, weight=(slice(None), 0.7))

    def norm(z):
        vectors = map(torch.tensor, (bn.running_mean, bn.running_var, bn.weight, bn.bias))
        return functional.batch_norm(z, *vectors, eps=bn.eps)

    data, kernel = torch.from_numpy(x), torch.from_numpy(weight)
    if first:
        folded = cpubn.fold_into_next_conv(weight, None, bn, pooling=pooling)
        expected = functional.conv2d(run(norm(data), 3, 2), kernel, padding=1)
        around = cpubn.surround(run(data, 3, 2).numpy(), 1, folded[2])
        got = functional.conv2d(torch.from_numpy(around), *map(torch.from_numpy, folded[:2]))
    else:
        folded = cpubn.fold_conv(weight, None, bn, pooling=pooling)
        expected = norm(run(functional.conv2d(data, kernel), 3, 2))
        got = run(functional.conv2d(data, *map(torch.from_numpy, folded)), 3, 2)
    np.testing.assert_allclose(got.numpy(), expected.numpy(), **EXACT)
