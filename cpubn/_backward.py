"""The data path of backward: through the activation, then through the normalization."""

from __future__ import annotations

from typing import Any

from numpy.typing import ArrayLike

from cpubn import _check, _dispatch, _plan
from cpubn._epilogue import PLAIN, Activation
from cpubn._place import place_of
from cpubn._signs import Signs
from cpubn._types import Array, Layout, Vector
from cpubn._walk import overlap


def backward_through(
    dy: Any,
    x: Any,
    mean: ArrayLike,
    var: ArrayLike,
    weight: ArrayLike | None,
    bias: ArrayLike | None,
    eps: float,
    training: bool,
    layout: Layout,
    activation: Activation | None,
    residual: ArrayLike | None,
    kept: ArrayLike | Signs | None,
    wants_g: bool,
    out: Array | None,
    backend: str | None,
) -> tuple[Array, Vector, Vector, Any]:
    """dx, dweight, dbias and g of `batch_norm_backward`, from the forward's output or its signs or, without them, x.

    g is made where dx will stand, so that it takes no memory of its own, unless it is wanted as a residual's gradient.
    """
    if activation is None and not wants_g:
        return *_backward(dy, x, mean, var, weight, eps, training, layout, out, backend), None
    kernels = _dispatch.kernels_for(x, backend)
    dy = _check.together(x, {"dy": dy})["dy"]
    apart_from = {"bias": bias, "residual": residual, "y": None if isinstance(kept, Signs) else kept}
    plan = _plan.backward(dy, x, mean, var, weight, eps, training, layout, out, kernels.ANY_TYPE, apart_from)
    place = place_of(plan.x)
    dx = plan.dx.array
    room = None if wants_g or (out is not None and overlap(out, x)) else dx
    if isinstance(kept, Signs):
        g = kept.gradient(_check.data(dy, "dy", _check.FLOATS), room, kernels)
    elif activation is None:
        g = place.copy(_check.data(dy, "dy", _check.FLOATS))
    else:
        through = _plan.gradient(plan, bias, layout, activation, residual, kept, room, kernels.ANY_TYPE)
        affine = None
        if through.bias is not None:
            affine = place.affine(
                _plan.computed_in(plan.x.dtype), plan.mean, plan.var, plan.weight, through.bias, plan.eps
            )
        if plan.x.size:
            threads = _dispatch.threads(through.dy.nbytes)
            kernels.activation_gradient(through.dy, through.source, affine, through.epilogue, through.g.view, threads)
            through.g.deliver(plan.walk)
        g = through.g.array
    dtype = None if kernels.ANY_TYPE else _plan.computed_in(g.dtype)
    return *_by_plan(plan._replace(dy=plan.walk.view(g, dtype)), training, kernels), place.result(g)


def _backward(
    dy: ArrayLike,
    x: ArrayLike,
    mean: ArrayLike,
    var: ArrayLike,
    weight: ArrayLike | None,
    eps: float,
    training: bool,
    layout: Layout,
    out: Array | None,
    backend: str | None,
) -> tuple[Array, Vector, Vector]:
    """`batch_norm_backward` of the normalization alone."""
    direct = _dispatch.direct_kernels(backend)
    if direct:
        done = direct.backward_directly(dy, x, mean, var, weight, eps, training, layout, out, _dispatch.threads)
        if done:
            return done  # type: ignore[no-any-return]
    kernels = _dispatch.kernels_for(x, backend)
    plan = _plan.backward(dy, x, mean, var, weight, eps, training, layout, out, kernels.ANY_TYPE, {})
    return _by_plan(plan, training, kernels)


def _by_plan(plan: _plan.Backward, training: bool, kernels: Any) -> tuple[Array, Vector, Vector]:
    threads = _dispatch.threads(plan.x.nbytes)
    place = place_of(plan.x)
    sums = place.room(plan.x, (2, plan.walk.shape[1]), kept=True)
    if plan.x.size:
        if training:
            kernels.train_backward(
                plan.dy, plan.x, plan.mean, plan.var, plan.weight, plan.eps, sums, plan.dx.view, threads
            )
        else:
            kernels.gradient_sums(plan.dy, plan.x, plan.mean, sums, threads)
            affine = place.inference_gradient(plan.var, plan.weight, plan.eps)
            kernels.normalize(plan.dy, affine, PLAIN, plan.dx.view, threads)
        plan.dx.deliver(plan.walk)
    dweight = place.weight_gradient(sums, plan.var, plan.eps)
    return place.result(plan.dx.array), place.result(dweight), place.result(sums[0])
