"""What is wrong is refused within numba.njit in the words that it is refused with outside, and nothing is written."""

import numpy as np
import pytest
from conftest import need_backend
from inside import compiled, numba

import cpubn

SHAPE = 3, 4, 5
NAMES = "x, mean, var, weight, out, dy, residual"


@pytest.fixture(autouse=True)
def kernels():
    need_backend("cython")


def given():
    x = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    return {
        "x": x,
        "mean": np.ones(4),
        "var": np.ones(4),
        "weight": np.ones(4),
        "out": np.zeros_like(x),
        "dy": x.copy(),
    } | {"residual": x.copy()}


INFER = "cpubn.batch_norm(x, mean, var, weight, out=out, residual=residual)"
TRAIN = "cpubn.batch_norm(x, mean, var, weight, training=True, out=out)"
BACK = "cpubn.batch_norm_backward(dy, x, mean, var, weight, out=out)"
RUN_TIME = [
    (INFER, {"mean": np.ones(3)}, None),
    (INFER, {"weight": np.ones(5)}, None),
    (INFER, {"weight": np.full(4, 2**53 + 1)}, None),
    (
        INFER,
        {"out": np.zeros((3, 5, 4), np.float32)},
        "out must have the result's shape (3, 4, 5), got (3, 5, 4); allocate",
    ),
    (INFER, {"residual": np.zeros((2, 4, 5), np.float32)}, None),
    (INFER, {"var": np.array([1.0, 1, -2, 1])}, "running_var + eps must be above 0 in every channel"),
    (INFER.replace("out=out", "out=x[::-1]"), {}, "out must be x, residual or dy itself or apart from it"),
    (INFER.replace("out=out", "eps=-1.0"), {}, None),
    (INFER.replace("out=out", "eps=np.nan"), {}, None),
    (
        INFER.replace("out=out", "momentum=2"),
        {},
        "momentum must be a number from 0 to 1, the weight of the new batch, got 2",
    ),
    (
        INFER.replace("out=out", "activation=('clip', 1.0, 0.0)"),
        {},
        "activation must be ('clip', low, high) with low <= high",
    ),
    (
        INFER.replace("out=out", "activation=('elu', np.inf)"),
        {},
        "activation must be 'elu' or ('elu', alpha) with a finite",
    ),
    (TRAIN.replace("out=out", "eps=0.0"), {}, None),
    (
        TRAIN,
        {"x": np.ones((1, 4, 1), np.float32), "out": np.ones((1, 4, 1), np.float32)},
        "the batch's own statistics need",
    ),
    (
        TRAIN.replace("var", "mean"),
        {},
        "out must be x, residual or dy itself or apart from it, and neither it nor running",
    ),
    (
        TRAIN.replace("True", "len(x) < 2").replace("mean, var", "None, None"),
        {},
        "running_mean and running_var must be given",
    ),
    (BACK, {"dy": np.ones((3, 4, 6), np.float32)}, None),
    (BACK, {"var": np.ones(5)}, None),
    (BACK, {"var": np.array([1.0, 1, -2, 1])}, "var + eps must be above 0 in every channel"),
    (BACK.replace("out=out", "eps=0.0"), {}, None),
]


@pytest.mark.parametrize(("call", "bad", "text"), RUN_TIME)
def test_at_run_time(call, bad, text):
    arguments = given() | bad
    before = {name: value.copy() for name, value in arguments.items()}
    if text is None:  # word for word what it is outside
        with pytest.raises((ValueError, TypeError)) as outside:
            eval(call, {"cpubn": cpubn, "np": np, **arguments})
        text = str(outside.value)
    with pytest.raises(ValueError) as inside:  # noqa: PT011 - the text is compared
        compiled(call, NAMES)(**arguments)
    assert type(inside.value) is ValueError
    assert str(inside.value).startswith(text)
    for name, value in arguments.items():
        np.testing.assert_array_equal(value, before[name])


X = "cpubn.batch_norm(x, mean, var"
COMPILING = [
    ("cpubn.batch_norm([1.0], mean, var)", "x must be an array of float32, float64, uint8, "),
    ("cpubn.batch_norm(x.astype(np.int32), mean, var)", "x must be an array of float32, float64, uint8, "),
    ("cpubn.batch_norm(x.astype(np.int8), mean, var)", "dtype must be given where x is of int8, got None"),
    (
        "cpubn.batch_norm(x.astype(np.int8), mean, var, training=True)",
        "x must be an array of float32 or float64 within",
    ),
    ("cpubn.batch_norm(x[0, 0], mean, var)", "x must have 2 to 5 dimensions, got 1; a single sample"),
    ("cpubn.batch_norm(x, None, None)", "running_mean and running_var must be given where training=False"),
    ("cpubn.batch_norm(x, mean, None)", "running_mean and running_var must come together, got no running_var"),
    (f"{X}, layout='CHW')", "layout must be 'NCHW' (channels on axis 1, for any rank) or 'NHWC'"),
    (f"{X}, layout=str(len(x)))", "layout must be written down in the call within numba.njit"),
    (f"{X}, training='eval')", "training must be True or False, got 'eval'; pass a bool"),
    (f"{X}, training=len(x))", "training must be True or False, got "),
    (f"{X}, return_moments=len(x) > 1)", "return_moments must be written down in the call"),
    (f"{X}, eps='1')", "eps must be a number, got '1'; pass a float"),
    (f"{X}, activation='rleu')", "activation must be one of 'relu', "),
    (f"{X}, activation=('clip', 1.0))", "activation must be ('clip', low, high), got "),
    (f"{X}, activation=np.tanh)", "call a function of your own on the result"),
    (f"{X}, dtype='float16')", "dtype must be np.float32 or np.float64 within numba.njit, got float16"),
    (f"{X}, dtype=np.float64)", "dtype must be np.float32 where x is of float32, got float64"),
    (f"{X}, backend='numba')", "backend must be 'cython' within numba.njit, got 'numba'; leave it out"),
    (f"{X}, threads=2.0)", "threads must be a whole number"),
    (f"{X}, weight=x)", "weight must be an array of float32, "),
    (f"{X}, out=x.astype(np.float64))", "out must have the result's dtype float32, got float64"),
    (f"{X}, residual=x[0])", "residual must have the result's 3 dimensions, got 2"),
    (f"{X}, out=np.broadcast_to(x, x.shape))", "out must be writeable, got a read-only array"),
    (
        "cpubn.batch_norm(x, mean.astype(np.int64), var, training=True)",
        "running_mean must be an array of float32 or float64",
    ),
    (
        "cpubn.batch_norm_backward(dy.astype(np.float64), x, mean, var)",
        "dy must be an array of float32 within numba.njit",
    ),
    ("cpubn.batch_norm_backward(dy, x, None, var)", "mean must be an array of float32, "),
    ("cpubn.moments(x, layout='x')", "layout must be 'NCHW'"),
]


@pytest.mark.parametrize(("call", "text"), COMPILING)
def test_while_it_is_compiled(call, text):
    arguments = given()
    with pytest.raises(numba.TypingError) as error:
        compiled(call, NAMES)(**arguments)
    assert text in str(error.value)


def test_an_error_can_be_caught_inside():
    cpubn.njit.init()

    @numba.njit
    def inside(x, mean):
        try:
            cpubn.batch_norm(x, mean, mean)
        except Exception:
            return False
        return True

    assert inside(given()["x"], np.ones(4))
    assert not inside(given()["x"], np.ones(5))


def test_an_error_while_another_is_handled():
    within, arguments = compiled(INFER, NAMES), given() | {"mean": np.ones(3)}
    try:
        {}["another"]
    except KeyError:
        with pytest.raises(ValueError, match=r"running_mean must have shape \(4,\).*got \(3,\)") as found:
            within(**arguments)
    assert type(found.value) is ValueError
    assert type(found.value.__context__) is KeyError
