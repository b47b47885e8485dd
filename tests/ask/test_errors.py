"""Bad input to the functions: refused with what must hold, what was got and what to do, before anything is written."""

import bad
import numpy as np
import pytest

import cpubn


def each(table):
    return pytest.mark.parametrize(("name", "value", "error", "match"), table.values(), ids=list(table))


def snapshot(arguments):
    return {name: v.copy() for name, v in arguments.items() if isinstance(v, np.ndarray)}


def check_refused(function, arguments, error, match):
    before = snapshot(arguments)
    with pytest.raises(error, match=match):
        function(**arguments)
    for name, expected in before.items():
        np.testing.assert_array_equal(arguments[name], expected)


def forward_arguments():
    return {
        "x": np.arange(12.0).reshape(4, 3),
        "running_mean": np.zeros(3),
        "running_var": np.ones(3),
        "weight": np.ones(3),
        "bias": np.zeros(3),
        "out": np.zeros((4, 3)),
    }


def backward_arguments():
    return {
        "dy": np.ones((4, 3)),
        "x": np.arange(12.0).reshape(4, 3),
        "mean": np.zeros(3),
        "var": np.ones(3),
        "weight": np.ones(3),
        "out": np.zeros((4, 3)),
    }


FORWARD = (
    bad.X | bad.LAYOUT | bad.EPS | bad.MOMENTUM | bad.BACKEND | bad.out()
    | bad.flag("training") | bad.flag("return_moments")
    | bad.vector("running_mean", optional=True) | bad.vector("running_var", optional=True)
    | bad.vector("weight", optional=True) | bad.vector("bias", optional=True)
    | {
        "momentum None": ("momentum", None, TypeError, "momentum must be .* got None"),
        "no running_var": ("running_var", None, ValueError, "running_mean and running_var must .* no running_var"),
        "no running_mean": ("running_mean", None, ValueError, "running_mean and running_var must .* no running_mean"),
    }
)  # fmt: skip
BACKWARD = (
    bad.X | bad.LAYOUT | bad.EPS | bad.BACKEND | bad.out() | bad.flag("training")
    | bad.vector("mean", optional=False) | bad.vector("var", optional=False) | bad.vector("weight", optional=True)
    | {f"dy of {kind}": ("dy", *value) for kind, value in bad.DATA.items()}
    | {
        "dy of another shape": ("dy", np.ones((3, 4)), ValueError, r"dy must have .*\(4, 3\), got \(3, 4\)"),
        "dy of another rank": ("dy", np.ones((4, 3, 1)), ValueError, r"dy must have .*\(4, 3\), got \(4, 3, 1\)"),
        "dy of another dtype": ("dy", np.ones((4, 3), np.float32), TypeError, "dy must have .*float64, got float32"),
    }
)  # fmt: skip


@pytest.mark.parametrize("training", [True, False])
@each(FORWARD)
def test_forward_refuses(name, value, error, match, training):
    check_refused(cpubn.batch_norm, forward_arguments() | {"training": training, name: value}, error, match)


@pytest.mark.parametrize("training", [True, False])
@each(BACKWARD)
def test_backward_refuses(name, value, error, match, training):
    check_refused(cpubn.batch_norm_backward, backward_arguments() | {"training": training, name: value}, error, match)


@each(bad.X | bad.LAYOUT | bad.BACKEND)
def test_moments_refuses(name, value, error, match):
    check_refused(cpubn.moments, {"x": np.ones((4, 3)), name: value}, error, match)


def test_messages_name_the_layout_that_was_meant():
    with pytest.raises(ValueError, match=r"weight must have shape \(5,\), .*'NHWC'.*got \(3,\)"):
        cpubn.batch_norm(np.ones((4, 3, 5)), None, None, np.ones(3), training=True, layout="NHWC")


def test_eps_of_zero_is_refused_in_training_alone():
    match = "eps must be above 0 in training.* got 0.*1e-5"
    check_refused(cpubn.batch_norm, forward_arguments() | {"training": True, "eps": 0}, ValueError, match)
    check_refused(cpubn.batch_norm_backward, backward_arguments() | {"eps": 0.0}, ValueError, match)
    cpubn.batch_norm(**forward_arguments(), eps=0)
    cpubn.batch_norm_backward(**backward_arguments(), eps=0, training=False)


@pytest.mark.parametrize("shape", [(1, 3), (1, 3, 1, 1)])
def test_training_needs_more_than_one_value_per_channel(shape):
    x = np.ones(shape)
    match = r"more than 1 value per channel.*got .*\(1, 3.*training=False"
    arguments = forward_arguments() | {"x": x, "out": x.copy(), "training": True}
    check_refused(cpubn.batch_norm, arguments, ValueError, match)
    check_refused(
        cpubn.batch_norm_backward, backward_arguments() | {"x": x, "dy": x, "out": x.copy()}, ValueError, match
    )


def test_inference_needs_running_statistics():
    arguments = forward_arguments() | {"running_mean": None, "running_var": None}
    match = "running_mean and running_var must be given .*got None.*training=True"
    check_refused(cpubn.batch_norm, arguments, ValueError, match)


@pytest.mark.parametrize("name", ["running_mean", "running_var"])
@pytest.mark.parametrize("dtype", ["float16", "int8", "uint8", "int32", "int64"])
def test_training_updates_statistics_of_float32_and_float64_alone(dtype, name):
    arguments = forward_arguments() | {name: np.ones(3, dtype)}
    cpubn.batch_norm(**arguments)
    match = rf"{name} must be an array of float32 or float64, got ndarray of {dtype}; convert it"
    check_refused(cpubn.batch_norm, arguments | {"training": True}, TypeError, match)


def read_only(v):
    v.flags.writeable = False
    return v


@pytest.mark.parametrize("name", ["running_mean", "running_var"])
@pytest.mark.parametrize(
    ("value", "error", "match"),
    [
        (read_only(np.ones(3)), ValueError, "must be writeable.*got a read-only array.*copy"),
        ([1.0, 1.0, 1.0], TypeError, "must be an array.*got list"),
        (np.broadcast_to(np.ones(1), 3), ValueError, "must (be writeable|not overlap itself).*got"),
        (np.lib.stride_tricks.as_strided(np.ones(1), (3,), (0,)), ValueError, "must not overlap itself.*got.*copy"),
    ],
    ids=["read-only", "a list", "broadcast", "one memory"],
)
def test_training_refuses_running_statistics_that_it_cannot_update(name, value, error, match):
    arguments = forward_arguments() | {name: value}
    cpubn.batch_norm(**arguments)
    check_refused(cpubn.batch_norm, arguments | {"training": True}, error, f"{name} {match}")
