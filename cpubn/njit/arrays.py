"""New arrays for results, and those that a caller gives, compared with x."""

# mypy: disable-error-code="untyped-decorator, attr-defined, no-any-return"

from __future__ import annotations

from typing import Any

from numba.core import cgutils, types
from numba.core.imputils import impl_ret_borrowed, impl_ret_new_ref
from numba.extending import intrinsic

from cpubn.njit.call import Call, new_array, shape_of
from cpubn.njit.errors import refuse

ROWS = types.Array(types.float64, 2, "C")


def turned(items: list[Any], first: int, to: int) -> list[Any]:
    """Of a shape, with an axis in another place."""
    items = list(items)
    items.insert(to, items.pop(first))
    return items


def check_shape(context: Any, builder: Any, name: str, got: list[Any], wanted: list[Any]) -> None:
    """ValueError if an array's shape is another one than the result's."""
    wrong = cgutils.false_bit
    for a, b in zip(got, wanted, strict=True):
        wrong = builder.or_(wrong, builder.icmp_signed("!=", a, b))
    form = ", ".join("{}" for _ in got)
    way = "allocate it with np.empty" if name == "out" else "pass one value for each of y"
    if name == "dy":
        way = "pass the gradient of the output"
    text = f"{name} must have {'x' if name == 'dy' else 'the result'}'s shape ({form}), got ({form}); {way}"
    refuse(context, builder, wrong, ValueError, text, [(types.intp, n) for n in (*wanted, *got)])


def target_of(kind: Any, axis: int, out_axis: int) -> Any:
    """A function of x and out: out itself, of the result's shape, or where that is None a new array of a type."""

    @intrinsic
    def target(typing: Any, x: Any, out: Any) -> Any:
        is_given = isinstance(out, types.Array)
        made_type = out if is_given else kind

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            shape = turned(shape_of(context, builder, x, args[0]), axis, out_axis)
            if is_given:
                check_shape(context, builder, "out", shape_of(context, builder, out, args[1]), shape)
                return impl_ret_borrowed(context, builder, out, args[1])
            order = None
            if kind.layout not in "CF":
                call = Call(context, builder, x, args[0], axis)
                call.set_array("x", x, args[0])
                order = call.order()
            made = new_array(context, builder, kind, shape, order)
            return impl_ret_new_ref(context, builder, kind, made._getvalue())

        return made_type(x, out), generate

    return target


def rows_of(count: int, axis: int) -> Any:
    """A function of x: a new array (count, channels) of float64."""

    @intrinsic
    def rows(typing: Any, x: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            shape = [cgutils.intp_t(count), shape_of(context, builder, x, args[0])[axis]]
            return impl_ret_new_ref(context, builder, ROWS, new_array(context, builder, ROWS, shape)._getvalue())

        return ROWS(x), generate

    return rows if count else nothing


@intrinsic
def nothing(typing: Any, x: Any) -> Any:
    """None, in place of rows that are not needed."""
    return types.none(x), lambda context, builder, signature, args: context.get_dummy_value()
