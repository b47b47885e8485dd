"""The example trains a network within JAX."""

import re
import subprocess
import sys
from pathlib import Path

from conftest import need_backend, need_library

need_library("jax", "frameworks")
need_library("sklearn", "demo")
EXAMPLE = Path(__file__).parents[2] / "examples" / "inside_jax.py"


def test_it_learns(tmp_path, monkeypatch):
    need_backend("cython")
    monkeypatch.setenv("CPUBN_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    done = subprocess.run([sys.executable, EXAMPLE], capture_output=True, text=True, timeout=240, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    losses = [float(loss) for loss in re.findall(r"^step +\d+: loss (\S+)$", done.stdout, re.MULTILINE)]
    assert losses == sorted(losses, reverse=True)
    assert float(re.search(r"^(\S+)% of 360 digits", done.stdout, re.MULTILINE)[1]) > 75
