"""handlers.cpp as a library: compiled on this machine against the header in jaxlib, kept in a cache folder, loaded.

A library is code that runs: it is loaded from nowhere but a folder that nobody else can write to. Its name says what it
was built for, down to the text of its sources, so that one of another jaxlib or cpubn is never taken for it.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shlex
import shutil
import stat
import subprocess
import sys
import sysconfig
import tempfile
from functools import cache
from importlib import import_module
from pathlib import Path
from threading import Lock
from typing import Any

import jax
import jaxlib

from cpubn.backends import threads
from cpubn.version import __version__

SOURCE = Path(__file__).with_name("handlers.cpp")
SOURCES = SOURCE, SOURCE.with_name("team.hpp"), Path(__file__).parents[1] / "include" / "cpubn.h"
FLAGS = "-std=c++17", "-O2", "-shared", "-fPIC", "-pthread"
COMPILERS = "c++", "g++", "clang++"
CAPSULE = b"cpubn.capi.table"
# As XLA knows them. A program that was exported names its calls for years: what one means never changes under a name.
TARGETS = {name: f"cpubn_{name}_1" for name in ("forward", "backward")}
# Calls of no more bytes of x are made where they come from. Measured on 2 cores: handing one over takes 6 us, so that a
# training forward of 256 KB took 25 us by one thread and 28 by two, one of 512 KB 43 and 36, one of 1 MB 99 and 61.
SERIAL_BYTES = 3 << 17
_lock = Lock()


def build() -> Path:
    """Compile the calls of XLA for the jaxlib that is installed, unless that was done before, and tell XLA of them.

    Nobody has to call it, as the first `batch_norm` does, but for two reasons: to have the seconds that it takes
    elsewhere, for example while an image of a container is made whose final stage has no compiler; and before a
    program runs that jax.export has brought from another process, where nothing is traced. The folder is
    ``CPUBN_CACHE_DIR`` or else ``cpubn`` in the user's cache folder. The compiler is ``CXX``, with options if it has
    some, or the first of c++, g++ and clang++ that is there.

    Returns
    -------
    The path of the library.

    Raises
    ------
    RuntimeError : there are no compiled kernels; there is no compiler, or it failed, with its words; others can write
        to the folder; the system is none on which this is built.

    Examples
    --------
    >>> cpubn.jax.build().suffix
    '.so'
    """
    register()
    return built()


def built() -> Path:
    """The library, compiled if it is not there."""
    if os.name != "posix":
        raise RuntimeError(
            f"cpubn.jax must be on Linux or macOS, where its calls are built, got {sys.platform}; "
            "use cpubn.batch_norm by jax.pure_callback"
        )
    path = folder() / name_of_library()
    own(path.parent)
    if not path.exists():
        compile_to(path)
    check_private(path)
    return path


def folder() -> Path:
    named = os.environ.get("CPUBN_CACHE_DIR")
    if named:
        return Path(named).absolute()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "cpubn"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").absolute() / "cpubn"


def name_of_library() -> str:
    api = Path(jax.ffi.include_dir(), "xla", "ffi", "api")
    digest = hashlib.sha256(" ".join(FLAGS).encode())
    for path in (*SOURCES, *sorted(api.glob("*.h"))):
        digest.update(path.read_bytes())
    abi = sysconfig.get_config_var("SOABI")
    return f"jax-{jaxlib.__version__}-{__version__}-{abi}-{digest.hexdigest()[:16]}.so"


def own(place: Path) -> None:
    """Make a folder that is the user's alone, with those that it stands in."""
    try:
        for missing in [p for p in (*reversed(place.parents), place) if not p.is_dir()]:
            missing.mkdir(0o700, exist_ok=True)
    except OSError as error:
        raise unusable(place, error) from None
    check_private(place)


def unusable(place: Path, error: OSError) -> RuntimeError:
    return RuntimeError(
        f"{place} must be a folder to keep the compiled calls in, got {error}; name another in CPUBN_CACHE_DIR"
    )


def check_private(path: Path) -> None:
    """RuntimeError where another user could put something in a file's or folder's place."""
    path = path.resolve()
    for place in (path, *path.parents):
        found = place.stat()
        # In a folder as /tmp is, each can only move what is theirs.
        is_shared = found.st_mode & stat.S_ISVTX and place != path
        if found.st_uid not in (0, os.getuid()) or (found.st_mode & 0o022 and not is_shared):
            raise RuntimeError(
                f"{place} must be writable by this user alone, or others could have their code run from {path}, got "
                f"owner {found.st_uid} and mode {stat.S_IMODE(found.st_mode):o}; change it, for example with "
                f"chmod go-w {place}, or name another folder in CPUBN_CACHE_DIR"
            )


def compiler() -> list[str]:
    """The command that a C++ compiler starts by."""
    asked = shlex.split(os.environ.get("CXX", ""))
    found = shutil.which(asked[0]) if asked else next(filter(None, map(shutil.which, COMPILERS)), None)
    if found is None:
        raise RuntimeError(
            "cpubn.jax must have a C++ compiler to build its calls of XLA by, got none: no "
            f"{' or '.join(asked[:1] or COMPILERS)}; install one, for example with apt install g++ or "
            "xcode-select --install, or name it in CXX"
        )
    return [found, *asked[1:]]


def compile_to(path: Path) -> None:
    """Compile in a folder of its own, and move what was made to its place in one step."""
    start = compiler()
    try:
        with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
            made = Path(scratch, path.name)
            include = f"-I{jax.ffi.include_dir()}", f"-I{SOURCES[-1].parent}"
            command = [*start, *FLAGS, *include, str(SOURCE), "-o", str(made)]
            done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
            if done.returncode == 0:
                made.chmod(0o700)
                os.replace(made, path)
    except OSError as error:
        raise unusable(path.parent, error) from None
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if "error" in line] or done.stderr.splitlines()
        raise RuntimeError(
            f"the calls of XLA must compile against jaxlib {jaxlib.__version__}, got from {start[0]}: "
            f"{' '.join(lines[:1])}; install a compiler of C++17, or another version of jax"
        )


def register() -> None:
    """Tell XLA the calls, once."""
    with _lock:
        _register()


@cache
def _register() -> None:
    try:
        capsule = import_module("cpubn.capi").table
    except ImportError as error:  # there are no compiled kernels
        raise RuntimeError(str(error)) from None
    library = load(built())
    pointer_of: Any = ctypes.pythonapi.PyCapsule_GetPointer
    pointer_of.restype, pointer_of.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
    library.cpubn_start(ctypes.c_void_p(pointer_of(capsule, CAPSULE)), ctypes.c_int64(SERIAL_BYTES))
    threads.follow(library.cpubn_set_threads)
    for name, target in TARGETS.items():
        jax.ffi.register_ffi_target(target, jax.ffi.pycapsule(getattr(library, f"cpubn_{name}")), platform="cpu")


def load(path: Path) -> ctypes.CDLL:
    try:
        return ctypes.CDLL(str(path))
    except OSError:  # a file that is damaged
        compile_to(path)
        return ctypes.CDLL(str(path))
