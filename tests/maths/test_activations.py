"""The table of activations: accuracy against long double, derivatives, special values, and bits under Numba."""

import cases
import numpy as np
import oracle
import pytest
from conftest import need_backend

from cpubn.ask import options
from cpubn.maths import activations, elementary

# With where they are defined.
ELEMENTARY = {
    "exp": (np.exp, -np.inf, np.inf),
    "expm1": (np.expm1, -np.inf, 0.0),
    "log1p": (np.log1p, 0.0, 1.0),
    "erf": (oracle.error_function, -np.inf, np.inf),
    "tanh": (np.tanh, -np.inf, np.inf),
}
WHICH = "function", "gradient"
REALS = [np.float32, np.float64]
long = np.longdouble

exact = pytest.mark.skipif(np.finfo(long).nmant < 63, reason="long double is double here")
each_activation = pytest.mark.parametrize("activation", cases.ACTIVATIONS, ids=str)
each_formula = pytest.mark.parametrize("which", WHICH)


def call(activation, z, which="function"):
    """A formula of the table; or a function of elementary.py."""
    with np.errstate(all="ignore"):
        if which == "":
            return getattr(elementary, activation)(z)
        act = options.activation(activation)
        return getattr(act.entry, which)(z, z.dtype.type(act.low), z.dtype.type(act.high))


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


def errors(formula, expected, z):
    """|got - expected| and an ulp of expected, where that is within the type; elsewhere got must be infinite too."""
    real = z.dtype.type
    got = formula(z)
    assert got.dtype == real
    with np.errstate(all="ignore"):
        expected = expected(z.astype(long))
        rounded = expected.astype(real)
    finite = np.isfinite(rounded)
    np.testing.assert_array_equal(got[~finite], rounded[~finite])
    return abs(got[finite].astype(long) - expected[finite]), ulp(rounded[finite])


@exact
@pytest.mark.parametrize("name", ELEMENTARY)
@pytest.mark.parametrize("real", REALS)
def test_elementary_functions_are_within_two_ulp(name, real):
    expected, low, high = ELEMENTARY[name]
    z = sweep(real)
    error, unit = errors(lambda z: call(name, z, ""), expected, z[(z >= low) & (z <= high)])
    assert np.max(error / unit) <= 2


@exact
@each_formula
@each_activation
@pytest.mark.parametrize(("real", "off"), [(np.float32, 1e-6), (np.float64, 1e-15)])
def test_accuracy(real, off, activation, which):
    truth = oracle.activation_of(activation)
    expected = truth.function if which == "function" else truth.derivative
    error, unit = errors(lambda z: call(activation, z, which), expected, sweep(real))
    assert np.max(error - 2 * unit) <= off


@each_activation
@pytest.mark.parametrize("real", REALS)
def test_nan_gives_nan(activation, real):
    assert np.isnan(call(activation, np.array([np.nan], real))).all()


@each_formula
@each_activation
@pytest.mark.parametrize("real", REALS)
def test_finite_numbers_give_finite_numbers(activation, which, real):
    largest = np.finfo(real).max
    assert np.isfinite(call(activation, np.array([largest, -largest, largest / 2, -largest / 2], real), which)).all()


@pytest.mark.parametrize("real", REALS)
def test_special_values(real):
    z = np.array([np.inf, -np.inf, 0.0, -0.0], real)
    for (name, which), expected in {
        ("exp", ""): [np.inf, 0.0, 1.0, 1.0],
        ("expm1", ""): [0.0, -1.0, 0.0, 0.0],
        ("erf", ""): [1.0, -1.0, 0.0, -0.0],
        ("relu", "function"): [np.inf, 0.0, 0.0, -0.0],
        ("relu6", "function"): [6.0, 0.0, 0.0, -0.0],
        ("sigmoid", "function"): [1.0, 0.0, 0.5, 0.5],
        ("tanh", "function"): [1.0, -1.0, 0.0, -0.0],
        (("clip", -0.5, 1.25), "function"): [1.25, -0.5, 0.0, -0.0],
        ("sigmoid", "gradient"): [0.0, 0.0, 0.25, 0.25],
        ("tanh", "gradient"): [0.0, 0.0, 1.0, 1.0],
    }.items():
        got = call(name, z, which)
        np.testing.assert_array_equal(got, expected, err_msg=name)
        np.testing.assert_array_equal(np.signbit(got), np.signbit(expected), err_msg=name)


def test_gelu_and_silu_vanish_far_below_zero():
    """Where 1 + erf is an ulp off zero, or 1 / (1 + exp(-z)) cannot be had, z multiplies what is left."""
    z = np.array([-10, -1e3, -1e10, -1e38], np.float32)
    np.testing.assert_array_equal(call("gelu", z), 0)
    np.testing.assert_array_equal(call("silu", z[1:]), 0)


@each_activation
@pytest.mark.parametrize("real", REALS)
def test_derivatives_at_kinks_are_those_of_torch(activation, real):
    act = oracle.activation_of(activation)
    kinks = np.array(act.kinks, real)
    expected = act.derivative(kinks.astype(long))
    np.testing.assert_allclose(call(activation, kinks, "gradient"), expected, atol=0, rtol=4 * np.finfo(real).eps)


@each_activation
def test_derivatives_are_those_of_the_activation(activation):
    z = np.linspace(-7.03, 7.04, 1001)  # no kink lies within h of these
    h = 1e-5
    expected = (call(activation, z + h) - call(activation, z - h)) / (2 * h)
    np.testing.assert_allclose(call(activation, z, "gradient"), expected, atol=1e-9, rtol=0)


@each_activation
@pytest.mark.parametrize("real", REALS)
def test_what_the_output_tells_of_the_derivative(activation, real):
    act = options.activation(activation)
    z = np.append(sweep(real), real(np.nan))
    y, expected = call(activation, z), call(activation, z, "gradient")
    if act.sides is not None:
        low, high, slope, nan = act.sides
        inside = np.where(np.isnan(y), nan, ~((y <= real(low)) | (y >= real(high))))
        np.testing.assert_array_equal(expected, np.where(inside, real(1), real(slope)))
    of_output = act.of_output(z.dtype)
    assert (of_output is None) == (act.entry.of_output is None or (act.entry.sides is not None and act.sides is None))
    if of_output is not None:
        got = call(activation, y, "of_output")
        np.testing.assert_allclose(got, expected, atol=4 * np.finfo(real).eps, rtol=0)


# On lanes, which is how the backend has them, tests/backends/test_lane_formulas.py compiles them.
@pytest.mark.slow
@pytest.mark.parametrize("formula", activations.FORMULAS, ids=lambda formula: formula.__name__)
@pytest.mark.parametrize("real", REALS)
def test_numba_gives_the_same_bits(formula, real):
    need_backend("numba")
    import numba

    from cpubn.backends.jit import formulas  # noqa: F401  what it registers

    @numba.njit(error_model="numpy")
    def loop(z, low, high, y):
        for i in range(z.size):
            y[i] = formula(z[i], low, high)

    z = np.concatenate([sweep(real), np.array([0.0, -0.0, np.inf, -np.inf, np.nan, -np.nan], real)])
    got, low, high = np.empty_like(z), real(-0.125), real(2.5)
    loop(z, low, high, got)
    with np.errstate(all="ignore"):
        assert got.tobytes() == formula(z, low, high).tobytes()
