"""The data path of forward, and its plans: all that a pass needs, checked, every array as (outer, channel, inner)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from cpubn.ask import check, options, state
from cpubn.ask.walk import Walk, along, new_output, walk_of
from cpubn.backends import choice, host, register
from cpubn.backends.compiled import variants
from cpubn.backends.epilogue import Activation, Epilogue, Quantization
from cpubn.backends.interface import name_of
from cpubn.backends.place import addresses, located, place_of
from cpubn.backends.weights import Weights
from cpubn.typing import Array, Backend, Vector

VECTORS = "running_mean", "running_var", "weight", "bias"


def computed_in(*dtypes: np.dtype[Any]) -> np.dtype[Any]:
    """float64 if one of them is, else float32."""
    return np.dtype(np.float64 if np.float64 in [dtype.type for dtype in dtypes] else np.float32)


def forward_through(
    x: Any, vectors: tuple[Any, ...], how: tuple[Any, ...], training: bool, kept: bool, backend: Backend | None
) -> tuple[Array, int, Any]:
    """y, the values per channel and, in training or where they are `kept`, stats of them.

    vectors: running mean and variance, weight, bias and, (), the count of batches that went into the running ones; how:
    momentum, eps, layout, activation, Weights or None, residual, dtype, out_layout and out.
    """
    calls, weights, out = choice.compiled_calls(backend), how[4], how[-1]
    done = calls and (
        _compiled(calls, x, vectors, how, training, kept) or _of_tensors(calls, x, vectors, how, training, kept)
    )
    if done:
        return done  # type: ignore[no-any-return]
    x = located(x, "x")
    kernels = choice.kernels_for(x, backend)
    with register.calm():
        plan = forward(x, vectors, how, training)
        if calls and place_of(plan.output.x) is host:  # the call is right, but not all of it were arrays
            *first, residual, dtype, out_layout, _ = how
            how = (*first, check.as_array(residual), dtype, out_layout, check.as_array(out))
            y, *rest = _compiled(calls, plan.output.x, tuple(map(check.as_array, vectors)), how, training, kept)
            return y if out is None else out, *rest
        output = plan.output
        samples = output.walk.samples if weights is None else weights.counts
        threads = choice.threads(output.x.nbytes)
        place = place_of(output.x)
        stats = place.room(output.x, (3, output.walk.shape[1]), kept=kept)
        if not output.x.size:
            pass
        elif plan.training:
            call = output.call(kernels.ANY_TYPE)
            ends = call.epilogue, call.y.view, threads, call.weights
            kernels.train_forward(call.x, plan.weight, plan.bias, plan.eps, stats, *ends)
            call.y.deliver(call.walk)
            if plan.running:
                place.update_running(*plan.updated, stats, samples, plan.momentum)
        elif plan.running:
            if kept:
                array, walk = sample(output.x, plan.layout, kernels.ANY_TYPE)
                kernels.moments(array, stats, threads, along(weights, walk))
            mean, var = plan.running
            affine = place.affine(output.computed_in, (mean, None, var), plan.weight, plan.bias, plan.eps)
            output.apply(affine, kernels)
        y = place.result(output.array)
        return y if out is None or place is not host else out, samples, stats


def _compiled(calls: Any, x: Any, vectors: tuple[Any, ...], how: tuple[Any, ...], training: bool, kept: bool) -> Any:
    """The same by compiled calls, or None where something is wrong, or no array."""
    if training:
        return calls.train(x, vectors, how)
    counted = calls.moments(x, how[2], how[4]) if kept else (0, None)
    y = counted and calls.infer(x, vectors, how)
    return None if y is None else (y, *counted)


def _of_tensors(calls: Any, x: Any, vectors: tuple[Any, ...], how: tuple[Any, ...], training: bool, kept: bool) -> Any:
    """The same of tensors whose memory is quickly told."""
    borrowed = variants.borrowed()
    *first, residual, dtype, out_layout, out = how
    seen = (*first, borrowed(residual), dtype, out_layout, borrowed(out))
    done = _compiled(calls, borrowed(x), tuple(map(borrowed, vectors)), seen, training, kept)
    return done if done is None or out is None else (out, *done[1:])


class Target(NamedTuple):
    """An output: the array that it is for, with x's axes, and the view of it, or scratch, that a kernel writes."""

    array: Array
    view: Array
    quantization: Quantization | None = None  # of scratch, which holds real numbers

    def deliver(self, walk: Walk) -> None:
        """Complete the array."""
        if not np.may_share_memory(addresses(self.array), addresses(self.view)):
            ordered = self.array.transpose(walk.axes)
            made = self.view.reshape(ordered.shape)
            place_of(made).assign(ordered, made if self.quantization is None else self.quantization.of(made))


class Call(NamedTuple):
    """What of a call every kernel that computes y from x takes, for all of x or one of its images."""

    x: Array
    epilogue: Epilogue
    y: Target
    walk: Walk
    weights: Weights | None


class Output(NamedTuple):
    """Where y goes, and by which epilogue. `array` is the caller's; `y` and `residual` are views with the axes of x."""

    x: Array
    axis: int
    walk: Walk
    array: Array
    y: Array
    residual: Array | None
    activation: Activation | None
    quantization: Quantization | None
    weights: Weights | None = None

    @property
    def computed_in(self) -> np.dtype[Any]:
        return computed_in(self.x.dtype, self.y.dtype)

    def call(self, any_type: bool) -> Call:
        """For a kernel that takes samples of any type, or else only of the type that is computed in."""
        mixed = self.computed_in == np.float64 and self.x.dtype.type is not self.y.dtype.type
        dtype = self.computed_in if mixed or not any_type else None
        residual = None if self.residual is None else self.walk.view(self.residual, dtype)
        target = target_of(self.y, self.walk, dtype)
        if dtype is not None:  # scratch, which is quantized on delivery
            target = target._replace(quantization=self.quantization)
        epilogue = Epilogue(self.activation, residual, self.quantization if dtype is None else None)
        return Call(self.walk.view(self.x, dtype), epilogue, target, self.walk, along(self.weights, self.walk))

    def calls(self, any_type: bool) -> Iterator[Call]:
        """One call, or one for each image where y, being of another layout than x, is not walked with x at once."""
        images = self.x.shape[0]
        if not any_type or images <= 1 or self.walk.merges(self.y):
            yield self.call(any_type)
            return
        for i in range(images):
            x, y = self.x[i : i + 1], self.y[i : i + 1]
            residual = None if self.residual is None else self.residual[i : i + 1]
            own = self._replace(x=x, walk=walk_of(x, self.axis), y=y, residual=residual)
            if self.weights is not None:
                own = own._replace(weights=self.weights._replace(array=self.weights.array[i : i + 1]))
            yield own.call(any_type)

    def apply(self, affine: Array, kernels: Any) -> Array:
        """The output, by coefficients that are known."""
        if self.x.size:
            for call in self.calls(kernels.ANY_TYPE):
                threads = choice.threads(call.x.nbytes)
                kernels.normalize(call.x, affine, call.epilogue, call.y.view, threads, call.weights)
                call.y.deliver(call.walk)
        return place_of(self.array).result(self.array)  # type: ignore[no-any-return]


class Wanted(NamedTuple):
    """How y is asked for."""

    layout: str  # of x
    activation: Activation | None
    residual: Any
    dtype: DTypeLike | None
    quantization: Quantization | None
    out_layout: str | None
    out: Any


class Forward(NamedTuple):
    output: Output
    weight: Vector
    bias: Vector
    running: tuple[Vector, Vector] | None  # mean and variance
    updated: tuple[Any, Any, Any]  # the caller's own, and the count of batches
    training: bool
    momentum: float
    eps: float
    layout: str


def forward(
    x: ArrayLike, vectors: tuple[Any, ...], how: tuple[Any, ...], training: bool, *, whole: bool = True
) -> Forward:
    """vectors and how: as forward_through has them; whole: x is all of its batch."""
    running_mean, running_var, weight, bias, tracked = vectors
    momentum, eps, layout, activation, weights, residual, dtype, out_layout, out = how
    x, axis = check.batch(x, layout, check.FLOATS if training else check.SAMPLES)
    given = {"running_mean": running_mean, "running_var": running_var, "weight": weight, "bias": bias}
    given = check.together(x, {**given, "residual": residual, "out": out})
    running_mean, running_var, weight, bias, residual, out = given.values()
    residual = None if residual is None else check.data(residual, "residual", check.FLOATS)
    channels = x.shape[axis]
    eps = check.epsilon(eps, training=training)
    momentum = check.momentum(momentum)
    walk = walk_of(x, axis)
    w = check.optional_vector(x, weight, "weight", channels, layout, 1.0)
    b = check.optional_vector(x, bias, "bias", channels, layout, 0.0)
    running = check.running_pair(running_mean, running_var, channels, layout, training=training)
    if training:
        if whole and weights is None:
            check.enough_values(walk, x)
        if running:
            apart_from = {"x": x, "residual": residual, "weight": weight, "bias": bias}
            state.updatable({"running_mean": running_mean, "running_var": running_var}, apart_from)
    elif running:
        state.divisor(running[1], eps)
    wanted = Wanted(layout, activation, residual, options.dtype(dtype, x), None, out_layout, out)
    output = _output(x, axis, walk, wanted, {name: given[name] for name in VECTORS})._replace(weights=weights)
    return Forward(output, w, b, running, (running_mean, running_var, tracked), training, momentum, eps, layout)


def apply(x: ArrayLike, channels: int, wanted: Wanted) -> Output:
    """With a quantization, the type that is wanted is that of x, too."""
    x, axis = check.batch(x, wanted.layout, check.SAMPLES)
    if wanted.quantization is not None:
        options.quantized_data(x, np.dtype(wanted.dtype))
    there = check.together(x, {"residual": wanted.residual, "out": wanted.out})
    check.channels(x, axis, channels, wanted.layout)
    kind = options.dtype(wanted.dtype, x) if wanted.quantization is None else np.dtype(wanted.dtype)
    return _output(x, axis, walk_of(x, axis), wanted._replace(dtype=kind, **there), {})


def sample(x: ArrayLike, layout: str, any_type: bool) -> tuple[Array, Walk]:
    """`x` as its walk sees it, and the walk."""
    x, axis = check.batch(x, layout, check.SAMPLES)
    walk = walk_of(x, axis)
    exact = computed_in(x.dtype, *([np.dtype(np.float64)] if name_of(x.dtype) in check.INTEGERS else []))
    return walk.view(x, None if any_type else exact), walk


def _output(x: Array, axis: int, walk: Walk, wanted: Wanted, apart_from: dict[str, Any]) -> Output:
    """Of arrays in one place, and a dtype that is one."""
    layout, activation, residual, kind, quantization, out_layout, out = cast("tuple[Any, ...]", wanted)
    out_axis = check.channel_axis(x, options.out_layout(out_layout, layout))
    shape = x.shape if out_axis == axis else np.moveaxis(x, axis, out_axis).shape
    added = options.residual(residual, shape, kind)
    if out is not None:
        # In another layout, x would be overwritten before it is read.
        instead_of = {"x": x if out_axis == axis else None, "residual": added}
        options.output(out, shape, kind, instead_of, apart_from if out_axis == axis else {"x": x, **apart_from})
    elif out_axis == axis:
        out = new_output(x, walk, kind)
    else:
        out = place_of(x).empty(x, shape, kind)
    y = out
    if out_axis != axis:
        y, added = np.moveaxis(out, out_axis, axis), None if added is None else np.moveaxis(added, out_axis, axis)
    return Output(x, axis, walk, out, y, added, activation, quantization)


def target_of(array: Array, walk: Walk, dtype: np.dtype[Any] | None = None) -> Target:
    """What a kernel that computes in `dtype` writes of an array; None: it writes any type."""
    dtype = dtype or array.dtype.newbyteorder("=")
    plain = array.flags.aligned and array.dtype == dtype and walk.merges(array)
    return Target(array, walk.view(array) if plain else place_of(array).empty(array, walk.shape, dtype))
