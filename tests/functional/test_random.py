"""Random shapes, strides, types and modes against the oracle; the same examples on every run."""

import cases
import numpy as np
import oracle
import views
from hypothesis import HealthCheck, given, settings, strategies as st

import cpubn

few = settings(
    max_examples=60,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@st.composite
def arrays(draw):
    """x of any rank, strides and dtype, of values far from and near to zero, with a layout."""
    shape = draw(st.lists(st.integers(1, 9), min_size=2, max_size=5))
    layout = draw(st.sampled_from(["NCHW", "NHWC"]))
    if draw(st.booleans()):  # one long axis
        shape[draw(st.integers(0, len(shape) - 1))] = draw(st.integers(200, 600))
    dtype = draw(st.sampled_from(cases.DTYPES))
    ratio = 10.0 ** draw(st.integers(-2, 7 if dtype == np.float32 else 6))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    values = (rng.standard_normal(shape) + ratio).astype(dtype)
    order = draw(st.permutations(range(len(shape))))
    steps = draw(st.lists(st.sampled_from([1, 1, 1, 2, -1, -2]), min_size=len(shape), max_size=len(shape)))
    repeated = tuple(slice(0, 1) if once else slice(None) for once in draw(st.lists(
        st.sampled_from([False, False, False, True]), min_size=len(shape), max_size=len(shape))))  # fmt: skip
    x = views.stepped(views.in_order(values, tuple(order))[repeated], *steps)
    return np.broadcast_to(x, shape), layout


@st.composite
def vectors(draw, channels):
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    dtype = draw(st.sampled_from(cases.DTYPES))
    return tuple(
        rng.standard_normal(channels).astype(dtype) if draw(st.booleans()) else None for _ in ("weight", "bias")
    )


def several_values(x, layout):
    return x.size > x.shape[oracle.channel_axis(x, layout)]


@few
@given(data=st.data())
def test_forward(backend, data):
    x, layout = data.draw(arrays())
    weight, bias = data.draw(vectors(x.shape[oracle.channel_axis(x, layout)]))
    training = several_values(x, layout) and data.draw(st.booleans())
    statistics = (None, None) if training else cases.running(x, layout)
    before = x.copy()
    expected = oracle.batch_norm(x, *statistics, weight, bias, layout=layout)
    got = cpubn.batch_norm(x, *statistics, weight, bias, training, layout=layout, backend=backend)
    assert got.dtype == x.dtype
    assert views.keeps_order(got, x)
    assert oracle.worst(got, expected.y, expected.bound) <= 1
    np.testing.assert_array_equal(x, before)


@few
@given(data=st.data())
def test_backward(backend, data):
    x, layout = data.draw(arrays())
    dy = cases.make_gradient(data.draw(st.sampled_from(list(cases.GRADIENTS))), x, layout)
    dy = views.in_order(dy, tuple(data.draw(st.permutations(range(x.ndim)))))
    weight, _ = data.draw(vectors(x.shape[oracle.channel_axis(x, layout)]))
    training = several_values(x, layout) and data.draw(st.booleans())
    mean, var = cases.running(x, layout)
    expected = oracle.batch_norm_backward(dy, x, mean, var, weight, 1e-5, training, layout)
    got, dweight, dbias = cpubn.batch_norm_backward(
        dy, x, mean, var, weight, training=training, layout=layout, backend=backend
    )
    assert oracle.worst(got, expected.dx, expected.dx_bound) <= 1
    assert oracle.worst(dweight, expected.dweight, expected.dweight_bound) <= 1
    assert oracle.worst(dbias, expected.dbias, expected.dbias_bound) <= 1


@few
@given(data=st.data())
def test_moments_of_parts_merge_to_those_of_the_whole(backend, data):
    x, layout = data.draw(arrays())
    cut = data.draw(st.integers(0, len(x)))
    mean, var = oracle.moments(x, layout)
    first, second = (cpubn.moments(part, layout=layout, backend=backend) for part in (x[:cut], x[cut:]))
    got = first + second
    mean_bound, var_bound = oracle.moments_bounds(mean, var, x.dtype)
    assert got.count * len(mean) == x.size
    assert oracle.worst(got.mean, mean, mean_bound) <= 1
    assert oracle.worst(got.var(), var, var_bound) <= 1
