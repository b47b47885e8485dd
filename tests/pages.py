"""The pages of the documentation as programs: all code of a page, in its order, as a reader would type it."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

from conftest import need_library

ROOT = Path(__file__).parents[1]
CHECK = {"PYTHONWARNINGS": "error", "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
# The extra that brings a library; those of `frameworks` are not where the other tests run.
EXTRAS = {"ml_dtypes": "half", "numba": "numba"}
EXTRAS |= dict.fromkeys(("h5py", "onnx", "safetensors"), "convert")
EXTRAS |= dict.fromkeys(("flax", "jax", "keras", "onnxruntime", "tensorflow", "torch"), "frameworks")


def program_of(page):
    return "\n".join(re.findall(r"^```python\n(.*?)^```", page.read_text("utf-8"), re.DOTALL | re.MULTILINE))


def libraries_of(program):
    """What it imports that Python does not bring."""
    nodes = list(ast.walk(ast.parse(program)))
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module for node in nodes if isinstance(node, ast.ImportFrom)]
    return {name.partition(".")[0] for name in names} - sys.stdlib_module_names - {"cpubn", "numpy"}


def pages(*, frameworks):
    """Those with code, by their names; with or without those that import a framework."""
    found = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    programs = {page.relative_to(ROOT).as_posix(): program_of(page) for page in found}
    return [name for name, program in programs.items() if program and needs_framework(program) == frameworks]


def needs_framework(program):
    return any(EXTRAS.get(library) == "frameworks" for library in libraries_of(program))


def run_page(name, folder):
    """As `python page.py` in that folder; a warning is an error."""
    program = program_of(ROOT / name)
    libraries = libraries_of(program)
    for library in sorted(libraries):
        need_library(library, EXTRAS.get(library, "test"))
    start = ""
    if "numba" in libraries:  # which Numba calls where cpubn was installed with this entry point
        start = "import cpubn.njit; cpubn.njit.init()\n"
    path = folder / "page.py"
    path.write_text(start + program, "utf-8")
    done = subprocess.run(
        [sys.executable, path.name],
        cwd=folder,
        env=os.environ | CHECK,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
