"""Words that read and write memory: samples of any type as lanes, by (flat array or place, element).

A flat array is 1-dimensional and contiguous. Numba knows no arrays of float16 or bfloat16 on the CPU, so those come as
their bits, a view as uint16, within a `Halves` or `Bfloats`: for Numba two types, as half and bfloat are in lanes.hpp,
from which `load` and `store` know what the bits mean. `samples` makes either of an array.

    entry(samples(x), samples(y), ...)      # in Python
    store(y, i, load(x, i) * scale)         # in a kernel
"""
# mypy: allow-untyped-defs

from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.errors import TypingError

from cpubn.backends.jit.lanes import DOUBLES, FLOATS
from cpubn.backends.jit.llvm import BYTE, LONG, SHORT, WORD, constant, has_feature, machine
from cpubn.backends.jit.typed import Builder, Context, Made, Operand, OperandType, Type, Typing, intrinsic
from cpubn.typing import Array

BLOCK = 128  # bytes of lanes
FLOAT_LANES: OperandType = ir.VectorType(ir.FloatType(), 32)
SHORTS: OperandType = ir.VectorType(SHORT, 32)
WORDS: OperandType = ir.VectorType(WORD, 32)


class Halves(NamedTuple):
    """float16 samples, by their bits."""

    bits: Any


class Bfloats(NamedTuple):
    """bfloat16 samples, by their bits."""

    bits: Any


def samples(flat: Array) -> Any:
    """A flat array as an argument of a kernel."""
    if flat.dtype == np.float16:
        return Halves(flat.view(np.uint16))
    return Bfloats(flat.view(np.uint16)) if flat.dtype.name == "bfloat16" else flat


# What is where.


def array_of(source: Type) -> tuple[Type, Any]:
    """The type of the array in a source, and what its elements are."""
    array, element = source, getattr(source, "dtype", None)
    if isinstance(source, types.BaseTuple) and source.instance_class in (Halves, Bfloats):
        array, element = source[0], source.instance_class
    flat = isinstance(array, types.Array) and array.ndim == 1 and array.layout == "C"
    if not (flat or isinstance(array, types.CPointer)):
        raise TypingError(f"samples must be a flat array, or Halves or Bfloats of one, got {source}")
    return array, element


def pointer_to(
    context: Context, builder: Builder, source: Type, value: Operand, place: Operand, kind: OperandType
) -> Operand:
    array, _ = array_of(source)
    if array is not source:
        value = builder.extract_value(value, 0)
    start = value if isinstance(array, types.CPointer) else context.make_array(array)(context, builder, value).data
    return builder.bitcast(builder.gep(start, [place]), kind.as_pointer())


def alignment(source: Type) -> int:
    array, _ = array_of(source)
    return array.dtype.bitwidth // 8 if getattr(array, "aligned", True) else 1


def bits_of(builder: Builder, value: Operand) -> Operand:
    return builder.bitcast(value, WORDS)


def floats_of(builder: Builder, value: Operand) -> Operand:
    return builder.bitcast(value, FLOAT_LANES)


def word(value: int) -> Operand:
    return constant(WORDS, value)


def has_half(context: Context) -> bool:
    """Whether the CPU converts float16; otherwise LLVM would call functions that need not be there."""
    return machine(context) == "aarch64" or has_feature(context, "f16c")


def half_as_float(builder: Builder, raw: Operand) -> Operand:
    """float16 as float32, by integers, with the bits that the CPUs' own instructions give."""
    half = builder.zext(raw, WORDS)
    rest = builder.and_(half, word(0x7FFF))
    made = builder.add(builder.shl(rest, word(13)), word((127 - 15) << 23))
    finite = builder.icmp_unsigned("<", rest, word(0x7C00))
    normal = builder.select(finite, made, builder.add(made, word((128 - 16) << 23)))
    above = floats_of(builder, builder.add(made, word(1 << 23)))
    subnormal = bits_of(builder, builder.fsub(above, constant(FLOAT_LANES, 2.0**-14)))
    quiet = builder.or_(normal, word(0x400000))
    normal = builder.select(builder.icmp_unsigned(">", rest, word(0x7C00)), quiet, normal)
    small = builder.icmp_unsigned("<", rest, word(0x0400))
    sign = builder.shl(builder.and_(half, word(0x8000)), word(16))
    return floats_of(builder, builder.or_(builder.select(small, subnormal, normal), sign))


def float_as_half(builder: Builder, value: Operand) -> Operand:
    """float32 rounded to float16, ties to even, by integers."""
    bits = bits_of(builder, value)
    sign = builder.and_(bits, word(0x80000000))
    rest = builder.xor(bits, sign)
    odd = builder.and_(builder.lshr(rest, word(13)), word(1))
    rounded = builder.add(builder.add(builder.sub(rest, word((127 - 15) << 23)), word(0xFFF)), odd)
    # Adding 0.5 leaves in the last bits what a subnormal float16, a multiple of 2**-24, keeps.
    lifted = builder.fadd(floats_of(builder, rest), constant(FLOAT_LANES, 0.5))
    subnormal = builder.sub(bits_of(builder, lifted), word(0x3F000000))
    small = builder.icmp_unsigned("<", rest, word(113 << 23))
    made = builder.select(small, subnormal, builder.lshr(rounded, word(13)))
    made = builder.select(builder.icmp_unsigned(">=", rest, word(143 << 23)), word(0x7C00), made)
    payload = builder.and_(builder.lshr(rest, word(13)), word(0x3FF))
    nan = builder.icmp_unsigned(">", rest, word(0x7F800000))
    made = builder.select(nan, builder.or_(payload, word(0x7E00)), made)
    return builder.trunc(builder.or_(made, builder.lshr(sign, word(16))), SHORTS)


def float_as_bfloat(builder: Builder, value: Operand) -> Operand:
    """float32 rounded to bfloat16, ties to even; NaN cut off and made quiet."""
    bits = bits_of(builder, value)
    upper = builder.lshr(bits, word(16))
    nearest = builder.lshr(builder.add(builder.add(bits, word(0x7FFF)), builder.and_(upper, word(1))), word(16))
    made = builder.select(builder.fcmp_ordered("==", value, value), nearest, builder.or_(upper, word(0x40)))
    return builder.trunc(made, SHORTS)


# Words.


@intrinsic
def at(typing: Typing, address: Type, real: Type) -> Made:
    """A source or target in memory of which only the address is known, of samples of a NumPy type."""

    def generate(context, builder, signature, args):
        return builder.inttoptr(args[0], context.get_value_type(signature.return_type))

    return types.CPointer(real.dtype)(types.intp, real), generate


@intrinsic
def pointer(typing: Typing, array: Type) -> Made:
    """Where the elements of a flat array stand, and of any other array none.

    Numba counts who holds an array whenever a function is given one: threads that do so at once wait for each other.
    """
    if array.ndim != 1:
        return types.none(array), lambda context, builder, signature, args: context.get_dummy_value()

    def generate(context, builder, signature, args):
        return context.make_array(array)(context, builder, args[0]).data

    return types.CPointer(array.dtype)(array), generate


@intrinsic
def after(typing: Typing, place: Type, n: Type) -> Made:
    """The place n elements further on; of none none."""
    if not isinstance(place, types.CPointer):
        return place(place, n), lambda context, builder, signature, args: args[0]
    return place(place, types.intp), lambda context, builder, signature, args: builder.gep(args[0], [args[1]])


@intrinsic
def address(typing: Typing, place: Type) -> Made:
    """Its number."""
    return types.intp(place), lambda context, builder, signature, args: builder.ptrtoint(args[0], LONG)


@intrinsic
def room(typing: Typing, place: Type) -> Made:
    """Memory of the calling function for ten blocks of lanes of the same samples; of none none."""
    if not isinstance(place, types.CPointer):
        return place(place), lambda context, builder, signature, args: args[0]

    def generate(context, builder, signature, args):
        memory = cgutils.alloca_once(builder, ir.ArrayType(BYTE, 10 * BLOCK))
        memory.align = 64
        return builder.bitcast(memory, context.get_value_type(place))

    return place(place), generate


@intrinsic
def bytes_at(typing: Typing, place: Type) -> Made:
    """The same memory, byte by byte."""
    kind = types.CPointer(types.uint8)
    return kind(place), lambda context, builder, signature, args: builder.bitcast(args[0], context.get_value_type(kind))


@intrinsic
def lane_count(typing: Typing, place: Type) -> Made:
    """How many samples are loaded at once."""
    count = BLOCK // (place.dtype.bitwidth // 8)
    return types.intp(place), lambda context, builder, signature, args: LONG(count)


@intrinsic
def zeros(typing: Typing, place: Type) -> Made:
    """As many zeros as samples are loaded at once."""
    kind = DOUBLES if place.dtype == types.float64 else FLOATS
    return kind(place), lambda context, builder, signature, args: constant(context.get_value_type(kind), 0.0)


@intrinsic
def load(typing: Typing, source: Type, place: Type) -> Made:
    """The samples from `place` on: 32 as floats, or 16 of float64."""
    _, element = array_of(source)
    result = DOUBLES if element == types.float64 else FLOATS

    def generate(context, builder, signature, args):
        value, place = args

        def read(kind: OperandType) -> Operand:
            pointer = pointer_to(context, builder, source, value, place, ir.VectorType(kind, result.count))
            return builder.load(pointer, align=alignment(source))

        if isinstance(element, types.Float):
            return read(context.get_value_type(element))
        if element is Bfloats:
            return floats_of(builder, builder.shl(builder.zext(read(SHORT), WORDS), constant(WORDS, 16)))
        if element is Halves:
            if has_half(context):
                return builder.fpext(read(ir.HalfType()), FLOAT_LANES)
            return half_as_float(builder, read(SHORT))
        longer = builder.sext if element.signed else builder.zext
        return builder.sitofp(longer(read(ir.IntType(element.bitwidth)), WORDS), FLOAT_LANES)

    if isinstance(element, types.Integer) and element.bitwidth > 16:
        raise TypingError(f"samples are floats, or integers of at most 16 bits, got {source}")
    return result(source, types.intp), generate


def storing(target: Type, value: Type, past: bool) -> Made:
    """The signature of a store, and what generates it: rounded to nearest, ties to even."""
    array, element = array_of(target)
    kind = DOUBLES if element == types.float64 else FLOATS
    if value not in (kind, kind.dtype) or isinstance(element, types.Integer) or not getattr(array, "mutable", True):
        raise TypingError(f"{value} cannot be stored in {target}")

    def generate(context, builder, signature, args):
        base, place, stored = args
        if element is Halves:
            if has_half(context):
                stored = builder.fptrunc(stored, ir.VectorType(ir.HalfType(), 32))
            else:
                stored = float_as_half(builder, stored)
        elif element is Bfloats:
            stored = float_as_bfloat(builder, stored)
        pointer = pointer_to(context, builder, target, base, place, stored.type)
        made = builder.store(stored, pointer, align=64 if past else alignment(target))
        if past:
            made.set_metadata("nontemporal", builder.module.add_metadata([WORD(1)]))
        return context.get_dummy_value()

    return types.void(target, types.intp, kind), generate


@intrinsic
def store(typing: Typing, target: Type, place: Type, value: Type) -> Made:
    return storing(target, value, past=False)


@intrinsic
def stream(typing: Typing, target: Type, place: Type, value: Type) -> Made:
    """A store past the cache, to an address that is a multiple of 64."""
    return storing(target, value, past=True)


@intrinsic
def prefetch(typing: Typing, source: Type, place: Type) -> Made:
    """Ask for the cache line of source[place], which need not exist, in the second level."""

    def generate(context, builder, signature, args):
        value, place = args
        pointer = pointer_to(context, builder, source, value, place, BYTE)
        kind = ir.FunctionType(ir.VoidType(), [pointer.type, WORD, WORD, WORD])
        ask = builder.module.declare_intrinsic("llvm.prefetch", [pointer.type], kind)
        builder.call(ask, [pointer, WORD(0), WORD(2), WORD(1)])  # to read, second level, data
        return context.get_dummy_value()

    array_of(source)
    return types.void(source, types.intp), generate
