"""The compiled kernels for C, C++ and Cython: a table of functions, and the header and the pxd file for it.

    python -c "import cpubn; print(cpubn.get_include())"

is what a compiler needs by ``-I``. cpubn.h says what the functions take. Importing this module raises ImportError where
cpubn was installed without its compiled kernels.
"""

from __future__ import annotations

import os
from typing import Any

from cpubn.backends import choice, threads
from cpubn.backends.compiled import variants

__all__ = ["table"]

reason: str | None = choice.absence("cython")
if reason is not None:
    raise ImportError(
        f"the functions for C are those of the compiled kernels, got none: {reason}; {choice.remedy('cython')}"
    )
table: Any = variants.entries().table_of(choice.kernels("cython"))
"""A capsule named "cpubn.capi.table", of a ``const cpubn_table*`` that stays as it is while the process lives."""

if threads.is_forked():
    variants.entries().compute_serially()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=variants.entries().compute_serially)
