"""Autograd: of a forward that is done, and of its backward, which torch's own formulas have."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from cpubn.torch import calls
from cpubn.torch.calls import Made


def attached(x: torch.Tensor, weight: Any, bias: Any, made: Made) -> torch.Tensor:
    """The result of a forward, with its gradient."""
    mean, low, var, count = made.statistics
    if not made.norm.training:  # the running ones, which may move before backward
        made = made._replace(statistics=(np.array(mean, float), low, np.array(var, float), count))
    y: torch.Tensor = Attached.apply(x, weight, bias, made)
    return y


class Attached(torch.autograd.Function):  # type: ignore[misc]
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: Any, bias: Any, made: Made) -> torch.Tensor:
        ctx.save_for_backward(x, weight, made.y if made.norm.relu else None)
        ctx.made = made._replace(y=None)  # which would keep itself alive
        return made.y

    @staticmethod
    def backward(ctx: Any, dy: torch.Tensor) -> tuple[Any, ...]:
        x, weight, y = ctx.saved_tensors
        of_x, of_weight, of_bias, _ = ctx.needs_input_grad
        statistics, norm = ctx.made.statistics, ctx.made.norm
        made = statistics, norm.eps, norm.training
        done = None if torch.is_grad_enabled() else calls.backward(dy, x, weight, y, made)
        if done is None:
            done = by_torch(dy, x, weight, y, made)
        dx, dweight, dbias = done
        return (
            dx if of_x else None,
            dweight.to(weight.dtype) if of_weight else None,
            dbias.to(x.dtype if weight is None else weight.dtype) if of_bias else None,
            None,
        )


def by_torch(
    dy: torch.Tensor, x: torch.Tensor, weight: Any, y: torch.Tensor | None, made: tuple[Any, ...]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The same by operations that torch has the gradients of, and the batching rules."""
    (mean, _, m2, count), eps, training = made
    kind = torch.promote_types(x.dtype, torch.float32) if weight is None else weight.dtype
    if y is not None:
        dy = torch.ops.aten.threshold_backward(dy, y, 0)
    centre, var = (torch.from_numpy(np.asarray(v)).to(kind) for v in (mean, m2 / count))
    rstd = torch.rsqrt(torch.from_numpy(np.asarray(m2 / count)) + eps).to(kind)
    done: tuple[torch.Tensor, torch.Tensor, torch.Tensor] = torch.ops.aten.native_batch_norm_backward(
        dy, x, weight, centre, var, centre, rstd, training, eps, [True, True, True]
    )
    return done
