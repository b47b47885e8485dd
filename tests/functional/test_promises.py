"""docs/promises.md: of each operation, type and layout, calls that hypothesis draws, each in every kind of strides.

Each call is made on every backend and instruction set that is here. Results are held against the oracle; what is read
is left as it is; equal calls give equal bits, and so do, of the same values in the same memory order, all instruction
sets and Numba.
"""

from contextlib import nullcontext
from functools import cache

import drawn
import numpy as np
import oracle
import pytest
from conftest import need_backend, need_library, running_on
from hypothesis import given, strategies as st
from operations import OF_INTEGERS, OPERATIONS, WITHOUT_MASKS

from cpubn.backends import choice
from cpubn.backends.compiled import variants

CASES = [
    (name, dtype) for name in OPERATIONS for dtype in (*drawn.REACH, *(drawn.INTEGERS if name in OF_INTEGERS else ()))
]


@cache
def ways():
    """(backend, instruction set) of all that are here."""
    for name in choice.HOST_BACKENDS:
        need_backend(name)
    sets = [("cython", name) for name in variants.BY_NAME if variants.absence(name) is None]
    return [*sets, *((name, None) for name in choice.HOST_BACKENDS if name != "cython")]


def memory_of(a):
    """All that the array is a view of."""
    while a.base is not None:
        a = a.base
    return a


def bits(a):
    """The bits of an array of numbers, in the order of its axes; one NaN is like another."""
    a = np.array(a, np.float64)
    a[np.isnan(a)] = np.nan
    return a.tobytes()


def computed(operation, call, kind, way):
    """The results by name; what was given is as it was, but for what was to be written to."""
    backend, isa = way
    x, dy = call.lay(call.x, kind), call.lay(call.dy, kind if call.alike and kind != drawn.ZERO else "contiguous")
    given = [memory_of(a) for a in (x, dy, *call.vectors, *call.how.values()) if isinstance(a, np.ndarray)]
    before = [a.tobytes() for a in given]
    with running_on(isa) if isa else nullcontext():
        results = operation(call, x, dy, {"layout": call.layout, "backend": backend, **call.how})
    for place, (a, old) in enumerate(zip(given, before, strict=True)):
        assert a.tobytes() == old or (place < 2 and call.into == "in place"), "what is read was written to"
    return results


def check(results, truth):
    """Within bounds where the truth is finite, and not finite where it is not."""
    for name, (exact, bound) in truth.items():
        got, finite = np.asarray(results[name], np.float64), np.isfinite(exact)
        assert got.shape == exact.shape, name
        assert (np.isfinite(got) == finite).all(), name
        worst = oracle.worst(got[finite], exact[finite], np.broadcast_to(bound, exact.shape)[finite])
        assert worst <= 1, f"{name} is {worst} bounds away"


def whose_bits(call, kind, way):
    """Those that it has to have, of whatever strides in one order where all elements count; None where it has its own.

    A single channel may stand anywhere in a walk, so that other strides are another walk of it.
    """
    if way[0] == "numpy" or (way[0] == "numba" and call.how):
        return None
    return "in order" if kind in drawn.IN_ORDER and call.channels > 1 and not call.how else kind


@pytest.mark.parametrize("layout", drawn.LAYOUTS)
@pytest.mark.parametrize(("name", "dtype"), CASES)
@drawn.examples(6)
@given(data=st.data())
def test_promises(name, dtype, layout, data):
    if dtype == "bfloat16":
        need_library("ml_dtypes", "half")
    operation, truth_of = OPERATIONS[name]
    call = data.draw(drawn.calls(dtype, layout, masks=name not in WITHOUT_MASKS))
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        truth = truth_of(call)
    expected = {}
    for kind in [*call.kinds(), "contiguous"]:
        for way in ways():
            try:
                results = computed(operation, call, kind, way)
                same = whose_bits(call, kind, way)
                got = {n: bits(a) for n, a in results.items()}
                if same in expected:
                    assert [n for n in got if got[n] != expected[same][n]] == []
                else:
                    check(results, truth)
                    if same is not None:
                        expected[same] = got
            except Exception as error:
                error.add_note(f"of strides: {kind}; on {way}")
                raise
