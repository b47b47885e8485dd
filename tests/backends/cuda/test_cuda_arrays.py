"""What kinds of arrays on a GPU are taken, with which strides and on which stream, and what is given back."""

import cases
import gpu
import numpy as np
import oracle
import pytest
import views
from gpu import Shown, get, put

import cpubn

pytestmark = gpu.SILENT
X = cases.make("offset 100", (4, 3, 5))
RUNNING = cases.running(X)
EXPECTED = oracle.batch_norm(X, *RUNNING)
OLD = {"version": 2}  # without a stream
STRIDES = [
    *("channels last", "Fortran order", "every second sample", "every third channel", "steps on every axis"),
    *("channels reversed", "columns reversed", "everything reversed", "channels last, reversed"),
    *("over samples", "over columns", "of one value a channel", "windows"),
]


def normalize(x, **how):
    return cpubn.batch_norm(x, *put(RUNNING), **how)


@pytest.mark.parametrize("name", STRIDES)
def test_views_of_every_stride(name):
    """Training of the memory as it lies, and inference into such a view."""
    x = views.make(name)[:2, :, :3, :4]
    expected = oracle.batch_norm(x)
    y, batch = cpubn.batch_norm(Shown(x), None, None, training=True, return_moments=True)
    assert oracle.worst(get(y), expected.y, expected.bound) <= 1
    assert y.shape == x.shape
    if name in views.WRITABLE:
        out = Shown(np.zeros_like(x) if x.flags.c_contiguous else x)
        assert cpubn.batch_norm(put(x), batch.mean, batch.var(), out=out) is out
        assert oracle.worst(get(out), expected.y, expected.bound) <= 1


def test_an_output_is_written_and_nothing_around_it():
    x = views.make("steps on every axis")
    around = views.stepped(x, 2, 3, 2, 3)
    out = Shown(around)
    cpubn.batch_norm(put(x), *put((np.zeros(6), np.ones(6))), eps=0, activation=("clip", 0, 0), out=out)
    memory = np.frombuffer(out.memory.copy_to_host(), np.float32)
    np.testing.assert_array_equal(get(out), 0)
    assert np.count_nonzero(memory == 0) == x.size


def test_slices_and_transposes_of_numba():
    x = put(X)
    got = normalize(x[1:, :, ::2])
    assert oracle.worst(get(got), EXPECTED.y[1:, :, ::2], EXPECTED.bound[1:, :, ::2]) <= 1
    flat = X[:, :, 0]
    expected = oracle.batch_norm(flat, *RUNNING)
    got = normalize(put(flat.T).T)
    assert oracle.worst(get(got), expected.y, expected.bound) <= 1


def test_a_new_output_keeps_the_order_of_memory():
    got = normalize(Shown(X.transpose(0, 2, 1).copy().transpose(0, 2, 1)))
    assert np.argsort(got.strides).tolist() == [1, 2, 0]
    assert normalize(put(X)).strides == X.strides


@pytest.mark.parametrize("changes", [{}, {"stream": None}, {"stream": 1}, OLD, {"strides": None}], ids=str)
def test_an_object_with_nothing_but_the_interface_is_taken(changes):
    """As CuPy's arrays and torch's tensors are; what is given back is Numba's, or `out` itself."""
    x = Shown(X, **changes)
    got = normalize(x)
    assert gpu.is_ours(got)
    assert oracle.worst(get(got), EXPECTED.y, EXPECTED.bound) <= 1
    out = Shown(np.empty_like(X), **changes)
    assert normalize(x, out=out) is out
    np.testing.assert_array_equal(get(out), get(got))
    vectors = [Shown(v, **changes) for v in RUNNING]
    np.testing.assert_array_equal(get(cpubn.batch_norm(x, *vectors)), get(got))
    cpubn.batch_norm(x, *vectors, training=True, momentum=1)
    np.testing.assert_allclose(get(vectors[0]), oracle.moments(X)[0].astype(float), rtol=1e-6)


def test_bfloat16_has_no_name_in_the_interface():
    x = X.astype(gpu.BFLOAT16)
    shown = Shown(x)
    assert shown.__cuda_array_interface__["typestr"] == "<V2"
    got = normalize(shown)
    expected = oracle.batch_norm(x, *RUNNING)
    assert get(got).dtype == gpu.BFLOAT16
    assert oracle.worst(get(got), expected.y, expected.bound) <= 1


def test_results_stand_on_the_stream_of_x():
    """Vectors may come from another stream, for which that of x then waits."""
    first, second = gpu.new_stream(), gpu.new_stream()
    x, running = Shown(X, stream=first), [Shown(v, stream=second) for v in RUNNING]
    y, batch = cpubn.batch_norm(x, *running, training=True, return_moments=True)
    for got in (y, batch.mean, batch.var(), normalize(x)):
        assert gpu.stream_of(got) == first
    expected = oracle.batch_norm(X)
    assert oracle.worst(get(y), expected.y, expected.bound) <= 1


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64])
@pytest.mark.parametrize("by", [1, 3])
def test_the_same_bits_at_every_address(by, dtype):
    x = X.astype(dtype)
    expected = get(cpubn.batch_norm(put(x), None, None, training=True))
    got = get(cpubn.batch_norm(Shown(x, by * x.itemsize), None, None, training=True))
    np.testing.assert_array_equal(got, expected)
    out = Shown(np.empty_like(x), by * x.itemsize)
    cpubn.batch_norm(put(x), None, None, training=True, out=out)
    np.testing.assert_array_equal(get(out), expected)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("activation", [None, "silu"])
def test_the_output_may_be_x_or_the_residual(activation, training):
    residual = cases.make("offset 1", X.shape)
    how = {"training": training, "activation": activation}
    expected = get(normalize(put(X), residual=put(residual), **how))
    x, added = put(X), put(residual)
    assert normalize(x, residual=added, out=x, **how) is x
    np.testing.assert_array_equal(get(x), expected)
    assert normalize(put(X), residual=added, out=added, **how) is added
    np.testing.assert_array_equal(get(added), expected)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("layout", "out_layout"), [("NCHW", "NHWC"), ("NHWC", "NCHW")])
def test_the_output_may_be_of_the_other_layout(layout, out_layout, training):
    shape = (2, 3, 2, 4)
    x = cases.make("offset 100", shape, layout)
    running = cases.running(x, layout)
    exact = oracle.batch_norm(x, *((None, None) if training else running), layout=layout)
    to = (0, 2, 3, 1) if layout == "NCHW" else (0, 3, 1, 2)
    residual = cases.make("offset 1", shape, out_layout)
    added = oracle.fused(exact._replace(y=exact.y.transpose(to), bound=exact.bound.transpose(to)), None, residual)
    y = cpubn.batch_norm(
        put(x), *put(running), training=training, layout=layout, out_layout=out_layout, residual=put(residual)
    )
    got = get(y)
    assert got.flags.c_contiguous
    assert oracle.worst(got, added.y, added.bound) <= 1
