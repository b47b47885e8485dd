"""cpubn itself: a contestant a backend and layout, and a contestant an entry point for the cost of a call."""

from __future__ import annotations

import numpy as np

import cpubn
from cpubn import _dispatch
from cpubn._types import Array, Layout
from cpubn.bench.case import EPS, Case, Prepared
from cpubn.bench.contestants import Contestant

VERSION = cpubn.__version__
LAYOUTS: tuple[Layout, ...] = ("NCHW", "NHWC")


def contestants(threads: int) -> list[Contestant]:
    cpubn.set_num_threads(threads)
    backends = _dispatch.config()["backend"]["available"]  # of which each has been imported
    entrants = [Backend(name, layout).contestant() for name in backends for layout in LAYOUTS]
    entries = {"frozen": frozen, "layer": layer, "function": function}
    return entrants + [Contestant(f"cpubn-{name}", "NCHW", {"overhead": entry}) for name, entry in entries.items()]


class Backend:
    """The four passes by one backend on arrays of one layout; the output is reused."""

    def __init__(self, name: str, layout: Layout) -> None:
        self.name, self.layout = name, layout

    def contestant(self) -> Contestant:
        passes = {"eval": self.eval, "train": self.train, "backward": self.backward, "moments": self.moments}
        return Contestant(f"cpubn-{self.name}", self.layout, passes)

    def eval(self, case: Case, layout: str) -> Prepared:
        frozen = cpubn.FrozenBatchNorm(
            case.weight, case.bias, case.mean, case.var, EPS, layout=self.layout, backend=self.name
        )
        x, y = case.x(layout), case.y(layout)
        return Prepared(lambda: frozen(x, out=y), lambda: y)

    def train(self, case: Case, layout: str) -> Prepared:
        x, y = case.x(layout), case.y(layout)
        mean, var = case.mean.astype(np.float64), case.var.astype(np.float64)
        weight, bias, own, backend = case.weight, case.bias, self.layout, self.name

        def call() -> object:
            return cpubn.batch_norm(
                x, mean, var, weight, bias, True, 0.1, EPS, layout=own, out=y, return_moments=True, backend=backend
            )

        return Prepared(call, lambda: y)

    def backward(self, case: Case, layout: str) -> Prepared:
        dy, x, dx = case.dy(layout), case.x(layout), case.y(layout)
        mean, var, weight, own, backend = case.batch_mean, case.batch_var, case.weight, self.layout, self.name

        def call() -> object:
            return cpubn.batch_norm_backward(dy, x, mean, var, weight, eps=EPS, layout=own, out=dx, backend=backend)

        return Prepared(call, lambda: dx)

    def moments(self, case: Case, layout: str) -> Prepared:
        x = case.x(layout)

        def call() -> cpubn.Moments:
            return cpubn.moments(x, layout=self.layout, backend=self.name)

        def result() -> Array:
            moments = call()
            return np.stack((moments.mean, moments.var()))

        return Prepared(call, result)


def frozen(case: Case, layout: str) -> Prepared:
    call = cpubn.FrozenBatchNorm(case.weight, case.bias, case.mean, case.var, EPS)
    x, y = case.x(), case.y()
    return Prepared(lambda: call(x, out=y), lambda: y)


def layer(case: Case, layout: str) -> Prepared:
    bn = cpubn.BatchNorm2d(case.layer.shape[1], EPS).eval()
    bn.load_state_dict(
        {
            "weight": case.weight,
            "bias": case.bias,
            "running_mean": case.mean,
            "running_var": case.var,
            "num_batches_tracked": 1,
        }
    )
    x, y = case.x(), case.y()
    return Prepared(lambda: bn(x, out=y), lambda: y)


def function(case: Case, layout: str) -> Prepared:
    x, y = case.x(), case.y()
    mean, var, weight, bias = case.mean, case.var, case.weight, case.bias
    return Prepared(lambda: cpubn.batch_norm(x, mean, var, weight, bias, eps=EPS, out=y), lambda: y)
