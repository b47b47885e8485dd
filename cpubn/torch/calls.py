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


class Statistics(NamedTuple):
    """What x was normalized with, and what else of a forward its gradients need beside tensors."""

    mean: Any
    low: Any  # its second word, or None
    m2: Any
    samples: float  # var = m2 / samples
    eps: float
    training: bool
    relu: bool


def memory(t: Any) -> Any:
    """A tensor as an array for the time of a call; None as it is. A tensor again where it has no memory to be told."""
    return borrowed(t, True)


def forward(x: torch.Tensor, weight: Any, bias: Any, norm: Norm) -> tuple[torch.Tensor, Statistics] | None:
    """y, and what backward needs; None, with nothing written, where this is not to be computed here."""
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
    how = norm.momentum, norm.eps, "NCHW", RELU if norm.relu else None, None, None, None, None, memory(y)
    rest = norm.eps, norm.training, norm.relu
    if not norm.training:
        done = CALLS.infer(arrays[0], vectors, how)
        return None if done is None else (y, Statistics(mean, None, var, 1.0, *rest))
    done = CALLS.train(arrays[0], vectors, how)
    if done is None:
        return None
    if narrow:
        mean[...], var[...] = running
    _, samples, (mean, low, m2) = done
    return y, Statistics(mean, low, m2, float(max(samples, 1)), *rest)


def backward(
    dy: torch.Tensor, x: torch.Tensor, weight: Any, bias: Any, of: Statistics
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None:
    """dx, and dweight and dbias of float64; None where this is not to be computed here.

    By z, which is computed again for relu: reading y instead took a third longer.
    """
    if isinstance(memory(dy), torch.Tensor):  # one for many, of a gradient that is vmapped
        return None
    if dy.stride() != x.stride():
        dy = torch.empty_like(x).copy_(dy)
    dx = torch.empty_like(x)
    dy_, x_, weight_, bias_, dx_ = arrays = [memory(t) for t in (dy, x, weight, bias, dx)]
    if any(isinstance(a, torch.Tensor) for a in arrays):
        return None
    what = dy_, x_, of[:4], weight_, bias_ if of.relu else None, of.eps, of.training, "NCHW"
    done = CALLS.backward((*what, RELU if of.relu else None, None, None, False, dx_, None, None, None))
    return None if done is None else (dx, torch.from_numpy(done[1]), torch.from_numpy(done[2]))
