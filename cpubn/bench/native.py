"""Pages of C++ beside this file, compiled when they are first needed."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import tempfile
from pathlib import Path


def compile_page(name: str, *flags: str) -> ctypes.CDLL:
    """The library made from a page, for this machine and with OpenMP.

    Raises
    ------
    ImportError : there is no compiler, or it failed, with its last words.
    """
    compiler = shutil.which(os.environ.get("CXX", "c++"))
    if compiler is None:
        raise ImportError("no C++ compiler was found; install one, or name it in CXX")
    source = Path(__file__).parent / name
    # The loaded library outlives its file, but where the system keeps it locked.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        library = Path(folder) / f"{source.stem}.so"
        command = [compiler, "-O3", "-march=native", "-fopenmp", "-shared", "-fPIC", str(source), "-o", str(library)]
        done = subprocess.run([*command, *flags], capture_output=True, text=True, check=False)
        if done.returncode:
            raise ImportError(f"{name} does not compile: {done.stderr.strip().splitlines()[-1:]}")
        return ctypes.CDLL(str(library))
