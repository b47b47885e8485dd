"""The activations' accuracy against long double, their derivatives, special values, and bits under Numba."""

import numpy as np
import pytest
from conftest import need_backend

from cpubn.maths import activations, elementary

LOW, HIGH = -0.125, 2.5  # leaky_relu's slope, clip's bounds; numbers of either type
GRADIENTS = [f"{name}_gradient" for name in activations.NAMES]
FUNCTIONS = [*activations.NAMES, *GRADIENTS]
ELEMENTARY = ["exp", "tanh", "erf"]
REALS = [np.float32, np.float64]
long = np.longdouble
PI = 4 * np.arctan(long(1))

exact = pytest.mark.skipif(np.finfo(long).nmant < 63, reason="long double is double here")


def error_function(z):
    """2 / sqrt(pi) * exp(-z**2) * sum of 2**n * z**(2 * n + 1) / (2 * n + 1)!!: all terms have one sign."""
    x = np.clip(z, -6.5, 6.5)  # beyond, the sign of z to 4e-20
    term = total = x
    for n in range(1, 130):
        term = term * (2 * x * x) / (2 * n + 1)
        total = total + term
    return np.where(x == z, 2 / np.sqrt(PI) * np.exp(-x * x) * total, np.sign(z))


def bell(z):
    """Of exp(-|z|) = e: e / (1 + e)**2 = sigmoid(z) * (1 - sigmoid(z))."""
    e = np.exp(-abs(z))
    return e / (1 + e) ** 2


def logistic(z):
    return 1 / (1 + np.exp(-z))


def normal(z):
    return (1 + error_function(z / np.sqrt(long(2)))) / 2


def step(condition):
    return condition.astype(long)


EXPECTED = {
    "exp": np.exp,
    "erf": error_function,
    "tanh": np.tanh,
    "relu": lambda z: np.maximum(z, 0),
    "relu6": lambda z: np.clip(z, 0, 6),
    "leaky_relu": lambda z: np.where(z > 0, z, LOW * z),
    "hardswish": lambda z: z * (np.clip(z + 3, 0, 6) / 6),
    "silu": lambda z: z * logistic(z),
    "gelu": lambda z: z * normal(z),
    "sigmoid": logistic,
    "clip": lambda z: np.clip(z, LOW, HIGH),
    "relu_gradient": lambda z: step(z > 0),
    "relu6_gradient": lambda z: step((z > 0) & (z < 6)),
    "leaky_relu_gradient": lambda z: np.where(z > 0, 1, long(LOW)),
    "hardswish_gradient": lambda z: np.where(z <= -3, 0, np.where(z < 3, z / 3 + long(0.5), 1)),
    "silu_gradient": lambda z: logistic(z) + z * bell(z),
    "gelu_gradient": lambda z: normal(z) + z * np.exp(-z * z / 2) / np.sqrt(2 * PI),
    "sigmoid_gradient": bell,
    "tanh_gradient": lambda z: 4 * bell(2 * z),
    "clip_gradient": lambda z: step((z > LOW) & (z < HIGH)),
}


def call(name, z):
    with np.errstate(all="ignore"):
        if name in ("exp", "erf"):
            return getattr(elementary, name)(z)
        return getattr(activations, name)(z, z.dtype.type(LOW), z.dtype.type(HIGH))


def sweep(real):
    """Finite numbers of every magnitude and sign, and densely those where something happens."""
    if real is np.float32:
        everywhere = np.arange(0, 2**32, 20011, dtype=np.uint64).astype(np.uint32).view(np.float32)
        widest = -110.0, 95.0
    else:
        everywhere = np.random.default_rng(0).integers(0, 2**64, 50_000, dtype=np.uint64).view(np.float64)
        widest = -760.0, 715.0
    dense = [np.linspace(*ends, 50_001).astype(real) for ends in (widest, (-10.0, 10.0), (-1.25, 1.25))]
    return np.concatenate([everywhere[np.isfinite(everywhere)], *dense])


def ulp(a):
    """The distance from each number to the next larger in magnitude."""
    return np.spacing(np.minimum(abs(a), np.nextafter(np.finfo(a.dtype).max, 0))).astype(long)


def errors(name, real):
    """|got - expected| and an ulp of expected, where that is within the type; elsewhere got must be infinite too."""
    z = sweep(real)
    got = call(name, z)
    assert got.dtype == real
    with np.errstate(all="ignore"):
        expected = EXPECTED[name](z.astype(long))
        rounded = expected.astype(real)
    finite = np.isfinite(rounded)
    np.testing.assert_array_equal(got[~finite], rounded[~finite])
    return abs(got[finite].astype(long) - expected[finite]), ulp(rounded[finite])


@exact
@pytest.mark.parametrize("name", ELEMENTARY)
@pytest.mark.parametrize("real", REALS)
def test_exp_tanh_and_erf_are_within_two_ulp(name, real):
    error, unit = errors(name, real)
    assert np.max(error / unit) <= 2


@exact
@pytest.mark.parametrize("name", FUNCTIONS)
def test_float32_is_within_a_millionth_and_two_ulp(name):
    error, unit = errors(name, np.float32)
    assert np.max(error - 2 * unit) <= 1e-6


@exact
@pytest.mark.parametrize("name", FUNCTIONS)
def test_float64_is_within_a_thousand_trillionth_and_two_ulp(name):
    error, unit = errors(name, np.float64)
    assert np.max(error - 2 * unit) <= 1e-15


@pytest.mark.parametrize("name", activations.NAMES)
@pytest.mark.parametrize("real", REALS)
def test_nan_gives_nan(name, real):
    assert np.isnan(call(name, np.array([np.nan], real))).all()


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("real", REALS)
def test_finite_numbers_give_finite_numbers(name, real):
    largest = np.finfo(real).max
    assert np.isfinite(call(name, np.array([largest, -largest, largest / 2, -largest / 2], real))).all()


@pytest.mark.parametrize("real", REALS)
def test_special_values(real):
    z = np.array([np.inf, -np.inf, 0.0, -0.0], real)
    for name, expected in {
        "exp": [np.inf, 0.0, 1.0, 1.0],
        "tanh": [1.0, -1.0, 0.0, -0.0],
        "erf": [1.0, -1.0, 0.0, -0.0],
        "relu": [np.inf, 0.0, 0.0, -0.0],
        "relu6": [6.0, 0.0, 0.0, -0.0],
        "sigmoid": [1.0, 0.0, 0.5, 0.5],
        "clip": [HIGH, LOW, 0.0, -0.0],
        "sigmoid_gradient": [0.0, 0.0, 0.25, 0.25],
        "tanh_gradient": [0.0, 0.0, 1.0, 1.0],
    }.items():
        got = call(name, z)
        np.testing.assert_array_equal(got, expected, err_msg=name)
        np.testing.assert_array_equal(np.signbit(got), np.signbit(expected), err_msg=name)


def test_gelu_and_silu_vanish_far_below_zero():
    """Where 1 + erf is an ulp off zero, or 1 / (1 + exp(-z)) cannot be had, z multiplies what is left."""
    z = np.array([-10, -1e3, -1e10, -1e38], np.float32)
    np.testing.assert_array_equal(call("gelu", z), 0)
    np.testing.assert_array_equal(call("silu", z[1:]), 0)


@pytest.mark.parametrize(
    ("name", "z", "expected"),
    [  # torch's derivatives where there is none
        ("relu", 0.0, 0.0),
        ("relu6", 0.0, 0.0),
        ("relu6", 6.0, 0.0),
        ("leaky_relu", 0.0, LOW),
        ("hardswish", -3.0, 0.0),
        ("hardswish", 3.0, 1.0),
        ("clip", LOW, 0.0),
        ("clip", HIGH, 0.0),
    ],
)
@pytest.mark.parametrize("real", REALS)
def test_derivatives_at_kinks(name, z, expected, real):
    [got] = call(f"{name}_gradient", np.array([z], real))
    assert got == expected


@pytest.mark.parametrize("name", activations.NAMES)
def test_derivatives_are_those_of_the_activation(name):
    z = np.linspace(-7.03, 7.04, 1001)  # no kink lies within h of these
    h = 1e-5
    expected = (call(name, z + h) - call(name, z - h)) / (2 * h)
    np.testing.assert_allclose(call(f"{name}_gradient", z), expected, atol=1e-9, rtol=0)


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("real", REALS)
def test_numba_gives_the_same_bits(name, real):
    need_backend("numba")
    import numba

    from cpubn.backends.jit import formulas  # noqa: F401  what it registers

    function = getattr(activations, name)

    @numba.njit(error_model="numpy")
    def loop(z, low, high, y):
        for i in range(z.size):
            y[i] = function(z[i], low, high)

    z = np.concatenate([sweep(real), np.array([0.0, -0.0, np.inf, -np.inf, np.nan, -np.nan], real)])
    got = np.empty_like(z)
    loop(z, real(LOW), real(HIGH), got)
    assert got.tobytes() == call(name, z).tobytes()
