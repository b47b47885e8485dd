"""A copy of this checkout, in which its extensions are built in another way, and the tests of what they compute."""

import os
import subprocess
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
TESTS = [f"tests/{name}" for name in ("backends", "functional", "capi", "layers", "frozen")]
# Other backends' code was not built in another way.
CHOSEN = ["-k", "not numba and not numpy and not cuda"]


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


def build(python, to, variables):
    """The copy's extensions, all of which must be there then."""
    command = [python, "setup.py", "--quiet", "build_ext", "--inplace"]
    subprocess.run(command, cwd=to, env=os.environ | variables | {"CPUBN_REQUIRE_EXT": "1"}, check=True)
