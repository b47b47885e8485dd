"""The kernels on aarch64, under an emulator: their tests, and whether their bits are those of this checkout's.

    python tools/aarch64.py [tests ...]

In build/aarch64/, which is kept, it puts Debian's Python for arm64, without a change to the system, the wheels that
tests need, and a copy of the checkout. setup.py runs under the emulator, and calls the cross compiler of this machine.
It needs the network the first time, a Debian or Ubuntu, and of their packages those that it names. It ends with status
1 where a test fails or a bit differs.
"""

import argparse
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import copies
import elsewhere

PLACE = copies.CHECKOUT / "build" / "aarch64"
# (what must be there, Debian's package that has it).
NEEDED = [
    ("apt-get", "apt"),
    ("aarch64-linux-gnu-gcc", "gcc-aarch64-linux-gnu"),
    ("aarch64-linux-gnu-g++", "g++-aarch64-linux-gnu"),
    ("/usr/aarch64-linux-gnu/include/stdio.h", "libc6-dev-arm64-cross"),
    ("qemu-aarch64-static", "qemu-user-static"),
    ("/usr/share/keyrings/debian-archive-keyring.gpg", "debian-archive-keyring"),
]
SOURCE = f"deb [signed-by={NEEDED[-1][0]}] http://deb.debian.org/debian bookworm main\n"
DEBIAN = ["python3.11", "libpython3.11-dev", "libgomp1", "libstdc++6"]
WHEELS = ["cython", "hypothesis", "ml_dtypes", "pytest", "pytest-timeout", "pytest-xdist", "setuptools"]
PLATFORMS = [f"--platform=manylinux_2_{minor}_aarch64" for minor in (17, 28)]
# Those of families of samples take longest, and the digests, which are compared besides, have families too.
TESTS = [name for name in copies.TESTS if name != "tests/functional"]
TESTS += [f"tests/functional/test_{name}.py" for name in ("coefficients", "extremes", "halves", "masks", "types")]
# sys.executable is this file, so that a test that starts Python starts the emulator. Where headers are is for the cross
# compiler, which runs outside of it; of C's own headers it has its own.
PYTHON = """#!/bin/sh
export PYTHONHOME='{root}/usr' C_INCLUDE_PATH='{headers}' CPLUS_INCLUDE_PATH='{headers}'
export PYTHONPATH="${{PYTHONPATH:+$PYTHONPATH:}}{site}"
exec qemu-aarch64-static -0 "$0" -L '{root}' "$PYTHONHOME/bin/python3.11" "$@"
"""


def run(*command, **how):
    subprocess.run([str(part) for part in command], check=True, **how)


def need_programs():
    missing = [package for name, package in NEEDED if not shutil.which(name) and not Path(name).exists()]
    if missing:
        sys.exit(f"something is missing here: apt-get install {' '.join(missing)}")


def debian(folder):
    """Debian's Python and the libraries that it needs, by apt in folders of its own."""
    apt = PLACE / "apt"
    for name in ("lists/partial", "archives/partial"):
        (apt / name).mkdir(parents=True, exist_ok=True)
    (apt / "status").touch()  # nothing is installed
    (apt / "sources").write_text(SOURCE)
    options = ["APT::Architecture=arm64", "APT::Architectures::=arm64", "APT::Sandbox::User=", "Debug::NoLocking=1"]
    options += [f"Dir::Etc::sourcelist={apt / 'sources'}", "Dir::Etc::sourceparts=/dev/null"]
    options += [f"Dir::State::lists={apt / 'lists'}", f"Dir::State::status={apt / 'status'}"]
    options += [f"Dir::Cache={apt}", f"Dir::Cache::archives={apt / 'archives'}"]
    get = ["apt-get", "-qq", *(f"-o{option}" for option in options)]
    run(*get, "update")
    run(*get, "--yes", "--no-install-recommends", "--download-only", "install", *DEBIAN)
    for package in sorted(apt.glob("archives/*.deb")):
        run("dpkg-deb", "--extract", package, folder)


def wheels(folder):
    """With the NumPy that is here, whose numbers at random are then the same."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--target", folder, *PLATFORMS]
    run(*command, "--python-version=3.11", "--only-binary=:all:", f"numpy=={version('numpy')}", *WHEELS)


def made_once(name, make):
    """A folder that is there in whole or not at all."""
    folder, unfinished = PLACE / name, PLACE / "unfinished"
    if not folder.exists():
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        make(unfinished)
        unfinished.rename(folder)
    return folder


def only(folder, name):
    """A folder that holds nothing but that of another one."""
    link = PLACE / f"only-{name}" / name
    link.parent.mkdir(exist_ok=True)
    if not link.exists():
        link.symlink_to(folder / name)
    return link.parent


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tests", nargs="*", help="in place of those in TESTS that are not slow")
    asked = parser.parse_args()
    need_programs()
    root = made_once("debian", debian)
    site = made_once(f"wheels-numpy-{version('numpy')}", wheels)
    python, to = PLACE / "python", PLACE / "checkout"
    include = root / "usr" / "include"
    headers = f"{include / 'python3.11'}:{only(include, 'aarch64-linux-gnu')}"
    python.write_text(PYTHON.format(root=root, site=site, headers=headers))
    python.chmod(0o755)
    copies.copy(to)
    copies.build(python, to, {})
    sys.exit(not elsewhere.check(to, python, asked.tests or TESTS, () if asked.tests else ("-m", "not slow")))


if __name__ == "__main__":
    main()
