"""Memory: beside its output a call takes at most 1 MB and 2 KB a channel, so no input that can be walked is copied."""

import tracemalloc

import cases
import numpy as np
import pytest
import views
from conftest import need_backend

import cpubn
from cpubn.backends.choice import HOST_BACKENDS

# 2 MB: a copy, in float32 or float64, of x or dy could not hide in the allowance.
CHANNELS = 16
SHAPE = (8, CHANNELS, 64, 64)
X = cases.rng_of("memory").standard_normal(SHAPE).astype(np.float32)
WALKABLE = {
    "contiguous": lambda: X.copy(),
    "channels last": lambda: views.in_order(X, (0, 2, 3, 1)),
    "channels first": lambda: views.in_order(X, (1, 0, 2, 3)),
    "every second sample": lambda: views.stepped(X, 2, 1, 1, 1),
    "every third channel": lambda: views.stepped(X, 1, 3, 1, 1),
    "every second column": lambda: views.stepped(X, 1, 1, 1, 2),
    "samples reversed": lambda: views.stepped(X, -1, 1, 1, 1),
    "broadcast over samples": lambda: np.broadcast_to(X[:1], SHAPE),
    "broadcast of one value a channel": lambda: np.broadcast_to(X[:1, :, :1, :1], SHAPE),
    "misaligned by an element": lambda: views.misaligned(X, 4),
    "read-only": lambda: views.read_only(X),
}
# Of no (outer, channel, inner) strides: the compiled backend alone walks them as they are.
APART = {
    "cropped": lambda: np.tile(X, (1, 1, 1, 2))[..., :64],
    "cropped and channels last": lambda: views.in_order(np.tile(X, (1, 1, 1, 2)), (0, 2, 3, 1))[..., :64],
    "columns reversed": lambda: X.copy()[..., ::-1],
    "rows reversed": lambda: X.copy()[:, :, ::-1],
    "steps on both axes": lambda: views.stepped(X, 1, 1, 2, 2),
    "byte-swapped": lambda: views.swapped(X),
    "misaligned by a byte": lambda: views.misaligned(X, 1),
}
CASES = [(name, backend) for name in WALKABLE for backend in HOST_BACKENDS] + [(name, "cython") for name in APART]


def running():
    return np.zeros(CHANNELS), np.ones(CHANNELS)


@pytest.fixture
def x(name, backend):
    need_backend(backend)
    return (WALKABLE | APART)[name]()


def peak_of(call):
    call()  # whatever is made once, compiled code above all
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    call()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak - before


def allowance(channels, outputs):
    return outputs * X.nbytes + 2**20 + 2048 * channels


@pytest.mark.parametrize("given_out", [True, False])
@pytest.mark.parametrize(("name", "backend"), CASES)
def test_forward_takes_little_beside_its_output(x, given_out, backend):
    out = np.empty_like(x) if given_out else None
    for training in (True, False):
        got = peak_of(lambda t=training: cpubn.batch_norm(x, *running(), training=t, out=out, backend=backend))
        assert got <= allowance(CHANNELS, 0 if given_out else 1)


@pytest.mark.parametrize(("name", "backend"), CASES)
def test_backward_takes_little_beside_its_output(x, backend):
    for training in (True, False):
        got = peak_of(lambda t=training: cpubn.batch_norm_backward(x, x, *running(), training=t, backend=backend))
        assert got <= allowance(CHANNELS, 1)


@pytest.mark.parametrize(("name", "backend"), CASES)
def test_moments_take_little(x, backend):
    assert peak_of(lambda: cpubn.moments(x, backend=backend)) <= allowance(CHANNELS, 0)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_many_channels_take_two_kilobytes_each(layout, backend):
    x = cases.make("offset 1", (300, 7000, 1), layout)
    running = np.zeros(7000), np.ones(7000)
    got = peak_of(lambda: cpubn.batch_norm(x, *running, training=True, layout=layout, backend=backend))
    assert got <= x.nbytes + 2**20 + 2048 * 7000
    dy = x.copy()
    got = peak_of(lambda: cpubn.batch_norm_backward(dy, x, *running, layout=layout, backend=backend))
    assert got <= x.nbytes + 2**20 + 2048 * 7000


def test_dtypes_that_are_refused_are_not_kept():
    """Ten thousand types of records took 6.6 MB."""

    def refuse(k):
        kind = np.dtype([(f"f{k}", "f4"), ("x", "f8")])
        for call in (
            lambda: cpubn.moments(np.zeros(2, kind)),
            lambda: cpubn.batch_norm(np.ones((4, 3)), np.zeros(3), np.ones(3), dtype=kind),
        ):
            try:
                call()
            except TypeError:
                continue
            raise AssertionError("a record was taken")

    for k in range(200):
        refuse(k)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for k in range(200, 10_200):
        refuse(k)
    after = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert after - before < 200_000
