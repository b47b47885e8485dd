"""What algebra.py, elementary.py and activations.py call, for Numba: their formulas compile on scalars and on lanes.

Of lanes a formula gives the bits that NumPy gives of an array. What formulas call most is made without a function for
Numba to compile: of erf's polynomial alone that would be 19, and 1 s.
"""
# mypy: allow-untyped-defs

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from numba import types
from numba.core.typing.templates import AbstractTemplate, infer_global
from numba.extending import lower_builtin, register_jitable

from cpubn.backends.jit.lanes import MASK_OF, Lanes, at_least, at_most, exponent
from cpubn.backends.jit.llvm import constant, spread
from cpubn.backends.jit.typed import Body, Made, Type, overload
from cpubn.maths import activations, algebra, elementary

formula: Callable[..., Any]
for formula in (
    *(algebra.two_sum, algebra.merge, algebra.close, algebra.pivot_is_far, algebra.next_pivot),
    *(algebra.centre, algebra.rstd, algebra.affine, algebra.gradient),
    *(algebra.outside, algebra.forward_is_wide, algebra.backward_is_wide),
):
    register_jitable(error_model="numpy")(formula)
# LLVM makes no vectors of a loop that calls, and of itself inlines no function as long as erf in float64.
for function in (
    *elementary.COMPOSED,
    *(*activations.FORMULAS, *activations.CALLED),
):
    register_jitable(error_model="numpy", forceinline=True)(function)


# On lanes.

Definition = TypeVar("Definition", bound=Callable[..., Made | None])


def on_lanes(function: Callable[..., Any]) -> Callable[[Definition], Definition]:
    """Have Numba take for that function, of such arguments, the signature and what generates it."""

    def declare(definition: Definition) -> Definition:
        lowered = set()

        def generic(self, args, kws):
            found = definition(*args)
            if found is None:
                return None
            signature, generate = found
            if signature.args not in lowered:
                lowered.add(signature.args)
                lower_builtin(function, *signature.args)(generate)
            return signature

        infer_global(function)(type(function.__name__, (AbstractTemplate,), {"key": function, "generic": generic}))
        return definition

    return declare


@on_lanes(elementary.by_type)
def by_type_on_lanes(z: Type, pair: Type) -> Made | None:
    if not isinstance(z, Lanes):
        return None
    place = 0 if z.dtype == types.float32 else 1
    return pair[place](z, pair), lambda context, builder, signature, args: builder.extract_value(args[1], place)


@on_lanes(elementary.like)
def like_on_lanes(z: Type, value: Type) -> Made | None:
    if not isinstance(z, Lanes):
        return None
    return z(z, z.dtype), lambda context, builder, signature, args: spread(builder, args[1], z.count)


@on_lanes(elementary.select)
def select_on_lanes(condition: Type, yes: Type, no: Type) -> Made | None:
    for kind, mask in MASK_OF.items():
        if condition == mask:
            return kind(mask, kind, kind), lambda context, builder, signature, args: builder.select(*args)
    return None


@on_lanes(elementary.polynomial)
def polynomial_on_lanes(x: Type, coefficients: Type) -> Made | None:
    if not isinstance(x, Lanes):
        return None

    def generate(context, builder, signature, args):
        p, *rest = (spread(builder, builder.extract_value(args[1], i), x.count) for i in range(len(coefficients)))
        for c in rest:
            p = builder.fadd(builder.fmul(p, args[0]), c)
        return p

    return x(x, coefficients), generate


@on_lanes(elementary.power_of_two)
def power_of_two_on_lanes(biased: Type) -> Made | None:
    if not isinstance(biased, Lanes):
        return None
    return biased(biased), lambda context, builder, signature, args: exponent(builder, biased, *args)


@on_lanes(elementary.clipped)
def clipped_on_lanes(z: Type, low: Type, high: Type) -> Made | None:
    if not isinstance(z, Lanes):
        return None
    return z(z, z, z), lambda context, builder, signature, args: at_most(
        builder, at_least(builder, args[0], args[1]), args[2]
    )


@on_lanes(elementary.minus_abs)
def minus_abs_on_lanes(z: Type) -> Made | None:
    if not isinstance(z, Lanes):
        return None

    def generate(context, builder, signature, args):
        above = builder.fcmp_ordered(">", args[0], constant(args[0].type, 0.0))
        return builder.select(above, builder.fneg(args[0]), args[0])

    return z(z), generate


# On scalars. What elementary.py asks of a value's dtype while it runs is known here when it is compiled.
for function in elementary.clipped, elementary.minus_abs:
    register_jitable(error_model="numpy", forceinline=True)(function)


@overload(elementary.by_type)
def by_type(z: Type, pair: Type) -> Body | None:
    if isinstance(z, types.Float):
        place = 0 if z == types.float32 else 1
        return lambda z, pair: pair[place]
    return None


@overload(elementary.like)
def like(z: Type, value: Type) -> Body | None:
    if isinstance(z, types.Float):
        kind = z
        return lambda z, value: kind(value)
    return None


@overload(elementary.select)
def select(condition: Type, yes: Type, no: Type) -> Body | None:
    if isinstance(condition, types.Boolean):
        return lambda condition, yes, no: yes if condition else no
    return None


@overload(elementary.polynomial)
def polynomial(x: Type, coefficients: Type) -> Body | None:
    if not isinstance(x, types.Float):
        return None
    if len(coefficients) == 1:
        return lambda x, coefficients: coefficients[0]
    return lambda x, coefficients: elementary.polynomial(x, coefficients[:-1]) * x + coefficients[-1]


@overload(elementary.power_of_two)
def power_of_two(biased: Type) -> Body | None:
    if biased == types.float32:
        return lambda biased: np.uint32(np.float32(biased).view(np.uint32) << 23).view(np.float32)
    if biased == types.float64:
        return lambda biased: np.uint64(np.float64(biased).view(np.uint64) << np.uint64(52)).view(np.float64)
    return None
