"""The formulas as a user of NumPy writes them."""

from __future__ import annotations

import numpy as np

from cpubn._types import Array
from cpubn.bench.case import EPS, Case, Prepared
from cpubn.bench.contestants import Contestant

VERSION = np.__version__
NOTE = "one thread; inference is two ufuncs into a reused output, the rest plain expressions with fresh ones"


def contestants(threads: int) -> list[Contestant]:
    passes = {"eval": evaluate, "train": train, "backward": backward, "moments": moments, "overhead": evaluate}
    return [Contestant("numpy", layout, passes, NOTE) for layout in ("NCHW", "NHWC")]


def evaluate(case: Case, layout: str) -> Prepared:
    x, y = case.x(layout), case.y(layout)
    scale = case.weight / np.sqrt(case.var + np.float32(EPS))
    a, b = case.along(scale, layout), case.along(case.bias - case.mean * scale, layout)

    def call() -> object:
        np.multiply(x, a, out=y)
        return np.add(y, b, out=y)

    return Prepared(call, lambda: y)


def train(case: Case, layout: str) -> Prepared:
    x, axes = case.x(layout), sample_axes(case, layout)
    weight, bias = case.along(case.weight, layout), case.along(case.bias, layout)

    def call() -> Array:
        mean = x.mean(axis=axes, keepdims=True)
        var = x.var(axis=axes, keepdims=True)
        return (x - mean) / np.sqrt(var + np.float32(EPS)) * weight + bias  # type: ignore[no-any-return]

    return Prepared(call, call)


def backward(case: Case, layout: str) -> Prepared:
    x, dy, axes = case.x(layout), case.dy(layout), sample_axes(case, layout)
    weight = case.along(case.weight, layout)
    mean, var = (case.along(v.astype(np.float32), layout) for v in (case.batch_mean, case.batch_var))

    def call() -> Array:
        rstd = 1 / np.sqrt(var + np.float32(EPS))
        x_hat = (x - mean) * rstd
        dbias = dy.mean(axis=axes, keepdims=True)
        dweight = (dy * x_hat).mean(axis=axes, keepdims=True)
        return weight * rstd * (dy - dbias - x_hat * dweight)  # type: ignore[no-any-return]

    return Prepared(call, call)


def moments(case: Case, layout: str) -> Prepared:
    x, axes = case.x(layout), sample_axes(case, layout)

    def call() -> tuple[Array, Array]:
        return x.mean(axis=axes), x.var(axis=axes)

    return Prepared(call, lambda: np.stack(call()))


def sample_axes(case: Case, layout: str) -> tuple[int, ...]:
    return case.sample_axes if layout == "NCHW" else tuple(range(len(case.layer.shape) - 1))
