"""Numbers for lanes of Numba's words, and how what became of them is compared."""

import cases
import numpy as np

REALS = [np.float32, np.float64]


def lanes_in(real):
    return 128 // np.dtype(real).itemsize


def bits(a):
    return a.view(f"u{a.dtype.itemsize}")


def values(real, seed, blocks=64):
    """Numbers of any bits, some of them special, and as many of ordinary size."""
    rng, n = cases.rng_of(f"lanes {seed}"), lanes_in(real) * blocks
    a = rng.integers(0, 2 ** (8 * np.dtype(real).itemsize), n, dtype=bits(np.zeros(1, real)).dtype).view(real)
    limits = np.finfo(real)
    special = [
        0.0,
        -0.0,
        1.0,
        -1.0,
        np.inf,
        -np.inf,
        np.nan,
        -np.nan,
        limits.max,
        limits.tiny,
        limits.smallest_subnormal,
    ]
    a[::3] = rng.choice(np.array(special, real), a[::3].size)
    a[1::3] = rng.normal(0, 3, a[1::3].size)
    return a


def assert_same(got, want):
    """The same bits, but for which NaN an operation makes of NaN."""
    np.testing.assert_array_equal(got, want)
    both = ~np.isnan(want)
    assert np.array_equal(bits(got)[both], bits(want)[both])


def assert_bits(got, want):
    np.testing.assert_array_equal(bits(got), bits(want))


def quietly(function, *arguments):
    with np.errstate(all="ignore"):
        return function(*arguments)
