"""BatchNorm1d, BatchNorm2d and BatchNorm3d."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import nn

from cpubn.torch import calls, gradients
from cpubn.torch.calls import FLOAT64, Norm
from cpubn.torch.operators import normalize

# Of an input of fewer elements a call of torch's own is faster.
SMALL = 65536

ARGUMENTS = """

    Parameters
    ----------
    num_features, eps, momentum, affine, track_running_stats, device, dtype and so on : torch's.
    activation : "relu", computed in the same pass over memory, or None.

    Examples
    --------
    >>> import torch, cpubn.torch
    >>> bn = cpubn.torch.{name}(64, activation="relu")
    >>> y = bn(torch.randn({shape}, requires_grad=True))
    >>> y.sum().backward()
    >>> bn.weight.grad.shape
    torch.Size([64])
"""


class _BatchNorm(nn.modules.batchnorm._BatchNorm):  # type: ignore[misc]
    activation: Literal["relu"] | None = None  # of layers that were converted, too

    def __init__(self, *arguments: Any, activation: Literal["relu"] | None = None, **named: Any) -> None:
        super().__init__(*arguments, **named)
        if activation not in (None, "relu"):
            raise ValueError(
                f"activation must be 'relu' or None, got {activation!r}; let a module of torch's follow for another one"
            )
        self.activation = activation

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}{'' if self.activation is None else f', activation={self.activation!r}'}"

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """y = activation((x - mean) / sqrt(var + eps) * weight + bias); x on any device and of any strides."""
        self._check_input_dim(x)
        y = None
        if x.numel() >= SMALL and x.is_cpu:
            y = self._in_graph(x) if torch.compiler.is_compiling() else self._here(x)
        if y is None:
            y = super().forward(x)
            if self.activation is not None:
                y = nn.functional.relu(y)
        return y

    def _here(self, x: torch.Tensor) -> torch.Tensor | None:
        """None, with nothing written, where torch is to compute."""
        mean, var = self.running_mean, self.running_var
        training, moves = self.training or mean is None, self.training and self.track_running_stats and mean is not None
        running = (mean, var) if moves or not training else (None, None)
        weight, bias = self.weight, self.bias
        made = calls.forward(
            x, weight, bias, Norm(training, running, self._share(moves), self.eps, self.activation is not None)
        )
        if made is None:
            return None
        y, of = made
        if moves and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (x, weight, bias)):
            return gradients.attached(x, weight, bias, y, of)
        return y

    def _in_graph(self, x: torch.Tensor) -> torch.Tensor:
        mean, var = self.running_mean, self.running_var
        training, relu = self.training or mean is None, self.activation is not None
        running = None if training else torch.stack([mean, var])
        y, stats = normalize(x, running, self.weight, self.bias, self.eps, relu)
        if self.training and self.track_running_stats and mean is not None:
            share, freedom = self._share(True), x.numel() // x.shape[1] - 1
            with torch.no_grad():
                self.num_batches_tracked.add_(1)
                for v, found in ((mean, stats[0]), (var, stats[2] / freedom)):
                    v.copy_(v.to(FLOAT64) * (1.0 - share) + found * share)
        out: torch.Tensor = y
        return out

    def _share(self, moves: bool) -> Any:
        """Of the new batch in the running statistics."""
        if self.momentum is not None or not moves:
            return self.momentum or 0.0
        return (
            1.0 / (self.num_batches_tracked + 1)
            if torch.compiler.is_compiling()
            else 1.0 / (int(self.num_batches_tracked) + 1)
        )


class BatchNorm1d(_BatchNorm, nn.BatchNorm1d):  # type: ignore[misc]
    __doc__ = "torch.nn.BatchNorm1d, of (N, C) or (N, C, L)." + ARGUMENTS.format(
        name="BatchNorm1d", shape="32, 64, 100"
    )


class BatchNorm2d(_BatchNorm, nn.BatchNorm2d):  # type: ignore[misc]
    __doc__ = "torch.nn.BatchNorm2d, of (N, C, H, W)." + ARGUMENTS.format(name="BatchNorm2d", shape="32, 64, 28, 28")


class BatchNorm3d(_BatchNorm, nn.BatchNorm3d):  # type: ignore[misc]
    __doc__ = "torch.nn.BatchNorm3d, of (N, C, D, H, W)." + ARGUMENTS.format(
        name="BatchNorm3d", shape="4, 64, 8, 16, 16"
    )
