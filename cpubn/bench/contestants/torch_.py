"""torch, NCHW and channels-last, by the operators that F.batch_norm and autograd call on a CPU.

Forward is torch.native_batch_norm with `out=`, whose output is reused: on 26 MB inference took 0.84 ms so, and 1.14 ms
by F.batch_norm. Backward without autograd was 8% quicker than autograd.grad with the graph kept; it has no `out` that
saves the allocation. Moments are batch_norm_update_stats without running statistics, 3 to 30 times as fast as var_mean.
"""

from __future__ import annotations

import numpy as np
import torch

from cpubn._types import Array
from cpubn.bench.case import EPS, Case, Prepared
from cpubn.bench.contestants import Contestant

VERSION = torch.__version__
NOTE = (
    "forward by native_batch_norm into a reused output; backward by native_batch_norm_backward, its outputs are fresh"
)


def contestants(threads: int) -> list[Contestant]:
    torch.set_num_threads(threads)
    torch.set_grad_enabled(False)
    passes = {"eval": evaluate, "train": train, "backward": backward, "moments": moments}
    entries = {"torch-module": module, "torch-function": function}
    return [
        Contestant("torch", "NCHW", passes, NOTE),
        Contestant("torch-channels-last", "NHWC", passes, NOTE),
        *(Contestant(name, "NCHW", {"overhead": entry}) for name, entry in entries.items()),
    ]


def tensor(a: Array, layout: str) -> torch.Tensor:
    """The same memory as a tensor (N, C, ...); channels last is a matter of strides, known to torch from rank 4 on."""
    if layout == "NHWC" and a.ndim == 3:
        a = a[:, np.newaxis]
    t = torch.from_numpy(a)
    return t.movedim(-1, 1) if layout == "NHWC" else t


def array(t: torch.Tensor, case: Case, layout: str) -> Array:
    """The way back, in the memory layout."""
    if layout == "NHWC":
        t = t.movedim(1, -1)
    a: Array = t.numpy()
    return a.reshape(case.x(layout).shape)


def vectors(case: Case) -> tuple[torch.Tensor, ...]:
    """Weight, bias, running mean and variance; the running ones are copies, for training moves them."""
    return tuple(torch.from_numpy(v.copy()) for v in (case.weight, case.bias, case.mean, case.var))


def evaluate(case: Case, layout: str) -> Prepared:
    return forward(case, layout, training=False)


def train(case: Case, layout: str) -> Prepared:
    return forward(case, layout, training=True)


def forward(case: Case, layout: str, training: bool) -> Prepared:
    x, y = tensor(case.x(layout), layout), tensor(case.y(layout), layout)
    kept = case.layer.shape[1] if training else 0
    out = y, torch.empty(kept), torch.empty(kept)
    arguments = (x, *vectors(case), training, 0.1, EPS)
    return Prepared(lambda: torch.native_batch_norm(*arguments, out=out), lambda: case.y(layout))


def backward(case: Case, layout: str) -> Prepared:
    dy, x = tensor(case.dy(layout), layout), tensor(case.x(layout), layout)
    weight, _, mean, var = vectors(case)
    saved = (torch.from_numpy(v.astype(np.float32)) for v in (case.batch_mean, 1 / np.sqrt(case.batch_var + EPS)))
    arguments = (dy, x, weight, mean, var, *saved, True, EPS, [True, True, True])
    gradients = torch.ops.aten.native_batch_norm_backward.default

    def call() -> tuple[torch.Tensor, ...]:
        return gradients(*arguments)  # type: ignore[no-any-return]

    return Prepared(call, lambda: array(call()[0], case, layout))


def moments(case: Case, layout: str) -> Prepared:
    x = tensor(case.x(layout), layout)

    def call() -> tuple[torch.Tensor, torch.Tensor]:
        return torch.batch_norm_update_stats(x, None, None, 0.0)  # type: ignore[no-any-return]

    return Prepared(call, lambda: np.stack([v.numpy() for v in call()]))


def module(case: Case, layout: str) -> Prepared:
    bn = torch.nn.BatchNorm2d(case.layer.shape[1], eps=EPS).eval()
    bn.weight.data, bn.bias.data, bn.running_mean, bn.running_var = vectors(case)
    x = tensor(case.x(), layout)
    return Prepared(lambda: bn(x), lambda: bn(x).numpy())


def function(case: Case, layout: str) -> Prepared:
    weight, bias, mean, var = vectors(case)
    x, batch_norm = tensor(case.x(), layout), torch.nn.functional.batch_norm
    return Prepared(
        lambda: batch_norm(x, mean, var, weight, bias, eps=EPS),
        lambda: batch_norm(x, mean, var, weight, bias, eps=EPS).numpy(),
    )
