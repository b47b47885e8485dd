"""Quantized batch norm against its equation in long double: scales, zero points, saturation, activations, layouts."""

import copy
import pickle

import bad
import cases
import numpy as np
import oracle
import pytest
import views

import cpubn

SHAPES = [(1, 1), (5, 33), (2, 3, 7), (4, 6, 5, 8), (2, 3, 2, 3, 4)]
NUMBERS = {
    "int8": {"scale": 0.05, "zero_point": 3, "out_scale": 0.043, "out_zero_point": -7},
    "uint8": {"scale": 0.02, "zero_point": 131, "out_scale": 0.07, "out_zero_point": 120},
}


def vectors_of(channels):
    """running_mean, running_var, weight, bias in real units."""
    rng = cases.rng_of("quantized", channels)
    weight, bias = rng.normal(0, 1.5, (2, channels))
    return rng.normal(0, 1, channels), rng.uniform(0.5, 4, channels), weight, bias


def integers(shape, dtype):
    limits = np.iinfo(dtype)
    return cases.rng_of("quantized", shape).integers(limits.min, limits.max, shape, dtype, endpoint=True)


def real_values(x, vectors, numbers, activation=None, layout="NCHW"):
    """y in steps of out_scale above the lowest number, before it is rounded."""
    given = (oracle.long(x) - numbers["zero_point"]) * numbers["scale"]
    y = oracle.activation_of(activation).function(oracle.batch_norm(given, *vectors, layout=layout, dtype=np.float32).y)
    return y / oracle.long(numbers["out_scale"]) + numbers["out_zero_point"]


def check(got, steps):
    """The nearest whole number within the limits; of the two nearest where a rounding of float32 could tell."""
    limits = np.iinfo(got.dtype)
    nearest = np.clip(np.rint(steps), limits.min, limits.max)
    tie = abs(abs(steps - np.floor(steps)) - 0.5) < 1e-4 * (1 + abs(steps) / 100)
    assert (abs(got - nearest)[~tie] == 0).all()
    assert (abs(got - nearest) <= 1).all()


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_equation(shape, layout, dtype, backend):
    x, vectors = integers(shape, dtype), vectors_of(shape[1 if layout == "NCHW" else -1])
    for activation in (None, *(("gelu",) if backend == "numba" else cases.ACTIVATIONS)):
        bn = cpubn.FrozenBatchNorm.quantized(
            **cases.named(*vectors),
            **NUMBERS[dtype],
            dtype=dtype,
            layout=layout,
            activation=activation,
            backend=backend,
        )
        got = bn(x)
        assert got.dtype == dtype
        check(got, real_values(x, vectors, NUMBERS[dtype], activation, layout))
        out = np.empty_like(x)
        assert bn(x, out=out) is out
        np.testing.assert_array_equal(out, got)
        given = x.copy()
        assert bn(given, out=given) is given
        np.testing.assert_array_equal(given, got)


@pytest.mark.parametrize("out_scale", [1e-4, 1e-30, 1e-9])
@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_saturation(dtype, out_scale, backend):
    """Real numbers that are millions of steps, or infinitely many in float32, from zero."""
    x = integers((40, 5, 7), dtype)
    numbers = NUMBERS[dtype] | {"out_scale": out_scale}
    vectors = vectors_of(5)
    got = cpubn.FrozenBatchNorm.quantized(**cases.named(*vectors), **numbers, dtype=dtype, backend=backend)(x)
    check(got, real_values(x, vectors, numbers))
    limits = np.iinfo(dtype)
    assert set(np.unique(got)) >= {limits.min, limits.max}


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_ties_go_to_the_even_number(dtype, backend):
    """A step of the output is two of the input: every odd number is a tie."""
    x = integers((64, 1, 4), dtype)
    numbers = {"scale": 1.0, "zero_point": 2, "out_scale": 2.0, "out_zero_point": 4}
    bn = cpubn.FrozenBatchNorm.quantized(
        **cases.named(np.zeros(1), np.ones(1)), eps=0, **numbers, dtype=dtype, backend=backend
    )
    expected = np.clip(np.rint((x.astype(float) - 2) / 2 + 4), np.iinfo(dtype).min, np.iinfo(dtype).max)
    np.testing.assert_array_equal(bn(x), expected)


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_the_same_numbers_give_the_identity(dtype, backend):
    limits = np.iinfo(dtype)
    x = np.arange(limits.min, limits.max + 1).astype(dtype).reshape(-1, 1)
    for zero in (limits.min, 5, limits.max):
        numbers = {"scale": 0.037, "zero_point": zero, "out_scale": 0.037, "out_zero_point": zero}
        how = {"dtype": dtype, "backend": backend}
        bn = cpubn.FrozenBatchNorm.quantized(**cases.named(np.zeros(1), np.ones(1)), eps=0, **numbers, **how)
        np.testing.assert_array_equal(bn(x), x)


def test_relu_stops_at_the_zero_point(backend):
    x = integers((50, 6), "int8")
    how = {"activation": "relu", "backend": backend}
    got = cpubn.FrozenBatchNorm.quantized(**cases.named(*vectors_of(6)), **NUMBERS["int8"], **how)(x)
    plain = cpubn.FrozenBatchNorm.quantized(**cases.named(*vectors_of(6)), **NUMBERS["int8"], backend=backend)(x)
    np.testing.assert_array_equal(got, np.maximum(plain, NUMBERS["int8"]["out_zero_point"]))


def test_channels_that_are_no_number_become_the_lowest(backend):
    mean, var, weight, bias = vectors_of(6)
    bias[2] = np.nan
    got = cpubn.FrozenBatchNorm.quantized(**cases.named(mean, var, weight, bias), **NUMBERS["int8"], backend=backend)(
        integers((9, 6), "int8")
    )
    np.testing.assert_array_equal(got[:, 2], -128)


@pytest.mark.parametrize("name", [*views.STRIDES, *views.BROADCAST])
def test_any_strides(name, backend):
    """Of x and out."""
    x = views.make(name, np.dtype(np.int8))
    bn = cpubn.FrozenBatchNorm.quantized(**cases.named(*vectors_of(6)), **NUMBERS["int8"], backend=backend)
    expected = bn(np.ascontiguousarray(x))
    np.testing.assert_array_equal(bn(x), expected)
    if name in views.WRITABLE:
        assert bn(x, out=x) is x
        np.testing.assert_array_equal(x, expected)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda bn: pickle.loads(pickle.dumps(bn))])
def test_a_copy_gives_the_same(duplicate, backend):
    x = integers((9, 6), "int8")
    bn = cpubn.FrozenBatchNorm.quantized(
        **cases.named(*vectors_of(6)), **NUMBERS["int8"], activation="silu", backend=backend
    )
    np.testing.assert_array_equal(duplicate(bn)(x), bn(x))


def test_an_empty_batch(backend):
    bn = cpubn.FrozenBatchNorm.quantized(**cases.named(*vectors_of(6)), **NUMBERS["int8"], backend=backend)
    assert bn(np.empty((0, 6, 3), np.int8)).shape == (0, 6, 3)


GOOD = {"weight": None, "bias": None, "running_mean": np.zeros(3), "running_var": np.ones(3)} | NUMBERS["int8"]
MAKE = {
    f"{name} {value!r}": (name, value, error, f"{name} must .*got")
    for name in ("scale", "out_scale")
    for value, error in [(0, ValueError), (-1.0, ValueError), (np.nan, ValueError), (np.inf, ValueError),
                         ("1", TypeError), (None, TypeError), (True, TypeError)]
} | {
    f"{name} {value!r}": (name, value, error, f"{name} must be a whole number from -128 to 127, .*got")
    for name in ("zero_point", "out_zero_point")
    for value, error in [(128, ValueError), (-129, ValueError), (1.0, TypeError), (None, TypeError), (True, TypeError)]
} | {
    f"dtype {dtype!r}": ("dtype", dtype, TypeError, "dtype must be int8 or uint8, got .*pass")
    for dtype in ("int16", "float32", "quint8", None, *bad.NO_DTYPE)
}  # fmt: skip


@pytest.mark.parametrize(("name", "value", "error", "match"), MAKE.values(), ids=list(MAKE))
def test_numbers_that_are_refused(name, value, error, match):
    with pytest.raises(error, match=match):
        cpubn.FrozenBatchNorm.quantized(**GOOD | {name: value})


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        ({"x": np.zeros((4, 3), np.uint8)}, TypeError, "x must be an array of int8, got .*uint8"),
        ({"x": np.zeros((4, 3), np.float32)}, TypeError, "x must be an array of int8, got .*float32"),
        ({"x": np.zeros((4, 5), np.int8)}, ValueError, "x must have 3 channels .*got 5"),
        ({"residual": np.zeros((4, 3), np.int8)}, ValueError, "residual must be None .*got one"),
        ({"out": np.zeros((4, 3), np.float32)}, TypeError, "out must have .*int8, got float32"),
        ({"out": np.zeros((3, 4), np.int8)}, ValueError, r"out must have .*\(4, 3\), got \(3, 4\)"),
    ],
)
def test_calls_that_are_refused(call, error, match):
    with pytest.raises(error, match=match):
        cpubn.FrozenBatchNorm.quantized(**GOOD)(**{"x": np.zeros((4, 3), np.int8)} | call)
