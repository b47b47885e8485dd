"""The example on a dask cluster, in the middle of which a worker is killed."""

import re
import subprocess
import sys
from pathlib import Path

from conftest import need_library

for library in ("dask", "distributed"):
    need_library(library, "frameworks")

EXAMPLE = Path(__file__).parents[2] / "examples" / "dask_moments.py"


def test_a_killed_worker_changes_no_bit():
    done = subprocess.run([sys.executable, EXAMPLE], capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    assert "done when a worker is killed: False" in done.stdout
    assert "workers that were there before: 1" in done.stdout
    assert "102400 values per channel" in done.stdout
    assert "as one process has it, bit for bit: True" in done.stdout
    assert float(re.search(r"normalized by it: variance (\S+)", done.stdout)[1]) == 1.0
