"""Memory and streams: what is used again, who waits for whom, and that no bits hang on what lay there before."""

import gc
import pickle

import cases
import gpu
import numpy as np
import pytest
from gpu import get, put

import cpubn
from cpubn.backends.gpu import memory, target

pytestmark = gpu.SILENT
RNG = np.random.default_rng(5)
X, DY = RNG.standard_normal((2, 4, 3, 6)).astype(np.float32)


@pytest.fixture
def waits(monkeypatch):
    """Which stream waited for which."""
    noted = []
    real = target.wait

    def wait(stream, other, device):
        noted.append((stream, other))
        real(stream, other, device)

    monkeypatch.setattr(target, "wait", wait)
    return noted


def on(stream, a):
    return gpu.Shown(a, stream=stream)


def test_the_stream_of_x_waits_for_the_others_and_they_for_what_it_wrote(waits):
    one, two = gpu.new_stream(), gpu.new_stream()
    running = on(two, np.zeros(3)), on(two, np.ones(3))
    cpubn.batch_norm(on(one, X), *running, training=True)
    assert set(waits[:2]) == {(one, two)}
    assert set(waits[2:]) == {(two, one)}
    waits.clear()
    out = on(two, np.zeros_like(X))
    assert cpubn.batch_norm(on(one, X), None, None, training=True, out=out) is out
    assert (waits[0], waits[-1]) == ((one, two), (two, one))
    waits.clear()
    cpubn.batch_norm(on(one, X), None, None, put(np.ones(3)), training=True)
    assert waits == [(one, 0)], "the default stream, too"


def test_on_one_stream_nothing_waits(waits):
    one = gpu.new_stream()
    cpubn.batch_norm(on(one, X), on(one, np.zeros(3)), on(one, np.ones(3)), training=True)
    bn = cpubn.BatchNorm1d(3, activation="relu").to_device()
    bn(put(X))
    bn.backward(put(DY))
    assert waits == []


@pytest.mark.parametrize("activation", ["relu", "silu"])
def test_backward_waits_for_the_gradient(waits, activation):
    one, two = gpu.new_stream(), gpu.new_stream()
    bn = cpubn.BatchNorm1d(3, activation=activation).to_device()
    bn(on(one, X))
    waits.clear()
    bn.backward(on(two, DY))
    assert (one, two) in waits
    assert (0, one) in waits, "the layer's gradients are on the default stream"


def test_memory_is_used_again(monkeypatch):
    asked = []
    real = target.new
    monkeypatch.setattr(target, "new", lambda *arguments: asked.append(arguments) or real(*arguments))
    x, dy = put(X), put(DY)
    bn = cpubn.BatchNorm1d(3).to_device()
    for _ in range(3):
        asked.clear()
        bn(x)
        bn.backward(dy)
    assert asked == []


def test_memory_of_a_result_that_dies_in_a_cycle_is_kept():
    x, vectors = put(X), put((np.zeros(3), np.ones(3)))
    ring = [cpubn.batch_norm(x, *vectors)]
    ring.append(ring)
    del ring
    gc.collect()
    for _ in range(30):
        put(np.ones(3))
    np.testing.assert_array_equal(get(cpubn.batch_norm(x, *vectors)), get(cpubn.batch_norm(x, *vectors)))


def test_no_more_blocks_are_kept_than_may_be(monkeypatch):
    monkeypatch.setattr(memory.Block.__del__, "__defaults__", ({}, {}, -1))
    block = memory.Block(256, 0, 0)
    monkeypatch.setattr(memory.Block.__del__, "__defaults__", (memory._memory, memory._unused, -1))
    address = block.address
    del block
    assert address not in memory._memory


@pytest.mark.parametrize("activation", ["sigmoid", "tanh"])
def test_no_bits_hang_on_what_a_workspace_held(activation):
    from cpubn.backends.gpu import vectors

    x, dy = put(X), put(DY)
    bn = cpubn.BatchNorm1d(3, activation=activation).to_device()
    got = []
    for poison in (1.0, 1e-300, np.nan):
        for kept in vars(memory._workspaces).values():
            vectors.fill(kept.reshape(-1), poison)
        bn(x)
        got.append(get(bn.backward(dy)))
    for each in got[1:]:
        np.testing.assert_array_equal(each, got[0])


def test_more_channels_than_threads(monkeypatch):
    from cpubn.backends.gpu import passes

    monkeypatch.setattr(passes, "ENOUGH", 1)
    x = RNG.standard_normal((3, gpu.tiles.THREADS * 2 + 3)).astype(np.float32)
    running = put((np.zeros(x.shape[1]), np.ones(x.shape[1])))
    cpubn.batch_norm(put(x), *running, training=True)
    np.testing.assert_allclose(get(running[0]), 0.1 * x.mean(0, dtype=np.float64), rtol=1e-9)
    got, expected = (
        cpubn.batch_norm(*given, *vectors) for given, vectors in (((put(x),), running), ((x,), get(running)))
    )
    np.testing.assert_allclose(get(got), expected, rtol=1e-6, atol=1e-6)


def test_moments_are_pickled_on_the_host():
    x = cases.make("offset 1", (4, 3, 5))
    m = cpubn.moments(put(x))
    again = pickle.loads(pickle.dumps(m))
    assert isinstance(again.mean, np.ndarray)
    np.testing.assert_array_equal(again.mean, get(m.mean))
    np.testing.assert_array_equal((again + again).var(1), get((m + m).var(1)))


def test_gradients_of_the_smallest_numbers():
    """x - mean keeps nothing of the mean's low word in float32: such a chunk is summed in float64."""
    x = np.float32([1, 2]).reshape(2, 1) * np.float32(2.0**-149)
    dy = np.float32([1e30, 2e30]).reshape(2, 1)
    mean, var = x.mean(0, dtype=np.float64), np.ones(1)
    _, got, _ = cpubn.batch_norm_backward(*put((dy, x, mean, var)), eps=0.0, training=False)
    expected = (dy.astype(np.float64) * (x - mean)).sum(0)
    np.testing.assert_allclose(get(got), expected, rtol=1e-6)
