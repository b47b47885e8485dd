"""Memory: fused epilogues and conversions need no array of their own, and a layer keeps little for its backward."""

import tracemalloc
import weakref

import cases
import numpy as np
import pytest
from conftest import need_backend
from test_memory import peak_of

import cpubn

SHAPE = (10, 32, 128, 128)  # 21 MB of float32
LITTLE = 2**18


@pytest.fixture(scope="module")
def arrays():
    need_backend("cython")
    rng = cases.rng_of("fused memory")
    x = rng.standard_normal(SHAPE, np.float32)
    return x, x[::-1].copy(), np.empty_like(x)


RUNNING = np.zeros(32), np.ones(32)


@pytest.mark.parametrize("activation", [None, *cases.ACTIVATIONS], ids=str)
def test_inference_with_activation_and_residual(activation, arrays):
    x, residual, out = arrays
    how = {"activation": activation, "residual": residual, "out": out, "backend": "cython"}
    assert peak_of(lambda: cpubn.batch_norm(x, *RUNNING, **how)) < LITTLE
    frozen = cpubn.FrozenBatchNorm(**cases.named(*RUNNING), activation=activation, backend="cython")
    assert peak_of(lambda: frozen(x, residual, out)) < LITTLE


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_training_with_activation_and_residual(layout, arrays):
    x, residual, out = arrays
    how = {"activation": "gelu", "residual": residual, "out": out, "layout": layout, "backend": "cython"}
    assert peak_of(lambda: cpubn.batch_norm(x, None, None, training=True, **how)) < LITTLE + 2048 * x.shape[-1]


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("uint8", "float32"),
        ("int16", "float32"),
        ("float16", "float16"),
        ("float16", "float32"),
        ("float32", "float16"),
    ],
)
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("out_layout", ["NCHW", "NHWC"])
def test_types_and_layouts(source, target, layout, out_layout):
    """One pass: nothing is converted or transposed in memory."""
    need_backend("cython")
    x = np.ones((2, 64, 200, 64) if layout == "NHWC" else (2, 64, 64, 200), source)
    channels_last = out_layout == "NHWC"
    out = np.empty(x.shape if layout == out_layout else np.moveaxis(x, *((1, -1) if channels_last else (-1, 1))).shape,
                   target)  # fmt: skip
    how = {"layout": layout, "out_layout": out_layout, "dtype": target, "out": out, "backend": "cython"}
    assert peak_of(lambda: cpubn.batch_norm(x, np.zeros(64), np.ones(64), **how)) < LITTLE


def test_quantized():
    need_backend("cython")
    x = np.ones((4, 64, 64, 64), np.int8)
    numbers = {"scale": 0.1, "zero_point": 1, "out_scale": 0.1, "out_zero_point": 2}
    bn = cpubn.FrozenBatchNorm.quantized(**cases.named(np.zeros(64), np.ones(64)), **numbers, backend="cython")
    assert peak_of(lambda: bn(x, out=x)) < LITTLE


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    ("activation", "kept"),
    [(None, 0), ("relu", 1 / 32), ("relu6", 1 / 32), (("leaky_relu", 0.1), 1 / 32), (("clip", -1, 1), 1 / 32),
     ("sigmoid", 1), ("tanh", 1), ("hardswish", 0), ("silu", 0), ("gelu", 0)], ids=str,
)  # fmt: skip
def test_what_a_layer_keeps(activation, kept, training, arrays):
    """Beside x by reference: one bit an element (in training), the output, or nothing."""
    if not training and kept < 1:
        kept = 0
    x, residual, out = arrays
    first, bn = (cpubn.BatchNorm2d(32, activation=activation, backend="cython").train(training) for _ in range(2))
    first(x, residual, out)  # everything that is made once
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    bn(x, residual)
    after, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert abs(after - before - x.nbytes * kept) < LITTLE
    assert peak - before < x.nbytes * (1 + kept % 1) + LITTLE


@pytest.mark.parametrize(("activation", "kept"), [(None, 0), ("relu", 0), ("sigmoid", 0), ("silu", 1)])
def test_the_residual_is_kept_where_it_is_needed(activation, kept):
    x, residual = np.ones((4, 3), np.float32), np.ones((4, 3), np.float32)
    bn, alive = cpubn.BatchNorm1d(3, activation=activation), weakref.ref(residual)
    bn(x, residual)
    del residual
    assert (alive() is not None) == kept
    bn.backward(x)
    assert bn.residual_grad.shape == x.shape


@pytest.mark.parametrize("activation", ["relu", "sigmoid", "silu"])
def test_backward(activation, arrays):
    """dx alone, and the residual's gradient where there was one."""
    x, residual, dy = arrays
    dy[...] = residual
    for added, outputs in ((None, 1), (residual, 2)):
        bn = cpubn.BatchNorm2d(32, activation=activation, backend="cython")
        bn(x, added)
        assert peak_of(lambda bn=bn: bn.backward(dy, retain=True)) < outputs * x.nbytes + 2 * LITTLE
    bn(x)
    assert peak_of(lambda: bn.backward(dy, out=dy, retain=True)) < 2 * LITTLE
    assert bn.residual_grad is None
