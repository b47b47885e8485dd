"""Who bench_cuda.py measures on what: cpubn, torch's operators and copies over the same memory of the GPU."""

import math
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numba import cuda

import cpubn

sys.path.append(str(Path(__file__).parents[1] / "tests"))
import oracle

EPS = 1e-5
OURS = "cpubn", "cpubn-frozen"
COPIES = "copy", "torch-copy"
CHECKED = 1 << 22  # elements that are compared with the oracle: of whole channels, the first, the last and others
MOST_BUFFERS = 64
PEER_TOLERANCE = {"float32": 1e-3, "float16": 4e-3}


def buffers_for(nbytes, span):
    """How many pairs of x and y of that size exceed the span."""
    return min(MOST_BUFFERS, max(1, math.ceil(span / (2 * nbytes))))


class Buffers(NamedTuple):
    x: object
    dy: object
    y: object  # or dx


class Case:
    """Fresh random data of one shape, layout and type on the GPU, and what must become of it."""

    def __init__(self, shape, layout, dtype, span):
        self.shape, self.layout, self.dtype, self.channels = shape, layout, dtype, shape[1]
        self.rng = np.random.default_rng()
        laid_out = shape if layout == "NCHW" else (shape[0], *shape[2:], shape[1])
        self.x, self.dy = (self.rng.standard_normal(laid_out, np.float32).astype(dtype) for _ in range(2))
        draw = (self.rng.uniform(low, low + 1, self.channels).astype(np.float32) for low in (0.5, -0.5, -0.5, 0.5))
        self.vectors = tuple(draw)  # weight, bias, running mean and variance
        self.on_gpu = tuple(map(cuda.to_device, self.vectors))
        count = buffers_for(self.x.nbytes, span)
        self.buffers = [
            Buffers(cuda.to_device(self.x), cuda.to_device(self.dy), cuda.to_device(self.x)) for _ in range(count)
        ]
        self.moments = cpubn.moments(self.buffers[0].x, layout=layout)
        samples = self.x.size // self.channels
        others = self.rng.choice(self.channels, min(self.channels, max(2, CHECKED // samples)), replace=False)
        self.checked = np.unique([0, self.channels - 1, *others])

    def of_channels(self, a):
        return np.take(a, self.checked, 1 if self.layout == "NCHW" else -1)

    def expected(self, op):
        """Of the channels that are checked: the truth, and the bound that cpubn promises."""
        x = self.of_channels(self.x)
        weight, bias, mean, var = (v[self.checked] for v in self.vectors)
        if op == "backward":  # at the moments given, which "train" has checked
            batch = (v.copy_to_host()[self.checked] for v in (self.moments.mean, self.moments.var()))
            exact = oracle.batch_norm_backward(self.of_channels(self.dy), x, *batch, weight, EPS, True, self.layout)
            return exact.dx, exact.dx_bound
        given = (mean, var) if op == "eval" else (None, None)
        exact = oracle.batch_norm(x, *given, weight, bias, EPS, self.layout)
        return exact.y, exact.bound

    def check(self, name, call, expected, bound):
        """The error of one call, which must fill y; raises ArithmeticError if it is too large."""
        self.buffers[0].y.copy_to_device(np.full_like(self.x, np.nan))
        made = call(0)
        got = self.of_channels(made.copy_to_host() if hasattr(made, "copy_to_host") else as_laid_out(made, self.layout))
        error = float((abs(got - expected) / np.maximum(1, abs(expected))).max())
        right = oracle.worst(got, expected, bound) <= 1 if name in OURS else error <= PEER_TOLERANCE[self.dtype]
        if not right:
            raise ArithmeticError(f"the result of {name} is off by {error:.1e}")
        return error


def as_laid_out(tensor, layout):
    return (tensor.movedim(1, -1) if layout == "NHWC" else tensor).cpu().numpy()


def ours(case):
    """A function of a buffer's number, by pass and name; each gives what it wrote."""
    weight, bias, mean, var = case.on_gpu
    moved = [cuda.to_device(v) for v in case.vectors[2:]]
    frozen = cpubn.FrozenBatchNorm(
        weight=weight, bias=bias, running_mean=mean, running_var=var, eps=EPS, layout=case.layout
    )
    batch = case.moments.mean, case.moments.var()
    b, layout = case.buffers, case.layout

    def evaluate(i):
        return cpubn.batch_norm(b[i].x, mean, var, weight, bias, eps=EPS, layout=layout, out=b[i].y)

    def train(i):
        return cpubn.batch_norm(b[i].x, *moved, weight, bias, training=True, eps=EPS, layout=layout, out=b[i].y)

    def backward(i):
        return cpubn.batch_norm_backward(b[i].dy, b[i].x, *batch, weight, eps=EPS, layout=layout, out=b[i].y)[0]

    return {
        "eval": {"cpubn": evaluate, "cpubn-frozen": lambda i: frozen(b[i].x, out=b[i].y)},
        "train": {"cpubn": train},
        "backward": {"cpubn": backward},
        "copy": {"copy": lambda i: b[i].y.copy_to_device(b[i].x)},
    }


def theirs(case, torch):
    """The same by torch: its operators over the same memory. Outputs that it makes itself are kept, one a buffer."""

    def tensor(a):
        t = torch.as_tensor(a, device="cuda")
        return t.movedim(-1, 1) if t.ndim == 4 and case.layout == "NHWC" else t

    aten, kept = torch.ops.aten, {}
    b = [Buffers(*map(tensor, each)) for each in case.buffers]
    weight, bias, mean, var = (tensor(v).clone() for v in case.on_gpu)
    saved = mean.clone(), var.clone()
    batch = tensor(case.moments.mean).float(), (tensor(case.moments.var()) + EPS).rsqrt().float()
    reserve = aten.cudnn_batch_norm(b[0].x, weight, bias, mean.clone(), var.clone(), True, 0.1, EPS)[3]

    def native(training):
        moved = (mean.clone(), var.clone()) if training else (mean, var)
        arguments = weight, bias, *moved, training, 0.1, EPS
        return lambda i: aten.native_batch_norm.out(
            b[i].x, *arguments, out=b[i].y, save_mean=saved[0], save_invstd=saved[1]
        )[0]

    def cudnn(training):
        moved = (mean.clone(), var.clone()) if training else (mean, var)
        return lambda i: keep(i, aten.cudnn_batch_norm(b[i].x, weight, bias, *moved, training, 0.1, EPS))

    def native_backward(i):
        arguments = b[i].dy, b[i].x, weight, mean, var, *batch, True, EPS, [True, True, True]
        return keep(i, aten.native_batch_norm_backward(*arguments))

    def cudnn_backward(i):
        arguments = b[i].x, b[i].dy, weight, mean, var, *batch, EPS, reserve
        return keep(i, aten.cudnn_batch_norm_backward(*arguments))

    def keep(i, made):
        kept[i] = made[0]
        return made[0]

    return {
        "eval": {"torch-cudnn": cudnn(False), "torch-native": native(False)},
        "train": {"torch-cudnn": cudnn(True), "torch-native": native(True)},
        "backward": {"torch-cudnn": cudnn_backward, "torch-native": native_backward},
        "copy": {"torch-copy": lambda i: b[i].y.copy_(b[i].x)},
    }
