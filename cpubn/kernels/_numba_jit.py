"""How Numba compiles the loops, and what they may call beside one another."""
# mypy: allow-untyped-defs, allow-untyped-calls

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from cpubn.backends.jit import formulas  # noqa: F401 - what the loops call compiles thanks to it

# fastmath stays off: the same bits as Cython. "numpy": no division raises. No wrappers: Python calls only `work`.
compiled = njit(error_model="numpy", nogil=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)
inlined = njit(error_model="numpy", inline="always")
u = np.uint64


@compiled
def identity(z, low, high):
    """No activation."""
    return z


@intrinsic
def fetch(typing, flat, index):
    """Ask for flat[index], which need not exist, to be brought into the second-level cache."""

    def generate(context, builder, signature, arguments):
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        byte, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        pointer = builder.bitcast(builder.gep(array.data, [arguments[1]]), byte)
        kind = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
        ask = builder.module.declare_intrinsic("llvm.prefetch", [byte], kind)
        builder.call(ask, [pointer, number(0), number(2), number(1)])  # to read, second level, data
        return context.get_dummy_value()

    return types.void(flat, index), generate
