"""batch_norm, batch_norm_backward and moments within numba.njit: thin, so that they compile in little time.

A user's cache does not notice when these change: what an earlier version compiled goes on calling the functions of
cpubn.h by the names that it knows, and those keep their meaning (`symbols`).

`threads` is an argument here alone. Outside, one setting holds for the process, set_num_threads; compiled code computes
in its own thread, as it may stand in a loop of many threads already, unless a call asks for more.
"""

# mypy: disable-error-code="untyped-decorator, attr-defined, no-any-return"

from __future__ import annotations

from collections import namedtuple
from typing import Any

from numba.core import types
from numba.extending import overload, register_jitable

from cpubn import functional
from cpubn.njit import asked
from cpubn.njit.arrays import nothing, rows_of, target_of
from cpubn.njit.call import TYPES
from cpubn.njit.errors import untyped
from cpubn.njit.passes import Plan, backward_of, count_of, forward_of
from cpubn.njit.vectors import copies

# What moments are in compiled code: the fields of cpubn.Moments.
Moments = namedtuple("Moments", "count mean m2 low")


@overload(functional.moments, prefer_literal=True)
def moments(x: Any, layout: Any = "NCHW", backend: Any = None, threads: Any = 1) -> Any:
    asked.need_functions()
    asked.samples("x", x, tuple(TYPES))
    asked.backend(backend)
    asked.threads(threads)
    name = asked.layout(layout)
    axis = asked.axis(x, name)
    rows, count = rows_of(3, axis), count_of(name, axis)

    def made(x: Any, layout: Any = "NCHW", backend: Any = None, threads: Any = 1) -> Any:
        stats = rows(x)
        count(x, stats, threads)
        return Moments(values_of(x, axis), stats[0], stats[2], stats[1])

    return made


@register_jitable
def values_of(x: Any, axis: int) -> int:
    """Values per channel."""
    return x.size // max(x.shape[axis], 1)


@overload(functional.batch_norm, prefer_literal=True)
def batch_norm(
    x: Any,
    running_mean: Any,
    running_var: Any,
    weight: Any = None,
    bias: Any = None,
    training: Any = False,
    momentum: Any = 0.1,
    eps: Any = 1e-5,
    layout: Any = "NCHW",
    activation: Any = None,
    residual: Any = None,
    dtype: Any = None,
    out_layout: Any = None,
    out: Any = None,
    return_moments: Any = False,
    backend: Any = None,
    threads: Any = 1,
) -> Any:
    asked.need_functions()
    trains, kept = asked.flag("training", training), asked.flag("return_moments", return_moments)
    if kept is None:
        untyped("return_moments must be written down in the call within numba.njit, got a value; pass True or False")
    asked.samples("x", x, tuple(TYPES) if trains is False else asked.FLOATS)
    name = asked.layout(layout)
    asked.backend(backend)
    for option, value in {"momentum": momentum, "eps": eps}.items():
        asked.number(option, value)
    asked.threads(threads)
    kind = asked.dtype(dtype, x)
    out_name = name if asked.known(out_layout) is None else asked.layout(out_layout, "out_layout")
    asked.running(running_mean, running_var, trains)
    for vector, value in {"weight": weight, "bias": bias}.items():
        asked.vector(vector, value, is_optional=True)
    for array, value in {"residual": residual, "out": out}.items():
        asked.optional(array, value, x, kind)
    asked.written("out", out)
    axis, out_axis = asked.axis(x, name), asked.axis(x, out_name)
    plan = Plan(name, axis, out_axis, asked.activation(activation), trains)
    forward, count = forward_of(plan), count_of(name, axis)
    target = target_of(asked.array_like(x, kind, axis != out_axis), axis, out_axis)
    stats_of = nothing if trains is False and not kept else rows_of(3, axis)
    room_of = rows_of(copies(running_mean, running_var, weight, bias), axis)

    def made(
        x: Any,
        running_mean: Any,
        running_var: Any,
        weight: Any = None,
        bias: Any = None,
        training: Any = False,
        momentum: Any = 0.1,
        eps: Any = 1e-5,
        layout: Any = "NCHW",
        activation: Any = None,
        residual: Any = None,
        dtype: Any = None,
        out_layout: Any = None,
        out: Any = None,
        return_moments: Any = False,
        backend: Any = None,
        threads: Any = 1,
    ) -> Any:
        y, stats = target(x, out), stats_of(x)
        if kept and not training:  # kept is a constant: Numba compiles nothing of what is not asked for
            count(x, stats, threads)
        forward(
            *(x, y, residual, running_mean, running_var, weight, bias, training, momentum, eps),
            *(activation, stats, room_of(x), threads),
        )
        if kept:
            return y, Moments(values_of(x, axis), stats[0], stats[2], stats[1])
        return y

    return made


@overload(functional.batch_norm_backward, prefer_literal=True)
def batch_norm_backward(
    dy: Any,
    x: Any,
    mean: Any,
    var: Any,
    weight: Any = None,
    eps: Any = 1e-5,
    training: Any = True,
    layout: Any = "NCHW",
    bias: Any = None,
    activation: Any = None,
    residual: Any = None,
    y: Any = None,
    out: Any = None,
    backend: Any = None,
    threads: Any = 1,
) -> Any:
    asked.need_functions()
    trains, name = asked.flag("training", training), asked.layout(layout)
    asked.samples("x", x)
    asked.samples("dy", dy, (str(x.dtype),), x.ndim)
    asked.backend(backend)
    asked.number("eps", eps)
    asked.threads(threads)
    of_moments = isinstance(mean, types.NamedTuple) and mean.instance_class is Moments
    if not of_moments:
        asked.vector("mean", mean)
    asked.vector("var", var)
    for vector, value in {"weight": weight, "bias": bias}.items():
        asked.vector(vector, value, is_optional=True)
    for array, value in {"residual": residual, "y": y, "out": out}.items():
        asked.optional(array, value, x, str(x.dtype))
    asked.written("out", out)
    axis = asked.axis(x, name)
    backward = backward_of(Plan(name, axis, axis, asked.activation(activation), trains))
    target, sums_of = target_of(asked.array_like(x, str(x.dtype), False), axis, axis), rows_of(2, axis)
    room_of = rows_of(copies(*([] if of_moments else [mean]), var, weight, bias), axis)
    low_of, mean_of = (low_of_moments, mean_of_moments) if of_moments else (nothing, itself)
    with_g = asked.known(residual) is not None
    g_of, result_of = (target, four) if with_g else (neither, three)

    def made(
        dy: Any,
        x: Any,
        mean: Any,
        var: Any,
        weight: Any = None,
        eps: Any = 1e-5,
        training: Any = True,
        layout: Any = "NCHW",
        bias: Any = None,
        activation: Any = None,
        residual: Any = None,
        y: Any = None,
        out: Any = None,
        backend: Any = None,
        threads: Any = 1,
    ) -> Any:
        dx, g, sums = target(x, out), g_of(x, None), sums_of(x)
        backward(
            *(dy, x, mean_of(mean), low_of(mean), var, weight, bias, eps, training, activation, residual, y),
            *(dx, g, sums, room_of(x), threads),
        )
        return result_of(dx, sums, g)

    return made


@register_jitable
def itself(mean: Any) -> Any:
    return mean


@register_jitable
def mean_of_moments(mean: Any) -> Any:
    return mean.mean


@register_jitable
def low_of_moments(mean: Any) -> Any:
    return mean.low


@register_jitable
def neither(x: Any, out: Any) -> Any:
    return None


@register_jitable
def three(dx: Any, sums: Any, g: Any) -> Any:
    return dx, sums[0], sums[1]


@register_jitable
def four(dx: Any, sums: Any, g: Any) -> Any:
    return dx, sums[0], sums[1], g
