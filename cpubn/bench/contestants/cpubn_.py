"""cpubn itself: a contestant a backend and layout, and a contestant an entry point for the cost of a call."""

from __future__ import annotations

from typing import Any

import numpy as np

import cpubn
from cpubn.backends import choice, report
from cpubn.bench.case import EPS, PASSES, Case, Prepared
from cpubn.bench.contestants import Contestant, Prepare
from cpubn.bench.edge import FUSED, HALF, INPUT, QUANTIZED, Fused, Half, Quantized
from cpubn.typing import Array, AxisOrder

VERSION = cpubn.__version__
LAYOUTS: tuple[AxisOrder, ...] = ("NCHW", "NHWC")


def contestants(threads: int) -> list[Contestant]:
    cpubn.set_num_threads(threads)
    available = report.config()["backend"]["available"]  # of which each has been imported
    backends = [name for name in choice.HOST_BACKENDS if name in available]
    entrants = [Backend(name, layout).contestant() for name in backends for layout in LAYOUTS]
    references = [reference for layout in LAYOUTS for reference in Backend(backends[0], layout).references()]
    return [
        *entrants,
        *references,
        Contestant("cpubn-frozen", "NCHW", {"overhead": frozen}),
        Contestant("cpubn-layer", "NCHW", {"overhead": layer}),
        Contestant("cpubn-function", "NCHW", {"overhead": function, "input": fresh_input}, "its output is fresh"),
    ]


class Backend:
    """All passes by one backend on arrays of one layout; the output is reused."""

    def __init__(self, name: cpubn.typing.Backend, layout: AxisOrder) -> None:
        self.name, self.layout = name, layout

    def contestant(self) -> Contestant:
        passes: dict[str, Prepare] = {op: getattr(self, op) for op in PASSES}
        passes |= {op: passes[op.partition("_")[0]] for op in HALF} | dict.fromkeys(FUSED, self.fused)
        passes |= dict.fromkeys(INPUT, self.input) | dict.fromkeys(QUANTIZED, self.quantized)
        return Contestant(f"cpubn-{self.name}", self.layout, passes)

    def references(self) -> list[Contestant]:
        plain: dict[str, Prepare] = dict.fromkeys(FUSED, self.plain)
        in_float32: dict[str, Prepare] = dict.fromkeys((*HALF, *QUANTIZED), self.in_float32)
        return [
            Contestant("cpubn-plain", self.layout, plain, "batch norm alone, not fused"),
            Contestant("cpubn-float32", self.layout, in_float32, "the same numbers as float32"),
        ]

    def eval(self, case: Case, layout: str) -> Prepared:
        frozen = cpubn.FrozenBatchNorm(**constants(case), layout=self.layout, backend=self.name)
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

    def fused(self, case: Fused, layout: str) -> Prepared:
        act, backend = case.activation, self.name
        frozen = cpubn.FrozenBatchNorm(**constants(case), layout=self.layout, activation=act, backend=backend)
        x, residual, y = case.x(layout), case.residual(layout), case.y(layout)
        return Prepared(lambda: frozen(x, residual, out=y), lambda: y)

    def plain(self, case: Fused, layout: str) -> Prepared:
        call, y = self.eval(case, layout)
        return Prepared(call, lambda: case.finished(y(), layout))

    def input(self, case: Case, layout: str) -> Prepared:
        given = constants(case) | {"weight": None, "bias": None, "eps": 0}
        how: dict[str, Any] = {"layout": "NHWC", "out_layout": self.layout, "backend": self.name}
        frozen = cpubn.FrozenBatchNorm(**given | how, dtype="float32")
        x, y = case.x("NHWC"), case.y(layout)
        return Prepared(lambda: frozen(x, out=y), lambda: y)

    def quantized(self, case: Quantized, layout: str) -> Prepared:
        frozen = cpubn.FrozenBatchNorm.quantized(
            **constants(case),
            scale=case.SCALE,
            zero_point=case.ZERO,
            out_scale=case.OUT_SCALE,
            out_zero_point=case.OUT_ZERO,
            layout=self.layout,
            activation=case.activation,
            backend=self.name,
        )
        x, y = case.x(layout), case.y(layout)
        return Prepared(lambda: frozen(x, out=y), lambda: y)

    def in_float32(self, case: Half | Quantized, layout: str) -> Prepared:
        call, y = getattr(self, case.computes)(case.in_float32(), layout)
        return Prepared(call, lambda: case.finished(y()) if isinstance(case, Quantized) else y())


def constants(case: Case) -> dict[str, Any]:
    vectors = {"weight": case.weight, "bias": case.bias, "running_mean": case.mean, "running_var": case.var}
    return {**vectors, "eps": EPS}


def frozen(case: Case, layout: str) -> Prepared:
    call = cpubn.FrozenBatchNorm(**constants(case))
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


def fresh_input(case: Case, layout: str) -> Prepared:
    x, mean, var = case.x("NHWC"), case.mean, case.var

    def call() -> Array:
        return cpubn.batch_norm(x, mean, var, layout="NHWC", dtype="float32", out_layout="NCHW", eps=0)

    return Prepared(call, call)
