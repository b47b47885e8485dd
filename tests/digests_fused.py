"""What digests.py digests of activations, residuals and types: every array computed in one way of passing arrays."""

from functools import cache
from importlib.util import find_spec

import cases
import numpy as np

import cpubn

# (layout, shape with channels on axis 1): rows, short rows and columns, enough of them for several threads.
CASES = [("NCHW", (4, 33, 1057)), ("NCHW", (67, 40, 49)), ("NHWC", (4000, 33, 1))]
WAYS = [
    *("1 thread", "1 thread again", "3 threads", "8 threads, in place", "2 threads, misaligned by an element, out too"),
    *("3 threads, misaligned by a byte, out too", "1 thread, wide strides, out too"),
]
LARGE = ("NCHW", (8, 64, 12544))
# Numba compiles for each of them, and its loops have one shape for all.
FEW = ("silu",)
HALVES = ["float16", *(["bfloat16"] if find_spec("ml_dtypes") else [])]
OTHER = {"NCHW": "NHWC", "NHWC": "NCHW"}
QUANTIZED = {"scale": 0.05, "zero_point": 3, "out_scale": 0.043, "out_zero_point": -7}


def half(name):
    if name == "float16":
        return np.dtype(name)
    import ml_dtypes

    return np.dtype(ml_dtypes.bfloat16)


@cache
def samples(layout, shape):
    """x, dy and a residual."""
    x = cases.make("offset 1", shape, layout)
    return x, cases.make_gradient("independent", x, layout), np.ascontiguousarray(x[::-1])


class Arrays:
    """Samples and vectors of one case, and how they are read and written."""

    def __init__(self, layout, shape, read, write, backend):
        self.read, self.write, self.layout = read, write, layout
        self.how = {"layout": layout, "backend": backend}
        self.x, self.dy, self.residual = samples(layout, shape)
        channels = shape[1]
        self.running = np.linspace(-1, 1, channels), np.linspace(0.5, 2, channels)
        self.vectors = *self.running, *cases.vectors(channels)

    def into(self, source):
        return source if self.write == "in place" else self.write and self.write(np.zeros_like(source))

    def fused(self, activation, dtype=np.float32):
        """Inference, training and both gradients."""
        x, dy, residual = (a.astype(dtype) for a in (self.x, self.dy, self.residual))
        how = self.how | {"activation": activation}
        source = self.read(x)
        yield cpubn.batch_norm(source, *self.vectors, residual=self.read(residual), out=self.into(source), **how)
        source, moved = self.read(x), [v.copy() for v in self.running]
        y = cpubn.batch_norm(
            source, *moved, *self.vectors[2:], True, residual=self.read(residual), out=self.into(source), **how
        )
        yield from (y, *moved)
        for training in (True, False):
            gradient, mean, var = self.read(dy), *self.running
            yield from cpubn.batch_norm_backward(
                *(gradient, self.read(x), mean, var, self.vectors[2]),
                bias=self.vectors[3],
                training=training,
                residual=self.read(residual),
                out=self.into(gradient),
                **how,
            )

    def layer(self, activation):
        """With what it keeps for its gradient."""
        bn = cpubn.BatchNorm1d(len(self.running[0]), activation=activation, **self.how)
        yield bn(self.read(self.x), self.read(self.residual))
        yield bn.backward(self.read(self.dy))
        yield from (bn.residual_grad, bn.weight_grad, bn.bias_grad)

    def plain(self, dtype):
        x, dy = self.x.astype(dtype), self.dy.astype(dtype)
        source = self.read(x)
        yield cpubn.batch_norm(source, *self.vectors, out=self.into(source), **self.how)
        source = self.read(x)
        yield cpubn.batch_norm(source, None, None, *self.vectors[2:], True, out=self.into(source), **self.how)
        gradient = self.read(dy)
        yield from cpubn.batch_norm_backward(gradient, self.read(x), *self.running, out=self.into(gradient), **self.how)

    def converted(self, source, dtype):
        """Into another type, in this layout and the other."""
        x = (10 * self.x).astype(np.int64).astype(source)
        for out_layout in (self.layout, OTHER[self.layout]):
            how = self.how | {"dtype": dtype, "out_layout": out_layout}
            out = None
            if self.write not in (None, "in place"):
                out = self.write(np.zeros_like(cpubn.batch_norm(x, *self.vectors, **how)))
            yield cpubn.batch_norm(self.read(x), *self.vectors, **how, out=out)

    def quantized(self, activation):
        vectors = cases.named(*self.vectors)
        bn = cpubn.FrozenBatchNorm.quantized(**vectors, **QUANTIZED, activation=activation, **self.how)
        source = self.read((30 * self.x).astype(np.int64).astype(np.int8))
        yield bn(source, out=self.into(source))


def results(case, read, write, backend):
    """(name, arrays) of everything that is promised to keep its bits in this way."""
    arrays = Arrays(*case, read, write, backend)
    if case == LARGE:
        yield "silu", arrays.fused("silu")
        yield "uint8", arrays.converted("uint8", "float32")
        return
    for activation in FEW if backend == "numba" else cases.ACTIVATIONS:
        yield f"{activation}", arrays.fused(activation)
    for activation in FEW if backend == "numba" else ("relu", ("clip", -0.5, 1.25), "tanh", "silu"):
        yield f"layer with {activation}", arrays.layer(activation)
    for name in HALVES:
        yield name, arrays.plain(half(name))
        yield f"{name} with silu", arrays.fused("silu", half(name))
        yield f"float32 to {name}", arrays.converted("float32", name)
    for name in ("uint8", "int8", "uint16", "int16", "float16"):
        yield f"{name} to float32", arrays.converted(name, "float32")
    yield "quantized", arrays.quantized(None)
    if backend != "numba":
        yield "quantized with relu", arrays.quantized("relu")
