"""Moments that add up: any number of parts in any order, with counts of all channels or of each."""

import pickle
import weakref

import numpy as np
import oracle
import pytest
from hypothesis import given, settings, strategies as st

import cpubn
from cpubn import Moments

few = settings(max_examples=40, derandomize=True, deadline=None, database=None)


def normal(count, ratio=1.0, seed=0, channels=3):
    return np.random.default_rng(seed).standard_normal((count, channels)) + ratio


def by_channel(moments, kind):
    """The same with a count for each channel."""
    return Moments(np.full(len(moments.mean), moments.count, kind), moments.mean, moments.m2, moments.low)


KINDS = {
    "one count": lambda m: m,
    "int64": lambda m: by_channel(m, np.int64),
    "float64": lambda m: by_channel(m, float),
}
kinds = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)


def check(got, x):
    mean, var = oracle.moments(x, "NCHW")
    np.testing.assert_array_equal(got.count, len(x))
    assert oracle.worst(got.mean, mean, 1e-12 * np.sqrt(var) + 2.0**-53 * abs(mean)) <= 1
    assert oracle.worst(got.var(), var, 1e-12 * var) <= 1


@st.composite
def split(draw):
    """Data at a mean of up to 1e6 deviations, and its parts in any order, some of them empty."""
    x = normal(draw(st.integers(2, 3000)), 10.0 ** draw(st.integers(-2, 6)), draw(st.integers(0, 99)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    cuts = np.sort(rng.integers(0, len(x) + 1, draw(st.integers(0, 999))))
    parts = [cpubn.moments(part) for part in np.split(x, cuts)]
    return x, [parts[k] for k in rng.permutation(len(parts))], rng


@given(case=split(), kind=st.sampled_from([*KINDS.values()]))
@few
def test_parts_in_any_order_are_the_whole(case, kind):
    x, parts, rng = case
    parts = [kind(part) for part in parts]
    check(sum(parts), x)
    check(Moments.merge_all(parts), x)
    while len(parts) > 1:  # in any grouping
        at = int(rng.integers(len(parts) - 1))
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    check(parts[0], x)


@pytest.mark.parametrize("seed", range(5))
def test_a_thousand_splits(seed):
    x, rng = normal(100_000, 1e6, seed), np.random.default_rng(seed)
    parts = [cpubn.moments(part) for part in np.split(x, np.sort(rng.integers(0, len(x), 999)))]
    for _ in range(3):
        rng.shuffle(parts)
        check(Moments.merge_all(parts), x)
        check(sum(parts), x)


@pytest.mark.parametrize("number", [1, 2, 3, 7, 8, 21])
def test_a_tree_of_one_shape(number):
    def grown(parts):
        if len(parts) == 1:
            return parts[0]
        half = 1 << ((len(parts) - 1).bit_length() - 1)
        return grown(parts[:half]) + grown(parts[half:])

    parts = [cpubn.moments(normal(5, 1e3, seed)) for seed in range(number)]
    got = Moments.merge_all(parts)
    assert got == Moments.merge_all(part for part in parts) == grown(parts)
    assert got == Moments.merge_all([pickle.loads(pickle.dumps(part)) for part in parts])


def test_of_a_generator_few_are_held():
    refs, most = [], 0

    def parts():
        nonlocal most
        for seed in range(300):
            part = cpubn.moments(normal(4, seed=seed))
            refs.append(weakref.ref(part))
            yield part
            most = max(most, sum(ref() is not None for ref in refs))

    Moments.merge_all(parts())
    assert most <= 10


@pytest.mark.parametrize("parts", [[], iter(())])
def test_all_of_none(parts):
    with pytest.raises(ValueError, match=r"parts must hold Moments, got none; .*Moments\.empty\(C\)"):
        Moments.merge_all(parts)


def test_all_of_other_things():
    batch = cpubn.moments(np.ones((5, 3)))
    for parts in ([3], [batch, 3]):
        with pytest.raises(TypeError, match=r"must be Moments, got int.*moments\(x\)"):
            Moments.merge_all(parts)
    with pytest.raises(ValueError, match=r"3 channels.*got 4"):
        Moments.merge_all([batch, Moments.empty(4)])


@pytest.mark.parametrize("wrap", [int, lambda n: np.array([n, 1])], ids=["one count", "by channel"])
def test_counts_are_exact_and_have_an_end(wrap):
    half = Moments(wrap(2**62 - 1), [1.0, 2.0], [3.0, 4.0])
    one = Moments(wrap(1), [1.0, 2.0], [0.0, 0.0])
    most = half + one + half
    np.testing.assert_array_equal(most.count, np.array(wrap(2**63 - 1)) + np.array([0, 2]) * (wrap is not int))
    for add in (lambda: most + one, lambda: one + most, lambda: Moments.merge_all([most, one])):
        with pytest.raises(ValueError, match=r"add up to less than 2\*\*63, got"):
            add()


@kinds
def test_update_is_a_merge_in_place(kind, backend):
    x = normal(40)
    total = start = kind(cpubn.moments(x[:10], backend=backend))
    expected = start + cpubn.moments(x[10:], backend=backend)
    assert total.update(x[10:], backend=backend) is total
    assert total == expected
    channels_last = np.ascontiguousarray(x.reshape(5, 8, 3))
    assert Moments.empty(3).update(channels_last, layout="NHWC", backend=backend).count == 40


@pytest.mark.parametrize("x", [np.ones((4, 2)), np.ones(3), "x", np.ones((4, 3), complex)])
def test_an_update_that_fails_changes_nothing(x):
    total = cpubn.moments(normal(9))
    before = pickle.loads(pickle.dumps(total))
    with pytest.raises((ValueError, TypeError), match="got"):
        total.update(x)
    assert total == before


@pytest.mark.parametrize("start", [lambda m: 0 + m, lambda m: Moments.empty(3) + m, lambda m: m + Moments.empty(3)])
def test_a_total_is_not_its_only_part(start):
    part = cpubn.moments(normal(9))
    total = start(part)
    total.update(normal(5))
    assert part == cpubn.moments(normal(9))


def test_counts_by_channel():
    """As masks give: some channels with none."""
    a = Moments(np.array([2, 0, 3]), [1.0, 0.0, 5.0], [2.0, 0.0, 1.0])
    b = Moments(np.array([0, 0, 1]), [0.0, 0.0, 9.0], [0.0, 0.0, 0.0])
    for both in (a + b, b + a):
        np.testing.assert_array_equal(both.count, [2, 0, 4])
        np.testing.assert_array_equal(both.mean, [1, 0, 6])
        np.testing.assert_array_equal(both.m2, [2, 0, 13])
    left = (a + b).remove(b)
    np.testing.assert_array_equal(left.count, a.count)
    np.testing.assert_allclose((left.mean, left.m2), (a.mean, a.m2), rtol=1e-14)
    assert left + Moments.empty(3) == left
    assert Moments(a.count.astype(float), a.mean, a.m2) == a
    np.testing.assert_array_equal(a.var(), [1, 0, 1 / 3])
    with pytest.raises(ValueError, match=r"var\(ddof=2\) needs more than 2 values per channel, got 2"):
        a.var(2)


@pytest.mark.parametrize(
    ("count", "error", "match"),
    [
        ([1, 2], ValueError, r"count must be one number or have shape \(3,\), got \(2,\)"),
        ([[1, 2, 3]], ValueError, r"shape \(3,\), got \(1, 3\)"),
        ([1, -2, 3], ValueError, "count must be at least 0 and below .* got -2"),
        ([1.0, np.nan, 3], ValueError, "count must be at least 0 and finite .* got nan"),
        ([1.0, np.inf, 3], ValueError, "count must be at least 0 and finite .* got inf"),
        (np.array([1, 2, 2**63], np.uint64), ValueError, r"below 2\*\*63 .* got 9223372036854775808"),
        ([True, False, True], TypeError, "count must be an array of .*bool"),
        (["1", "2", "3"], TypeError, "count must be an array of"),
    ],
)
def test_counts_that_cannot_be(count, error, match):
    with pytest.raises(error, match=match):
        Moments(count, [1.0, 2.0, 3.0], [1.0, 2.0, 3.0])
