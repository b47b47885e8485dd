"""The calls as operators of torch, for graphs that torch.compile makes: functions without side effects."""

from __future__ import annotations

from typing import Any

import torch

from cpubn.torch import calls
from cpubn.torch.calls import FLOAT64, Norm, Statistics


@torch.library.custom_op("cpubn::normalize", mutates_args=(), device_types="cpu")  # type: ignore[untyped-decorator]
def normalize(
    x: torch.Tensor,
    running: torch.Tensor | None,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    eps: float,
    relu: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """y, and stats (3, C): mean, its low word and m2. running: (2, C), or None in training."""
    vectors = (None, None) if running is None else tuple(running)
    made = calls.forward(x, weight, bias, Norm(running is None, vectors, 0.1, eps, relu))
    if made is None:
        raise ValueError(
            f"x must be a floating tensor of 2 to 5 dimensions with more than 1 value per channel, got {x.dtype} of "
            f"shape {tuple(x.shape)}; pass a larger batch, or call eval() on the layer first"
        )
    y, of = made
    if running is None:
        return y, torch.stack([torch.from_numpy(v) for v in (of.mean, of.low, of.m2)])
    return y, torch.zeros((3, x.shape[1]), dtype=FLOAT64)


@normalize.register_fake  # type: ignore[untyped-decorator]
def _(x: Any, *_: Any) -> Any:
    return torch.empty_like(x), x.new_empty((3, x.shape[1]), dtype=FLOAT64)


@torch.library.custom_op("cpubn::gradients", mutates_args=(), device_types="cpu")  # type: ignore[untyped-decorator]
def gradients(
    dy: torch.Tensor,
    x: torch.Tensor,
    statistics: torch.Tensor,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    eps: float,
    training: bool,
    relu: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """dx, and dweight and dbias of float64. statistics (3, C): stats, or mean, 0 and variance."""
    mean, low, m2 = statistics.numpy()
    samples = float(max(1, x.numel() // x.shape[1])) if training else 1.0
    of = Statistics(mean, low, m2, samples, eps, training, relu)
    done = calls.backward(dy, x, weight, bias, of)
    if done is None:
        raise ValueError(f"dy must be of x's type and shape, got {dy.dtype} of {tuple(dy.shape)}; pass y's gradient")
    dx, dweight, dbias = done
    return dx, dweight.clone(), dbias.clone()


@gradients.register_fake  # type: ignore[untyped-decorator]
def _(dy: Any, x: Any, *_: Any) -> Any:
    return torch.empty_like(x), *(x.new_empty(x.shape[1], dtype=FLOAT64) for _ in range(2))


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Any, ...]) -> None:
    x, running, weight, bias, eps, relu = inputs
    stats = output[1]
    if running is not None:
        mean, var = running.to(FLOAT64)
        stats = torch.stack([mean, torch.zeros_like(mean), var])
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(x, stats, weight, bias)
    ctx.how = eps, running is None, relu


def _backward(ctx: Any, dy: Any, _: Any) -> tuple[Any, ...]:
    x, stats, weight, bias = ctx.saved_tensors
    dx, dweight, dbias = gradients(dy, x, stats, weight, bias, *ctx.how)
    return (
        dx,
        None,
        None if weight is None else dweight.to(weight.dtype),
        None if bias is None else dbias.to(bias.dtype),
        None,
        None,
    )


normalize.register_autograd(_backward, setup_context=_keep)
