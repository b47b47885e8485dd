"""Tensors of torch and arrays of JAX where NumPy's arrays stand: read, written to, and given back."""

import warnings

import numpy as np
import pytest
from conftest import need_library

import cpubn

for name in ("torch", "jax"):
    need_library(name, "frameworks")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of its own imports
    import jax.numpy as jnp
    import torch

C = 5
RNG = np.random.default_rng(0)
X, DY = RNG.normal(3, 2, (2, 4, C, 6, 7)).astype(np.float32)
MEAN, WEIGHT, BIAS = RNG.normal(size=(3, C)).astype(np.float32)
VAR = RNG.uniform(0.5, 2, C).astype(np.float32)
VECTORS = MEAN, VAR, WEIGHT, BIAS
T, DT, TVECTORS = torch.from_numpy(X), torch.from_numpy(DY), tuple(map(torch.from_numpy, VECTORS))


def same(got, expected):
    assert isinstance(got, torch.Tensor)
    got = got.view(torch.int16).numpy().view(expected.dtype) if got.dtype == torch.bfloat16 else got.numpy()
    np.testing.assert_array_equal(got, expected, strict=True)


def bfloat16(a):
    return torch.from_numpy(a).bfloat16()


def test_what_is_read_may_be_tensors(backend):
    expected = cpubn.batch_norm(X, *VECTORS, residual=DY, activation="relu", backend=backend)
    got = cpubn.batch_norm(T, *TVECTORS, residual=DT, activation="relu", backend=backend)
    np.testing.assert_array_equal(got, expected, strict=True)
    assert cpubn.moments(T, backend=backend) == cpubn.moments(X, backend=backend)


def test_what_is_written_to_may_be_tensors_which_are_returned(backend):
    running, expected = [torch.zeros(C), torch.ones(C, dtype=torch.float64)], [np.zeros(C, np.float32), np.ones(C)]
    out, options = torch.empty_like(T), {"training": True, "return_moments": True, "backend": backend}
    y, batch = cpubn.batch_norm(T, *running, out=out, **options)
    same(out, cpubn.batch_norm(X, *expected, **options)[0])
    assert y is out
    for got, values in zip(running, expected, strict=True):
        same(got, values)
    dx, *_ = cpubn.batch_norm_backward(DT, T, batch, batch.var(), TVECTORS[2], out=out, backend=backend)
    same(out, cpubn.batch_norm_backward(DY, X, batch, batch.var(), WEIGHT, backend=backend)[0])
    assert dx is out


def test_a_layer_and_a_frozen_one_return_the_tensor_that_they_wrote_to(backend):
    layer, out = cpubn.BatchNorm2d(C, activation="relu", backend=backend), torch.empty_like(T)
    layer.weight = TVECTORS[2]
    assert layer(T, out=out) is out
    assert layer.backward(DT, out=out) is out
    layer.eval()
    assert layer(T, out=out) is out
    assert layer.freeze()(T, out=out) is out
    same(out, layer.freeze()(X))
    assert np.shares_memory(layer.weight, WEIGHT)


def test_like_gives_the_kind_of_array_that_x_is(backend):
    running = cpubn.batch_norm(T, None, None, training=True, return_moments=True, like=T, backend=backend)
    same(running[0], cpubn.batch_norm(X, None, None, training=True, backend=backend))
    same(cpubn.batch_norm(T, *TVECTORS, like=T, backend=backend), cpubn.batch_norm(X, *VECTORS, backend=backend))
    statistics = MEAN, VAR, WEIGHT
    gradients = cpubn.batch_norm_backward(DT, T, *statistics, residual=DT, activation="relu", like=T, backend=backend)
    expected = cpubn.batch_norm_backward(DY, X, *statistics, residual=DY, activation="relu", backend=backend)
    for got, values in zip(gradients, expected, strict=True):
        same(got, values)
    assert type(cpubn.batch_norm(T, *TVECTORS, like=X, backend=backend)) is np.ndarray


def test_strides_of_tensors_stay(backend):
    last = T.contiguous(memory_format=torch.channels_last)
    y = cpubn.batch_norm(last, *TVECTORS, like=last, backend=backend)
    assert y.stride() == last.stride()
    torch.testing.assert_close(y, T.new_tensor(cpubn.batch_norm(X, *VECTORS)))
    part = cpubn.batch_norm(last[::2, :, 1:, ::3], *TVECTORS, backend=backend)
    np.testing.assert_array_equal(part, y[::2, :, 1:, ::3].numpy())


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64"])
def test_tensors_of_other_types(backend, dtype):
    x, vectors = T.to(getattr(torch, dtype)), [bfloat16(v) for v in VECTORS]
    assert cpubn.batch_norm(x, *vectors, backend=backend).dtype == dtype
    out = torch.empty_like(x)
    y = cpubn.batch_norm(x, *vectors, out=out, backend=backend)
    assert y is out
    torch.testing.assert_close(y, cpubn.batch_norm(x, *vectors, like=x, backend=backend), rtol=0, atol=0)
    torch.testing.assert_close(
        y, torch.nn.functional.batch_norm(x.float(), *(v.float() for v in vectors)).to(x.dtype), rtol=1e-2, atol=1e-2
    )


@pytest.mark.parametrize("x", [jnp.asarray(X), jnp.asarray(X).astype(jnp.bfloat16)], ids=["float32", "bfloat16"])
def test_arrays_of_jax(backend, x):
    y = cpubn.batch_norm(x, *map(jnp.asarray, VECTORS), like=x, backend=backend)
    assert (type(y), y.dtype) == (type(x), x.dtype)
    np.testing.assert_array_equal(np.asarray(y), cpubn.batch_norm(np.asarray(x), *VECTORS, backend=backend))
    with pytest.raises(ValueError, match=r"running_mean must be writeable.*read-only"):
        cpubn.batch_norm(x, jnp.zeros(C), jnp.ones(C), training=True, backend=backend)


def test_arrays_of_jax_are_not_written_to(backend):
    with pytest.raises(ValueError, match=r"out must be writeable.*read-only"):
        cpubn.batch_norm(X, *VECTORS, out=jnp.asarray(X), backend=backend)


NEGATED = torch.conj(torch.ones(4, C, dtype=torch.complex64)).imag
REFUSED = {
    "x that requires a gradient": ({"x": T.clone().requires_grad_()}, r"x must be an array.*pass x\.detach\(\)"),
    "weight of a module": ({"weight": torch.nn.Parameter(TVECTORS[2])}, r"got Parameter: .*pass weight\.detach\(\)"),
    "out that requires one": ({"out": torch.empty(X.shape, requires_grad=True)}, r"got Tensor; pass out\.detach\(\)"),
    "sparse": ({"x": T.to_sparse()}, "x must be an array, got Tensor: can't convert Sparse"),
    "without data": ({"x": T.to("meta")}, "x must be an array, got Tensor: can't convert meta"),
    "negated": ({"x": NEGATED}, "x must be an array, got Tensor: .*negative bit"),
    "of another type": ({"x": T.to(torch.float8_e4m3fn)}, "x must be an array, got Tensor: .*Float8"),
    "truth values": ({"x": T > 0}, "x must be an array of float16.*, got .* of bool"),
    "like": ({"like": object()}, "like must be an array of NumPy, torch or.*, got object; leave it out"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_tensors_that_are_refused(backend, case):
    given, message = REFUSED[case]
    running = np.zeros(C), np.ones(C)
    call = {"x": T, "training": True, "backend": backend, "running_mean": running[0], "running_var": running[1]} | given
    with pytest.raises(TypeError, match=message):
        cpubn.batch_norm(**call)
    assert (running[0] == 0).all()
    assert (running[1] == 1).all()
