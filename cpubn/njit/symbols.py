"""The functions of cpubn.h as names that LLVM knows, by which compiled code finds them anew in each process.

A cache holds a user's code for years, and code that calls a name which is not there ends the process. So names carry a
version; what they mean, and how a call is laid out in memory, never changes under one. All versions that may ever have
been called have a function: those that this cpubn does not have, and all of them where there are no kernels, have one
that answers ABSENT, upon which the code raises.
"""

from __future__ import annotations

import ctypes
from importlib import import_module
from typing import Any

import llvmlite.binding as llvm

from cpubn.backends.compiled import variants

VERSION = 1  # of what compiled code takes the functions to be
VERSIONS = range(1, 33)
ABSENT = -1
# In the order of the table, whose first member is its version.
TABLE = (
    *("moments", "normalize", "train_forward", "gradient_sums", "train_backward", "freeze", "frozen"),
    *("message", "order"),
)
NAMES = "moments", "normalize", "train_forward", "train_backward", "frozen", "order"

STUB = f"define i32 @cpubn_absent(i8* %call) {{ ret i32 {ABSENT} }}"
_kept: list[Any] = []  # the stub, for as long as the process lives


def symbol(name: str, version: int = VERSION) -> str:
    return f"cpubn_njit_{name}_{version}"


def register() -> None:
    here = _addresses()
    absent = here.pop("absent", None) or _stub()
    for version in VERSIONS:
        for name in NAMES:
            llvm.add_symbol(symbol(name, version), here.get(name, absent) if version == VERSION else absent)


def absence() -> str | None:
    """Why there are no functions, and what to do, or None."""
    try:
        import_module("cpubn.capi")
    except Exception as error:  # no kernels, or CPUBN_ISA asks for some that are not there
        return str(error)
    return None


def _addresses() -> dict[str, int]:
    """Of the functions, and of one that answers ABSENT; none where there are no kernels."""
    if absence() is not None:
        return {}
    pointer_of = ctypes.pythonapi.PyCapsule_GetPointer
    pointer_of.restype, pointer_of.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
    table: Any = pointer_of(import_module("cpubn.capi").table, b"cpubn.capi.table")
    members = (ctypes.c_void_p * (1 + len(TABLE))).from_address(table)
    found: dict[str, Any] = dict(zip(TABLE, members[1:], strict=True))
    return {name: found[name] for name in NAMES} | {"absent": variants.entries().absent_function()}


def _stub() -> int:
    """The address of a function that answers ABSENT where nothing was compiled, from any thread.

    One by ctypes would wait for the interpreter's lock, which the thread that waits for it may hold.
    """
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_default_triple().create_target_machine(opt=0)
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(STUB), machine)
    engine.finalize_object()
    _kept.append(engine)
    return engine.get_function_address("cpubn_absent")  # type: ignore[no-any-return]
