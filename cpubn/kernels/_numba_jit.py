"""How Numba compiles the loops, and what they may call beside one another."""
# mypy: allow-untyped-defs, allow-untyped-calls

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic, overload, register_jitable

from cpubn import _activations, _algebra, _elementary

# fastmath stays off: the same bits as Cython. "numpy": no division raises. No wrappers: Python calls only `work`.
compiled = njit(error_model="numpy", nogil=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)
inlined = njit(error_model="numpy", inline="always")
for formula in (
    *(_algebra.two_sum, _algebra.merge, _algebra.close, _algebra.pivot_is_far, _algebra.next_pivot),
    *(_algebra.centre, _algebra.rstd, _algebra.affine, _algebra.gradient),
    *(_algebra.outside, _algebra.forward_is_wide, _algebra.backward_is_wide),
):
    register_jitable(error_model="numpy")(formula)
# LLVM makes no vectors of a loop that calls, and of itself inlines no function as long as erf in float64.
for function in (
    *(_elementary.clipped, _elementary.minus_abs, _elementary.exp, _elementary.tanh, _elementary.erf),
    *(*_activations.FUNCTIONS, *_activations.GRADIENTS, _activations.normal_distribution),
):
    register_jitable(error_model="numpy", forceinline=True)(function)

u = np.uint64


@compiled
def identity(z, low, high):
    """No activation."""
    return z


# What _elementary asks of a value's dtype while it runs is known here when it is compiled.
@overload(_elementary.by_type)
def by_type(z, pair):
    place = 0 if z == types.float32 else 1
    return lambda z, pair: pair[place]


@overload(_elementary.like)
def like(z, value):
    kind = z
    return lambda z, value: kind(value)


@overload(_elementary.select)
def select(condition, yes, no):
    return lambda condition, yes, no: yes if condition else no


@overload(_elementary.polynomial)
def polynomial(x, coefficients):
    if len(coefficients) == 1:
        return lambda x, coefficients: coefficients[0]
    return lambda x, coefficients: _elementary.polynomial(x, coefficients[:-1]) * x + coefficients[-1]


@overload(_elementary.power_of_two)
def power_of_two(biased):
    if biased == types.float32:
        return lambda biased: np.uint32(np.float32(biased).view(np.uint32) << 23).view(np.float32)
    return lambda biased: np.uint64(np.float64(biased).view(np.uint64) << u(52)).view(np.float64)


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
