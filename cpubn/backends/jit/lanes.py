"""Words: 32 float32 lanes or 16 float64 lanes as a Numba type, whose values are LLVM vectors.

The same words as backends/compiled/lanes.hpp, with the same bits: each rounds as IEEE 754 says, lane by lane, and LLVM
contracts nothing where no fastmath flag allows it. samples.py has those that read and write memory.

    @njit(error_model="numpy", nogil=True)
    def affine(x, y, n, centre, scale, shift):
        c, a, b = lanes(centre), lanes(scale), lanes(shift)
        for i in range(0, n, 32):
            store(y, i, (load(x, i) - c) * a + b)

A scalar beside lanes, of their own type, is as many of itself: `x * np.float32(2)`. All words are intrinsics: they cost
what LLVM needs for their instructions, where a function would cost Numba 10 to 20 ms more each. They leave bounds and
the number of lanes to the kernel.
"""
# mypy: allow-untyped-defs, allow-subclassing-any

import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core.errors import TypingError
from numba.core.typeconv import Conversion
from numba.core.typing.templates import ConcreteTemplate, infer_global, signature
from numba.extending import lower_builtin, models, register_model

from cpubn.backends.jit.llvm import BIT, LONG, WORD, call_on_lanes, constant, has_feature, shuffled, spread
from cpubn.backends.jit.typed import (
    Builder,
    Context,
    Made,
    Operand,
    OperandType,
    Signature,
    Type,
    Typing,
    intrinsic,
    lower_cast,
)


class Lanes(types.Type):
    """As many numbers as make 128 bytes."""

    def __init__(self, dtype: Type) -> None:
        self.dtype: Type = dtype
        self.count: int = 1024 // dtype.bitwidth
        self.bits: OperandType = ir.VectorType(WORD if self.count == 32 else LONG, self.count)
        super().__init__(name=f"Lanes({dtype})")

    def can_convert_from(self, typing: Typing, other: Type) -> object:
        return Conversion.safe if other == self.dtype else None


class Mask(types.Type):
    """True or false in each lane."""

    def __init__(self, count: int) -> None:
        self.count: int = count
        super().__init__(name=f"Mask({count})")


@register_model(Lanes)
class LanesModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Lanes) -> None:
        element = manager.lookup(kind.dtype).get_value_type()
        super().__init__(manager, kind, ir.VectorType(element, kind.count))


@register_model(Mask)
class MaskModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Mask) -> None:
        super().__init__(manager, kind, ir.VectorType(BIT, kind.count))


FLOATS, DOUBLES = Lanes(types.float32), Lanes(types.float64)
MASK_OF: dict[Lanes, Mask] = {FLOATS: Mask(32), DOUBLES: Mask(16)}


def lanes_of(*kinds: Type) -> Lanes:
    """The type of the lanes among these types, the others being such lanes or scalars for them."""
    kind = next((kind for kind in kinds if isinstance(kind, Lanes)), None)
    if kind is None or any(other not in (kind, kind.dtype) for other in kinds):
        raise TypingError(f"all must be lanes of one type, or scalars of that type, got {', '.join(map(str, kinds))}")
    return kind


# Operators, and a scalar as lanes.


@lower_cast(types.float32, FLOATS)
@lower_cast(types.float64, DOUBLES)
def scalar_as_lanes(context: Context, builder: Builder, scalar_kind: Type, kind: Lanes, value: Operand) -> Operand:
    return spread(builder, value, kind.count)


def operate(symbol: Callable[..., Any], cases: list[Signature], generate: Callable[..., Operand]) -> None:
    infer_global(symbol)(type("Operator", (ConcreteTemplate,), {"key": symbol, "cases": cases}))
    for case in cases:
        lower_builtin(symbol, *case.args)(lambda context, builder, signature, args: generate(builder, *args))


for name in "add", "sub", "mul", "truediv":
    instruction = f"f{name.removeprefix('true')}"
    for symbol in name, f"i{name}":
        cases: list[Signature] = [signature(kind, kind, kind) for kind in MASK_OF]
        operate(getattr(operator, symbol), cases, lambda builder, a, b, name=instruction: getattr(builder, name)(a, b))
operate(operator.neg, [signature(kind, kind) for kind in MASK_OF], lambda builder, a: builder.fneg(a))
COMPARISONS = {"lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "=="}
for name in COMPARISONS:
    cases = [signature(mask, kind, kind) for kind, mask in MASK_OF.items()]
    operate(
        getattr(operator, name), cases, lambda builder, a, b, name=name: builder.fcmp_ordered(COMPARISONS[name], a, b)
    )
for name in "and_", "or_":
    cases = [signature(mask, mask, mask) for mask in MASK_OF.values()]
    operate(getattr(operator, name), cases, lambda builder, a, b, name=name: getattr(builder, name)(a, b))


# Words.


@intrinsic
def lanes(typing: Typing, scalar: Type) -> Made:
    """As many of a float32 or float64 as there are lanes; lanes stay what they are."""
    kind = scalar if isinstance(scalar, Lanes) else Lanes(scalar)
    if kind not in MASK_OF:
        raise TypingError(f"lanes are of a float32 or a float64, got {scalar}")
    return kind(kind), lambda context, builder, signature, args: args[0]


@intrinsic
def plus(typing: Typing, a: Type, b: Type) -> Made:
    """a + b; of floats by the multiplier, which is idle in sums: where additions alone bind, it is faster."""
    kind = lanes_of(a, b)

    def generate(context, builder, signature, args):
        if kind == DOUBLES or not has_feature(context, "fma"):
            return builder.fadd(*args)
        # A 1 that LLVM does not see through: from fma(a, 1, b) it makes an addition.
        hidden = ir.InlineAsm(ir.FunctionType(WORD, [WORD]), "", "=r,0")
        one = builder.call(hidden, [WORD(0x3F800000)], attrs=("nounwind", "readnone"))
        one = builder.bitcast(one, ir.FloatType())
        return call_on_lanes(builder, "llvm.fma", args[0], spread(builder, one, 32), args[1])

    return kind(kind, kind), generate


@intrinsic
def fma(typing: Typing, a: Type, b: Type, c: Type) -> Made:
    """a * b + c, rounded once."""
    kind = lanes_of(a, b, c)
    return kind(kind, kind, kind), lambda context, builder, signature, args: call_on_lanes(builder, "llvm.fma", *args)


@intrinsic
def sqrt(typing: Typing, a: Type) -> Made:
    return lanes_of(a)(a), lambda context, builder, signature, args: call_on_lanes(builder, "llvm.sqrt", *args)


def at_least(builder: Builder, z: Operand, low: Operand) -> Operand:
    return builder.select(builder.fcmp_ordered("<", z, low), low, z)


def at_most(builder: Builder, z: Operand, high: Operand) -> Operand:
    return builder.select(builder.fcmp_ordered(">", z, high), high, z)


@intrinsic
def max(typing: Typing, z: Type, low: Type) -> Made:
    """low where z < low, and else z: NaN in z stays, and so does -0.0 beside 0.0."""
    kind = lanes_of(z, low)
    return kind(kind, kind), lambda context, builder, signature, args: at_least(builder, *args)


@intrinsic
def min(typing: Typing, z: Type, high: Type) -> Made:
    """high where z > high, and else z."""
    kind = lanes_of(z, high)
    return kind(kind, kind), lambda context, builder, signature, args: at_most(builder, *args)


@intrinsic
def select(typing: Typing, condition: Type, yes: Type, no: Type) -> Made:
    kind = lanes_of(FLOATS if condition == MASK_OF[FLOATS] else DOUBLES, yes, no)
    return kind(MASK_OF[kind], kind, kind), lambda context, builder, signature, args: builder.select(*args)


@intrinsic
def widen(typing: Typing, a: Type, last: Type) -> Made:
    """The first 16 of 32 floats as doubles, or the last 16."""

    def generate(context, builder, signature, args):
        halves = (shuffled(builder, args[0], list(range(start, start + 16))) for start in (0, 16))
        first, second = (builder.fpext(half, ir.VectorType(ir.DoubleType(), 16)) for half in halves)
        return builder.select(args[1], second, first)  # of which LLVM leaves one where `last` is a constant

    return DOUBLES(FLOATS, types.boolean), generate


@intrinsic
def narrow(typing: Typing, first: Type, last: Type) -> Made:
    """Two times 16 doubles as floats."""

    def generate(context, builder, signature, args):
        first, second = (builder.fptrunc(half, ir.VectorType(ir.FloatType(), 16)) for half in args)
        return builder.shuffle_vector(first, second, constant(ir.VectorType(WORD, 32), list(range(32))))

    return FLOATS(DOUBLES, DOUBLES), generate


@intrinsic
def fold(typing: Typing, a: Type) -> Made:
    """The sum of 16 lanes: the upper half onto the lower, again and again."""

    def generate(context, builder, signature, args):
        (total,) = args
        for n in (8, 4, 2, 1):
            lower, upper = (shuffled(builder, total, list(range(start, start + n))) for start in (0, n))
            total = builder.fadd(lower, upper)
        return builder.extract_element(total, WORD(0))

    return types.float64(DOUBLES), generate


@intrinsic
def last(typing: Typing, a: Type, n: Type) -> Made:
    """0 in all lanes but the last n."""
    kind = lanes_of(a)

    def generate(context, builder, signature, args):
        place = constant(ir.VectorType(LONG, kind.count), list(range(kind.count)))
        first = spread(builder, builder.sub(LONG(kind.count), args[1]), kind.count)
        kept = builder.icmp_signed(">=", place, first)
        return builder.select(kept, args[0], constant(args[0].type, 0.0))

    return kind(kind, types.int64), generate


@intrinsic
def pack(typing: Typing, mask: Type) -> Made:
    """One bit a lane, the first lane in the lowest."""

    def generate(context, builder, signature, args):
        return builder.zext(builder.bitcast(args[0], ir.IntType(mask.count)), WORD)

    return types.uint32(mask), generate


@intrinsic
def unpack(typing: Typing, packed: Type, like: Type) -> Made:
    """The mask of such bits, for lanes of the type of `like`: lanes, or a scalar."""
    mask = MASK_OF[like if isinstance(like, Lanes) else Lanes(like)]

    def generate(context, builder, signature, args):
        bits = builder.trunc(args[0], ir.IntType(mask.count)) if mask.count < 32 else args[0]
        return builder.bitcast(bits, ir.VectorType(BIT, mask.count))

    return mask(types.uint32, like), generate


def exponent(builder: Builder, kind: Lanes, biased: Operand) -> Operand:
    bits = builder.bitcast(biased, kind.bits)
    return builder.bitcast(builder.shl(bits, constant(kind.bits, 23 if kind == FLOATS else 52)), biased.type)


@intrinsic
def power_of_two(typing: Typing, biased: Type) -> Made:
    """2**k from k + bias + 1.5 * 2**23 (2**52 in double), whose lowest bits are those of an exponent."""
    kind = lanes_of(biased)
    return kind(kind), lambda context, builder, signature, args: exponent(builder, kind, *args)
