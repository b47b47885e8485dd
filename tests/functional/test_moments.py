"""Moments: of every family, and their merge, which must give the moments of all values together."""

import pickle
from functools import lru_cache, partial

import cases
import numpy as np
import oracle
import pytest

import cpubn


@lru_cache(maxsize=4)
def case(family, shape, layout, dtype):
    """x, and its moments by the oracle."""
    x = cases.make(family, shape, layout, dtype)
    return x, oracle.moments(x, layout)


def check(got, x, layout="NCHW", expected=None):
    mean, var = oracle.moments(x, layout) if expected is None else expected
    mean_bound, var_bound = oracle.moments_bounds(mean, var, x.dtype)
    assert got.count == x.size // len(mean)
    assert got.mean.dtype == got.m2.dtype == got.var().dtype == np.float64
    assert oracle.worst(got.mean, mean, mean_bound) <= 1
    assert oracle.worst(got.var(), var, var_bound) <= 1
    assert oracle.worst(got.m2, var * got.count, var_bound * got.count) <= 1


# The scope has pytest run the backends of one case in turn, so that they share the oracle's answer.
each = partial(pytest.mark.parametrize, scope="module")


@each("walk", cases.WALKS)
@each(("family", "dtype"), cases.FAMILY_OF_DTYPE)
def test_every_family(family, dtype, walk, backend):
    layout, shape = cases.WALKS[walk]
    x, expected = case(family, shape, layout, dtype)
    check(cpubn.moments(x, layout=layout, backend=backend), x, layout, expected)


@each("family", ["first far", "last far", "offset 1e+07", "zero corner"])
def test_three_million_values_a_channel(family, backend):
    x, expected = case(family, (3, 1, 1_000_000), "NCHW", np.float32)
    check(cpubn.moments(x, backend=backend), x, expected=expected)


@pytest.mark.parametrize("pieces", [2, 7, 50])
@pytest.mark.parametrize(("family", "dtype"), cases.FAMILY_OF_DTYPE)
def test_merged_batches_are_one_batch(family, dtype, pieces, backend):
    x = cases.make(family, (100, 3, 40), dtype=dtype)
    parts = [cpubn.moments(part, backend=backend) for part in np.array_split(x, pieces)]
    got = parts[0]
    for part in parts[1:]:
        got = got + part
    check(got, x)
    check(parts[0].merge(parts[1]), np.concatenate(np.array_split(x, pieces)[:2]))


def test_merge_in_any_order_and_grouping(backend):
    x = cases.make("ramp", (90, 3, 40), dtype=np.float64)
    a, b, c = (cpubn.moments(part, backend=backend) for part in np.split(x, 3))
    for got in (c + (a + b), (b + c) + a, a.merge(b.merge(c))):
        check(got, x)


def test_merge_with_an_empty_batch_changes_nothing(backend):
    x = cases.make("offset 100", (9, 3, 4))
    some, none = cpubn.moments(x, backend=backend), cpubn.moments(x[:0], backend=backend)
    assert none.count == 0
    for got in (some + none, none + some):
        assert got.count == some.count
        np.testing.assert_array_equal(got.mean, some.mean)
        np.testing.assert_array_equal(got.m2, some.m2)
    assert (none + none).count == 0


def test_a_channel_that_is_not_finite_stays_so_in_a_merge(backend):
    x = cases.make("offset 1", (4, 3, 5))
    clean = cpubn.moments(np.concatenate([x, x]), backend=backend)
    bad = x.copy()
    bad[1, 2, 3] = np.nan
    got = cpubn.moments(x, backend=backend) + cpubn.moments(bad, backend=backend)
    assert np.isnan(got.var()[2])
    np.testing.assert_allclose(got.var()[:2], clean.var()[:2], rtol=1e-12)


@pytest.mark.parametrize("ddof", [0, 1, 2])
def test_var_divides_by_the_count_less_ddof(ddof, backend):
    x = cases.make("offset 1", (6, 3, 5), dtype=np.float64)
    expected = x.var(axis=(0, 2), ddof=ddof)
    got = cpubn.moments(x, backend=backend).var(ddof=ddof)
    np.testing.assert_allclose(got, expected, rtol=1e-12)

    np.testing.assert_array_equal(cpubn.moments(x, backend=backend).std(ddof=ddof), np.sqrt(got))


@pytest.mark.parametrize("name", ["var", "std"])
@pytest.mark.parametrize(("count", "ddof"), [(0, 0), (1, 1), (1, 2)])
def test_var_of_too_few_values_says_so(count, ddof, name):
    batch = cpubn.moments(np.ones((count, 3)))
    with pytest.raises(ValueError, match=rf"{name}\(ddof={ddof}\) needs more than {ddof} .*got {count}"):
        getattr(batch, name)(ddof=ddof)


def test_std_of_what_is_not_finite_is_quiet():
    batch = cpubn.Moments(2, [0.0, 0.0], [np.nan, np.inf])
    np.testing.assert_array_equal(batch.std(), [np.nan, np.inf])


def test_an_empty_one_starts_a_sum(backend):
    x = cases.make("offset 1", (90, 3, 4))
    parts = [cpubn.moments(part, backend=backend) for part in np.split(x, 3)]
    assert sum(parts, cpubn.Moments.empty(3)) == sum(parts)
    empty = cpubn.Moments.empty(3)
    assert empty.count == 0
    assert parts[0] + empty == empty + parts[0] == parts[0]
    assert empty + empty == empty == cpubn.moments(x[:0], backend=backend)
    with pytest.raises(ValueError, match=r"4 channels.*got 3"):
        cpubn.Moments.empty(4) + parts[0]


@pytest.mark.parametrize(("channels", "error"), [(-1, ValueError), (2.0, TypeError), (True, TypeError)])
def test_an_empty_one_of_no_number_of_channels(channels, error):
    with pytest.raises(error, match=r"channels must be .*got"):
        cpubn.Moments.empty(channels)


def test_equality_is_of_bits(backend):
    x = cases.make("offset 1e+06", (9, 3, 4))
    a = cpubn.moments(x, backend=backend)
    assert a == cpubn.moments(x, backend=backend) == pickle.loads(pickle.dumps(a))
    assert a == cpubn.Moments(a.count, a.mean, a.m2, a.low)
    for name in ("mean", "m2", "low"):
        other = {n: getattr(a, n).copy() for n in ("mean", "m2", "low")}
        other[name][1] = np.nextafter(other[name][1], np.inf)
        assert a != cpubn.Moments(a.count, **other)
    assert a != cpubn.Moments(a.count + 1, a.mean, a.m2, a.low)
    assert a != cpubn.moments(x[:, :2], backend=backend)


def test_equality_of_nan_and_of_zeros():
    one, negative = cpubn.Moments(4, [np.nan, 0.0], [np.nan, 1.0]), np.array([-np.nan, 0.0])
    assert one == cpubn.Moments(4, negative, [np.nan, 1.0])
    assert one != cpubn.Moments(4, [np.nan, -0.0], [np.nan, 1.0])
    assert one != cpubn.Moments(4, [0.0, 0.0], [np.nan, 1.0])


def test_equality_with_other_things_and_no_hash():
    batch = cpubn.moments(np.ones((5, 3)))
    assert batch != 5
    assert batch != (batch.count, batch.mean, batch.m2, batch.low)
    assert batch.__eq__(5) is NotImplemented
    with pytest.raises(TypeError, match="unhashable"):
        hash(batch)


def test_merge_refuses_other_channels_and_other_things():
    batch = cpubn.moments(np.ones((5, 3)))
    with pytest.raises(ValueError, match=r"3 channels.*got 4"):
        batch.merge(cpubn.moments(np.ones((5, 4))))
    with pytest.raises(TypeError, match=r"must be Moments, got int.*moments\(x\)"):
        batch.merge(3)
    with pytest.raises(TypeError):
        batch + 3


def test_moments_cannot_be_reassigned():
    with pytest.raises(AttributeError):
        cpubn.moments(np.ones((5, 3))).count = 4


def test_moments_of_ones_own_figures_merge_as_well(backend):
    x = cases.make("offset 1", (50, 3, 4), dtype=np.float64)
    own = x[:20].transpose(1, 0, 2).reshape(3, -1)
    got = cpubn.Moments(80, own.mean(axis=1), own.var(axis=1) * 80) + cpubn.moments(x[20:], backend=backend)
    check(got, x)


def test_moments_travel_between_processes(backend):
    x = cases.make("offset 1e+06", (50, 3, 4), dtype=np.float64)
    parts = [pickle.loads(pickle.dumps(cpubn.moments(part, backend=backend))) for part in np.array_split(x, 3)]
    check(parts[0] + parts[1] + parts[2], x)


@pytest.mark.parametrize(
    ("count", "mean", "m2", "match"),
    [
        (-1, [1.0], [1.0], r"count must be .*got -1"),
        (1.5, [1.0], [1.0], r"count must be .*got 1\.5"),
        (2**63, [1.0], [1.0], r"count must be below 2\*\*63, got"),
        (10**400, [1.0], [1.0], r"count must be below 2\*\*63, got"),
        (4, [1.0, 2.0], [1.0], r"m2 must have shape \(C,\).*got \(1,\)"),
        (4, [[1.0]], [[1.0]], r"mean must have shape \(C,\).*got \(1, 1\)"),
    ],
)
def test_figures_that_cannot_be_moments_are_refused(count, mean, m2, match):
    with pytest.raises((TypeError, ValueError), match=match):
        cpubn.Moments(count, mean, m2)
