"""Memory that a residual, an output and an input share: the same array is served, any other overlap refused."""

import cases
import numpy as np
import pytest
from test_overlap import OVERLAPS, check_refused

import cpubn

RUNNING = np.zeros(3), np.ones(3)


def arrays(dtype=np.float32, shape=(4, 3, 5)):
    rng = cases.rng_of("fused overlap")
    return [rng.standard_normal(shape).astype(dtype) for _ in range(3)]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_out_may_be_x_or_the_residual(dtype, training, backend):
    x, residual, _ = arrays(dtype)

    def forward(x, residual, out):
        running = [v.copy() for v in RUNNING]
        how = {"training": training, "activation": "relu", "backend": backend}
        return cpubn.batch_norm(x, *running, residual=residual, out=out, **how)

    expected = forward(x, residual, None)
    np.testing.assert_array_equal(forward(given := x.copy(), residual, given), expected)
    np.testing.assert_array_equal(forward(x, given := residual.copy(), given), expected)
    expected = forward(x, x, None)
    np.testing.assert_array_equal(forward(given := x.copy(), given, given), expected)
    np.testing.assert_array_equal(forward(x, x.copy(), None), expected)


def test_a_frozen_layer_too(backend):
    x, residual, _ = arrays()
    bn = cpubn.FrozenBatchNorm(**cases.named(*RUNNING), activation="relu", backend=backend)
    expected = bn(x, residual)
    np.testing.assert_array_equal(bn(x, given := residual.copy(), out=given), expected)
    np.testing.assert_array_equal(bn(given := x.copy(), residual, out=given), expected)
    np.testing.assert_array_equal(bn(given := x.copy(), given, out=given), bn(x, x))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", OVERLAPS)
def test_an_out_that_partly_overlaps_the_residual(name, training, backend):
    memory, residual, out = OVERLAPS[name]()
    running = [v.copy() for v in RUNNING]
    x = np.ones_like(residual)
    check_refused(
        "out must .*residual.*got memory that .*overlap.*pass",
        memory,
        lambda: cpubn.batch_norm(
            x, *running, training=training, activation="relu", residual=residual, out=out, backend=backend
        ),
    )
    np.testing.assert_array_equal(running, RUNNING)
    bn = cpubn.FrozenBatchNorm(**cases.named(*running), backend=backend)
    check_refused("out must .*residual.*overlap", memory, lambda: bn(x, residual, out=out))


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_an_output_of_another_layout_or_type_is_not_x(layout, backend):
    """A square, so that the shapes agree: x would be overwritten before it is read."""
    other = {"NCHW": "NHWC", "NHWC": "NCHW"}[layout]
    x = np.arange(27.0).reshape(1, 3, 3, 3)
    how = {"layout": layout, "out_layout": other, "backend": backend}
    check_refused("out must not overlap x, got", x, lambda: cpubn.batch_norm(x, *RUNNING, out=x, **how))
    bn = cpubn.FrozenBatchNorm(**cases.named(*RUNNING), **how)
    check_refused("out must not overlap x, got", x, lambda: bn(x, out=x))
    memory = np.zeros(27 * 2, np.float32)
    given, out = memory.view(np.float64).reshape(1, 3, 3, 3), memory[:27].reshape(1, 3, 3, 3)
    check_refused(
        "out must .*x.*overlap",
        memory,
        lambda: cpubn.batch_norm(given, *RUNNING, out=out, dtype="float32", backend=backend),
    )
    small = memory.view(np.uint8)[:27].reshape(1, 3, 3, 3)
    check_refused(
        "out must .*x.*overlap",
        memory,
        lambda: cpubn.batch_norm(small, *RUNNING, out=out, dtype="float32", backend=backend),
    )


def test_a_residual_of_another_layout_may_be_the_output(backend):
    x = np.arange(27.0, dtype=np.float32).reshape(1, 3, 3, 3)
    residual = x[::-1] * 2
    how = {"out_layout": "NHWC", "activation": "relu", "backend": backend}
    expected = cpubn.batch_norm(x, *RUNNING, residual=residual, **how)
    np.testing.assert_array_equal(cpubn.batch_norm(x, *RUNNING, residual=residual, out=residual, **how), expected)


@pytest.mark.parametrize("training", [True, False])
def test_running_statistics_within_the_residual(training):
    memory = np.arange(12.0).reshape(4, 3)
    given = {"training": training, "residual": memory}
    if training:
        check_refused(
            "running_mean must not overlap residual, got .*copy",
            memory,
            lambda: cpubn.batch_norm(np.ones((4, 3)), memory[1], np.ones(3), **given),
        )
    else:
        cpubn.batch_norm(np.ones((4, 3)), memory[1], np.ones(3), **given)


@pytest.mark.parametrize("name", ["residual", "y", "bias"])
@pytest.mark.parametrize("activation", ["relu", "silu", "sigmoid"])
def test_dx_is_apart_from_what_backward_reads_besides(name, activation, backend):
    dy, x, residual = arrays(np.float64, (4, 3))
    given = {"residual": residual, "y": abs(x), "bias": np.ones(3)}
    out = given[name] if name != "bias" else np.ones((4, 3))
    given[name] = out[2] if name == "bias" else out
    check_refused(
        f"out must not overlap {name}, got",
        out,
        lambda: cpubn.batch_norm_backward(dy, x, *RUNNING, activation=activation, **given, out=out, backend=backend),
    )


def lost(bn, dy, what):
    with pytest.raises(RuntimeError, match=f"backward needs .*{what}.*overwritten"):
        bn.backward(dy)


@pytest.mark.parametrize("activation", [None, "relu", "sigmoid", "silu"])
def test_a_layer_knows_what_it_has_lost(activation):
    """The input always; the residual where the activation is recomputed from it, and not where the output tells."""
    x, residual, dy = arrays()
    bn = cpubn.BatchNorm1d(3, activation=activation)
    bn(x, residual)
    expected = bn.backward(dy)
    bn(x, given := residual.copy(), out=given)
    if activation == "silu":
        lost(bn, dy, "residual")
    else:
        np.testing.assert_array_equal(bn.backward(dy), expected)
    bn(given := x.copy(), residual, out=given)
    lost(bn, dy, "input")


@pytest.mark.parametrize("activation", [None, "relu", "sigmoid", "silu"])
def test_a_layer_whose_input_is_its_residual(activation):
    x, _, dy = arrays()
    bn = cpubn.BatchNorm1d(3, activation=activation)
    bn(x, x.copy())
    expected = bn.backward(dy), bn.residual_grad
    bn(x, x)
    np.testing.assert_array_equal(bn.backward(dy), expected[0])
    np.testing.assert_array_equal(bn.residual_grad, expected[1])
