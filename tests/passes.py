"""Every pass over one batch, as calls that find their arrays ready: for tests of what surrounds a call."""

from functools import partial
from importlib.util import find_spec
from itertools import product
from typing import NamedTuple

import cases
import numpy as np
import views

import cpubn

# (layout, shape with channels on axis 1): rows, short rows, columns wide and narrow; each of several chunks or units.
SHAPES = [("NCHW", (3, 5, 3001)), ("NCHW", (25, 40, 49)), ("NHWC", (180, 257, 1)), ("NHWC", (15000, 3, 1))]
HALVES = ["float16", *(["bfloat16"] if find_spec("ml_dtypes") else [])]
QUANTIZED = {"scale": 0.05, "zero_point": 3, "out_scale": 0.043, "out_zero_point": -7}
OTHER = {"NCHW": "NHWC", "NHWC": "NCHW"}


def dtype_of(name):
    if name != "bfloat16":
        return np.dtype(name)
    import ml_dtypes

    return np.dtype(ml_dtypes.bfloat16)


class Batch(NamedTuple):
    x: np.ndarray
    dy: np.ndarray
    residual: np.ndarray
    layout: str
    mean: np.ndarray  # (C,) float64, as all vectors
    var: np.ndarray
    weight: np.ndarray
    bias: np.ndarray
    eps: float

    def astype(self, dtype):
        with np.errstate(all="ignore"):
            return self._replace(**{name: getattr(self, name).astype(dtype) for name in ("x", "dy", "residual")})

    def stepped(self):
        """Views of every second sample and every third element."""
        steps = 2, *[3] * (self.x.ndim - 1)
        return self._replace(**{name: views.stepped(getattr(self, name), *steps) for name in ("x", "dy", "residual")})


def batch(rows, layout, shape, dtype=np.float32, eps=1e-5):
    """A Batch of (channels, samples) values, whose running statistics are near their own."""
    x = cases.place(rows, shape, layout, dtype)
    dy = cases.make_gradient("independent", x, layout)
    weight, bias = cases.vectors(shape[1])
    return Batch(x, dy, np.ascontiguousarray(x[::-1]), layout, *cases.running(x, layout), weight, bias, eps)


def plain(b, backend):
    """(name, call) of moments, inference, training and backward; a call returns arrays by name."""
    how = {"eps": b.eps, "layout": b.layout, "backend": backend}
    statistics = b.mean, b.var
    with np.errstate(over="ignore"):
        single = [v.astype(np.float32) for v in statistics]

    def moments():
        m = cpubn.moments(b.x, layout=b.layout, backend=backend)
        return {"mean": m.mean, "low": m.low, "m2": m.m2}

    def training():
        mean, var = (v.copy() for v in single)
        y = cpubn.batch_norm(b.x, mean, var, b.weight, b.bias, True, **how)
        return {"y": y, "running mean": mean, "running var": var}

    def backward(training):
        got = cpubn.batch_norm_backward(b.dy, b.x, *statistics, b.weight, training=training, **how)
        return dict(zip(("dx", "dweight", "dbias"), got, strict=True))

    yield "moments", moments
    yield "inference", lambda: {"y": cpubn.batch_norm(b.x, *statistics, b.weight, b.bias, **how)}
    yield "training", training
    yield "backward", lambda: backward(True)
    yield "backward in inference", lambda: backward(False)


def fused(b, activation, backend):
    """The same with an activation and a residual, by the functions and by a layer."""
    how = {"eps": b.eps, "layout": b.layout, "activation": activation, "residual": b.residual, "backend": backend}
    vectors = b.mean, b.var, b.weight, b.bias
    given = cpubn.batch_norm(b.x, *vectors, **how | {"backend": "numpy"})

    def backward(**kept):
        got = cpubn.batch_norm_backward(b.dy, b.x, *vectors[:3], bias=b.bias, **kept, **how)
        return dict(zip(("dx", "dweight", "dbias", "dresidual"), got, strict=True))

    def layer():
        bn = cpubn.BatchNorm1d(len(b.mean), b.eps, layout=b.layout, activation=activation, backend=backend)
        y, dx = bn(b.x, b.residual), bn.backward(b.dy)
        return {"y": y, "dx": dx, "dresidual": bn.residual_grad, "dweight": bn.weight_grad, "dbias": bn.bias_grad}

    yield f"inference, {activation}", lambda: {"y": cpubn.batch_norm(b.x, *vectors, **how)}
    yield f"training, {activation}", lambda: {"y": cpubn.batch_norm(b.x, None, None, *vectors[2:], True, **how)}
    yield f"backward, {activation}", backward
    yield f"backward by output, {activation}", lambda: backward(y=given)
    yield f"layer, {activation}", layer


def converted(b, backend):
    """Inference into other types and the other layout, of bytes, and of quantized data."""
    how = {"eps": b.eps, "layout": b.layout, "backend": backend}
    vectors = dict(zip(("running_mean", "running_var", "weight", "bias"), b[4:8], strict=True))
    with np.errstate(all="ignore"):
        small = np.clip(30 * np.nan_to_num(b.x), -100, 100)
    sources = {"float32": b.x, "uint8": abs(small).astype(np.uint8)}

    def into(x, dtype, layout):
        return {"y": cpubn.batch_norm(x, **vectors, dtype=dtype, out_layout=layout, **how)}

    for source, dtype, layout in product(sources, ("float32", *HALVES), OTHER):
        yield f"{source} to {dtype} in {layout}", partial(into, sources[source], dtype, layout)
    frozen = cpubn.FrozenBatchNorm(**vectors, out_layout=OTHER[b.layout], **how)
    yield "frozen, transposed", lambda: {"y": frozen(b.x)}
    quantized, whole = cpubn.FrozenBatchNorm.quantized(**vectors, **QUANTIZED, **how), small.astype(np.int8)
    yield "quantized", lambda: {"y": quantized(whole)}


def wide_rows(channels, samples):
    """(channels, samples) values: two channels of three need float64, for a large mean or for tiny deviations."""
    rows = cases.rng_of("wide", channels).standard_normal((channels, samples))
    rows[::3] = 1e37 * (1 + 0.01 * rows[::3])
    rows[1::3] *= 1e-30
    return rows
