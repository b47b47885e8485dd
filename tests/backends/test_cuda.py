"""The CUDA backend under Numba's simulator, in a process of its own: Numba reads that choice when it is imported."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import need_library

import cpubn

HERE = Path(__file__).parent
CHECKOUT = Path(cpubn.__file__).parents[1]
ABSENT = """
import numpy as np, cpubn
assert "cuda" not in cpubn.available_backends()
x = np.ones((4, 3), np.float32)
for call in (
    lambda: cpubn.batch_norm(x, None, None, training=True, backend="cuda"),
    lambda: cpubn.use_backend("cuda"),
    lambda: cpubn.BatchNorm1d(3).to_device(),
    lambda: cpubn.BatchNorm1d(3, backend="cuda"),
    lambda: cpubn.FrozenBatchNorm(weight=None, bias=None, running_mean=np.zeros(3), running_var=np.ones(3)).to_device(),
):
    try:
        call()
    except ValueError as error:
        print(error)
"""


def run(*arguments, **variables):
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("NUMBA_", "PYTEST_", "CPUBN_"))}
    kept["PYTHONPATH"] = os.pathsep.join(filter(None, (str(CHECKOUT), kept.get("PYTHONPATH"))))
    return subprocess.run(
        [sys.executable, *arguments], env=kept | variables, capture_output=True, text=True, timeout=280, check=False
    )


@pytest.mark.slow
def test_under_the_simulator():
    need_library("numba", "cuda")
    done = run("-m", "pytest", "-q", str(HERE / "cuda"), NUMBA_ENABLE_CUDASIM="1")
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert " passed" in done.stdout.splitlines()[-1]
    skipped = [line for line in done.stdout.splitlines() if line.startswith("SKIPPED")]
    allowed = "backend", "the simulator compiles nothing"  # those of the host; what a GPU alone can show
    assert not [line for line in skipped if not any(reason in line for reason in allowed)]


@pytest.mark.parametrize("why", ["no driver", "no device"])
def test_without_a_gpu(why):
    """No driver to be found, and one that the environment names and that is none."""
    need_library("numba", "cuda")
    variables = {} if why == "no driver" else {"NUMBA_CUDA_DRIVER": str(HERE / "test_cuda.py")}
    hidden = "from cpubn.backends import choice; choice._loads = lambda name: False\n" if why == "no driver" else ""
    done = run("-c", hidden + ABSENT, **variables)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 5
    for line in lines:
        assert line.startswith("backend must be one that is there, got 'cuda': ")
        assert ("no NVIDIA driver was found" if why == "no driver" else "Numba finds no GPU") in line
        assert "it needs an NVIDIA GPU with its driver" in line
