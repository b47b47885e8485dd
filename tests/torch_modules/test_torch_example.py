"""The example in torch: what it prints."""

import os
import re
import subprocess
import sys
from pathlib import Path

from conftest import need_library

for library in ("torch", "sklearn"):
    need_library(library, "frameworks")

EXAMPLE = Path(__file__).parents[2] / "examples" / "torch_digits.py"


def test_both_norms_learn_alike():
    done = subprocess.run(
        [sys.executable, EXAMPLE],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert float(re.search(r"The loss curves are at most (\S+) apart", done.stdout)[1]) < 1e-4
    accuracies = re.findall(r"^(?:torch|cpubn): \d+\.\d\d s, (\d+\.\d)% of 360", done.stdout, re.MULTILINE)
    assert accuracies[0] == accuracies[1]
    assert float(accuracies[0]) > 90
