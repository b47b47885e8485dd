"""The compiled calls on tensors: outputs are allocated by torch, and threads are as many as torch has."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch.autograd import forward_ad

from cpubn.ask import options
from cpubn.backends import choice
from cpubn.backends.compiled import variants

_absence = choice.absence("cython")
if _absence is not None:
    raise ImportError(f"cpubn.torch needs the compiled kernels, which are absent: {_absence}")

RELU = options.activation("relu")
FLOAT64 = torch.float64


def threads(size: int) -> int:
    own: int = torch.get_num_threads()
    return min(choice.threads(size), own)


CALLS = variants.calls(choice.kernels("cython"), threads)
borrowed = variants.borrowed()


class Norm(NamedTuple):
    """What a forward computes, beside tensors that may require a gradient."""

    training: bool  # by the batch's statistics
    running: tuple[Any, Any]  # mean and variance, to normalize with or to move; None: there are none to move
    momentum: float
    eps: float
    relu: bool


class Made(NamedTuple):
    y: torch.Tensor
    statistics: tuple[Any, Any, Any, float]  # of Request: those that y was normalized with
    norm: Norm


def memory(t: Any) -> Any:
    """A tensor as an array for the time of a call; None as it is. A tensor again where it has no memory to be told."""
    return borrowed(t, True)


def forward(x: torch.Tensor, weight: Any, bias: Any, norm: Norm) -> Made | None:
    """None, with nothing written, where this is not to be computed here."""
    if getattr(forward_ad, "_current_level", -1) >= 0:  # of forward mode, which would take derivatives of this as well
        return None
    arrays = [memory(t) for t in (x, *norm.running, weight, bias)]
    if any(isinstance(a, torch.Tensor) for a in arrays):
        return None
    y = torch.empty_like(x)
    mean, var = running = arrays[1:3]
    narrow = norm.training and mean is not None and mean.dtype.itemsize < 4
    if narrow:  # in a model of bfloat16 or float16, in whose statistics torch keeps no more
        running = [a.astype(np.float32) for a in running]
    vectors = (*running, *arrays[3:], None)
    how = norm.momentum, norm.eps, "NCHW", RELU if norm.relu else None, None, None, None, memory(y)
    if not norm.training:
        done = CALLS.infer(arrays[0], vectors, how)
        return None if done is None else Made(y, (mean, None, var, 1.0), norm)
    done = CALLS.train(arrays[0], vectors, how)
    if done is None:
        return None
    if narrow:
        mean[...], var[...] = running
    _, count, stats = done
    return Made(y, (*stats, float(max(count, 1))), norm)


def backward(
    dy: torch.Tensor, x: torch.Tensor, weight: Any, y: torch.Tensor | None, made: tuple[Any, ...]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None:
    """dx, and dweight and dbias of float64. made: statistics, eps and whether they are the batch's own."""
    statistics, eps, training = made
    if isinstance(memory(dy), torch.Tensor):  # one for many, of a gradient that is vmapped
        return None
    if dy.stride() != x.stride():
        dy = torch.empty_like(x).copy_(dy)
    dx = torch.empty_like(x)
    arrays = [memory(t) for t in (dy, x, weight, y, dx)]
    if any(isinstance(a, torch.Tensor) for a in arrays):
        return None
    act = None if y is None else RELU
    done = CALLS.backward(
        (
            *arrays[:2],
            statistics,
            arrays[2],
            None,
            eps,
            training,
            "NCHW",
            act,
            None,
            arrays[3],
            False,
            arrays[4],
            None,
            None,
        )
    )
    return None if done is None else (dx, torch.from_numpy(done[1]), torch.from_numpy(done[2]))
