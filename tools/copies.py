"""A copy of this checkout, in which its extensions are built in another way, and the tests of what they compute."""

import os
import subprocess
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
TESTS = [f"tests/{name}" for name in ("backends", "functional", "capi", "layers", "frozen")]
PYTEST = ["-m", "pytest", "-p", "no:cacheprovider", "-o", "timeout=3000", "--numprocesses=0", "-q"]
PYTEST += ["-k", "not numba and not numpy and not cuda"]  # other backends' code was not built in another way
# Threads that wait leave their CPU to others; of NumPy's library of linear algebra nothing is needed.
THREADS = {"OMP_WAIT_POLICY": "passive", "OPENBLAS_NUM_THREADS": "1"}


def files():
    """What git knows, and what it will."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=CHECKOUT, capture_output=True, text=True, check=True).stdout.split("\0")
    return [name for name in names if name and (CHECKOUT / name).exists()]


def copy(to, changed=lambda name, content: content):
    """The checkout, of which only what differs is written: what is built from the rest is up to date."""
    names = files()
    for name in names:
        source, target = CHECKOUT / name, to / name
        content = changed(name, source.read_bytes())
        if not target.exists() or target.read_bytes() != content:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
    for top in ("cpubn", "tests"):  # what was removed since
        for path in (to / top).rglob("*.p[yx]*"):
            if path.suffix in (".py", ".pyx", ".pxd") and path.relative_to(to).as_posix() not in names:
                path.unlink()


def environment(to, variables):
    """Of the copy's programs, without what chooses other kernels or other tests."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("CPUBN_", "OMP_", "PYTEST_"))}
    return kept | THREADS | {"PYTHONPATH": str(to)} | variables


def build(python, to, variables):
    """The copy's extensions, all of which must be there then."""
    command = [python, "setup.py", "--quiet", "build_ext", "--inplace"]
    subprocess.run(command, cwd=to, env=os.environ | variables | {"CPUBN_REQUIRE_EXT": "1"}, check=True)
