"""What is fused into the pass over an array on a GPU: activations, residuals, functions of the user, quantization."""

import copy

import cases
import gpu
import numpy as np
import oracle
import pytest
import test_fused_backward
import test_quantized
from gpu import get, put
from numba import cuda

import cpubn

pytestmark = gpu.SILENT
SHAPE = (2, 3, 2, 5)
DTYPES = "float32", "float64", "float16", gpu.BFLOAT16


@cuda.jit(device=True)
def bent(z):
    """sqrt(z**2 + 1) + z / 2, nothing that has a name here."""
    return (z * z + 1) ** 0.5 + z / 2


@cuda.jit(device=True)
def bent_derivative(z):
    return z / (z * z + 1) ** 0.5 + 0.5


BENT = oracle.Activation(
    lambda z: np.sqrt(z * z + 1) + z / 2, lambda z: z / np.sqrt(z * z + 1) + oracle.long(0.5), 1.5, 1
)


@pytest.mark.parametrize(
    ("activation", "layout", "dtype", "training", "added"),
    [
        (activation, ("NCHW", "NHWC")[i % 2], DTYPES[i % 4], i % 3 > 0, i % 5 < 3)
        for i, activation in enumerate((None, *cases.ACTIVATIONS))
    ],
    ids=str,
)  # fmt: skip
def test_every_activation(activation, layout, dtype, training, added):
    computed_in = np.float64 if dtype == "float64" else np.float32
    x = cases.make("offset 1", SHAPE, layout).astype(dtype)
    running, (weight, bias) = cases.running(x.astype(float), layout), cases.vectors(3)
    residual = cases.make("offset 0", SHAPE, layout).astype(dtype) if added else None
    given = (None, None) if training else running
    plain = oracle.batch_norm(x, *given, weight, bias, layout=layout, dtype=computed_in)
    expected = oracle.fused(plain, activation, residual, dtype, computed_in)
    got = cpubn.batch_norm(
        put(x), *put((*running, weight, bias)),
        training=training, layout=layout, activation=activation, residual=put(residual),
    )  # fmt: skip
    assert get(got).dtype == dtype
    assert oracle.worst(get(got), expected.y, expected.bound) <= 1


@pytest.mark.parametrize("dtype", cases.DTYPES)
def test_a_function_of_the_users_own(dtype, monkeypatch):
    monkeypatch.setitem(oracle.ACTIVATIONS, "bent", lambda: BENT)
    dy, x, residual, vectors = test_fused_backward.arguments(SHAPE, "NCHW", dtype, "bent")
    expected = oracle.fused(oracle.batch_norm(x, *vectors), "bent", residual, dtype, dtype)
    for activation in (bent, (bent, bent_derivative)):
        got = cpubn.batch_norm(put(x), *put(vectors), activation=activation, residual=put(residual))
        assert oracle.worst(get(got), expected.y, expected.bound) <= 1
    pair = bent, bent_derivative
    got = test_fused_backward.backward(put(dy), put(x), put(vectors), activation=pair, residual=put(residual))
    test_fused_backward.check(get(got), dy, x, vectors, "bent", residual)
    bn = cpubn.BatchNorm2d(3, activation=pair).to_device()
    assert bn.backend == "cuda"
    got = bn(put(x), put(residual))
    expected = oracle.fused(oracle.batch_norm(x), "bent", residual, dtype, dtype)
    assert oracle.worst(get(got), expected.y, expected.bound) <= 1
    assert bn.backward(put(dy)).shape == x.shape


def test_a_function_of_the_users_own_needs_its_derivative_and_the_gpu():
    x, mean, var = (put(a) for a in (np.ones((4, 3), np.float32), np.zeros(3), np.ones(3)))
    with pytest.raises(ValueError, match="activation must come with its derivative"):
        cpubn.batch_norm_backward(x, x, mean, var, activation=bent)
    with pytest.raises(ValueError, match="x must be an array on a GPU for backend 'cuda', got ndarray"):
        cpubn.batch_norm(np.ones((4, 3), np.float32), np.zeros(3), np.ones(3), activation=bent)
    with pytest.raises(ValueError, match=r"backend must be 'cuda' for an activation of your own .*got 'numpy'"):
        cpubn.batch_norm(x, mean, var, activation=bent, backend="numpy")


@pytest.mark.parametrize(("dtype", "activation"), [("int8", None), ("uint8", "relu6"), ("int8", "gelu")])
def test_quantized_data(dtype, activation):
    x, vectors = test_quantized.integers(SHAPE, dtype), test_quantized.vectors_of(3)
    numbers = test_quantized.NUMBERS[dtype]
    how = {"dtype": dtype, "activation": activation}
    bn = cpubn.FrozenBatchNorm.quantized(**cases.named(*vectors), **numbers, **how).to_device()
    got = bn(put(x))
    assert gpu.is_ours(got)
    test_quantized.check(get(got), test_quantized.real_values(x, vectors, numbers, activation))
    given = put(x)
    assert bn(given, out=given) is given
    np.testing.assert_array_equal(get(given), get(got))


def test_a_function_of_the_users_own_stays_with_a_frozen_layer():
    frozen = cpubn.FrozenBatchNorm(**cases.named(*put((np.zeros(3), np.ones(3)))), activation=bent)
    with pytest.raises(ValueError, match=r"activation must be one that the host has, got .*compiled for a GPU"):
        frozen.to_host()
    again = copy.copy(frozen)
    x = np.ones((2, 3), np.float32)
    with pytest.raises(TypeError, match="the constants must be on GPU 0 like x"):
        again(put(x))
    np.testing.assert_array_equal(get(again.to_device()(put(x))), get(frozen(put(x))))


@pytest.mark.skipif(gpu.SIMULATED, reason="the simulator compiles nothing")
def test_a_function_that_does_not_compile():
    @cuda.jit(device=True)
    def wrong(z):
        return z + "a"

    @cuda.jit
    def kernel(z):
        z[0] = 1

    x = put(np.ones((4, 3), np.float32))
    with pytest.raises(TypeError, match=r"activation must be a function of one number that numba\.cuda compiles"):
        cpubn.batch_norm(x, None, None, training=True, activation=wrong)
    with pytest.raises(TypeError, match="activation must be a device function, got the kernel"):
        cpubn.batch_norm(x, None, None, training=True, activation=kernel)
