"""Vectors per channel of integers and half types: read exactly, by whatever takes a vector that it only reads."""

import cases
import numpy as np
import pytest
from conftest import need_library

import cpubn

TYPES = ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", ">i4", ">u8", "longlong", "float16"]
X = np.random.default_rng(0).normal(size=(4, 3, 5)).astype(np.float32)
MEAN, VAR, WEIGHT, BIAS = (np.array(v, float) for v in ([1, 0, 7], [4, 1, 100], [3, 2, 1], [0, 5, 11]))


@pytest.fixture(params=[*TYPES, "bfloat16", "list", "tuple"])
def cast(request):
    """What makes a vector of one type."""
    if request.param in ("list", "tuple"):
        return lambda v: {"list": list, "tuple": tuple}[request.param](map(int, v))
    if request.param == "bfloat16":
        need_library("ml_dtypes", "half")
        import ml_dtypes

        return lambda v: v.astype(ml_dtypes.bfloat16)
    return lambda v: v.astype(request.param)


def check_same(got, expected):
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_array_equal(a, b)


def test_functions(cast, backend):
    def results(cast):
        mean, var, weight, bias = map(cast, (MEAN, VAR, WEIGHT, BIAS))
        how = {"backend": backend}
        yield cpubn.batch_norm(X, mean, var, weight, bias, **how)
        yield cpubn.batch_norm(X, MEAN, var, None, bias, activation="relu", **how)
        yield cpubn.batch_norm(X, None, None, weight, bias, training=True, **how)
        running = MEAN.copy(), VAR.copy()
        yield cpubn.batch_norm(X, *running, weight, bias, training=True, out=np.empty_like(X), **how)
        yield from running
        for training in (True, False):
            yield from cpubn.batch_norm_backward(X, X, mean, var, weight, training=training, **how)
            act = {"activation": "silu", "training": training}
            yield from cpubn.batch_norm_backward(X, X, mean, var, weight, bias=bias, **act, **how)

    check_same(results(cast), results(lambda v: v))


def test_frozen_and_moments(cast, backend):
    given = MEAN, VAR, WEIGHT, BIAS
    frozen = cpubn.FrozenBatchNorm(**cases.named(*map(cast, given)), backend=backend)
    expected = cpubn.FrozenBatchNorm(**cases.named(*given), backend=backend)
    np.testing.assert_array_equal(frozen(X), expected(X))
    assert frozen.weight.dtype == frozen.running_mean.dtype == np.float64
    batch = cpubn.Moments(8, cast(MEAN), cast(VAR))
    assert batch == cpubn.Moments(8, MEAN, VAR)
    assert batch.mean.dtype == batch.m2.dtype == np.float64


def test_layers_read_and_load_them(cast, backend):
    bn, expected = (cpubn.BatchNorm1d(3, backend=backend).eval() for _ in range(2))
    state = {"weight": WEIGHT, "bias": BIAS, "running_mean": MEAN, "running_var": VAR}
    expected.load_state_dict(state)
    bn.load_state_dict({name: cast(v) for name, v in state.items()})
    check_same(bn.state_dict().values(), expected.state_dict().values())
    assert bn.running_mean.dtype == np.float64
    bn.weight, bn.running_mean = cast(WEIGHT), cast(MEAN)
    np.testing.assert_array_equal(bn(X), expected(X))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_every_half_is_read_exactly(dtype):
    if dtype == "bfloat16":
        need_library("ml_dtypes", "half")
        import ml_dtypes

        dtype = ml_dtypes.bfloat16
    v = np.arange(2**16, dtype=np.uint32).astype(np.uint16).view(dtype)
    with np.errstate(invalid="ignore"):
        v = v[np.isfinite(v)]
    frozen = cpubn.FrozenBatchNorm(**cases.named(np.zeros(v.size, np.int8), np.ones(v.size, np.int8), v))
    np.testing.assert_array_equal(frozen.weight, v.astype(np.float64))


@pytest.mark.parametrize(
    ("value", "dtype"), [(2**53, int), (2**60, int), (-(2**63), int), (2**63, "u8"), (2**64 - 2**11, "u8")]
)
def test_large_integers_that_float64_has(value, dtype, backend):
    mean = np.array([value, 0, 0], dtype)
    got = cpubn.batch_norm(X, mean, VAR, backend=backend)
    np.testing.assert_array_equal(got, cpubn.batch_norm(X, mean.astype(float), VAR, backend=backend))


@pytest.mark.parametrize(
    ("value", "dtype"), [(2**53 + 1, int), (-(2**53) - 1, int), (2**63 - 1, int), (2**64 - 1, "u8"), (2**53 + 1, list)]
)
def test_large_integers_that_it_has_not(value, dtype, backend):
    mean = [0, value, 0] if dtype is list else np.array([0, value, 0], dtype)
    match = rf"mean must hold whole numbers that float64 has, got {value}; round it first"
    for call in (
        lambda: cpubn.batch_norm(X, mean, VAR, backend=backend),
        lambda: cpubn.batch_norm_backward(X, X, mean, VAR, backend=backend),
        lambda: cpubn.FrozenBatchNorm(**cases.named(mean, VAR), backend=backend),
        lambda: cpubn.Moments(8, mean, VAR),
    ):
        with pytest.raises(ValueError, match=match):
            call()


@pytest.mark.parametrize("half", ["float16", "bfloat16", "float32", "float64"])
def test_a_state_of_torch(half):
    need_library("torch", "frameworks")
    import torch

    theirs = torch.nn.BatchNorm1d(3)
    with torch.no_grad():
        for name, v in {"weight": WEIGHT, "bias": BIAS, "running_mean": MEAN, "running_var": VAR}.items():
            getattr(theirs, name).copy_(torch.from_numpy(v))
    theirs = theirs.to(getattr(torch, half))
    theirs.num_batches_tracked.fill_(7)
    bn = cpubn.BatchNorm1d(3)
    for state in (theirs.state_dict(), dict(theirs.named_parameters()) | dict(theirs.named_buffers())):
        bn.reset_running_stats()
        bn.load_state_dict(state)
        assert bn.num_batches_tracked == 7
        check_same((bn.weight, bn.bias, bn.running_mean, bn.running_var), (WEIGHT, BIAS, MEAN, VAR))


def test_a_tensor_without_data_is_refused():
    need_library("torch", "frameworks")
    import torch

    bn = cpubn.BatchNorm1d(3)
    with pytest.raises(TypeError, match=r"weight must be an array, got Tensor: .*; pass an array of it"):
        bn.load_state_dict(bn.state_dict() | {"weight": torch.ones(3, device="meta")})
