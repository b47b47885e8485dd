"""No kernel needs more than 32 KB of stack, in any thread."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import stacks
from conftest import need_backend, need_instruction_set

from cpubn.backends import threads
from cpubn.backends.compiled import variants

KERNEL = 32 << 10
# With what Python's and NumPy's own frames take besides, in a thread that calls passes of every kind. Measured with
# CPython 3.11 on x86-64: 36 KB are enough for Cython, and 32, the least that CPython allows, are not.
CALLER = 64 << 10

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="stacks are found as glibc lays them out"),
]


@pytest.fixture(params=[*variants.BY_NAME, "numba"])
def run(request):
    """Runs stacks.py with one instruction set or Numba, and gives what it prints."""
    backend = "numba" if request.param == "numba" else "cython"
    need_backend(backend)
    if backend == "cython":
        need_instruction_set(request.param)
        if threads.openmp_threads() is None:
            pytest.skip("built without OpenMP")
    chosen = {"NUMBA_THREADING_LAYER": "omp", "NUMBA_NUM_THREADS": "4"}
    if backend == "cython":
        chosen["CPUBN_ISA"] = request.param

    def run(stack, *arguments):
        inherited = {name: v for name, v in os.environ.items() if not name.startswith(("CPUBN_", "OMP_", "NUMBA_"))}
        done = subprocess.run(
            [sys.executable, Path(stacks.__file__), backend, *arguments],
            env=inherited | chosen | {"OMP_STACKSIZE": f"{stack}B"},
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
        assert done.returncode == 0, f"status {done.returncode}: {done.stderr}"
        return done.stdout.strip()

    return run


def test_workers_write_no_deeper(run):
    depth, where = run(stacks.STACK).split("|")
    assert 0 < int(depth) <= KERNEL, where


def test_small_stacks_are_enough(run):
    """Of workers, whose thread-local memory is on them as well, and of the thread that calls."""
    assert run(KERNEL + (16 << 10), str(CALLER)) == "done"
