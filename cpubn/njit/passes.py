"""The passes, as functions for compiled code alone: what a call is made of, made and checked for each set of types."""

# mypy: disable-error-code="untyped-decorator, attr-defined, no-any-return"

from __future__ import annotations

from typing import Any, NamedTuple

from numba.core import cgutils, types
from numba.extending import intrinsic

from cpubn.njit.arrays import check_shape, turned
from cpubn.njit.asked import Fused
from cpubn.njit.call import DOUBLE, INT, Call, shape_of
from cpubn.njit.errors import ANY, FEW_VALUES, Errors, refuse, variance
from cpubn.njit.vectors import Vector, Vectors, room_of

GREATEST = 1.7976931348623157e308


class Plan(NamedTuple):
    """What types tell of a call."""

    layout: str
    axis: int
    out_axis: int
    fused: Fused
    training: bool | None  # None: known at run time


class Arguments:
    """Those of a function that is being compiled, by name."""

    def __init__(self, context: Any, builder: Any, names: tuple[str, ...], signature: Any, values: Any) -> None:
        self.context, self.builder = context, builder
        self.types = dict(zip(names, signature.args, strict=True))
        self.values = dict(zip(names, values, strict=True))

    def call(self, axis: int) -> Call:
        call = Call(self.context, self.builder, self.types["x"], self.values["x"], axis)
        call.set_array("x", self.types["x"], self.values["x"])
        return call

    def number(self, name: str, kind: Any = types.float64) -> Any:
        return self.context.cast(self.builder, self.values[name], self.types[name], kind)

    def vector(self, name: str) -> Vector:
        return Vector(name, self.types[name], self.values[name])

    def vectors(self, call: Call, layout: str) -> Vectors:
        return Vectors(call, room_of(self.context, self.builder, self.types["room"], self.values["room"]), layout)

    def set_threads(self, call: Call) -> None:
        threads = self.number("threads", types.int64)
        wrong = self.builder.or_(
            self.builder.icmp_signed("<", threads, threads.type(1)),
            self.builder.icmp_signed(">", threads, threads.type(1024)),
        )
        text = "threads must be a whole number from 1 to 1024, got {}; pass a number in that range"
        refuse(self.context, self.builder, wrong, ValueError, text, [(types.int64, threads)])
        call.set("threads", self.builder.trunc(threads, INT))

    def set_like(self, call: Call, names: tuple[str, ...], channel: int | None = None) -> None:
        """Arrays of the result's shape."""
        for name in names:
            kind, value = self.types[name], self.values[name]
            if isinstance(kind, types.Array):
                shape = call.shape if channel is None else turned(call.shape, call.channel, channel)
                check_shape(self.context, self.builder, name, shape_of(self.context, self.builder, kind, value), shape)
                call.set_array("output" if name == "kept" else name, kind, value, channel)

    def set_eps(self, call: Call, training: Any) -> None:
        eps, builder = self.number("eps"), self.builder
        call.set("eps", eps)
        within = builder.and_(
            builder.fcmp_ordered(">=", eps, DOUBLE(0.0)), builder.fcmp_ordered("<=", eps, DOUBLE(GREATEST))
        )
        text = "eps must be a finite number of at least 0, got {}; it is usually 1e-05"
        refuse(self.context, builder, builder.not_(within), ValueError, text, [(types.float64, eps)])
        none = builder.and_(training, builder.fcmp_ordered("==", eps, DOUBLE(0.0)))
        text = "eps must be above 0 in training, where a constant channel has variance 0, got 0; try 1e-5"
        refuse(self.context, builder, none, ValueError, text)

    def set_momentum(self, call: Call) -> None:
        momentum, builder = self.number("momentum"), self.builder
        call.set("momentum", momentum)
        within = builder.and_(
            builder.fcmp_ordered(">=", momentum, DOUBLE(0.0)), builder.fcmp_ordered("<=", momentum, DOUBLE(1.0))
        )
        text = "momentum must be a number from 0 to 1, the weight of the new batch, got {}; it is usually 0.1"
        refuse(self.context, builder, builder.not_(within), ValueError, text, [(types.float64, momentum)])

    def set_activation(self, call: Call, fused: Fused) -> None:
        call.set("activation", fused.code)
        for name, constant, place in (("low", fused.low, 1), ("high", fused.high, 2)):
            if place > fused.given:
                call.set(name, constant)
                continue
            kind = self.types["activation"]
            number = self.builder.extract_value(self.values["activation"], place)
            call.set(name, self.context.cast(self.builder, number, kind.types[place], types.float64))

    def flag(self, name: str, known: bool | None) -> Any:
        if known is not None:
            return cgutils.bool_t(known)
        return cgutils.as_bool_bit(self.builder, self.number(name, types.boolean))


def count_of(layout: str, axis: int) -> Any:
    """A function of x and stats (3, channels): what moments are made of is written there."""

    @intrinsic
    def count(typing: Any, x: Any, stats: Any, threads: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            given = Arguments(context, builder, ("x", "stats", "threads"), signature, args)
            call = given.call(axis)
            given.set_threads(call)
            call.set_data("stats", stats, args[1])
            call.do("moments", errors=ANY)
            return context.get_dummy_value()

        return types.none(x, stats, threads), generate

    return count


FORWARD = (
    *("x", "y", "residual", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps"),
    *("activation", "stats", "room", "threads"),
)


def forward_of(plan: Plan) -> Any:
    """A function that writes y and, in training, stats, and moves the running statistics."""

    @intrinsic(prefer_literal=False)
    def forward(
        typing: Any, x: Any, y: Any, residual: Any, running_mean: Any, running_var: Any, weight: Any, bias: Any,
        training: Any, momentum: Any, eps: Any, activation: Any, stats: Any, room: Any, threads: Any,
    ) -> Any:  # fmt: skip
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            given = Arguments(context, builder, FORWARD, signature, args)
            call, is_training = given.call(plan.axis), given.flag("training", plan.training)
            given.set_eps(call, is_training)
            given.set_momentum(call)
            given.set_threads(call)
            running = [given.vector(name) for name in ("running_mean", "running_var")]
            if not running[0].is_there and plan.training is None:
                text = (
                    "running_mean and running_var must be given where training=False, got None; "
                    "pass them, or training=True to normalize with the batch's own statistics"
                )
                refuse(context, builder, builder.not_(is_training), ValueError, text)
            vectors = given.vectors(call, plan.layout)
            vectors.read(given.vector("weight"), given.vector("bias"), *running)
            given.set_like(call, ("residual", "y"), plan.out_axis)
            given.set_activation(call, plan.fused)
            call.set_data("stats", stats, args[FORWARD.index("stats")])
            errors: Errors = {**ANY, **FEW_VALUES, **variance("running_var"), **plan.fused.errors}
            if plan.training is not True:
                for name in ("mean", "var"):
                    call.set(name, call.get(f"running_{name}"))
            call.do("train_forward", "normalize", condition=is_training, errors=errors)
            if plan.training is not False:
                with builder.if_then(is_training):
                    vectors.write_back(*running)
            return context.get_dummy_value()

        arguments = (
            *(x, y, residual, running_mean, running_var, weight, bias, training, momentum, eps),
            *(activation, stats, room, threads),
        )
        return types.none(*arguments), generate

    return forward


BACKWARD = (
    *("dy", "x", "mean", "low", "var", "weight", "bias", "eps", "training", "activation", "residual", "kept"),
    *("dx", "g", "sums", "room", "threads"),
)


def backward_of(plan: Plan) -> Any:
    """A function that writes dx, g and sums: dweight and dbias."""

    @intrinsic(prefer_literal=False)
    def backward(
        typing: Any, dy: Any, x: Any, mean: Any, low: Any, var: Any, weight: Any, bias: Any, eps: Any, training: Any,
        activation: Any, residual: Any, kept: Any, dx: Any, g: Any, sums: Any, room: Any, threads: Any,
    ) -> Any:  # fmt: skip
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            given = Arguments(context, builder, BACKWARD, signature, args)
            call, is_training = given.call(plan.axis), given.flag("training", plan.training)
            given.set_eps(call, is_training)
            given.set_threads(call)
            call.set("inference", builder.zext(builder.not_(is_training), INT))
            vectors, names = given.vectors(call, plan.layout), ("mean", "var", "weight", "bias")
            exact = given.vector("low")._replace(name="the low word of mean")
            vectors.read(*(given.vector(name) for name in names), exact)
            given.set_like(call, ("dy", "residual", "kept", "dx", "g"))
            given.set_activation(call, plan.fused)
            made = context.make_array(sums)(context, builder, given.values["sums"])
            call.set_data("dweight", sums, given.values["sums"])
            call.set_row("dbias", made.data, 1)
            errors: Errors = {**ANY, **FEW_VALUES, **variance("var"), **plan.fused.errors}
            call.do("train_backward", errors=errors)
            return context.get_dummy_value()

        arguments = (
            *(dy, x, mean, low, var, weight, bias, eps, training, activation, residual, kept),
            *(dx, g, sums, room, threads),
        )
        return types.none(*arguments), generate

    return backward
