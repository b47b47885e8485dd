"""out= and in place: the same bits as a fresh output, in the caller's memory and nowhere else."""

import cases
import numpy as np
import pytest
import views
from pairs import pairs

import cpubn


def blank(name, dtype):
    out = views.make(name, np.dtype(dtype))
    out[...] = np.nan
    return out


def forward(x, training, layout, backend, out=None):
    vectors = cases.vectors(x.shape[1 if layout == "NCHW" else -1])
    statistics = (None, None) if training else cases.running(x, layout)
    return cpubn.batch_norm(x, *statistics, *vectors, training, layout=layout, out=out, backend=backend)


def backward(dy, x, training, layout, backend, out=None):
    weight, _ = cases.vectors(x.shape[1 if layout == "NCHW" else -1])
    mean, var = cases.running(x, layout)
    return cpubn.batch_norm_backward(
        dy, x, mean, var, weight, training=training, layout=layout, out=out, backend=backend
    )


MODES, LAYOUTS = (True, False), ("NCHW", "NHWC")


@pytest.mark.parametrize(
    ("name", "x_name", "training", "layout"),
    pairs(views.WRITABLE, ["contiguous", "channels last", "steps on every axis"], MODES, LAYOUTS),
)
def test_forward_into_any_out(name, x_name, training, layout, backend):
    x = views.make(x_name)
    expected = forward(x, training, layout, backend)
    out = blank(name, np.float32)
    got = forward(x, training, layout, backend, out)
    assert got is out
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize(
    ("name", "x_name", "training", "layout"),
    pairs(views.WRITABLE, ["contiguous", "channels last"], MODES, LAYOUTS),
)
def test_backward_into_any_out(name, x_name, training, layout, backend):
    x = views.make(x_name)
    dy = cases.make_gradient("correlated", x)
    expected = backward(dy, x, training, layout, backend)
    out = blank(name, np.float32)
    got = backward(dy, x, training, layout, backend, out)
    assert got[0] is out
    for g, e in zip(got, expected, strict=True):
        np.testing.assert_array_equal(g, e)


@pytest.mark.parametrize(("name", "training", "layout"), pairs(views.WRITABLE, MODES, LAYOUTS))
def test_forward_in_place(name, training, layout, backend):
    x = views.make(name)
    expected = forward(x, training, layout, backend)
    got = forward(x, training, layout, backend, out=x)
    assert got is x
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize(("name", "into", "training", "layout"), pairs(views.WRITABLE, ["dy", "x"], MODES, LAYOUTS))
def test_backward_in_place(name, into, training, layout, backend):
    x, dy = views.make(name), views.make(name)
    dy -= 10
    expected = backward(dy, x, training, layout, backend)
    out = dy if into == "dy" else x
    got = backward(dy, x, training, layout, backend, out)
    assert got[0] is out
    for g, e in zip(got, expected, strict=True):
        np.testing.assert_array_equal(g, e)


def test_another_view_of_the_very_same_elements_counts_as_in_place(backend):
    x = views.make("contiguous")
    expected = forward(x, True, "NCHW", backend)
    forward(x, True, "NCHW", backend, out=x[:])
    np.testing.assert_array_equal(x, expected)


@pytest.mark.parametrize("steps", [(2, 1, 1, 1), (1, 3, 1, 1), (1, 1, 1, 2), (-1, -2, -1, -2)], ids=str)
@pytest.mark.parametrize("in_place", [True, False])
def test_nothing_beside_a_stepped_out_is_written(in_place, steps, backend):
    values = views.make("contiguous")
    out = views.stepped(values, *steps)
    memory = out.base
    between = np.isnan(memory)
    got = forward(out if in_place else values, True, "NCHW", backend, out)
    assert np.isfinite(got).all()
    np.testing.assert_array_equal(np.isnan(memory), between)


def test_disjoint_parts_of_one_memory_may_be_x_and_out(backend):
    memory = np.empty((2, *views.SHAPE), np.float32)
    interleaved = np.empty((*views.SHAPE, 2), np.float32)
    x = views.make("contiguous")
    expected = forward(x, True, "NCHW", backend)
    for source, out in [(memory[0], memory[1]), (interleaved[..., 1], interleaved[..., 0])]:
        source[...] = x
        np.testing.assert_array_equal(forward(source, True, "NCHW", backend, out), expected)
        np.testing.assert_array_equal(source, x)


@pytest.mark.parametrize("training", MODES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [(0, 3), (2, 3, 0, 4), (4, 0), (0, 3, 4, 3)])
def test_an_empty_out_is_as_good_as_any(shape, training, layout, backend):
    x, out = np.empty(shape, np.float32), np.empty(shape, np.float32)
    channels = shape[1 if layout == "NCHW" else -1]
    running = np.zeros(channels), np.ones(channels)
    how = {"training": training, "layout": layout, "backend": backend}
    assert cpubn.batch_norm(x, *running, out=out, **how) is out
    assert cpubn.batch_norm(x, *running, out=x, **how) is x
    assert cpubn.batch_norm_backward(x, x, *running, out=out, **how)[0] is out


@pytest.mark.parametrize("order", "CF")
def test_a_matrix_as_out(order, backend):
    """It stays of two dimensions, however it is reshaped."""
    x = np.asarray(cases.make("offset 1", (5, 3)), order=order)
    with pytest.warns(PendingDeprecationWarning):
        out = np.matrix(np.zeros((5, 3), np.float32, order=order), copy=False)
    expected = cpubn.batch_norm(x, np.zeros(3), np.ones(3), activation="relu", backend=backend)
    assert cpubn.batch_norm(x, np.zeros(3), np.ones(3), activation="relu", out=out, backend=backend) is out
    np.testing.assert_array_equal(np.asarray(out), expected)
