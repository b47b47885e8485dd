"""The example of the scaler: what it prints."""

import re
import subprocess
import sys
from pathlib import Path

from conftest import need_library

need_library("sklearn", "sklearn")

EXAMPLE = Path(__file__).parents[2] / "examples" / "scaler.py"


def test_both_scalers_side_by_side():
    done = subprocess.run([sys.executable, EXAMPLE], capture_output=True, text=True, timeout=240, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    means = {name: float(mean) for name, mean in re.findall(r"^(\w+): means up to (\S+)$", done.stdout, re.MULTILINE)}
    assert means.keys() == {"sklearn", "cpubn"}
    assert means["cpubn"] < 1e-7
    assert float(re.search(r"and of the whole differ by (\S+)", done.stdout)[1]) < 1e-6
    assert "missing values before and after: 36 36" in done.stdout
    assert int(re.search(r"a pipeline is right for (\d+)%", done.stdout)[1]) > 85
