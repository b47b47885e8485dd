"""Layers over real ranks of MPI, and the example."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import need_library

need_library("mpi4py", "frameworks")

HERE = Path(__file__).parent
EXAMPLE = HERE.parents[1] / "examples" / "mpi_digits.py"
MPIRUN = shutil.which("mpirun", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
if MPIRUN is None:
    pytest.skip("no mpirun beside this Python, or in PATH", allow_module_level=True)


def run(count, *command):
    done = subprocess.run(
        [MPIRUN, "--allow-run-as-root", "--oversubscribe", "-n", str(count), sys.executable, "-m", "mpi4py", *command],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        # Ranks that wait give way, since there may be more of them than CPUs.
        env={
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "OMPI_MCA_mpi_yield_when_idle": "1",
            "PYTHONPATH": str(HERE.parents[1]),
        },
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_the_ranks_are_one_batch(count):
    found = run(count, HERE / "mpi_ranks.py")
    assert len(found) == count
    assert max(map(float, found)) < 1e-10


def test_an_error_on_one_rank_is_one_on_all():
    lines = run(3, HERE / "mpi_ranks.py", "error")
    message = "ValueError: x must have 8 channels on axis 1"
    assert lines[1].startswith(message)
    for line in (lines[0], lines[2]):
        assert line.startswith(f"RuntimeError: every rank must get through, got an error on rank 1: {message}")


@pytest.mark.parametrize("count", [1, 3])
def test_training_over_ranks_has_the_losses_of_one_process(count):
    need_library("sklearn", "demo")
    lines = run(count, EXAMPLE)
    assert re.search(rf"^{count} ranks, 60 steps: loss \d\.\d+ at first, 0\.\d+ at last$", lines[0])
    assert float(re.search(r"at most (\S+) from", lines[1])[1]) < 1e-6


def test_comm_must_be_one():
    program = "import cpubn.mpi; cpubn.mpi.Ranks(3)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert "TypeError: comm must be an mpi4py.MPI.Intracomm, got int" in done.stderr
