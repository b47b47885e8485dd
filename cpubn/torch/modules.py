"""BatchNorm1d, BatchNorm2d and BatchNorm3d."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import distributed as dist, nn

from cpubn.torch import calls, gradients, sync
from cpubn.torch.calls import FLOAT64, Norm
from cpubn.torch.operators import normalize
from cpubn.torch.ranks import Ranks

# Of an input of fewer elements a call of torch's own is faster.
SMALL = 65536

ARGUMENTS = """

    Parameters
    ----------
    num_features, eps, momentum, affine, track_running_stats, device, dtype and so on : torch's.
    activation : "relu", computed in the same pass over memory, or None.

    Raises
    ------
    ValueError : another activation; as torch does, for an input of another rank or other channels.

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
        norm = Norm(training, running, self._share(moves), self.eps, self.activation is not None)
        made = calls.forward(x, self.weight, self.bias, norm)
        if made is None:
            return None
        return self._attached(x, made, moves, gradients.attached)

    def _attached(self, x: torch.Tensor, made: tuple[torch.Tensor, Any], moves: bool, attached: Any) -> torch.Tensor:
        """The y of a forward, which is counted, with its gradient where one is wanted."""
        if moves and made[1].samples and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        operands = x, self.weight, self.bias
        if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in operands):
            out: torch.Tensor = attached(*operands, made)
            return out
        return made[0]

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


class SyncBatchNorm(_BatchNorm):
    """torch.nn.SyncBatchNorm for tensors on the CPU, which torch's own refuses: of all ranks' batches together.

    In training mode, where torch.distributed is initialized, statistics and dx are those of the whole batch, with one
    all_gather a pass, added up in the order of ranks: all have the same running statistics, to the bit. Parts may be
    uneven, and empty; all ranks must call. Gradients of weight and bias are this rank's, as DistributedDataParallel
    wants them. An error on one rank is one on all. Without a group, of one rank, and in eval mode it is plain batch
    norm. Its state_dict is torch's; no torch.nn.SyncBatchNorm itself, which DistributedDataParallel refuses on the CPU.

    Parameters
    ----------
    num_features, eps, momentum, affine, track_running_stats, device, dtype, bias : torch's.
    process_group : the ranks that share their statistics, of a backend for the CPU such as gloo; None for all.
    activation : "relu", computed in the same pass over memory, or None.

    Raises
    ------
    ValueError, RuntimeError : another activation; a batch that does not fit, on whichever rank.

    Examples
    --------
    >>> import torch, cpubn.torch
    >>> bn = cpubn.torch.SyncBatchNorm(64)
    >>> bn(torch.randn(8, 64, 5, 5)).shape
    torch.Size([8, 64, 5, 5])
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        process_group: Any = None,
        **named: Any,
    ) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats, **named)
        self.process_group = process_group

    def _check_input_dim(self, x: torch.Tensor) -> None:
        if x.dim() < 2:
            raise ValueError(
                f"x must have 2 to 5 dimensions, got {x.dim()}; put a batch and channels before the others"
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """y = activation((x - mean) / sqrt(var + eps) * weight + bias), by the mean and variance of all ranks."""
        if self.training and dist.is_available() and dist.is_initialized():
            group = self.process_group or dist.group.WORLD
            if dist.get_world_size(group) > 1:
                return self._over(x, Ranks(group))
        return super().forward(x)

    @torch.compiler.disable  # type: ignore[untyped-decorator] # a graph ends where ranks meet
    def _over(self, x: torch.Tensor, ranks: Ranks) -> torch.Tensor:
        mean, var = self.running_mean, self.running_var
        moves = self.track_running_stats and mean is not None
        norm = Norm(True, (mean, var) if moves else (None, None), self._share(moves), self.eps, bool(self.activation))
        made = sync.forward(ranks, x, (self.weight, self.bias), self.num_features, norm)
        return self._attached(x, made, moves, sync.Attached.apply)


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
