"""A FrozenBatchNorm within numba.njit, as an argument or a global: its constants, and its call.

As an argument its constants are read whenever the function is called; as a global they become part of the compiled
code, as NumPy's arrays do that are globals.
"""

# mypy: disable-error-code="untyped-decorator, attr-defined, no-any-return"

from __future__ import annotations

from functools import cache
from typing import Any

from numba.core import cgutils, types
from numba.core.imputils import lower_constant
from numba.extending import (
    NativeValue,
    intrinsic,
    lower_builtin,
    models,
    overload_method,
    register_model,
    typeof_impl,
    unbox,
)

from cpubn.frozen import FrozenBatchNorm
from cpubn.njit import asked
from cpubn.njit.arrays import ROWS, target_of
from cpubn.njit.call import INT, TYPES
from cpubn.njit.errors import ANY, refuse
from cpubn.njit.passes import Arguments

MEMBERS = {"narrow": ROWS, "wide": ROWS, "code": types.int64, "low": types.float64, "high": types.float64}


class FrozenType(types.Type):
    """Of all that have these layouts and this dtype, by name or None."""

    def __init__(self, layout: str, out_layout: str, dtype: str | None) -> None:
        self.layout, self.out_layout, self.dtype = layout, out_layout, dtype
        super().__init__(f"FrozenBatchNorm({layout}, {out_layout}, {dtype})")


@typeof_impl.register(FrozenBatchNorm)
def type_of(frozen: Any, context: Any) -> Any:
    """Asked for with every call of a compiled function that it is an argument of."""
    activation = frozen._activation
    if frozen.is_quantized or frozen.backend == "cuda" or (activation is not None and not activation.code):
        raise TypeError(
            "a FrozenBatchNorm within numba.njit must be on the host, of floating results, and with an activation of "
            f"the table or none, got {frozen!r}{' of quantized data' * frozen.is_quantized}; call it outside"
        )
    return _type_of(frozen.layout, frozen.out_layout, frozen.dtype)


@cache
def _type_of(layout: str, out_layout: str, dtype: Any) -> FrozenType:
    return FrozenType(layout, out_layout, dtype and dtype.name)


def members_of(frozen: Any) -> tuple[Any, ...]:
    """In the order of MEMBERS."""
    activation = frozen._activation
    return (*frozen._affine.values(), *((0, 0.0, 0.0) if activation is None else activation[:3]))


@register_model(FrozenType)
class FrozenModel(models.StructModel):  # type: ignore[misc]
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, list(MEMBERS.items()))


@unbox(FrozenType)
def unbox_frozen(kind: Any, frozen: Any, c: Any) -> Any:
    made = cgutils.create_struct_proxy(kind)(c.context, c.builder)
    failed = cgutils.alloca_once_value(c.builder, cgutils.true_bit)
    function = c.pyapi.unserialize(c.pyapi.serialize_object(members_of))
    members = c.pyapi.call_function_objargs(function, (frozen,))
    c.pyapi.decref(function)
    with c.builder.if_then(cgutils.is_not_null(c.builder, members), likely=True):
        wrong = cgutils.false_bit
        for k, (name, member) in enumerate(MEMBERS.items()):
            native = c.unbox(member, c.pyapi.tuple_getitem(members, k))
            setattr(made, name, native.value)
            wrong = c.builder.or_(wrong, native.is_error)
        c.pyapi.decref(members)
        c.builder.store(wrong, failed)
    return NativeValue(made._getvalue(), is_error=c.builder.load(failed))


@lower_constant(FrozenType)
def constant_frozen(context: Any, builder: Any, kind: Any, frozen: Any) -> Any:
    made = cgutils.create_struct_proxy(kind)(context, builder)
    for (name, member), value in zip(MEMBERS.items(), members_of(frozen), strict=True):
        setattr(made, name, context.get_constant_generic(builder, member, value))
    return made._getvalue()


@overload_method(FrozenType, "__call__")
def call_frozen(self: Any, x: Any, residual: Any = None, out: Any = None, threads: Any = 1) -> Any:
    asked.need_functions()
    asked.samples("x", x, tuple(TYPES))
    asked.threads(threads)
    kind = asked.dtype(self.dtype, x)
    for name, value in {"residual": residual, "out": out}.items():
        asked.optional(name, value, x, kind)
    asked.written("out", out)
    axis, out_axis = asked.axis(x, self.layout), asked.axis(x, self.out_layout)
    target = target_of(asked.array_like(x, kind, axis != out_axis), axis, out_axis)
    apply = apply_of(self.layout, axis, out_axis)

    def made(self: Any, x: Any, residual: Any = None, out: Any = None, threads: Any = 1) -> Any:
        y = target(x, out)
        apply(self, x, y, residual, threads)
        return y

    return made


@lower_builtin(FrozenType, types.VarArg(types.Any))
def lower_call(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    """overload_method alone has the call typed, but not lowered."""
    bound = context.typing_context.resolve_getattr(signature.args[0], "__call__")
    return context.get_function(bound, signature)(builder, args)


def apply_of(layout: str, axis: int, out_axis: int) -> Any:
    """A function that writes y."""

    @intrinsic
    def apply(typing: Any, frozen: Any, x: Any, y: Any, residual: Any, threads: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            given = Arguments(context, builder, ("frozen", "x", "y", "residual", "threads"), signature, args)
            call = given.call(axis)
            given.set_threads(call)
            made = cgutils.create_struct_proxy(frozen)(context, builder, value=args[0])
            affine = made.wide if x.dtype == types.float64 else made.narrow
            channels = cgutils.unpack_tuple(builder, context.make_array(ROWS)(context, builder, affine).shape)[1]
            text = (
                f"x must have {{}} channels on axis {axis} (layout {layout!r}), got {{}}; "
                "check the layout, or build the layer for that many channels"
            )
            wrong = builder.icmp_signed("!=", channels, call.channels)
            refuse(context, builder, wrong, ValueError, text, [(types.intp, n) for n in (channels, call.channels)])
            given.set_like(call, ("residual", "y"), out_axis)
            call.set("activation", builder.trunc(made.code, INT))
            call.set("low", made.low)
            call.set("high", made.high)
            call.set_data("affine", ROWS, affine)
            call.do("frozen", errors=ANY)
            return context.get_dummy_value()

        return types.none(frozen, x, y, residual, threads), generate

    return apply
