"""Batch norm of a batch that is spread over processes, by torch.distributed: its passes, and their autograd."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch.autograd.function import once_differentiable

from cpubn.ask import check
from cpubn.ask.exchange import enough, exchanged, merged, summed
from cpubn.ask.forward import computed_in, target_of
from cpubn.ask.ranks import affine
from cpubn.ask.walk import Walk, walk_of
from cpubn.backends import choice, host, register
from cpubn.backends.prologue import NO_PROLOGUE, Prologue, Statistics
from cpubn.torch.calls import CALLS, RELU, Norm, memory, threads
from cpubn.torch.ranks import Ranks
from cpubn.typing import Array, Vector

KERNELS = choice.kernels("cython")


class Whole(NamedTuple):
    """What a forward found of all ranks' parts, and how."""

    samples: int  # a channel
    stats: Array  # (3, C): mean, low word, m2
    eps: float
    relu: bool
    ranks: Ranks


def forward(
    ranks: Ranks, x: torch.Tensor, vectors: tuple[Any, Any], channels: int, norm: Norm
) -> tuple[torch.Tensor, Whole]:
    """y of this rank's part, and what backward needs; vectors: weight and bias. The running statistics move."""

    def own() -> tuple[int, Array]:
        _check(x, channels)
        return CALLS.moments(memory(x), "NCHW")  # type: ignore[no-any-return]

    count, stats = merged(*exchanged(ranks, "forward", channels, own))
    enough(count)
    y, array = torch.empty_like(x), memory(x)
    with register.calm():
        map_of = affine(computed_in(array.dtype), stats, count, _float64(vectors, channels), norm.eps)
    if array.size:
        how = RELU if norm.relu else None, None, None, "NCHW", None
        CALLS.affine((map_of, map_of), how)(array, None, memory(y))
    if count and norm.running[0] is not None:
        with register.calm():
            mean, var = map(memory, norm.running)
            host.update_running(mean, var, None, stats, count, norm.momentum)
    return y, Whole(count, stats, norm.eps, norm.relu, ranks)


class Part(NamedTuple):
    """What backward computes with on one rank."""

    dy: Array
    x: Array
    statistics: Statistics
    prologue: Prologue
    walk: Walk

    @property
    def threads(self) -> int:
        return threads(self.x.nbytes)

    def sums(self) -> Array:
        """Of g and of g * (x - mean), (2, C)."""
        sums = np.zeros((2, len(self.statistics.mean)))
        if self.x.size:
            KERNELS.gradient_sums(self.dy, self.x, self.statistics, self.prologue, sums, self.threads)
        return sums

    def write(self, sums: Array, count: int, dx: Array) -> None:
        """dx, by the sums of so many samples."""
        if self.x.size:
            target = target_of(dx, self.walk)
            statistics = self.statistics._replace(counts=np.full(len(self.statistics.mean), float(count)))
            KERNELS.backward(self.dy, self.x, statistics, self.prologue, sums, target.view, self.threads)
            target.deliver(self.walk)


class Attached(torch.autograd.Function):  # type: ignore[misc]
    """The result of a forward, with its gradient."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: Any, bias: Any, made: tuple[torch.Tensor, Whole]) -> torch.Tensor:
        """made: in a tuple, because y as an argument would be returned as a view, which nothing may change in place."""
        y, ctx.of = made
        ctx.save_for_backward(x, weight, bias)
        return y

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, dy: torch.Tensor) -> tuple[Any, ...]:
        """Gradients of weight and bias are of this rank's part, as those of any other module."""
        x, weight, bias = ctx.saved_tensors
        of_x, of_weight, of_bias, _ = ctx.needs_input_grad
        of: Whole = ctx.of
        begun: list[tuple[Part, Array]] = []

        def own() -> tuple[int, Array]:
            part = _part(dy, x, (weight, bias), of)
            begun.append((part, part.sums()))
            return part.walk.samples, begun[0][1]

        dx = torch.empty_like(x) if of_x else None
        with register.calm():
            if dx is None:  # which alone is of the other ranks' samples, too
                own()
            else:
                _, vectors = exchanged(of.ranks, "backward", of.stats.shape[1], own)
                begun[0][0].write(summed(vectors), of.samples, memory(dx))
            part, sums = begun[0]
            dweight = torch.from_numpy(host.weight_gradient(sums, part.statistics.var, of.eps))
        return (
            dx,
            dweight.to(weight.dtype) if of_weight else None,
            torch.from_numpy(sums[0]).to(bias.dtype) if of_bias else None,
            None,
        )


def _check(x: torch.Tensor, channels: int) -> None:
    array = memory(x)
    if not isinstance(array, np.ndarray):
        raise TypeError(
            f"x must be a plain tensor on the CPU, got one of {x.dtype} on {x.device}, or within a transform of "
            "torch.func; use torch.nn.SyncBatchNorm on a GPU, and no transform"
        )
    check.channels(*check.batch(array, "NCHW"), channels, "NCHW")


def _part(dy: torch.Tensor, x: torch.Tensor, vectors: tuple[Any, Any], of: Whole) -> Part:
    if dy.stride() != x.stride() or dy.dtype != x.dtype:
        dy = torch.empty_like(x).copy_(dy)
    mean, low, m2 = of.stats
    weight, bias = _float64(vectors, len(mean))
    with np.errstate(all="ignore"):
        statistics = Statistics(mean, low, m2 / max(of.samples, 1), weight, of.eps, training=True)
    dy_, x_ = memory(dy), memory(x)
    walk = walk_of(x_, 1)
    return Part(walk.view(dy_), walk.view(x_), statistics, Prologue(RELU, bias) if of.relu else NO_PROLOGUE, walk)


def _float64(vectors: tuple[Any, Any], channels: int) -> tuple[Vector, Vector]:
    """Weight and bias."""
    weight, bias = (None if v is None else memory(v).astype(np.float64) for v in vectors)
    return np.ones(channels) if weight is None else weight, np.zeros(channels) if bias is None else bias
