"""The same bits for any threads, instruction set, alignment, strides and out, run after run, in cython and numba."""

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import digests
import pytest
from conftest import need_backend

FIRST, *OTHERS = digests.WAYS

pytestmark = pytest.mark.slow


@cache
def results_of(backend, instruction_set):
    """What a process of its own computed; Numba compiles for the CPU that it finds, whatever the instruction set.

    The baseline goes every way with every case, the others a third of the ways, in turn.
    """
    environment = {name: v for name, v in os.environ.items() if not name.startswith("CPUBN_")}
    chosen = {"CPUBN_ISA": instruction_set} if backend == "cython" else {}
    share = "1" if (backend, instruction_set) == ("cython", "baseline") else "3"
    process = subprocess.run(
        [sys.executable, "-W", "error", Path(digests.__file__), backend, share],
        env=environment | chosen | {"NUMBA_NUM_THREADS": "8"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout)


def baseline_of(backend):
    return results_of(backend, "baseline")


def differences(got, expected):
    """The cases whose digests differ, so that a failure names them."""
    assert got
    return [case for case in got if got[case] != expected[case]]


@pytest.fixture
def compiled(backend):
    """A backend that promises its bits; numpy's order of summation is its own."""
    if backend == "numpy":
        pytest.skip("numpy promises its bounds, not its bits")
    return backend


@pytest.mark.parametrize("way", OTHERS)
def test_ways_that_change_no_bit(way, compiled):
    ways = baseline_of(compiled)["digests"]
    assert differences(ways[way], ways[FIRST]) == []


def test_the_threads_were_used(compiled):
    used = baseline_of(compiled)["threads"]
    for count in (2, 3, 8):
        got = used[f"{count} threads"]
        assert set(got.values()) <= {1, count}
        assert sum(threads == count for threads in got.values()) > (15 if compiled == "cython" else 4)


def test_instruction_sets_give_the_bits_of_the_baseline(isa):
    got, expected = results_of("cython", isa)["digests"], baseline_of("cython")["digests"]
    for way in digests.WAYS:
        assert differences(got[way], expected[way]) == []


def test_cython_and_numba_give_the_same_bits():
    for backend in ("cython", "numba"):
        need_backend(backend)
    got, expected = baseline_of("numba")["digests"], baseline_of("cython")["digests"]
    assert differences(got[FIRST], expected[FIRST]) == []
