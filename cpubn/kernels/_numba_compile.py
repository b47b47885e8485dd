"""How Numba's loops are compiled when they are first called, kept on disk, and entered by any number of threads."""

import contextlib
import functools
import hashlib
import importlib.util
import inspect
import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import FunctionType
from typing import Any

import numba
from numba.core.errors import NumbaError, NumbaWarning
from numba.core.registry import CPUDispatcher

from cpubn import _activations, _algebra, _elementary
from cpubn.backends.jit import formulas
from cpubn.kernels import _numba_apply as loops
from cpubn.kernels import _numba_jit, _numba_sums

_compiled: dict[Any, Callable[..., None]] = {}
_compiling = threading.Lock()
_alone = threading.Lock()


def call(real: str, arguments: tuple[Any, ...], job: int, threads: int, function: Any) -> None:
    without = tuple(len(arguments[i]) == 0 for i in (0, 2))  # dy and residual
    own = isinstance(function, CPUDispatcher)
    key = real, without, threads > 1 and not own, function
    if key not in _compiled:
        with _compiling:
            if key not in _compiled:
                _compiled[key] = _compile(tuple(map(numba.typeof, (*arguments, job))), key[2], function)
    if threads == 1:
        _compiled[key](*arguments, job, 0, 1)
    elif own:  # what it raises would be lost in Numba's own threads
        with ThreadPoolExecutor(threads) as pool:
            shares = [pool.submit(_compiled[key], *arguments, job, part, threads) for part in range(threads)]
        for share in shares:
            share.result()
    else:
        with _team(threads):
            _compiled[key](*arguments, job, threads)


def _compile(types: tuple[Any, ...], parallel: bool, function: Any) -> Callable[..., None]:
    if isinstance(function, CPUDispatcher):
        try:  # not kept on disk, where a later version of the function would find the code of this one
            return _entry(types, parallel, _of_one_argument(function), cache=False)
        except NumbaError as error:
            raise TypeError(
                f"activation must be a function of one number that Numba compiles for {types[3][0]}, got "
                f"{function!r}, with which that fails: {error}; try it on a scalar first"
            ) from error
    try:
        return _entry(types, parallel, function, cache=True)
    except (OSError, RuntimeError):  # no folder that can be written, a full disk, no source to watch
        return _entry(types, parallel, function, cache=False)


def _of_one_argument(function: Any) -> Any:
    def activate(z: Any, low: Any, high: Any) -> Any:
        return function(z)

    activate.__name__ += f"_{id(function)}"
    return activate


def _entry(types: tuple[Any, ...], parallel: bool, function: Any, cache: bool) -> Callable[..., None]:
    """What `loops.work` or `loops.team` is entered by: the dispatchers before it would look at each argument's type."""
    signature = numba.void(*types, numba.int64, numba.int64)
    work = _work(signature, function, cache)
    if not parallel:
        return work.compile(signature)  # type: ignore[no-any-return]
    team = numba.njit(_named(loops.team), cache=cache, error_model="numpy", nogil=True, parallel=True)
    entry = team.compile((numba.types.FunctionType(signature), *types, numba.int64))
    return functools.partial(entry, _Pointer(work, signature))


@functools.cache
def _work(signature: Any, function: Any, cache: bool) -> Any:
    source = loops if function is None else _variant(function)
    work = numba.njit(_named(source.work, function), cache=cache, error_model="numpy", nogil=True)
    work.compile(signature)
    return work


class _Pointer(numba.types.WrapperAddressProtocol):  # type: ignore[misc]
    """A compiled function as an argument of another; of a dispatcher, Numba looks up the address in 50 us a call."""

    def __init__(self, function: Any, signature: Any) -> None:
        self._compiled = function.get_compile_result(signature)
        self._signature = signature
        wrapper = self._compiled.fndesc.llvm_cfunc_wrapper_name
        self._address = int(self._compiled.library.get_pointer_to_function(wrapper))

    def __wrapper_address__(self) -> int:
        return self._address

    def signature(self) -> Any:
        return self._signature


def _variant(function: Any) -> Any:
    """The module of the loops, with that function to be applied to each normalized value."""
    name = f"{loops.__name__}_{function.__name__}"
    spec: Any = importlib.util.spec_from_file_location(name, loops.__file__)
    module: Any = importlib.util.module_from_spec(spec)
    module.activate = numba.njit(function, error_model="numpy")
    spec.loader.exec_module(module)
    return sys.modules.setdefault(name, module)


def _named(loop: Any, function: Any = None) -> FunctionType:
    """A copy that is named after what it calls: Numba's cache watches its own source file alone."""
    modules = (_algebra, _elementary, _activations, formulas, _numba_jit, _numba_sums)
    sources = "".join(inspect.getsource(module) for module in modules)
    copy = FunctionType(loop.__code__, loop.__globals__)
    copy.__qualname__ = f"{loop.__name__}_{hashlib.sha256(sources.encode()).hexdigest()[:16]}"
    if function is not None:
        copy.__qualname__ += f"_{function.__name__}"
    return copy


def _unlock_child() -> None:
    """A lock that another thread held at the fork would stay held in the child."""
    global _compiling, _alone
    _compiling, _alone = threading.Lock(), threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_unlock_child)


@contextlib.contextmanager
def _team(threads: int) -> Iterator[None]:
    """Numba's parallel loops run that many threads, and afterwards as many as the caller had set.

    One at a time where the layer is workqueue, which aborts the process when two threads enter it, or is not known yet.
    """
    with contextlib.nullcontext() if threading_layer() in ("tbb", "omp") else _alone:
        if not threading_layer():
            with warnings.catch_warnings():  # of a TBB too old, in whose stead another layer is taken
                warnings.simplefilter("ignore", NumbaWarning)
                numba.get_num_threads()
        before = numba.get_num_threads()
        numba.set_num_threads(threads)
        try:
            yield
        finally:
            numba.set_num_threads(before)


def thread_limit() -> int:
    """The most threads that Numba runs: what it was started with (NUMBA_NUM_THREADS)."""
    return int(numba.config.NUMBA_NUM_THREADS)


def threading_layer() -> str:
    """Numba's threading layer: "tbb", "omp" or "workqueue"; "" before the first parallel call of the process."""
    try:
        return str(numba.threading_layer())
    except ValueError:
        return ""
