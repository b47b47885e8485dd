"""How many threads a call may use, and where that number came from.

It is the smallest of what OpenMP, the CPU affinity and the cgroup's quota allow, unless CPUBN_NUM_THREADS or
set_num_threads says otherwise. What set_num_threads chose is one tuple, replaced whole: Python threads need no lock to
read it, and a forked child has none to recreate.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from operator import index
from typing import NamedTuple

from cpubn.backends import forks
from cpubn.backends.compiled import variants
from cpubn.machine import cpus

# Calls that read no more than this run in the calling thread. Measured on 2 cores: a warm OpenMP team costs 1 to 4 us,
# so that normalize (6 us for 128 KB) gains from 256 KB on, and training from 64 KB on.
SERIAL_BYTES = 1 << 17
# OpenMP ends the process where it cannot start a thread, so a slip of the keyboard must not reach it.
MOST = 1024


class Count(NamedTuple):
    threads: int
    source: str


_chosen: Count | None = None
_followers: list[Callable[[int], object]] = []
_forked = forks.forked_with_openmp()  # why a forked child has one thread, None elsewhere


def threads(nbytes: int) -> int:
    """The threads for a call that reads `nbytes`."""
    return 1 if nbytes <= SERIAL_BYTES else count().threads


def get_num_threads() -> int:
    """How many threads a large call uses.

    Returns
    -------
    The number; 1 in a forked child.

    Examples
    --------
    >>> cpubn.get_num_threads() >= 1
    True
    """
    return count().threads


def set_num_threads(n: int | None) -> None:
    """Let large calls use `n` threads in this process; results keep their bits whatever it is.

    Parameters
    ----------
    n : from 1 to 1024, or None to go back to the default
        Which is CPUBN_NUM_THREADS, or what the machine allows, as it was first found out.

    Notes
    -----
    More than there are CPUs is allowed. Numba cannot exceed what it was started with (NUMBA_NUM_THREADS), and clamps.
    A forked child stays with one thread, whatever is set: OpenMP's do not survive a fork. So does a process that was
    forked before it imported cpubn, if a library of OpenMP's was loaded by then. Processes started with "spawn" have
    threads of their own.

    Raises
    ------
    TypeError, ValueError : `n` is no whole number, or not from 1 to 1024; None, and CPUBN_NUM_THREADS is none such.

    Examples
    --------
    >>> cpubn.set_num_threads(2)
    >>> cpubn.set_num_threads(None)
    """
    global _chosen
    if n is None:
        _default()
        _chosen = None
        _tell()
        return
    if isinstance(n, bool) or not hasattr(n, "__index__"):
        raise TypeError(f"n must be a whole number from 1 to {MOST}, got {n!r}; pass an int, or None for the default")
    _chosen = Count(_checked(index(n), "n", "pass a number in that range"), "set_num_threads")
    _tell()


def follow(told: Callable[[int], object]) -> None:
    """Tell a function the number now and whenever it is set: for calls that come from code without an interpreter."""
    told(count().threads)
    _followers.append(told)


def _tell() -> None:
    for told in _followers:
        told(count().threads)


def is_forked() -> bool:
    """Whether OpenMP must not be entered, this process being a forked child."""
    return bool(_forked)


def count() -> Count:
    return Count(1, _forked) if _forked else _chosen or _default()


@cache
def limits() -> dict[str, int | None]:
    """What allows how many threads; None where it does not limit them."""
    return {"CPU affinity": cpus.usable(), "cgroup quota": cpus.quota(), "OpenMP": openmp_threads()}


def openmp_threads() -> int | None:
    """OpenMP's own maximum, which obeys OMP_NUM_THREADS; None without the extension, or where that was built serial."""
    if variants.absence("baseline") is not None:
        return None
    maximum: int = variants.planner().openmp_max_threads()
    return maximum or None


@cache
def _default() -> Count:
    text = os.environ.get("CPUBN_NUM_THREADS")
    if text:
        # A number that is no number fails the same check as one that is too small.
        number = int(text) if text.strip().isdecimal() else text
        return Count(_checked(number, "CPUBN_NUM_THREADS", "correct it, or unset it"), "CPUBN_NUM_THREADS")
    source, least = min(((name, n) for name, n in limits().items() if n is not None), key=lambda limit: limit[1])
    return Count(min(least, MOST), source)


def _checked(n: int | str, name: str, remedy: str) -> int:
    if isinstance(n, str) or not 1 <= n <= MOST:
        raise ValueError(f"{name} must be a whole number from 1 to {MOST}, got {n!r}; {remedy}")
    return n


def _after_fork() -> None:
    global _forked
    _forked = "forked child"
    _tell()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
