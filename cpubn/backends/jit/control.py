"""The control register of floating-point arithmetic, and a user's function lane by lane.

LLVM may move arithmetic across a change of the register: what is to run under it stands in a function of its own, which
is called through a pointer or reads from memory what it computes with.
"""
# mypy: allow-untyped-defs

from collections.abc import Callable

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.errors import TypingError

from cpubn.backends.jit.lanes import Lanes
from cpubn.backends.jit.llvm import LONG, WORD, call, machine
from cpubn.backends.jit.typed import Builder, Context, Made, Operand, Type, Typing, Value, intrinsic, njit

# Rounds to nearest, keeps subnormal numbers, raises nothing: what every process starts with.
DEFAULT = 0x1F80


def by_memory(builder: Builder, name: str, value: Operand | None = None) -> Operand:
    """x86 moves its register to memory and from there alone."""
    place = cgutils.alloca_once(builder, WORD)
    if value is not None:
        builder.store(value, place)
    call(builder, f"llvm.x86.sse.{name}", ir.VoidType(), builder.bitcast(place, ir.IntType(8).as_pointer()))
    return builder.load(place)


def set_register(context: Context, builder: Builder, value: Operand) -> None:
    if machine(context) == "x86_64":
        by_memory(builder, "ldmxcsr", builder.trunc(value, WORD))
    elif machine(context) == "aarch64":
        call(builder, "llvm.aarch64.set.fpcr", ir.VoidType(), value)


@intrinsic
def calm(typing: Typing) -> Made:
    """Set the control register to what every process starts with; return what it was."""

    def generate(context, builder, signature, args):
        before = LONG(0)
        if machine(context) == "x86_64":
            before = builder.zext(by_memory(builder, "stmxcsr"), LONG)
        elif machine(context) == "aarch64":
            before = call(builder, "llvm.aarch64.get.fpcr", LONG)
        set_register(context, builder, LONG(DEFAULT if machine(context) == "x86_64" else 0))
        return before

    return types.int64(), generate


@intrinsic
def restore(typing: Typing, before: Type) -> Made:
    """Set the control register to what `calm` returned."""

    def generate(context, builder, signature, args):
        set_register(context, builder, args[0])
        return context.get_dummy_value()

    return types.void(types.int64), generate


@njit(nogil=True)
def calm_thread() -> int:
    """`calm`, of the thread that calls from Python."""
    before: int = calm()
    return before


@njit(nogil=True)
def restore_thread(before: int) -> None:
    restore(before)


@intrinsic
def put_aside(typing: Typing, a: Type) -> Made:
    """Lanes as an array in memory."""
    if not isinstance(a, Lanes):
        raise TypingError(f"each takes lanes, got {a}")

    def generate(context, builder, signature, args):
        place = cgutils.alloca_once(builder, args[0].type)
        builder.store(args[0], place)
        return builder.bitcast(place, context.get_value_type(a.dtype).as_pointer())

    return types.CPointer(a.dtype)(a), generate


@intrinsic
def take_back(typing: Typing, place: Type, a: Type) -> Made:
    """The array in memory as lanes, of the type of a."""

    def generate(context, builder, signature, args):
        return builder.load(builder.bitcast(args[0], args[1].type.as_pointer()))

    return a(place, a), generate


@intrinsic
def count(typing: Typing, a: Type) -> Made:
    """How many lanes there are."""
    return types.intp(a), lambda context, builder, signature, args: LONG(a.count)


@njit(error_model="numpy", nogil=True)
def each(function: Callable[[Value], Value], a: Value) -> Value:
    """function(a), lane by lane, of a function of one number that Numba compiled."""
    place = put_aside(a)
    for i in range(count(a)):
        place[i] = function(place[i])
    return take_back(place, a)
