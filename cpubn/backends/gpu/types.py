"""What a kernel does to one element, by type: reading, writing, and the functions of algebra.py and activations.py.

Samples are read into the type that is computed in, `real`, and rounded to nearest on the way back, ties to even.
"""
# mypy: allow-untyped-defs

import functools
from types import FunctionType, ModuleType
from typing import Any

import numpy as np

from cpubn.backends.gpu import target
from cpubn.backends.gpu.target import device, sqrt
from cpubn.maths import activations, algebra as formulas

u = np.uint64


@functools.cache
def reader(name: str, real: Any) -> Any:
    """read(flat, j): element j of an array of that type; of "bits" 1 or 0, the lowest of a byte first."""
    if name == "bits":

        def read(flat, j):
            return real((flat[u(j >> 3)] >> (j & 7)) & 1)

    elif name == "bfloat16":

        def read(flat, j):
            return real(np.uint32(np.uint32(flat[u(j)]) << np.uint32(16)).view(np.float32))

    elif name == "float16":

        def read(flat, j):
            return real(np.float32(flat[u(j)]))

    else:

        def read(flat, j):
            return real(flat[u(j)])

    return device(read)


@functools.cache
def writer(name: str) -> Any:
    """write(flat, j, value)."""
    if name == "bfloat16":

        def write(flat, j, value):
            bits = np.float32(value).view(np.uint32)
            if value != value:
                flat[u(j)] = np.uint16(0x7FC0)
            else:
                even = (bits >> np.uint32(16)) & np.uint32(1)
                flat[u(j)] = np.uint16((bits + np.uint32(0x7FFF) + even) >> np.uint32(16))

    else:
        kind = getattr(np, name)

        def write(flat, j, value):
            flat[u(j)] = kind(value)

    return device(write)


def _rebuilt(module: ModuleType, names: tuple[str, ...], instead: dict[str, Any]) -> ModuleType:
    """A module's functions for the device, with some of what they call exchanged."""
    made = ModuleType(module.__name__)
    vars(made).update(vars(module) | instead)
    for name in names:
        setattr(made, name, device(FunctionType(getattr(module, name).__code__, vars(made), name)))
    return made


# sqrt: of NumPy's, numba.cuda has none for a scalar.
algebra: ModuleType = _rebuilt(
    formulas,
    (
        *("two_sum", "merge", "centre", "rstd", "affine", "gradient", "running_update", "unbiased"),
        *("outside", "forward_is_wide", "backward_is_wide"),
    ),
    {"sqrt": sqrt},
)


@functools.cache
def activation_functions(real: Any) -> ModuleType:
    """The formulas of activations, with the device's own elementary functions, all within 2 ulp."""

    @device
    def like(z, value):
        return real(value)

    @device
    def select(condition, yes, no):
        return yes if condition else no

    @device
    def clipped(z, low, high):
        return low if z < low else (high if z > high else z)

    @device
    def minus_abs(z):
        return -z if z > real(0.0) else z

    elementary = ModuleType("elementary")
    own = {name: getattr(target, name) for name in ("exp", "expm1", "log1p", "tanh", "erf")}
    vars(elementary).update(own)
    primitives = {"like": like, "select": select, "clipped": clipped, "minus_abs": minus_abs}
    names = tuple(formula.__name__ for formula in (*activations.FORMULAS, *activations.CALLED))
    return _rebuilt(activations, names, {"elementary": elementary, **primitives, **own})


@functools.cache
def activation_of(real: Any, function: Any) -> Any:
    """activate(z, low, high): nothing for None, a formula of activations by its name, or a user's own of z alone."""
    if isinstance(function, str):
        return getattr(activation_functions(real), function)
    if function is None:

        def activate(z, low, high):
            return z

    else:

        def activate(z, low, high):
            return real(function(z))

    return device(activate)


def rounder(real: Any) -> Any:
    """Added to a number below 2**22 (2**51) and taken off again, it rounds to an integer, ties to even."""
    return real(1.5 * 2.0**23 if real is np.float32 else 1.5 * 2.0**52)
