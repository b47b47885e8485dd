"""Calls of cpubn as a line of a function that numba.njit compiles."""

from functools import cache

import numpy as np
from conftest import need_library

import cpubn

need_library("numba", "numba")
import numba  # noqa: E402

import cpubn.njit  # noqa: E402


@cache
def compiled(call, names, **options):
    """The function of these names that returns the call, the same one for each test that asks for it."""
    cpubn.njit.init()  # which Numba does itself where cpubn is installed
    space = {"cpubn": cpubn, "np": np}
    exec(f"def function({names}): return {call}", space)
    return numba.njit(**options)(space["function"])


def same(got, expected):
    """The same bits, types and order in memory."""
    for a, b in zip(flat(got), flat(expected), strict=True):
        assert type(a) is type(b)
        if isinstance(a, np.ndarray):
            assert a.dtype == b.dtype
            assert a.shape == b.shape
            lengths = np.array(a.shape) > 1
            assert (np.array(a.strides)[lengths] == np.array(b.strides)[lengths]).all()
        np.testing.assert_array_equal(a, b)


def flat(result):
    if isinstance(result, cpubn.Moments):
        return [result.count, result.mean, result.m2, result.low]
    return [part for each in result for part in flat(each)] if isinstance(result, tuple) else [result]
