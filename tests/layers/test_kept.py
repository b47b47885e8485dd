"""What layers keep for backward: once for each forward, nothing within no_grad, and changes of it are errors."""

import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from test_layers import batches

import cpubn


def test_backward_may_be_asked_twice(backend):
    bn = cpubn.BatchNorm1d(6, backend=backend)
    x, _, dy = batches((40, 6))
    bn(x)
    expected = bn.backward(dy, retain=True)
    once = bn.weight_grad.copy()
    np.testing.assert_array_equal(bn.backward(dy), expected)
    np.testing.assert_array_equal(bn.weight_grad, 2 * once)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("activation", [None, "relu", "sigmoid", "silu"])
def test_there_is_one_backward_for_each_forward(activation, training, backend):
    bn = cpubn.BatchNorm1d(6, activation=activation, backend=backend).train(training)
    x, other, dy = batches((40, 6))
    bn(other)
    bn(x)
    kept = weakref.ref(x)
    bn.backward(dy)
    gradient = bn.weight_grad.copy()
    with pytest.raises(
        RuntimeError, match=r"got none: backward was called already; call .* backward\(dy, retain=True\)"
    ):
        bn.backward(dy)
    np.testing.assert_array_equal(bn.weight_grad, gradient)
    assert kept() is x
    del x
    assert kept() is None


@pytest.mark.parametrize("training", [True, False])
def test_no_grad_keeps_nothing(training, backend):
    bn = cpubn.BatchNorm1d(6, activation="silu", backend=backend).train(training)
    x, residual, dy = batches((40, 6))
    expected = bn(x, residual)
    with cpubn.no_grad():
        np.testing.assert_array_equal(bn(x, residual), expected)
        with pytest.raises(RuntimeError, match=r"its last call was within cpubn.no_grad\(\); call it outside"):
            bn.backward(dy)
    kept = weakref.ref(x)
    del x
    assert kept() is None
    assert bn.num_batches_tracked == (2 if training else 0)

    @cpubn.no_grad()
    def serve(x):
        return bn(x)

    serve(dy)
    with pytest.raises(RuntimeError, match="no_grad"):
        bn.backward(dy)
    bn(dy)
    bn.backward(dy)


def test_no_grad_is_of_its_own_thread():
    bn = cpubn.BatchNorm1d(6)
    x = batches((40, 6))[0]
    with cpubn.no_grad(), ThreadPoolExecutor(1) as pool:
        pool.submit(bn, x).result()
    bn.backward(x)


@pytest.mark.parametrize("change", ["reset_running_stats", "load_state_dict"])
def test_backward_of_an_inference_needs_the_statistics_that_it_saw(change):
    layer = cpubn.BatchNorm1d(2).eval()
    x = np.arange(6, dtype=np.float32).reshape(3, 2)
    layer(x)
    getattr(layer, change)(*([layer.state_dict()] if change == "load_state_dict" else []))
    with pytest.raises(RuntimeError, match="state was loaded, reset or moved since; call the layer again"):
        layer.backward(x)


@pytest.mark.parametrize("activation", [None, "relu", "sigmoid", "tanh", "silu"])
def test_what_was_changed_before_backward_is_an_error(activation, backend):
    bn = cpubn.BatchNorm2d(6, activation=activation, backend=backend)
    x, residual, dy = batches((5, 6, 4, 7))
    for a in (x, x.transpose(0, 2, 3, 1).copy().transpose(0, 3, 1, 2)):
        bn(a, residual)
        a += dy
        with pytest.raises(
            RuntimeError, match=r"backward needs what the last forward read.* got arrays that were changed since"
        ):
            bn.backward(dy)
        a -= 1.0
        y = bn(a, residual)
        y += 1.0
        if activation in ("sigmoid", "tanh"):
            with pytest.raises(
                RuntimeError, match=r"forward read and gave, got arrays that were changed since; change copies"
            ):
                bn.backward(dy)
        else:
            bn.backward(dy)
    if activation == "silu":
        bn(x, residual)
        residual[...] = 0.0
        with pytest.raises(RuntimeError, match=r"backward needs what the last forward read, got arrays"):
            bn.backward(dy)
    assert bn.weight_grad.any() == (activation not in ("sigmoid", "tanh"))


@pytest.mark.parametrize("name", ["weight", "bias"])
@pytest.mark.parametrize("activation", [None, "relu", "silu"])
def test_parameters_that_moved_before_backward_are_an_error(activation, name, backend):
    bn = cpubn.BatchNorm2d(6, activation=activation, backend=backend)
    x, _, dy = batches((5, 6, 4, 7))
    bn(x)
    before = getattr(bn, name).copy()
    getattr(bn, name)[4] -= 0.25
    with pytest.raises(RuntimeError, match="changed since; change copies of them, or call backward first"):
        bn.backward(dy)
    getattr(bn, name)[...] = before
    bn.backward(dy)


@pytest.mark.filterwarnings("ignore:Setting the shape:DeprecationWarning")
@pytest.mark.parametrize("activation", [None, "relu", "sigmoid", "silu"])
@pytest.mark.parametrize("shape", [(5, 6, 28), (6, 5, 28, 1), (5, 6, 7, 4)], ids=str)
def test_another_shape_of_the_same_memory_is_a_change(shape, activation, backend):
    """Signs were read at strides of what was no axis any more, far outside their memory."""
    bn = cpubn.BatchNorm2d(6, activation=activation, backend=backend)
    x, _, dy = batches((5, 6, 4, 7))
    bn(x)
    x.shape = shape
    with pytest.raises(RuntimeError, match="changed since"):
        bn.backward(dy.reshape(shape))
    x.shape = dy.shape
    bn.backward(dy)


@pytest.mark.filterwarnings("ignore:Setting the shape:DeprecationWarning")
@pytest.mark.parametrize("shape", [(5, 6, 28), (6, 5, 28, 1), (5, 6, 7, 4)], ids=str)
def test_signs_are_of_one_shape_alone(shape, backend, monkeypatch):
    """Without a witness, too."""
    monkeypatch.setattr("cpubn.layers.kept.Kept.is_as_it_was", lambda *vectors: True)
    bn = cpubn.BatchNorm2d(6, activation="relu", backend=backend)
    x, _, dy = batches((5, 6, 4, 7))
    bn(x)
    x.shape = shape
    layout = {"weight": None, "bias": None} if shape[1] != 6 else {}
    for name, value in layout.items():
        setattr(bn, name, value)
    with pytest.raises(ValueError, match=r"must have"):
        bn.backward(dy.reshape(shape))


@pytest.mark.parametrize("n", [2, 3, 40, 1000])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_a_change_of_any_of_few_numbers_shows(dtype, n, backend):
    bn = cpubn.BatchNorm1d(1, backend=backend)
    dy = np.ones((n, 1), dtype)
    for at in range(min(n, 3)):
        x = np.arange(1.0, n + 1.0).astype(dtype)[:, None]
        bn(x)
        x[-at] += 1.0
        if n <= 3 or at == 0:
            with pytest.raises(RuntimeError, match="changed since"):
                bn.backward(dy)


@pytest.mark.parametrize("activation", ["relu", "relu6", ("leaky_relu", 0.1)])
@pytest.mark.parametrize("shape", [(2, 3), (6, 3), (3, 3, 2), (1, 3, 9)], ids=str)
def test_signs_of_less_elements_than_lanes(shape, activation, backend):
    x, _, dy = batches(shape)
    bn, other = (cpubn.BatchNorm1d(3, activation=activation, backend=name) for name in (backend, "numpy"))
    np.testing.assert_allclose(bn(x), other(x), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(bn.backward(dy), other.backward(dy), rtol=1e-4, atol=1e-5)
