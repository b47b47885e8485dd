"""The kernels by another compiler: their tests, and whether their bits are those of this checkout's extensions.

    CC=clang CXX=clang++ python tools/elsewhere.py build/clang [tests ...]

They are built in a copy of the checkout in that folder, so that the ordinary extensions, which must be built, stay as
they are. It ends with status 1 where a test fails or a bit differs.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import copies


def digests(python, checkout):
    """Of every result of the baseline, in every way that must not change a bit."""
    done = subprocess.run(
        [python, "-W", "error", "tests/digests.py", "cython", "1"],
        cwd=checkout,
        env=copies.environment(checkout, {"CPUBN_ISA": "baseline"}),
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"{checkout} computes no digests; are its extensions built, for {python}?")
    found = json.loads(done.stdout)
    return {(way, case): value for way, values in found["digests"].items() for case, value in values.items()}


def compared(here, there):
    """Whether all is the same, and nothing is missing on either side."""
    names = here.keys() | there.keys()
    different = sorted(name for name in names if here.get(name) != there.get(name))
    for name in different:
        print("differs:", *name)
    print(f"{len(names) - len(different)} of {len(names)} digests are those of this checkout", flush=True)
    return not different


def check(to, python=sys.executable, tests=copies.TESTS, chosen=()):
    """Of a copy whose extensions are built: what was built, its bits, its tests; whether all is well."""
    variables = copies.environment(to, {})
    subprocess.run([python, "-m", "cpubn", "info"], cwd=to, env=variables, check=True)
    same = compared(digests(sys.executable, copies.CHECKOUT), digests(python, to))
    tested = subprocess.run([python, *copies.PYTEST, *chosen, *tests], cwd=to, env=variables, check=False)
    return same and tested.returncode == 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("tests", nargs="*", default=copies.TESTS, help="in place of all that reach the kernels")
    asked = parser.parse_args()
    to = asked.folder.resolve()
    copies.copy(to)
    copies.build(sys.executable, to, {})
    sys.exit(not check(to, tests=asked.tests))


if __name__ == "__main__":
    main()
