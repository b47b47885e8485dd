"""Numba's decorators with types, and names for what it and llvmlite take and make: they have no types themselves.

What is compiled keeps the type that it is written with. A word is written over the types of its arguments, as is what
`overload` declares, and called with values.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar

import numba
from numba import extending

Function = TypeVar("Function", bound=Callable[..., Any])

# What kernels compute with, for which Python has no types.
Value: TypeAlias = Any  # lanes, or a scalar beside them
Place: TypeAlias = Any  # where samples, coefficients or bits stand: an array, its memory, or none

# Of Numba.
Type: TypeAlias = Any  # numba.types.Type, of an argument
Typing: TypeAlias = Any  # numba.core.typing.BaseContext
Context: TypeAlias = Any  # numba.core.base.BaseContext: the CPU that is compiled for
Signature: TypeAlias = Any  # numba.core.typing.Signature
# Of llvmlite.
Builder: TypeAlias = Any  # llvmlite.ir.IRBuilder
Operand: TypeAlias = Any  # llvmlite.ir.Value
OperandType: TypeAlias = Any  # llvmlite.ir.Type

Word: TypeAlias = Callable[..., Value]
Generate: TypeAlias = Callable[[Context, Builder, Signature, Any], Operand]
# What a word is for arguments of some types.
Made: TypeAlias = tuple[Signature, Generate]
# What Numba compiles for arguments of some types.
Body: TypeAlias = Callable[..., Any]


def njit(**how: Any) -> Callable[[Function], Function]:
    declared: Callable[[Function], Function] = numba.njit(**how)
    return declared


HOW: dict[str, bool | str] = {
    "error_model": "numpy",
    "nogil": True,
    "no_cpython_wrapper": True,
    "no_cfunc_wrapper": True,
}


def compiled(function: Function) -> Function:
    return njit(**HOW)(function)


def inlined(function: Function) -> Function:
    """Of what is called at one place: a call of a function with this many arguments takes as long as a short run."""
    return njit(**HOW, forceinline=True)(function)


def intrinsic(definition: Callable[..., Made]) -> Word:
    word: Word = extending.intrinsic(definition)
    return word


def overload(function: Callable[..., Any], **how: Any) -> Callable[[Function], Function]:
    """The definition's annotations go: Numba wants those of what it returns to be the same, which has other types."""

    def declare(definition: Function) -> Function:
        definition.__annotations__ = {}
        declared: Function = extending.overload(function, **how)(definition)
        return declared

    return declare


def lower_cast(given: Any, wanted: Any) -> Callable[[Function], Function]:
    declared: Callable[[Function], Function] = extending.lower_cast(given, wanted)
    return declared
