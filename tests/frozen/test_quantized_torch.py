"""Quantized batch norm beside torch's quantized::batch_norm2d and quantized::batch_norm2d_relu."""

import cases
import numpy as np
import pytest
from conftest import need_library
from test_quantized import NUMBERS, check, integers, real_values, vectors_of

import cpubn

need_library("torch", "frameworks")

import torch

pytestmark = pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor:UserWarning")
TORCH_TYPES = {"int8": torch.qint8, "uint8": torch.quint8}
EPS = 1e-5


def torch_result(x, vectors, numbers, relu):
    quantized = torch._make_per_tensor_quantized_tensor(torch.from_numpy(x), numbers["scale"], numbers["zero_point"])
    assert quantized.dtype == TORCH_TYPES[x.dtype.name]
    ops = torch.ops.quantized
    norm = {4: (ops.batch_norm2d, ops.batch_norm2d_relu), 5: (ops.batch_norm3d, ops.batch_norm3d_relu)}[x.ndim][relu]
    mean, var, weight, bias = (torch.tensor(v, dtype=torch.float32) for v in vectors)
    return (
        norm(quantized, weight, bias, mean, var, EPS, numbers["out_scale"], numbers["out_zero_point"])
        .int_repr()
        .numpy()
    )


@pytest.mark.parametrize("dtype", TORCH_TYPES)
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("shape", [(4, 6, 5, 8), (2, 64, 14, 14), (1, 3, 1, 1), (2, 5, 3, 4, 4)], ids=str)
def test_the_same_numbers_but_for_ties(shape, relu, dtype, backend):
    """torch folds in float32 and rounds there: where a number lies between two steps it may take the other one."""
    x, vectors = integers(shape, dtype), [v.astype(np.float32) for v in vectors_of(shape[1])]
    numbers = NUMBERS[dtype]
    how = {"dtype": dtype, "activation": "relu" if relu else None, "backend": backend}
    got = cpubn.FrozenBatchNorm.quantized(**cases.named(*vectors), eps=EPS, **numbers, **how)(x)
    expected = torch_result(x, vectors, numbers, relu)
    assert got.dtype == expected.dtype
    check(got, real_values(x, vectors, numbers, how["activation"]))
    steps = real_values(x, vectors, numbers, how["activation"])
    off = got.astype(int) != expected
    assert abs(got.astype(int) - expected).max() <= 1
    assert (abs(steps[off] - np.floor(steps[off]) - 0.5) < 1e-3).all()
    assert off.mean() < 1e-3


def test_saturation_is_the_same():
    x, vectors = integers((2, 6, 5, 8), "int8"), [v.astype(np.float32) for v in vectors_of(6)]
    numbers = NUMBERS["int8"] | {"out_scale": 1e-3}
    got = cpubn.FrozenBatchNorm.quantized(**cases.named(*vectors), eps=EPS, **numbers)(x)
    np.testing.assert_array_equal(got, torch_result(x, vectors, numbers, False))
    assert set(np.unique(got)) >= {-128, 127}


def test_ties_that_are_exact_in_float32_are_the_same():
    x = cases.rng_of("ties").integers(-128, 128, (3, 2, 8, 8)).astype(np.int8)
    numbers = {"scale": 1.0, "zero_point": 0, "out_scale": 2.0, "out_zero_point": 1}
    vectors = np.zeros(2, np.float32), np.full(2, 1 - EPS, np.float32), np.ones(2, np.float32), np.zeros(2, np.float32)
    got = cpubn.FrozenBatchNorm.quantized(**cases.named(*vectors), eps=EPS, **numbers)(x)
    np.testing.assert_array_equal(got, np.rint(x / 2 + 1))
    assert abs(got.astype(int) - torch_result(x, vectors, numbers, False)).max() <= 1
