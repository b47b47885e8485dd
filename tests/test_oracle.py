"""The oracle itself: its moments against exact fractions, its gradients against central differences of its forward."""

from fractions import Fraction

import cases
import numpy as np
import oracle
import pytest


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize(("family", "dtype"), cases.FAMILY_OF_DTYPE)
def test_moments_are_exact_to_eighteen_digits(family, dtype, layout):
    x = cases.make(family, (20, 3, 7), layout, dtype)
    mean, var = oracle.moments(x, layout)
    rows = np.moveaxis(x, oracle.channel_axis(x, layout), 0).reshape(3, -1)
    for row, m, v in zip(rows, mean, var, strict=True):
        exact = [Fraction(float(value)) for value in row]
        expected_mean = sum(exact) / len(exact)
        expected_var = sum((value - expected_mean) ** 2 for value in exact) / len(exact)
        assert abs(fraction(m) - expected_mean) <= max(map(abs, exact)) * Fraction(1, 10**18)
        assert abs(fraction(v) - expected_var) <= expected_var * Fraction(1, 10**11)


def fraction(value):
    """A long double exactly: its float64 part and what is left of it."""
    high = float(value)
    return Fraction(high) + Fraction(float(value - np.longdouble(high)))


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("training", [True, False])
def test_gradients_are_central_differences(training, layout):
    rng = cases.rng_of("oracle")
    x, dy = rng.standard_normal((2, 4, 3, 3))
    weight, bias, mean = rng.standard_normal((3, 3))
    var = np.full(3, 0.7)
    if training:
        mean, var = oracle.moments(x, layout)
    step = np.longdouble(2.0**-20)

    def loss(x, weight, bias):
        statistics = (None, None) if training else (mean, var)
        return (dy * oracle.batch_norm(x, *statistics, weight, bias, layout=layout).y).sum()

    got = oracle.batch_norm_backward(dy, x, mean, var, weight, 1e-5, training, layout)
    arguments = [x, weight, bias]
    for place, argument in enumerate(arguments):
        for index in np.ndindex(argument.shape):
            ahead, behind = ([a.copy() for a in arguments] for _ in range(2))
            ahead[place][index] += step
            behind[place][index] -= step
            width = oracle.long(ahead[place][index]) - oracle.long(behind[place][index])
            expected = (loss(*ahead) - loss(*behind)) / width
            assert abs(got[place][index] - expected) <= 1e-9 * (1 + abs(expected))


def test_worst_counts_bounds():
    assert oracle.worst(np.array([1.0, 2.0]), np.array([1.0, 2.5]), np.array([0.0, 0.25])) == 2
    assert oracle.worst(np.array([1.5]), np.array([1.0]), np.array([0.0])) == np.inf
    assert np.isnan(oracle.worst(np.array([np.nan, 1.0]), np.array([1.0, 1.0]), np.array([1.0, 1.0])))


@pytest.mark.parametrize("activation", cases.ACTIVATIONS, ids=str)
def test_derivatives_are_central_differences_of_the_activations(activation):
    act = oracle.activation_of(activation)
    z = np.linspace(-8.013, 8.017, 4001, dtype=np.longdouble)
    step = np.longdouble(2.0**-17)
    z = z[np.all([abs(z - kink) > step for kink in act.kinks], axis=0)] if act.kinks else z
    expected = (act.function(z + step) - act.function(z - step)) / (2 * step)
    np.testing.assert_allclose(act.derivative(z), expected, rtol=0, atol=1e-10)
    assert abs(act.derivative(z)).max() <= act.steepest
    bend = abs(act.derivative(z + step) - act.derivative(z - step)) / (2 * step)
    assert bend.max() <= act.curvature + 1e-9


def test_halves_of_bits():
    assert oracle.rounding(1.0, np.float16) == 2.0**-11 + 2.0**-25
    assert np.float16(1 + 2.0**-11) == 1 < np.float16(1 + 2.0**-10)
    assert np.float16(2.0**-25) == 0 < np.float16(2.0**-24)
