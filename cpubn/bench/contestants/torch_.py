"""torch, NCHW and channels-last, by the operators that F.batch_norm and autograd call on a CPU.

Forward is torch.native_batch_norm with `out=`, whose output is reused: on 26 MB inference took 0.84 ms so, and 1.14 ms
by F.batch_norm. Backward without autograd was 8% quicker than autograd.grad with the graph kept; it has no `out` that
saves the allocation. Moments are batch_norm_update_stats without running statistics, 3 to 30 times as fast as var_mean.
"""

from __future__ import annotations

import warnings

import numpy as np
import torch

from cpubn.bench.case import EPS, Case, Prepared
from cpubn.bench.contestants import Contestant, Prepare
from cpubn.bench.edge import FUSED, HALF, INPUT, QUANTIZED, Fused, Quantized
from cpubn.typing import Array

VERSION: str = torch.__version__
NOTE = (
    "forward by native_batch_norm into a reused output, what follows in place; "
    "backward by native_batch_norm_backward, its outputs are fresh, as are those of quantized data"
)


def contestants(threads: int) -> list[Contestant]:
    torch.set_num_threads(threads)
    passes: dict[str, Prepare] = {"eval": evaluate, "train": train, "backward": backward, "moments": moments}
    passes |= dict.fromkeys(FUSED, fused) | dict.fromkeys(INPUT, image_input) | dict.fromkeys(QUANTIZED, quantized)
    passes |= {op: passes[op.partition("_")[0]] for op in HALF}
    functions = {"overhead": function, "eval": function, "input": fresh_input} | dict.fromkeys(FUSED, fresh_fused)
    return [
        Contestant("torch", "NCHW", passes, NOTE),
        Contestant("torch-channels-last", "NHWC", passes, NOTE),
        Contestant("torch-module", "NCHW", {"overhead": module}),
        Contestant("torch-function", "NCHW", functions, "as users write it: functions, whose outputs are fresh"),
    ]


def tensor(a: Array, layout: str) -> torch.Tensor:
    """The same memory as a tensor (N, C, ...); channels last is a matter of strides, known to torch from rank 4 on."""
    if layout == "NHWC" and a.ndim == 3:
        a = a[:, np.newaxis]
    t = torch.from_numpy(a.view(np.int16)).view(torch.bfloat16) if a.dtype.name == "bfloat16" else torch.from_numpy(a)
    return t.movedim(-1, 1) if layout == "NHWC" else t


def array(t: torch.Tensor, case: Case, layout: str) -> Array:
    """The way back, in the memory layout."""
    if layout == "NHWC":
        t = t.movedim(1, -1)
    a: Array = t.view(torch.int16).numpy().view(case.x().dtype) if t.dtype == torch.bfloat16 else t.numpy()
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
    bn = torch.nn.BatchNorm2d(case.layer.shape[1], eps=EPS).eval().requires_grad_(False)
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


def fused(case: Fused, layout: str) -> Prepared:
    """batch norm into a reused output, then the rest in place."""
    affine, y, given = evaluate(case, layout), tensor(case.y(layout), layout), case.residual(layout)
    residual = None if given is None else tensor(given, layout)
    act = getattr(torch.ops.aten, f"{case.activation}_").default

    def call() -> object:
        affine.call()
        if residual is not None:
            y.add_(residual)
        return act(y)

    return Prepared(call, affine.result)


def fresh_fused(case: Fused, layout: str) -> Prepared:
    weight, bias, mean, var = vectors(case)
    x, given, act = tensor(case.x(), layout), case.residual(), getattr(torch.nn.functional, case.activation)
    residual = None if given is None else tensor(given, layout)

    def call() -> torch.Tensor:
        y = torch.nn.functional.batch_norm(x, mean, var, weight, bias, eps=EPS)
        return act(y if residual is None else y + residual)

    return Prepared(call, lambda: call().numpy())


def image_input(case: Case, layout: str) -> Prepared:
    """Bytes to planes first, where y has those: of the ways into a reused output the fastest on whole photographs."""
    x, y = tensor(case.x("NHWC"), "NHWC"), tensor(case.y(layout), layout)
    mean, factor = (torch.from_numpy(case.along(v)) for v in (case.mean, 1 / np.sqrt(case.var)))
    order = torch.contiguous_format if layout == "NCHW" else torch.channels_last

    def call() -> torch.Tensor:
        return y.copy_(x.contiguous(memory_format=order)).sub_(mean).mul_(factor)

    return Prepared(call, lambda: case.y(layout))


def fresh_input(case: Case, layout: str) -> Prepared:
    x = tensor(case.x("NHWC"), "NHWC")
    mean, std = (torch.from_numpy(case.along(v)) for v in (case.mean, np.sqrt(case.var)))

    def call() -> torch.Tensor:
        return x.to(torch.float32, memory_format=torch.contiguous_format).sub_(mean).div_(std)

    return Prepared(call, lambda: call().numpy())


def quantized(case: Quantized, layout: str) -> Prepared:
    """Its kernel wants channels last, and changes the memory order of what is not; every output is fresh."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch 2.13 means to drop quantized tensors
        x = torch._make_per_tensor_quantized_tensor(tensor(case.x(layout), layout), case.SCALE, case.ZERO)
    operator = getattr(torch.ops.quantized, "batch_norm2d_relu" if case.activation else "batch_norm2d").default
    arguments = (x, *vectors(case), EPS, case.OUT_SCALE, case.OUT_ZERO)
    return Prepared(lambda: operator(*arguments), lambda: array(operator(*arguments).int_repr(), case, layout))
