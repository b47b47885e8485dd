"""Autograd: of a forward that is done, and of its backward, which torch's own formulas have."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from cpubn.torch import calls
from cpubn.torch.calls import FLOAT64, Statistics


def attached(x: torch.Tensor, weight: Any, bias: Any, made: tuple[torch.Tensor, Statistics]) -> torch.Tensor:
    """The result of a forward, with its gradient."""
    y, of = made
    if not of.training:  # by the running statistics, which may move before backward
        of = of._replace(mean=np.array(of.mean, float), m2=np.array(of.m2, float))
    out: torch.Tensor = Attached.apply(x, weight, bias, (y, of))
    return out


class Attached(torch.autograd.Function):  # type: ignore[misc]
    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, weight: Any, bias: Any, made: tuple[torch.Tensor, Statistics]
    ) -> torch.Tensor:
        """made: in a tuple, because y as an argument would be returned as a view, which nothing may change in place."""
        y, ctx.of = made
        ctx.save_for_backward(x, weight, bias)
        return y

    @staticmethod
    def backward(ctx: Any, dy: torch.Tensor) -> tuple[Any, ...]:
        x, weight, bias = ctx.saved_tensors
        of_x, of_weight, of_bias, _ = ctx.needs_input_grad
        done = None if torch.is_grad_enabled() else calls.backward(dy, x, weight, bias, ctx.of)
        if done is None:
            done = by_torch(dy, x, weight, bias, ctx.of)
        dx, dweight, dbias = done
        return (
            dx if of_x else None,
            dweight.to(weight.dtype) if of_weight else None,
            dbias.to(bias.dtype) if of_bias else None,
            None,
        )


def by_torch(
    dy: torch.Tensor, x: torch.Tensor, weight: Any, bias: Any, of: Statistics
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The same by operations of which torch has the gradients, and the batching rules."""
    mean, var = (torch.from_numpy(np.asarray(v, float)) for v in (of.mean, of.m2 / of.samples))
    rstd = torch.rsqrt(var + of.eps)
    if of.relu:
        columns = [1, -1] + [1] * (x.dim() - 2)
        with torch.no_grad():
            z = (x.to(FLOAT64) - mean.view(columns)) * rstd.view(columns)
            z = z if weight is None else z * weight.view(columns)
            z = z if bias is None else z + bias.view(columns)
        dy = dy * (z > 0)
    kind = torch.promote_types(x.dtype, torch.float32) if weight is None else weight.dtype
    mean, var, rstd = (v.to(kind) for v in (mean, var, rstd))
    done: tuple[torch.Tensor, torch.Tensor, torch.Tensor] = torch.ops.aten.native_batch_norm_backward(
        dy, x, weight, mean, var, mean, rstd, of.training, of.eps, [True, True, True]
    )
    return done
