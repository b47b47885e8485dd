"""The example with joblib."""

import re
import subprocess
import sys
from pathlib import Path

from conftest import need_library

need_library("joblib", "sklearn")

EXAMPLE = Path(__file__).parents[2] / "examples" / "joblib_moments.py"


def test_processes_change_no_bit():
    done = subprocess.run([sys.executable, EXAMPLE], capture_output=True, text=True, timeout=240, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "313344 values per channel" in done.stdout
    assert "as one process has it, bit for bit: True" in done.stdout
    apart, means = (float(re.search(rf"{words} (\S+)", done.stdout)[1]) for words in ("differ by", "means below"))
    assert apart < 1e-6
    assert means < 1e-6
