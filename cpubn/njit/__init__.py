"""cpubn inside users' own functions compiled by numba.njit.

Numba calls `init`, the entry point ``numba_extensions`` of this package, before it compiles anything or loads it from a
cache: nobody has to import this module. From then on batch_norm, batch_norm_backward, moments and every FrozenBatchNorm
are known inside such functions. They call the functions of cpubn.h by the names that `symbols` gives them.
"""

from __future__ import annotations

from importlib import import_module

__all__ = ["init"]


def init() -> None:
    """Tell Numba about cpubn; where its kernels are absent, what is asked of it raises."""
    import_module("cpubn.njit.symbols").register()
    for name in ("functions", "frozen"):
        import_module(f"cpubn.njit.{name}")
