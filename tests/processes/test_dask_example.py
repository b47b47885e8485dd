"""The example on a dask cluster, in the middle of which a worker is killed."""

import math
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import need_library

for library in ("dask", "distributed"):
    need_library(library, "frameworks")

EXAMPLE = Path(__file__).parents[2] / "examples" / "dask_moments.py"


def test_a_killed_worker_changes_no_bit():
    done = subprocess.run([sys.executable, EXAMPLE], capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    assert "done when a worker is killed: False" in done.stdout
    assert "workers that were there before: 1" in done.stdout
    assert "of those that began to recalibrate: 1" in done.stdout
    assert "61440 values per channel" in done.stdout
    assert "as one process has it, bit for bit: True" in done.stdout
    assert "as one process recalibrates, bit for bit: True" in done.stdout
    means = re.search(r"recalibrated on the cluster: running means (\S+) and (\S+)", done.stdout).groups()
    assert float(means[0]) == pytest.approx(1e4, abs=0.01)
    assert float(means[1]) == pytest.approx(1 / math.sqrt(2 * math.pi), abs=0.002)
