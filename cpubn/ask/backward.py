"""The data path of backward: what is asked for, its plan, one kernel call through activation and normalization."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from cpubn.ask import check, options, state
from cpubn.ask.forward import Target, computed_in, target_of
from cpubn.ask.walk import Walk, along, new_output, walk_of
from cpubn.backends import choice, host, register
from cpubn.backends.compiled import variants
from cpubn.backends.epilogue import Activation
from cpubn.backends.place import located, place_of
from cpubn.backends.prologue import NO_PROLOGUE, Prologue, Statistics
from cpubn.backends.signs import Signs
from cpubn.backends.weights import Weights
from cpubn.typing import Array, Backend, Layout, Vector


class Request(NamedTuple):
    """What a caller gave, as it was given."""

    dy: Any
    x: Any
    statistics: tuple[Any, Any, Any, float]  # mean, its second word or None, m2 and count: var = m2 / count
    weight: ArrayLike | None
    bias: ArrayLike | None
    eps: float
    training: bool
    layout: Layout
    activation: Activation | None
    residual: ArrayLike | None
    kept: ArrayLike | Signs | None  # the forward's output, or its signs
    wants_g: bool  # for it is a residual's gradient
    out: Array | None
    totals: tuple[Array, Array] | None  # to which dweight and dbias are added
    backend: Backend | None
    weights: Weights | None = None


ARRAYS = "dy", "x", "weight", "bias", "residual", "kept", "out"


class Plan(NamedTuple):
    """All that a pass needs, checked, with every array in the form (outer, channel, inner) that kernels take."""

    dy: Array
    x: Array
    statistics: Statistics
    prologue: Prologue
    dx: Target
    g: Target | None  # which the prologue writes
    copied: Array | None  # g, where that is dy
    walk: Walk
    weights: Weights | None

    def room(self) -> Any:
        """For sums (2, C)."""
        return place_of(self.x).room(self.x, (2, self.walk.shape[1]), kept=True)

    def by_given_sums(self, samples: Any) -> Plan:
        """Of so many samples a channel, or (C,) of them."""
        counts = place_of(self.x).constant(self.x, self.walk.shape[1], samples)
        return self._replace(statistics=self.statistics._replace(counts=counts))


def backward_through(asked: Request) -> tuple[Array, Vector, Vector, Any]:
    """dx, dweight, dbias and, where it is wanted, g of `batch_norm_backward`."""
    calls = choice.compiled_calls(asked.backend)
    done = calls and (calls.backward(asked) or _of_tensors(calls, asked))
    if done:
        return done  # type: ignore[no-any-return]
    asked = asked._replace(x=located(asked.x, "x"))
    kernels = choice.kernels_for(asked.x, asked.backend)
    with register.calm():
        plan = planned(asked, kernels.ANY_TYPE)
        if calls and place_of(plan.x) is host:  # the call is right, but not all of it were arrays
            given = {name: check.as_array(getattr(asked, name)) for name in ARRAYS}
            *vectors, count = asked.statistics
            given["statistics"] = (*map(check.as_array, vectors), count)
            given["totals"] = asked.totals and tuple(map(check.as_array, asked.totals))
            dx, *rest = calls.backward(asked._replace(**given))
            return dx if asked.out is None else asked.out, *rest
        sums = plan.room()
        return computed(asked, plan, kernels, sums, sums)


def backward_of_part(asked: Request, sums: Any, samples: Any) -> tuple[Array, Vector, Vector, Any]:
    """The same of a part of a batch, by the sums (2, C) of the whole, of so many samples a channel."""
    if asked.weights is not None:
        raise ValueError(
            "sums must be None with mask, lengths, weights or nan, which gradient_sums has not, got both; "
            "leave sums out, and pass the whole batch"
        )
    asked = asked._replace(x=located(asked.x, "x"))
    kernels = choice.kernels_for(asked.x, asked.backend)
    with register.calm():
        plan = planned(asked, kernels.ANY_TYPE, whole=False)
        found = _sums(plan.x, sums, plan.walk.shape[1])
        return computed(asked, plan.by_given_sums(samples), kernels, found, place_of(plan.x).copy(found))


def sums_of_part(asked: Request) -> tuple[Plan, Any, Any]:
    """The plan of a part of a batch, its kernels, and sums (2, C) of it: g, and g * (x - mean)."""
    asked = asked._replace(x=located(asked.x, "x"))
    kernels = choice.kernels_for(asked.x, asked.backend)
    with register.calm():
        plan = planned(asked, kernels.ANY_TYPE, whole=False)
        sums, threads = plan.room(), choice.threads(plan.x.nbytes)
        if plan.x.size:
            prologue = plan.prologue._replace(g=None)
            kernels.gradient_sums(plan.dy, plan.x, plan.statistics, prologue, sums, threads, plan.weights)
        return plan, kernels, sums


def computed(asked: Request, plan: Plan, kernels: Any, sums: Any, own: Any) -> tuple[Array, Vector, Vector, Any]:
    """By sums (2, C) that are to be found, or are given where the plan counts samples; own: those of the weights."""
    place, statistics = place_of(plan.x), plan.statistics
    if plan.x.size:
        threads = choice.threads(plan.x.nbytes)
        kernels.backward(plan.dy, plan.x, statistics, plan.prologue, sums, plan.dx.view, threads, plan.weights)
        plan.dx.deliver(plan.walk)
        if plan.g is not None:
            plan.g.deliver(plan.walk)
    dweight = place.weight_gradient(own, statistics.var, statistics.eps)
    if asked.totals is not None:
        place.accumulate([located(total, "a gradient") for total in asked.totals], (dweight, own[0]))
    g = plan.copied if plan.g is None else plan.g.array
    dx, dweight, dbias = (place.result(a) for a in (plan.dx.array, dweight, own[0]))
    if asked.out is not None and place is host:
        dx = asked.out
    return dx, dweight, dbias, None if g is None else place.result(g)


def _of_tensors(calls: Any, asked: Request) -> Any:
    """The same of tensors whose memory is quickly told."""
    borrowed = variants.borrowed()
    given = {name: borrowed(getattr(asked, name)) for name in ARRAYS}
    given["statistics"] = tuple(map(borrowed, asked.statistics))
    done = calls.backward(asked._replace(**given))
    return done if done is None or asked.out is None else (asked.out, *done[1:])


def samples_of(moments: Any, training: bool) -> Any:
    """Values per channel of the batch whose Moments are given with sums of it."""
    if not training:
        raise ValueError("training must be True with sums, which inference has no use for, got False; leave sums out")
    count = getattr(moments, "count", None)
    if count is None:
        raise TypeError(
            f"mean must be the Moments of the whole batch with sums of it, got {type(moments).__name__}; "
            "pass what cpubn.moments gives of all parts, merged"
        )
    return np.maximum(count, 1.0)


def _sums(x: Array, sums: Any, channels: int) -> Array:
    """(2, C), where x is."""
    array = check.data(check.together(x, {"sums": sums})["sums"], "sums", ("float64",))
    if array.shape != (2, channels):
        raise ValueError(
            f"sums must have shape (2, {channels}), two for each channel of x, got {array.shape}; "
            "add up what cpubn.gradient_sums gives of every part"
        )
    return place_of(array).require(array, np.dtype(np.float64))  # type: ignore[no-any-return]


def check_besides(
    x: ArrayLike, layout: str, bias: ArrayLike | None, residual: ArrayLike | None, y: ArrayLike | None
) -> None:
    """The bias, the residual and the output of a forward of x, where they are not read."""
    x, axis = check.batch(located(x, "x"), layout)
    _of_forward(x, x.shape[axis], layout, bias, residual, y)


def planned(asked: Request, any_type: bool, *, whole: bool = True) -> Plan:
    """For kernels that take samples of any type, or else only of the type that is computed in; whole: x is all."""
    x, axis = check.batch(asked.x, asked.layout)
    mean, low, m2, _ = asked.statistics
    given = {"dy": asked.dy, "mean": mean, "low": low, "var": m2, "weight": asked.weight, "out": asked.out}
    given = check.together(x, given)
    dy = options.gradient(given["dy"], x)
    walk, kind, out = walk_of(x, axis), x.dtype.newbyteorder("="), given["out"]
    statistics = _statistics(asked, given, x, walk)
    if asked.training and whole and asked.weights is None:
        check.enough_values(walk, x)
    dtype = None if any_type else computed_in(kind)
    prologue = _prologue(asked, x, walk, dtype)
    if out is not None:
        apart_from = {name: given[name] for name in ("mean", "var", "weight")} | {"the low word of mean": given["low"]}
        if asked.activation is not None or asked.wants_g:
            y = None if isinstance(asked.kept, Signs) else asked.kept
            apart_from |= {"bias": asked.bias, "residual": asked.residual, "y": y}
        options.output(out, x.shape, kind, {"dy": dy, "x": x}, apart_from)
    if asked.totals is not None:
        _check_totals(asked.totals, x, axis, {"dy": dy, **given}, asked.layout)
    g = copied = None
    if asked.wants_g and asked.activation is None and asked.weights is None:
        copied = place_of(x).copy(dy)
    elif asked.wants_g:
        g = target_of(new_output(x, walk, kind), walk, dtype)
        prologue = prologue._replace(g=g.view)
    dx = target_of(new_output(x, walk, kind) if out is None else out, walk, dtype)
    weights = along(asked.weights, walk)
    return Plan(walk.view(dy, dtype), walk.view(x, dtype), statistics, prologue, dx, g, copied, walk, weights)


def _statistics(asked: Request, given: dict[str, Any], x: Array, walk: Walk) -> Statistics:
    channels, layout = walk.shape[1], asked.layout
    eps = check.epsilon(asked.eps, training=asked.training)
    mean = check.vector(given["mean"], "mean", channels, layout)
    low = check.optional_vector(x, given["low"], "the low word of mean", channels, layout, 0.0)
    var = check.vector(given["var"], "var", channels, layout)
    if asked.statistics[3] != 1.0:
        var = place_of(var).variance(var, asked.statistics[3])
    state.divisor(var, eps, "var")
    weight = check.optional_vector(x, given["weight"], "weight", channels, layout, 1.0)
    return Statistics(mean, low, var, weight, eps, bool(asked.training))


def _check_totals(totals: tuple[Any, Any], x: Array, axis: int, apart_from: dict[str, Any], layout: str) -> None:
    given = check.together(x, dict(zip(("weight_grad", "bias_grad"), totals, strict=True)), like="the last input")
    for name, total in given.items():
        check.vector(total, name, x.shape[axis], layout, check.SINGLE_OR_DOUBLE)
    state.updatable(given, {"the last input": x, **apart_from}, "backward")


def _prologue(asked: Request, x: Array, walk: Walk, dtype: np.dtype[Any] | None) -> Prologue:
    """How dy goes through the activation: by signs, by the output where that is enough, or by z, computed again."""
    if asked.activation is None:
        return NO_PROLOGUE
    if isinstance(asked.kept, Signs):
        if x.shape != asked.kept.shape:
            raise ValueError(
                f"x must have the shape {asked.kept.shape} that it had in the forward, got {x.shape}; "
                "call the forward again, or give it that shape back"
            )
        return Prologue(signs=asked.kept.along(walk)) if x.size else NO_PROLOGUE
    options.differentiable(asked.activation)
    bias, residual, y = _of_forward(x, walk.shape[1], asked.layout, asked.bias, asked.residual, asked.kept)
    of_output = None if y is None else asked.activation.of_output(x.dtype.newbyteorder("="))
    if of_output is not None:
        return Prologue(of_output, kept=walk.view(y, dtype))
    return Prologue(asked.activation, bias, None if residual is None else walk.view(residual, dtype))


def _of_forward(x: Array, channels: int, layout: str, bias: Any, residual: Any, y: Any) -> tuple[Vector, Any, Any]:
    """Bias, residual and output of a forward of an array of x's shape, type and place."""
    bias, residual, y = check.together(x, {"bias": bias, "residual": residual, "y": y}).values()
    kind = x.dtype.newbyteorder("=")
    return (
        check.optional_vector(x, bias, "bias", channels, layout, 0.0),
        options.residual(residual, x.shape, kind),
        None if y is None else options.of_result(y, "y", x.shape, kind),
    )
