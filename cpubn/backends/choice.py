"""Which backend computes, with which instruction set, on how many threads."""

from __future__ import annotations

import ctypes
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from cpubn.backends.compiled import variants
from cpubn.backends.epilogue import Activation, is_for_gpu
from cpubn.backends.gpu.arrays import DeviceArray
from cpubn.backends.threads import SERIAL_BYTES, get_num_threads, set_num_threads, threads
from cpubn.typing import Backend

__all__ = [
    "SERIAL_BYTES",
    "absence",
    "available_backends",
    "backend_for",
    "compiled_calls",
    "get_backend",
    "get_num_threads",
    "host_backend",
    "imports_numba",
    "kernels",
    "kernels_for",
    "resolve",
    "set_num_threads",
    "threads",
    "use_backend",
]

# In the order of preference.
HOST_BACKENDS: tuple[Backend, ...] = ("cython", "numba", "numpy")
BACKENDS: tuple[Backend, ...] = (*HOST_BACKENDS, "cuda")
MODULES = {
    "numba": "cpubn.backends.jit.passes",
    "numpy": "cpubn.backends.reference",
    "cuda": "cpubn.backends.gpu.passes",
}
REMEDIES = {
    # pip keeps a wheel that it built without a compiler, and takes it again where it is not told otherwise.
    "cython": "install a C compiler and then cpubn again, past what pip has cached, with "
    "pip install --no-cache-dir --force-reinstall --no-deps cpubn (or the path or URL that it came from)",
    "numba": 'install it with pip install "cpubn[numba]"',
    "cuda": 'it needs an NVIDIA GPU with its driver, the CUDA toolkit, and pip install "cpubn[cuda]"',
}

_current: ContextVar[Backend | None] = ContextVar("cpubn_backend", default=None)
_loaded: dict[str, ModuleType] = {}
_broken: dict[str, str] = {}


def kernels(name: Backend | None = None) -> Any:
    """The module with a backend's kernels, of the chosen instruction set; ValueError, TypeError where it is absent."""
    name = resolve(name)
    return _loaded.get(name) or _load(name)


def kernels_for(x: Any, name: Backend | None = None) -> Any:
    """The kernels for an array, on a GPU those of cuda; ValueError where a backend for another place was asked for."""
    if isinstance(x, DeviceArray):
        asked = {"": name, " from use_backend": _current.get(), " from CPUBN_BACKEND": os.environ.get("CPUBN_BACKEND")}
        source, found = next(((where, name) for where, name in asked.items() if name), ("", "cuda"))
        if found != "cuda":
            raise ValueError(
                f"backend must be 'cuda' for an array on a GPU, got {found!r}{source}; leave it out, or copy x to the "
                "host (an activation of your own is compiled by numba.cuda.jit(device=True) for a GPU)"
            )
        return kernels("cuda")
    name = resolve(name)
    if name == "cuda":
        raise ValueError(
            f"x must be an array on a GPU for backend 'cuda', got {type(x).__name__} on the host; "
            "copy it there with numba.cuda.to_device(x), or leave the backend out"
        )
    return kernels(name)


def compiled_calls(name: Backend | None = None) -> Any:
    """What takes whole calls of arrays on the host, or None where another backend computes."""
    return _compiled_calls() if resolve(name) == "cython" else None


@cache
def _compiled_calls() -> Any:
    return variants.calls(kernels("cython"), threads)


def resolve(name: Backend | None = None) -> Backend:
    """The name of a backend that is there; None stands for the current default."""
    if name is None:
        return _current.get() or _default()
    _check(name, "backend")
    return name


def backend_for(activation: Activation | None, name: Backend | None) -> Backend | None:
    """The backend for an activation: a function that Numba compiled is fused into the loops of its target alone."""
    if activation is None or activation.function is None:
        return name
    target: Backend = "cuda" if is_for_gpu(activation.function) else "numba"
    if name not in (None, target):
        raise ValueError(
            f"backend must be {target!r} for an activation of your own that it compiled, got {name!r}; "
            "leave it out, or name a built-in one"
        )
    return resolve(target)


def use_backend(name: Backend) -> AbstractContextManager[None]:
    """Make a backend the default inside a `with` block, for the current thread or asyncio task alone.

    Parameters
    ----------
    name : "cython", "numba", "numpy" or "cuda".

    Returns
    -------
    A context manager.

    Raises
    ------
    ValueError, TypeError : the backend is unknown, or absent, with the reason.

    Examples
    --------
    >>> with cpubn.use_backend("numpy"):
    ...     cpubn.get_backend()
    'numpy'
    """
    _check(name, "backend")
    return _using(name)


def get_backend() -> Backend:
    """The name of the backend that a call without ``backend=`` uses now; arrays on a GPU go to "cuda" by themselves.

    Returns
    -------
    That of use_backend, of CPUBN_BACKEND, or the first that is installed.

    Raises
    ------
    ValueError : CPUBN_BACKEND or CPUBN_ISA asks for what is unknown or absent.

    Examples
    --------
    >>> cpubn.get_backend() in cpubn.available_backends()
    True
    """
    return _current.get() or _first()


def available_backends() -> tuple[Backend, ...]:
    """The backends that are installed.

    Returns
    -------
    A tuple of their names, in the order of preference.

    Examples
    --------
    >>> "numpy" in cpubn.available_backends()
    True
    """
    return tuple(name for name in BACKENDS if absence(name) is None)


def absence(name: str) -> str | None:
    """Why a backend cannot be used, or None. Numba is only looked for: importing it takes half a second."""
    if name == "cython":
        return variants.absence("baseline")
    if name in ("numba", "cuda") and name not in _loaded and find_spec("numba") is None:
        return "Numba is not installed"
    return _broken.get(name) or (_driver_absence() if name == "cuda" and name not in _loaded else None)


def _driver_absence() -> str | None:
    """Why no GPU can be used; Numba is imported only where there is a driver, or a stand-in."""
    instead = os.environ.get("NUMBA_CUDA_DRIVER") or os.environ.get("NUMBA_ENABLE_CUDASIM", "0") != "0"
    if not instead and not any(map(_loads, ("libcuda.so.1", "libcuda.so", "nvcuda.dll"))):
        return "no NVIDIA driver was found"
    try:
        return import_module("cpubn.backends.gpu.target").absence()  # type: ignore[no-any-return]
    except (ImportError, OSError) as error:
        return f"numba.cuda cannot be imported: {error}"


@cache
def _loads(library: str) -> bool:
    try:
        return bool(ctypes.CDLL(library))
    except OSError:
        return False


@contextmanager
def _using(name: Backend) -> Iterator[None]:
    token = _current.set(name)
    try:
        yield
    finally:
        _current.reset(token)


@cache
def _default() -> Backend:
    """The one of a call that names none, which says once what it costs where that was not chosen and is slow."""
    name = _first()
    if name == "numpy" and not os.environ.get("CPUBN_BACKEND"):
        absent = "".join(f"\n  {name}: {absence(name)}; {REMEDIES[name]}" for name in HOST_BACKENDS if name != "numpy")
        warnings.warn(
            f"cpubn computes with NumPy, many times slower than compiled, as no faster backend is there:{absent}\n"
            'CPUBN_BACKEND=numpy, backend="numpy" or cpubn.use_backend("numpy") chooses it, without this warning.',
            RuntimeWarning,
            stacklevel=_levels_to_the_user(),
        )
    return name


def _levels_to_the_user() -> int:
    """How far above who asks the first line stands that is neither this package's nor a decorator's in it."""
    levels, frame = 0, sys._getframe(1)
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] in ("cpubn", "contextlib"):
        levels, frame = levels + 1, frame.f_back
    return levels + 1


@cache
def _first() -> Backend:
    forced: Any = os.environ.get("CPUBN_BACKEND")
    if forced:
        _check(forced, "CPUBN_BACKEND")
        return forced  # type: ignore[no-any-return]
    return _best()


def host_backend() -> Backend:
    """The default backend for arrays on the host, also where that for others is "cuda"."""
    name = resolve(None)
    return _best() if name == "cuda" else name


@cache
def _best() -> Backend:
    if os.environ.get("CPUBN_ISA"):
        variants.instruction_set()  # an instruction set that is asked for and absent must not end in another backend
    for name in HOST_BACKENDS:
        if absence(name) is None and (name != "numba" or imports_numba()):
            return name
    raise AssertionError("numpy is always there")


def _check(name: Any, what: str) -> None:
    if not isinstance(name, str):
        raise TypeError(f"{what} must be a string, one of {', '.join(BACKENDS)}, got {name!r}; pass its name")
    if name in _loaded:
        return
    if name not in BACKENDS:
        raise ValueError(f"{what} must be one of {', '.join(BACKENDS)}, got {name!r}; pick one of those")
    reason = absence(name)
    if reason is not None:
        raise ValueError(f"{what} must be one that is there, got {name!r}: {reason}; {remedy(name)}")


def remedy(name: str) -> str:
    """What to do about the absence of a backend."""
    return f"{REMEDIES[name]}, or use {' or '.join(available_backends())}"


def _load(name: str) -> ModuleType:
    if name == "cython":
        module = variants.load(variants.instruction_set())
    else:
        try:
            module = import_module(MODULES[name])
        except (ImportError, OSError) as error:  # for example "Numba needs NumPy 2.3 or less"
            _broken[name] = f"it cannot be imported: {error}"
            _check(name, "backend")
    return _loaded.setdefault(name, module)


def imports_numba() -> bool:
    try:
        _load("numba")
    except ValueError:
        return False
    return True
