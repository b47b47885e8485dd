"""Whether this process was forked before it imported cpubn, from one that may have used OpenMP.

OpenMP's threads do not survive a fork: in the child libgomp waits forever for its parent's team, and Numba's omp layer
ends the process. `os.register_at_fork` tells of later forks alone.
"""

from __future__ import annotations

import os
import re
import sys

NOT_EXECUTED = 0x40  # PF_FORKNOEXEC, which Linux sets at a fork and clears at exec
OPENMP = re.compile(r"/(lib[gi]?omp[-.\d][^/\n]*)$", re.MULTILINE)


def forked_with_openmp() -> str | None:
    """What to say of such a process, also where it cannot be told what its parent has loaded; None for others."""
    if not _forked():
        return None
    try:
        with open("/proc/self/maps", encoding="utf-8", errors="replace") as file:
            found = OPENMP.search(file.read())
    except OSError:
        return "forked child"
    return f"forked child, with {found[1]} loaded before cpubn" if found else None


def _forked() -> bool:
    return hasattr(os, "fork") and (_known_to_linux() or _known_to_multiprocessing())


def _known_to_linux() -> bool:
    try:
        with open("/proc/self/stat", encoding="utf-8", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()  # the name of the program, before it, may hold anything
        return bool(int(fields[6]) & NOT_EXECUTED)
    except (OSError, IndexError, ValueError):
        return False


def _known_to_multiprocessing() -> bool:
    """Whether this is a child of its, and not a spawned one, which has executed Python with an argument of its own."""
    process = sys.modules.get("multiprocessing.process")
    is_child = process is not None and process.parent_process() is not None
    return is_child and "--multiprocessing-fork" not in sys.orig_argv
