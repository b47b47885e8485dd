"""The formulas as a user of NumPy writes them."""

from __future__ import annotations

import numpy as np

from cpubn.bench.case import EPS, Case, Prepared
from cpubn.bench.contestants import Contestant, Prepare
from cpubn.bench.edge import ACTIVATIONS, FUSED, INPUT, QUANTIZED, Fused, Quantized
from cpubn.typing import Array

VERSION = np.__version__
NOTE = (
    "one thread; inference is two ufuncs into a reused output, relu a third; the rest plain expressions with fresh ones"
)


def contestants(threads: int) -> list[Contestant]:
    passes: dict[str, Prepare] = {
        "eval": evaluate,
        "train": train,
        "backward": backward,
        "moments": moments,
        "overhead": evaluate,
    }
    passes |= dict.fromkeys(FUSED, fused) | dict.fromkeys(INPUT, image_input) | dict.fromkeys(QUANTIZED, quantized)
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


def fused(case: Fused, layout: str) -> Prepared:
    """batch norm into a reused output, then the activation."""
    affine, y, residual = evaluate(case, layout), case.y(layout), case.residual(layout)

    def act(z: Array) -> Array:
        return np.maximum(z, 0, out=z) if case.activation == "relu" else ACTIVATIONS[case.activation](z)

    def call() -> Array:
        affine.call()
        if residual is not None:
            np.add(y, residual, out=y)
        return act(y)

    return Prepared(call, call)


def image_input(case: Case, layout: str) -> Prepared:
    x, mean, std = case.x("NHWC"), case.mean, np.sqrt(case.var)

    def call() -> Array:
        y = (x - mean) / std
        return np.ascontiguousarray(np.moveaxis(y, -1, 1)) if layout == "NCHW" else y

    return Prepared(call, call)


def quantized(case: Quantized, layout: str) -> Prepared:
    x, y = case.x(layout), case.y(layout)
    scale = case.weight / np.sqrt(case.var + np.float32(EPS)) / np.float32(case.OUT_SCALE)
    shift = case.bias / np.float32(case.OUT_SCALE) - case.mean * scale + np.float32(case.OUT_ZERO)
    a = case.along(scale * np.float32(case.SCALE), layout)
    b = case.along(shift - scale * np.float32(case.SCALE * case.ZERO), layout)
    low = np.float32(case.OUT_ZERO if case.activation else -128)

    def call() -> object:
        z = x * a
        z += b
        return np.clip(np.rint(z, out=z), low, np.float32(127), out=y, casting="unsafe")

    return Prepared(call, lambda: y)


def sample_axes(case: Case, layout: str) -> tuple[int, ...]:
    return case.sample_axes if layout == "NCHW" else tuple(range(len(case.layer.shape) - 1))
