"""A user's program, of which mypy and pyright must think what is written here; test_typing.py runs it, too."""

from typing import Any, Literal, assert_type

import numpy as np
from numpy.typing import NDArray

import cpubn
from cpubn.typing import Activation, Backend, ForwardOptions, Layout

Anything = NDArray[Any]
Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Moments = cpubn.Moments

x: Float32 = np.arange(32, dtype=np.float32).reshape(8, 4)
half: NDArray[np.float16] = x.astype(np.float16)
counts: NDArray[np.uint8] = x.astype(np.uint8)
unknown: Anything = x
mean, var = np.zeros(4), np.ones(4)

# Layers: what can be set, and what it is then.
bn = cpubn.BatchNorm1d(4, activation="relu")
bn.weight = [1, 2, 3, 4]
bn.weight += 1
bn.weight -= 0.1 * bn.weight_grad
bn.weight[:] = 1.5
bn.running_mean *= 0.5
bn.running_var = np.ones(4, np.float32)
bn.running_var = np.ones(4)
bn.eps = 1e-3
bn.momentum = None
bn.training = True
bn.track_running_stats = True
bn.on_nonfinite = "skip"
assert_type(bn.on_single, Literal["raise", "running"])
assert_type(cpubn.batch_norm(x, mean, var, training=True, on_single="running", on_empty="raise"), Float32)
bn.num_batches_tracked += 1
assert_type(bn.weight, Anything)
assert_type(bn.running_mean, Float64)
assert_type(bn.num_features, int)
assert_type(bn.affine, bool)
assert_type(bn.layout, Literal["NCHW", "NHWC"])
assert_type(bn.backend, Backend | None)
y = bn(x, residual=x)
y += x
assert_type(y, Float32)
assert_type(bn(half), NDArray[np.float16])
assert_type(bn(unknown), Anything)
assert_type(bn([[1.0, 2.0, 3.0, 4.0], [2.0, 3.0, 4.0, 5.0]]), Anything)
y = bn(x, residual=x, out=np.empty_like(x))
assert_type(bn.backward(np.ones_like(y)), Float32)
bn.residual_grad += 1
for name, value, gradient in bn.parameters():
    assert_type((name, value, gradient), tuple[str, Anything, Float64])
    value -= 0.1 * gradient
assert_type(bn.state_dict(), dict[str, Anything])
assert_type(bn.eval(), cpubn.BatchNorm1d)
bn.bias = None
bn.bias = np.zeros(4)


class Mine(cpubn.BatchNorm2d):
    note = ""


mine = Mine(4)
mine.note = "an attribute of its own"

# Functions: the type of x comes back unless another one is asked for.
assert_type(cpubn.batch_norm(x, mean, var), Float32)
assert_type(cpubn.batch_norm(half, mean, var, bn.weight, bn.bias, activation=("leaky_relu", 0.1)), NDArray[np.float16])
assert_type(cpubn.batch_norm(unknown, mean, var), Anything)
assert_type(cpubn.batch_norm([[1.0], [2.0]], [0], [1], dtype="float64"), Anything)
assert_type(cpubn.batch_norm(counts, mean, var, dtype="float32", out_layout="NCHW"), Anything)
z, batch = cpubn.batch_norm(x, mean, var, training=True, return_moments=True)
assert_type((z, batch), tuple[Float32, Moments])
wide, _ = cpubn.batch_norm(x, None, None, training=True, return_moments=True, dtype=np.float64)
assert_type(wide, Anything)
assert_type((batch.mean, batch.var(), batch.std()), tuple[Float64, Float64, Float64])
assert_type(sum([batch, batch], Moments.empty(4)), Moments)
assert_type(cpubn.moments(counts) + batch, Moments)

dx, dweight, dbias = cpubn.batch_norm_backward(z, x, batch, batch.var(), bn.weight)
assert_type((dx, dweight, dbias), tuple[Float32, Float64, Float64])
dx, dweight, dbias, dresidual = cpubn.batch_norm_backward(z, x, batch, batch.var(), activation="silu", residual=x)
assert_type(dresidual, Float32)

options: ForwardOptions = {"activation": ("clip", -1, 1), "backend": "numpy"}
assert_type(cpubn.batch_norm(x, mean, var, **options), Float32)


def passes_on(
    v: Float64 | None, act: Activation | None, layout: Layout, backend: Backend | None, flag: bool, dtype: str | None
) -> None:
    """Variables as wide as the parameters are."""
    both = cpubn.batch_norm(x, v, v, v, v, flag, activation=act, layout=layout, backend=backend, return_moments=flag)
    assert_type(both, Anything | tuple[Anything, Moments])
    assert_type(cpubn.batch_norm(x, v, v, v, v, residual=v, dtype=dtype, out=v), Anything)
    some = cpubn.batch_norm_backward(x, x, mean, var, v, residual=v, activation=act, layout=layout, backend=backend)
    assert_type(some, tuple[Anything, ...])
    cpubn.FrozenBatchNorm(
        weight=v, bias=v, running_mean=mean, running_var=var, activation=act, layout=layout, dtype=dtype
    )
    cpubn.BatchNorm1d(4, affine=flag, activation=act, layout=layout, backend=backend).freeze(act, dtype=dtype)


# Frozen: its own dtype, or else that of its input.
frozen = bn.freeze()
assert_type(frozen(x), Float32)
assert_type(frozen.dtype, None)
assert_type(frozen.weight, Float64)
assert_type(frozen.to_host()(x, out=np.empty_like(x)), Float32)
assert_type(bn.freeze(dtype="float16")(x), Anything)
assert_type(cpubn.FrozenBatchNorm(weight=None, bias=None, running_mean=mean, running_var=var)(x), Float32)
wider = cpubn.FrozenBatchNorm(weight=None, bias=None, running_mean=mean, running_var=var, dtype=np.float64)
assert_type(wider(counts), Anything)


def serve(norm: cpubn.FrozenBatchNorm, a: Float32) -> Float32:
    return norm(a)


serve(frozen, x)

# Pictures, folding, backends.
picture: NDArray[np.uint8] = np.zeros((3, 3, 3), np.uint8)
assert_type(cpubn.normalize_images(picture, 0, 1), Float32)
assert_type(cpubn.normalize_images([picture, picture], [0, 0, 0], 1, dtype="float32"), Float32)
assert_type(cpubn.normalize_images(picture, 0, 1, dtype=np.float32), Float32)
assert_type(cpubn.normalize_images(picture, 0, 1, dtype=np.float64), Anything)
weight, bias = cpubn.fold_linear(np.eye(4), None, bn)
norms = cpubn.convert.from_torch({f"bn.{key}": v for key, v in bn.state_dict().items()}, eps=1e-5, momentum=0.1)
assert_type(norms["bn"].layer(cpubn.BatchNorm1d), cpubn.BatchNorm1d)
report = cpubn.health({"a": bn, "b": norms["bn"]}, {"a": x})
assert_type(report["a"].channels("dead", "near-constant"), tuple[int, ...])
cpubn.health(frozen, cpubn.moments(x)), cpubn.health([bn, bn]), cpubn.health(norms).to_dict()
with cpubn.use_backend("numpy"):
    assert_type(cpubn.get_backend(), Backend)
    assert_type(cpubn.get_include(), str)
assert_type(cpubn.available_backends(), tuple[Backend, ...])


@cpubn.no_grad()
def inference(a: Float32) -> Float32:
    return bn(a)


inference(x)
