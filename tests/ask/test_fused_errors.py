"""Bad activations, residuals, dtypes and layouts: refused by what must hold and what was got, with nothing written."""

import bad
import cases
import numpy as np
import pytest
from test_errors import backward_arguments, check_refused, each, forward_arguments
from test_layer_errors import check_refused as check_layer_refused

import cpubn

X = np.arange(12.0).reshape(4, 3)
FORWARD = bad.ACTIVATION | bad.RESIDUAL | bad.OUT_LAYOUT | bad.DTYPE
ANY_Y = {"y of another shape": ("y", np.ones((3, 4)), ValueError, r"y must .*\(4, 3\), got \(3, 4\)"),
         "y of another dtype": ("y", np.ones((4, 3), "f4"), TypeError, "y must .*float64, got float32"),
         "y of integers": ("y", np.ones((4, 3), int), TypeError, "y must .*got .*int64")}  # fmt: skip


@pytest.mark.parametrize("training", [True, False])
@each(FORWARD)
def test_forward(name, value, error, match, training):
    given = forward_arguments() | {"activation": "relu", "residual": np.ones((4, 3)), "training": training}
    check_refused(cpubn.batch_norm, given | {name: value}, error, match)
    del given["out"], given["activation"], given["residual"]  # the shortest way to a kernel
    check_refused(cpubn.batch_norm, given | {name: value}, error, match)


@pytest.mark.parametrize("training", [True, False])
@each(bad.ACTIVATION | bad.RESIDUAL | bad.vector("bias", optional=True) | ANY_Y)
@pytest.mark.parametrize("activation", ["relu", "silu", "tanh"])
def test_backward(name, value, error, match, training, activation):
    given = backward_arguments() | {"activation": activation, "residual": np.ones((4, 3)), "training": training}
    check_refused(cpubn.batch_norm_backward, given | {name: value}, error, match)


@each(bad.RESIDUAL)
def test_backward_of_a_residual_alone(name, value, error, match):
    check_refused(cpubn.batch_norm_backward, backward_arguments() | {name: value}, error, match)


@each(bad.vector("bias", optional=True))
def test_backward_checks_a_bias_that_it_need_not_read(name, value, error, match):
    check_refused(cpubn.batch_norm_backward, backward_arguments() | {name: value}, error, match)


@each({name: entry for name, entry in FORWARD.items() if entry[0] != "residual"})
def test_frozen(name, value, error, match):
    with pytest.raises(error, match=match):
        cpubn.FrozenBatchNorm(**cases.named(np.zeros(3), np.ones(3)), **{name: value})


@each(bad.ACTIVATION)
def test_a_layer_that_cannot_be_made(name, value, error, match):
    with pytest.raises(error, match=match):
        cpubn.BatchNorm1d(3, **{name: value})


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("activation", [None, "relu", "silu"])
@each(bad.RESIDUAL)
def test_the_residual_of_a_layer_or_frozen_layer(name, value, error, match, activation, training):
    bn = cpubn.BatchNorm1d(3, activation=activation)
    bn(X)
    frozen = bn.freeze()
    bn.train(training)
    out = np.zeros((4, 3))
    check_layer_refused(bn, lambda: bn(X, **{name: value}, out=out), error, match)
    check_layer_refused(bn, lambda: frozen(X, **{name: value}, out=out), error, match)
    np.testing.assert_array_equal(out, 0)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int16])
def test_integers_need_a_dtype_and_no_training(dtype):
    x = np.ones((4, 3), dtype)
    given = {"x": x, "running_mean": np.zeros(3), "running_var": np.ones(3)}
    check_refused(cpubn.batch_norm, given, ValueError, "dtype must be given .*got None.*float32")
    check_refused(
        cpubn.batch_norm, given | {"training": True, "dtype": "float32"}, TypeError, f"x must be .*got .*{x.dtype}"
    )
    with pytest.raises(ValueError, match=r"dtype must be given .*got None.*float32"):
        cpubn.FrozenBatchNorm(**cases.named(np.zeros(3), np.ones(3)))(x)
    with pytest.raises(TypeError, match=f"x must be .*got .*{x.dtype}"):
        cpubn.BatchNorm1d(3).eval()(x)
    with pytest.raises(TypeError, match=f"x must be .*got .*{x.dtype}"):
        cpubn.batch_norm_backward(x, x, np.zeros(3), np.ones(3))


@pytest.mark.parametrize("dtype", [np.int32, np.uint32, np.int64, np.uint64, bool])
def test_other_integers(dtype):
    given = {"x": np.ones((4, 3), dtype), "running_mean": np.zeros(3), "running_var": np.ones(3), "dtype": "float32"}
    check_refused(cpubn.batch_norm, given, TypeError, "x must be .*float32.*got .*")


@pytest.mark.parametrize(
    ("out", "error", "match"),
    [
        (np.zeros((2, 3, 5, 4)), TypeError, "out must .*float32, got float64"),
        (np.zeros((2, 5, 4, 3), "f4"), ValueError, r"out must .*\(2, 3, 5, 4\), got \(2, 5, 4, 3\)"),
        (np.zeros((2, 3, 4, 5), "f4"), ValueError, r"out must .*\(2, 3, 5, 4\), got \(2, 3, 4, 5\)"),
        (np.zeros((2, 3, 5, 4), "u1"), TypeError, "out must .*float32, got uint8"),
    ],
)
def test_out_has_the_type_and_layout_asked_for(out, error, match, backend):
    x = np.ones((2, 5, 4, 3), np.uint8)
    given = {"x": x, "running_mean": np.zeros(3), "running_var": np.ones(3), "out": out}
    how = {"layout": "NHWC", "out_layout": "NCHW", "dtype": "float32", "backend": backend}
    check_refused(cpubn.batch_norm, given | how, error, match)


def test_a_residual_has_the_type_and_layout_of_the_result(backend):
    x = np.ones((2, 5, 4, 3), np.uint8)
    given = {"x": x, "running_mean": np.zeros(3), "running_var": np.ones(3), "residual": np.ones(x.shape, "f4")}
    how = {"layout": "NHWC", "out_layout": "NCHW", "dtype": "float32", "backend": backend}
    check_refused(cpubn.batch_norm, given | how, ValueError, r"residual must .*\(2, 3, 5, 4\), got \(2, 5, 4, 3\)")
    wrong = given | how | {"residual": np.ones((2, 3, 5, 4), np.float16)}
    check_refused(cpubn.batch_norm, wrong, TypeError, "residual must .*float32, got float16")
