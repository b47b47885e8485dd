"""How Numba compiles the loops, and what they may call beside one another."""
# mypy: allow-untyped-defs, allow-untyped-calls

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic, register_jitable

from cpubn import _algebra

# fastmath stays off: the same bits as Cython. "numpy": no division raises. No wrappers: Python calls only `work`.
compiled = njit(error_model="numpy", nogil=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)
inlined = njit(error_model="numpy", inline="always")
for formula in (
    *(_algebra.two_sum, _algebra.merge, _algebra.close, _algebra.pivot_is_far, _algebra.next_pivot),
    *(_algebra.centre, _algebra.rstd, _algebra.affine, _algebra.gradient),
    *(_algebra.outside, _algebra.forward_is_wide, _algebra.backward_is_wide),
):
    register_jitable(error_model="numpy")(formula)

u = np.uint64


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
