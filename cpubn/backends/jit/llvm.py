"""What LLVM is told: vectors, calls of its intrinsics; and for which CPU it compiles."""

from llvmlite import ir
from numba.core import cgutils

from cpubn.backends.jit.typed import Builder, Context, Operand, OperandType

BIT: OperandType = ir.IntType(1)
BYTE: OperandType = ir.IntType(8)
SHORT: OperandType = ir.IntType(16)
WORD: OperandType = ir.IntType(32)
LONG: OperandType = ir.IntType(64)


def shuffled(builder: Builder, vector: Operand, places: list[int]) -> Operand:
    order = constant(ir.VectorType(WORD, len(places)), places)
    return builder.shuffle_vector(vector, ir.Constant(vector.type, ir.Undefined), order)


def constant(kind: OperandType, values: float | list[int]) -> Operand:
    """A constant vector, of one number or of as many as there are lanes."""
    return ir.Constant(kind, values if isinstance(values, list) else [values] * kind.count)


def spread(builder: Builder, scalar: Operand, count: int) -> Operand:
    """A vector of `count` times the same."""
    kind = ir.VectorType(scalar.type, count)
    first = builder.insert_element(ir.Constant(kind, ir.Undefined), scalar, WORD(0))
    return shuffled(builder, first, [0] * count)


def call(builder: Builder, name: str, result: OperandType, *arguments: Operand) -> Operand:
    """A call of LLVM's intrinsic of that name."""
    kind = ir.FunctionType(result, [argument.type for argument in arguments])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), arguments)


def call_on_lanes(builder: Builder, name: str, *arguments: Operand) -> Operand:
    """LLVM's intrinsic for vectors of these."""
    kind = arguments[0].type
    suffix = f"v{kind.count}f{1024 // kind.count}"
    return call(builder, f"{name}.{suffix}", kind, *arguments)


def machine(context: Context) -> str:
    """The family of the CPU that is compiled for."""
    triple: str = context.codegen().magic_tuple()[0]
    return triple.split("-")[0].replace("arm64", "aarch64")


def has_feature(context: Context, name: str) -> bool:
    """Whether the CPU that is compiled for has an instruction set, as LLVM calls it."""
    return f"+{name}" in context.codegen().magic_tuple()[2].split(",")
