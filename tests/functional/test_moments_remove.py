"""Parts taken out of moments: right to the bounds that are stated, or an error."""

import pickle

import numpy as np
import oracle
import pytest
from hypothesis import given, strategies as st
from test_moments_add_up import KINDS, check, few, kinds, normal

import cpubn
from cpubn import Moments


def left_bounds(whole, left):
    """As Moments.remove states them."""
    share = np.max(whole.count) / np.max(left)
    return 1e-12 * whole.std() * share + 2.0**-52 * abs(whole.mean), 3e-12 * whole.m2 * np.sqrt(share)


@given(
    counts=st.tuples(st.integers(2, 4000), st.integers(1, 4000)),
    ratio=st.integers(-1, 6),
    shift=st.integers(-6, 6),
    kind=st.sampled_from([*KINDS.values()]),
)
@few
def test_what_is_left_is_right_to_the_bounds(counts, ratio, shift, kind):
    stays, goes = (
        normal(counts[0], 10.0**ratio, 1),
        normal(counts[1], 10.0**ratio, 2) + np.sign(shift) * 10.0 ** abs(shift),
    )
    part = kind(cpubn.moments(goes))
    whole = kind(cpubn.moments(stays)) + part
    mean, var = oracle.moments(stays, "NCHW")
    mean_bound, m2_bound = left_bounds(whole, len(stays))
    try:
        left = whole - part
    except ValueError:
        assert (var * len(stays) <= 2 * m2_bound).any()
        return
    np.testing.assert_array_equal(left.count, len(stays))
    assert oracle.worst(left.mean, mean, mean_bound) <= 1
    assert oracle.worst(left.m2, var * len(stays), m2_bound) <= 1
    assert whole.remove(part) is whole
    assert whole == left


@kinds
def test_a_window_slides(kind):
    x = normal(2000, 1e3)
    parts = [kind(cpubn.moments(part)) for part in np.split(x, 100)]
    window = sum(parts[:10])
    for old, new in zip(parts, parts[10:], strict=False):
        window = window + new - old
    check(window, x[-200:])


@kinds
def test_all_are_removed(kind):
    whole = kind(cpubn.moments(normal(50)))
    assert whole - whole == whole - Moments.empty(3) - whole
    left = (whole - whole) + whole
    np.testing.assert_array_equal(left.count, whole.count)
    np.testing.assert_array_equal(left.mean, whole.mean)
    np.testing.assert_array_equal((whole - whole).m2, 0)


def test_one_value_is_left():
    x = normal(50)
    left = cpubn.moments(x) - cpubn.moments(x[1:])
    np.testing.assert_allclose(left.mean, x[0], rtol=0, atol=1e-12)
    np.testing.assert_array_equal(left.m2, 0)


def test_constant_channels_stay_constant():
    x = np.full((20, 3), 0.1)
    left = cpubn.moments(x) - cpubn.moments(x[:5])
    np.testing.assert_array_equal((left.mean, left.m2), ([0.1] * 3, [0.0] * 3))


def test_nothing_is_left_of_the_digits():
    far, near = normal(50, seed=1) * [1, 1, 1e9], normal(50, seed=2) * 1e-3
    part, whole = cpubn.moments(far), cpubn.moments(far) + cpubn.moments(near)
    before = pickle.loads(pickle.dumps(whole))
    with pytest.raises(ValueError, match=r"digits must be left of m2, got in channel 2 .* compute .* anew"):
        whole.remove(part)
    assert whole == before


@pytest.mark.parametrize(
    ("other", "match"),
    [
        (cpubn.moments(normal(60)), r"part of these moments, got 60 values .*theirs, 50"),
        (cpubn.moments(normal(40) * [1, 9, 1]), "part of these moments, got some that are not, in channel 1"),
        (
            cpubn.moments(normal(50) + np.array([0, 0, 1e-3])),
            "part of these moments, got some that are not, in channel 2",
        ),
        (cpubn.moments(normal(49, seed=8)), "part of these moments, got some that are not"),
        (cpubn.moments(normal(4, channels=2)), r"3 channels.*got 2"),
    ],
)
def test_what_was_no_part(other, match):
    whole = cpubn.moments(normal(50))
    for remove in (whole.remove, whole.__sub__):
        with pytest.raises(ValueError, match=match):
            remove(other)
    assert whole == cpubn.moments(normal(50))


def test_other_things_are_not_removed():
    whole = cpubn.moments(normal(50))
    with pytest.raises(TypeError, match=r"must be Moments, got int"):
        whole.remove(3)
    with pytest.raises(TypeError):
        whole - 3


def test_a_channel_that_is_not_finite_stays_so():
    x = normal(20)
    x[3, 1] = np.nan
    left = cpubn.moments(x) - cpubn.moments(x[:10])
    assert np.isnan([left.mean[1], left.m2[1]]).all()
    np.testing.assert_allclose(left.var()[[0, 2]], x[10:, [0, 2]].var(0), rtol=1e-11)


def test_weights_are_rounded():
    part, rest = (Moments(np.full(3, w), m.mean, m.m2, m.low) for w, m in ((0.1, cpubn.moments(normal(9))),) * 2)
    whole = Moments(np.full(3, 0.3), part.mean, 3 * part.m2, part.low)
    left = whole - part - rest - rest
    np.testing.assert_array_equal((left.count, left.mean, left.m2), 0)
