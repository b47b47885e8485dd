"""Moments of arrays on a GPU, their variance and their merge, which stay there; and the kernels' signatures."""

import pickle

import cases
import gpu
import numpy as np
import oracle
import pytest
import test_moments
from gpu import moments_on_host, put

import cpubn

pytestmark = gpu.SILENT


@pytest.mark.parametrize(
    ("family", "dtype", "shape", "layout"),
    [
        ("offset 1e+06", np.float32, (3, 2, 40), "NCHW"),
        ("first far", np.float32, (70, 3), "NHWC"),
        ("last far", np.float32, (2, 3, 4, 5), "NHWC"),
        ("zero corner", np.float64, (5, 3, 9), "NCHW"),
        ("largest", np.float64, (2, 3, 2, 1, 3), "NCHW"),
        ("pixels", np.uint8, (3, 11), "NCHW"),
        ("pixels", np.float16, (4, 3, 7), "NCHW"),
    ],
    ids=str,
)
def test_against_the_oracle(family, dtype, shape, layout):
    x = cases.make(family, shape, layout, np.float64).astype(dtype)
    test_moments.check(moments_on_host(cpubn.moments(put(x), layout=layout)), x, layout)


@pytest.mark.parametrize("dtype", cases.DTYPES)
def test_merged_batches_are_one_batch(dtype):
    x = cases.make("offset 10000", (20, 3, 5), dtype=dtype)
    a, b, c = (cpubn.moments(put(part)) for part in np.split(x, [3, 11]))
    for got in (a + b + c, a.merge(b.merge(c)), sum([c, a, b])):
        assert gpu.is_ours(got.mean)
        test_moments.check(moments_on_host(got), x)


def test_merge_with_an_empty_batch_changes_nothing():
    some, none = cpubn.moments(put(cases.make("offset 100", (9, 3, 4)))), cpubn.moments(put(np.ones((0, 3, 4))))
    for got in (some + none, none + some):
        assert got == some
    assert (none + none).count == 0


@pytest.mark.parametrize("ddof", [0, 1])
def test_var_divides_by_the_count_less_ddof(ddof):
    x = cases.make("offset 1", (6, 3, 5), dtype=np.float64)
    got = cpubn.moments(put(x)).var(ddof=ddof)
    assert gpu.is_ours(got)
    np.testing.assert_allclose(gpu.get(got), x.var(axis=(0, 2), ddof=ddof), rtol=1e-12)
    std = cpubn.moments(put(x)).std(ddof=ddof)
    assert gpu.is_ours(std)
    np.testing.assert_array_equal(gpu.get(std), np.sqrt(gpu.get(got)))


def test_an_empty_one_of_the_host_starts_a_sum_and_equality_reads():
    parts = [cpubn.moments(put(cases.make("offset 1", (9, 3, 4)))) for _ in range(2)]
    assert sum(parts, cpubn.Moments.empty(3)) == sum(parts) != parts[0]
    assert parts[0] == parts[1] == pickle.loads(pickle.dumps(parts[0]))


def test_a_channel_that_is_not_finite_stays_so_in_a_merge():
    x = cases.make("offset 1", (4, 3, 5))
    clean, bad = x.copy(), x.copy()
    bad[1, 2, 3] = np.nan
    got = gpu.get((cpubn.moments(put(x)) + cpubn.moments(put(bad))).var())
    _, expected = oracle.moments(np.concatenate([x, clean]))
    assert np.isnan(got[2])
    np.testing.assert_allclose(got[:2], expected[:2].astype(float), rtol=1e-6)


def test_merge_refuses_moments_of_the_host():
    x = cases.make("offset 1", (4, 3, 5))
    with pytest.raises(ValueError, match="other must be Moments on GPU 0 like these, got some on the host"):
        cpubn.moments(put(x)).merge(cpubn.moments(x))
    with pytest.raises(ValueError, match="other must be Moments on the host like these, got some on GPU 0"):
        cpubn.moments(x).merge(cpubn.moments(put(x)))
