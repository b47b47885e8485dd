"""float16 and bfloat16 in runs of every length and step, from odd places in memory: the bits of a contiguous copy."""

import cases
import numpy as np
import pytest
import views
from conftest import need_backend, need_instruction_set, running_on
from test_half import half

import cpubn
from cpubn.backends.compiled import variants

assert half  # a fixture
STEPS = (1, 2, 3, -1, -2, -3)
LENGTHS = range(1, 131)


@pytest.fixture(params=[*variants.BY_NAME, "numba"])
def compiled(request):
    """The name of a backend, which is Cython's with each instruction set in turn."""
    if request.param == "numba":
        need_backend("numba")
        yield "numba"
        return
    need_instruction_set(request.param)
    with running_on(request.param):
        yield "cython"


def spaced(values, step, by):
    """A view with this step along the last axis, `by` elements past a multiple of 64 bytes, amid NaN."""
    shape = *values.shape[:-1], values.shape[-1] * abs(step)
    view = views.misaligned(np.full(shape, np.nan, values.dtype), by * values.itemsize)[..., ::step]
    view[...] = values
    return view


def results(x, dy, residual, layout, backend, out=None):
    channels = x.shape[1]
    weight, bias = cases.vectors(channels)
    statistics = np.linspace(-1, 1, channels), np.linspace(0.5, 2, channels)
    how = {"layout": layout, "backend": backend}
    yield "inference", cpubn.batch_norm(x, *statistics, weight, bias, out=out, **how)
    fused = {"activation": "silu", "residual": residual}
    yield "inference, fused", cpubn.batch_norm(x, *statistics, weight, bias, **fused, **how)
    y, batch = cpubn.batch_norm(x, None, None, weight, bias, True, return_moments=True, **how)
    yield from (("training", y), ("mean", batch.mean), ("its low word", batch.low), ("m2", batch.m2))
    names = "dx", "dweight", "dbias"
    for training in (True, False):
        got = cpubn.batch_norm_backward(dy, x, batch, batch.var(), weight, training=training, **how)
        yield from ((f"{name}, training {training}", a) for name, a in zip(names, got, strict=True))


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_runs_of_every_length_and_step(layout, half, compiled):
    wrong = []
    for n in LENGTHS:
        # One channel may stand anywhere in a walk, so that other strides are another walk of it.
        shape = (2, 3, n) if layout == "NCHW" else (7, n + 1)
        arrays = [(2 * cases.rng_of(n, i).standard_normal(shape)).astype(half) for i in range(3)]
        expected = dict(results(*arrays, layout, compiled))
        for i, step in enumerate(STEPS):
            x, dy, residual = (spaced(a, STEPS[i - k], 2 * k + 1) for k, a in enumerate(arrays))
            out = spaced(np.empty_like(arrays[0]), step, 3)
            for name, got in results(x, dy, residual, layout, compiled, out):
                if np.ascontiguousarray(got).tobytes() != expected[name].tobytes():
                    wrong.append((n, step, name))
    assert wrong == []
