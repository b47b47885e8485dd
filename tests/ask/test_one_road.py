"""What compiled calls make of arguments is what checks and plans in Python do: the same walk, the same refusals."""

import numpy as np
import pytest
import views
from conftest import need_backend
from hypothesis import HealthCheck, given, settings, strategies as st

import cpubn
from cpubn.ask import backward as ask_backward, forward as ask_forward, walk as walks
from cpubn.maths import order

SHAPE = views.SHAPE
REAL = ["float16", "float32", "float64"]
VIEWS = [*views.STRIDES, *views.BROADCAST]
many = settings(
    max_examples=400,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture
def calls():
    need_backend("cython")
    from cpubn.backends.compiled import calls

    return calls


@st.composite
def any_strides(draw):
    """An array of any strides, also zero, negative and overlapping ones, whose elements are never read."""
    shape = draw(st.lists(st.sampled_from([1, 1, 2, 3, 5]), min_size=2, max_size=5))
    order = draw(st.permutations(range(len(shape))))
    x = np.zeros([shape[axis] for axis in order], np.float32).transpose(np.argsort(order))
    strides = [
        stride * factor
        for stride, factor in zip(
            x.strides, draw(st.lists(st.sampled_from([1, 1, 1, 0, 2, -1]), min_size=5, max_size=5)), strict=False
        )
    ]
    return np.lib.stride_tricks.as_strided(x, x.shape, strides, writeable=False)


@many
@given(x=any_strides(), last=st.booleans())
def test_the_same_walk(x, last, calls):
    axis = x.ndim - 1 if last else 1
    walk = walks.walk_of(x, axis)
    assert calls.axes_of(x, axis) == (walk.axes, walk.channel)


@pytest.mark.parametrize("name", VIEWS)
@pytest.mark.parametrize("axis", [1, 3])
def test_the_same_walk_of_every_view(name, axis, calls):
    walk = walks.walk_of(views.make(name), axis)
    assert calls.axes_of(views.make(name), axis) == (walk.axes, walk.channel)


@many
@given(outer=st.integers(1, 10**6), channels=st.integers(1, 5000), inner=st.integers(1, 10**6))
def test_the_same_order(outer, channels, inner):
    need_backend("cython")
    from cpubn.backends.compiled import planner

    for shape in ((outer, channels, inner), (outer % 99 + 1, channels, inner % 300 + 1), (outer, channels, 1)):
        assert planner.order_of(*shape) == order.order_of(*shape)


NUMBERS = [1e-5, np.float64(1e-5), np.float32(1e-3), 0, 1, 0.0, True, np.bool_(True), -1.0, np.nan, 10**400, "1", None]
LAYOUTS = ["NCHW", "nhwc", "channels_last", "NLC", "CHW", None]


def samples(draw, shape=SHAPE):
    """What may be given for x: right, most of the time."""
    usual = *["view"] * 40, *["list", "integers", "half", "bfloat16", "double"] * 3
    kind = draw(st.sampled_from([*usual, "masked", "flat", "wrong"]))
    values = views.make(draw(st.sampled_from(VIEWS)), np.float32)
    made = {
        "view": lambda: values,
        "list": values.tolist,
        "integers": lambda: values.astype(np.uint8),
        "half": lambda: values.astype(np.float16),
        "bfloat16": lambda: values.astype(pytest.importorskip("ml_dtypes").bfloat16),
        "double": lambda: values.astype(np.float64),
        "masked": lambda: np.ma.masked_array(values),
        "flat": lambda: values.reshape(-1),
        "wrong": lambda: values.astype(np.int64),
    }
    return made[kind]()


def vector(draw, channels):
    values = 1.0 + np.arange(channels)
    made = [
        None, values, values, values.astype(np.float32), views.backwards(values), views.swapped(values),
        values.tolist(),
        values.astype(np.float16), values.astype(np.int64), np.full(channels, 2**62),
        np.full(channels, 2**63 - 1),
        values[:-1], -values, np.ma.masked_array(values), values.astype(complex), views.read_only(values),
        np.broadcast_to(values[:1], channels), values[:, None],
    ]  # fmt: skip
    return made[draw(st.sampled_from([*[1, 2, 3, 4] * 20, *range(len(made))]))]


class Choices:
    """Draws that can be made again."""

    def __init__(self, numbers):
        self.numbers = list(numbers)

    def __call__(self, strategy):
        options = strategy.elements if hasattr(strategy, "elements") else [True, False]
        return options[self.numbers.pop() % len(options)]


def forward_arguments(draw):
    layout = draw(st.sampled_from([*["NCHW", "NHWC"] * 20, *LAYOUTS]))
    x = samples(draw)
    channels = SHAPE[-1] if layout in ("NHWC", "nhwc", "channels_last", "NLC") else SHAPE[1]
    mean, var, weight, bias = (vector(draw, channels) for _ in range(4))
    how = {
        "layout": layout,
        "training": draw(st.sampled_from([True, False, False])),
        "momentum": draw(st.sampled_from([*[0.1] * 90, *NUMBERS])),
        "eps": draw(st.sampled_from([*[1e-5] * 90, *NUMBERS])),
        "activation": draw(st.sampled_from([None, None, "relu", "silu", ("clip", 0, 6)])),
        "dtype": draw(st.sampled_from([None, None, None, *REAL])),
        "out_layout": draw(st.sampled_from([None, None, None, "NCHW", "NHWC"])),
        "return_moments": draw(st.sampled_from([True, False, False])),
    }
    plain = np.asarray(x)
    shape = plain.shape
    if how["out_layout"] is not None and plain.ndim == 4 and how["out_layout"] != layout:
        shape = tuple(shape[k] for k in ((0, 2, 3, 1) if layout == "NCHW" else (0, 3, 1, 2)))
    kind = how["dtype"] or (plain.dtype.name if plain.dtype.kind == "f" else "float32")
    added = np.ones(shape, kind)
    made = [
        None, None, added, views.swapped(added), added.astype(np.float64), added[:1], x,
        np.broadcast_to(added.ravel()[:1], shape) if added.size else added, added.tolist(),
    ]  # fmt: skip
    how["residual"] = made[draw(st.sampled_from([*[0, 0, 2] * 6, *range(len(made))]))]
    room = np.full((2 * len(added), *shape[1:]), 0.0, kind)
    outs = [
        None, None, room[: len(added)], room[::2], x, how["residual"], views.read_only(added), views.swapped(added),
        np.broadcast_to(added[:1], shape), added[..., :1], added.astype(np.float64), added.tolist(), mean,
    ]  # fmt: skip
    how["out"] = outs[draw(st.sampled_from([*[0, 0, 2, 3] * 5, *range(len(outs))]))]
    return (x, mean, var, weight, bias), how


def backward_arguments(draw):
    (x, mean, var, weight, bias), how = forward_arguments(draw)
    plain = np.asarray(x)
    like = np.ones(plain.shape, plain.dtype)
    arrays = [
        like,
        like,
        like,
        views.swapped(like),
        like[..., ::-1],
        x,
        like.astype(np.float16),
        like[:1],
        like.tolist(),
    ]
    dy, residual, y = (arrays[draw(st.sampled_from([0, 0, 0, *range(len(arrays))]))] for _ in range(3))
    with_epilogue = how["activation"] is not None
    rest = {
        "bias": bias if with_epilogue else None,
        "residual": draw(st.sampled_from([None, residual])),
        "y": draw(st.sampled_from([None, y])) if with_epilogue else None,
        "out": draw(st.sampled_from([None, None, how["out"], dy, x])),
    }
    return (dy, x, mean, var, weight), {**{k: how[k] for k in ("layout", "training", "eps", "activation")}, **rest}


def outcome(call, arguments, backend):
    given_, how = arguments
    try:
        with np.errstate(all="ignore"):
            made = call(*given_, **how, backend=backend)
    except (TypeError, ValueError) as error:
        return type(error), str(error)
    return made if isinstance(made, tuple) else (made,)


def has_lists(arguments):
    return any(isinstance(a, list) for a in (*arguments[0], *arguments[1].values()))


@many
@given(numbers=st.lists(st.integers(0, 2**16), min_size=80, max_size=80), backward=st.booleans())
def test_the_same_calls_are_taken_and_the_others_refused_in_the_same_words(numbers, backward, monkeypatch):
    """And what is taken needs no plan in Python, unless something is no array."""
    need_backend("cython")
    make, call, plans = forward_arguments, cpubn.batch_norm, []
    if backward:
        make, call = backward_arguments, cpubn.batch_norm_backward
    expected = outcome(call, make(Choices(numbers)), "numpy")
    arguments = make(Choices(numbers))
    with monkeypatch.context() as patch:
        for module, name in ((ask_forward, "forward"), (ask_backward, "planned")):
            plan = getattr(module, name)
            patch.setattr(module, name, lambda *given, plan=plan: plans.append(0) or plan(*given))
        got = outcome(call, arguments, "cython")
    if isinstance(expected[0], type):
        assert got == expected
        return
    assert not plans or has_lists(arguments)
    for one, other in zip(got, expected, strict=True):
        if isinstance(one, cpubn.Moments):
            one, other = one.mean, other.mean
        assert one.dtype == other.dtype
        assert one.shape == other.shape
        other = other.astype(float)
        finite = np.abs(other[np.isfinite(other)])
        tolerance = {"float16": 2e-3, "bfloat16": 2e-2}.get(one.dtype.name, 2e-5) * finite.max(initial=1)
        np.testing.assert_allclose(one.astype(float), other, rtol=0, atol=tolerance)


class Hooked(np.ndarray):
    """An array that runs code when it is asked for what it may have."""

    def __getattr__(self, name):
        if name == "mask":
            self.hook()
        raise AttributeError(name)


def test_subclasses_run_no_code_between_what_is_read_and_what_is_done(calls):
    """A residual that makes x smaller when it is asked for its mask: x's memory was read all the same, and freed."""
    x = np.ones((4, 3, 50, 50), np.float32)
    residual = np.zeros(x.shape, np.float32).view(Hooked)
    residual.hook = lambda: x.resize((1, 1, 1, 1), refcheck=False)
    y = cpubn.batch_norm(x, np.zeros(3), np.ones(3), eps=0, residual=residual, backend="cython")
    np.testing.assert_array_equal(y, np.ones(y.shape, np.float32))


class Labelled(np.ndarray):
    pass


def test_arrays_of_any_class_are_taken_and_written_to(backend):
    def make(a):
        return a.view(Labelled)

    values = views.make("contiguous").reshape(24, 40)
    mean, var = make(np.zeros(40)), make(np.ones(40))
    expected = np.zeros(40), np.ones(40)
    out = make(np.zeros_like(values))
    y = cpubn.batch_norm(make(values), mean, var, training=True, out=out, backend=backend)
    cpubn.batch_norm(values, *expected, training=True, backend=backend)
    assert y is out
    np.testing.assert_array_equal(np.asarray(mean), expected[0])
    np.testing.assert_array_equal(np.asarray(var), expected[1])
    dx, *_ = cpubn.batch_norm_backward(values, make(values), np.zeros(40), np.ones(40), out=out, backend=backend)
    assert dx is out
    frozen = cpubn.FrozenBatchNorm(
        weight=None, bias=None, running_mean=np.zeros(40), running_var=np.ones(40), backend=backend
    )
    assert frozen(make(values), out=out) is out
