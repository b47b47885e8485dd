"""cpubn imported first in a forked child, whose parent may have used OpenMP."""

import sys

import pytest
from conftest import need_backend, python
from forks import WAYS, child_of, forks

pytestmark = pytest.mark.slow
linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells of forks and of what is loaded")


@forks
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("layer", ["default", "workqueue"])
def test_a_parent_that_ran_a_parallel_loop_of_numba(backend, way, layer, tmp_path):
    need_backend("numba")
    told, used = child_of("numba", way, backend, tmp_path, NUMBA_THREADING_LAYER=layer)
    if sys.platform == "linux":
        well = told["source"].startswith("forked child, with lib") if used == "omp" else told["chosen"] == 3
        assert well, (used, told)


@forks
@linux
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("parent", ["nothing", "openblas"])
def test_a_parent_without_openmp_leaves_its_child_the_threads(backend, way, parent, tmp_path):
    told, _ = child_of(parent, way, backend, tmp_path)
    assert (told["chosen"], told["source"]) == (3, "CPUBN_NUM_THREADS")


OPENMP = "import ctypes, ctypes.util; ctypes.CDLL(ctypes.util.find_library('gomp') or 'libgomp.so.1'); "
SOURCE = "from cpubn.backends import threads; print(threads.count().source, end='')"
FORKED = """import os, sys
{}
if os.fork() == 0:
    {}
    sys.stdout.flush()
    os._exit(0)
os.wait()
"""


@linux
@pytest.mark.parametrize(
    ("program", "source"),
    [
        (OPENMP + SOURCE, "CPUBN_NUM_THREADS"),
        (FORKED.format("", SOURCE), "CPUBN_NUM_THREADS"),
        (FORKED.format("import cpubn", SOURCE), "forked child"),
        (FORKED.format(OPENMP, SOURCE), "forked child, with libgomp.so.1"),
        (FORKED.format("", OPENMP + SOURCE), "forked child, with libgomp.so.1"),
        (FORKED.format("", "import cpubn; " + OPENMP + SOURCE), "CPUBN_NUM_THREADS"),
        (FORKED.format(OPENMP, f"os.execv(sys.executable, [sys.executable, '-c', {SOURCE!r}])"), "CPUBN_NUM_THREADS"),
    ],
    ids=[
        "no fork", "no OpenMP", "imported by the parent", "loaded by the parent", "loaded by the child",
        "loaded after cpubn", "another program",
    ],
)  # fmt: skip
def test_what_counts_as_a_forked_child(program, source):
    found = python(program, CPUBN_NUM_THREADS="3").partition(" loaded")[0]
    assert found.startswith(source) if "lib" in source else found == source


def test_a_process_that_multiprocessing_spawned_is_no_fork(tmp_path):
    """What it knows counts where the system tells nothing."""
    program = tmp_path / "program.py"
    program.write_text(
        "import multiprocessing\n"
        "def tell():\n"
        "    from cpubn.backends import forks\n"
        "    print(forks._known_to_multiprocessing())\n"
        "if __name__ == '__main__':\n"
        "    for way in multiprocessing.get_all_start_methods():\n"
        "        child = multiprocessing.get_context(way).Process(target=tell)\n"
        "        print(way, end=' ', flush=True)\n"
        "        child.start()\n"
        "        child.join()\n"
    )
    told = dict(
        line.split()
        for line in python(f"import runpy; runpy.run_path({str(program)!r}, run_name='__main__')").splitlines()
    )
    assert told == {way: str(way != "spawn") for way in told}
    assert "spawn" in told
