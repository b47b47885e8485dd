"""Formulas on lanes and on scalars against NumPy, what control.py does around them, and all of it on other CPUs."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import cases
import numpy as np
import pytest
from conftest import need_backend
from lane_values import REALS, assert_same, lanes_in, quietly, values

from cpubn.maths import activations, algebra

need_backend("numba")

from numba import njit, prange

from cpubn.backends.jit import formulas
from cpubn.backends.jit.control import calm, each, restore
from cpubn.backends.jit.samples import load, store

compiled = njit(error_model="numpy", nogil=True)
assert formulas


@pytest.mark.parametrize("real", REALS)
@pytest.mark.parametrize("function", activations.FORMULAS, ids=lambda function: function.__name__)
def test_activations(function, real):
    @compiled
    def kernel(x, y, n, step, low, high):
        for i in range(0, n, step):
            store(y, i, function(load(x, i), low, high))

    x, low, high = values(real, "activations"), real(-0.125), real(2.5)
    y = np.zeros_like(x)
    kernel(x, y, x.size, lanes_in(real), low, high)
    assert_same(y, quietly(function, x, low, high))


def test_algebra():
    @compiled
    def on_scalars(a, out):
        for i in range(a.shape[1]):
            mean, low, m2 = algebra.close(100.0, a[0, i], a[1, i], a[2, i])
            centre = algebra.centre(mean, np.float32)
            scale, shift = algebra.affine(mean, low, m2 / 100.0, a[3, i], a[4, i], 1e-5, centre)
            r, s, k, _ = algebra.gradient(100.0, mean, low, m2 / 100.0, a[3, i], 1e-5, centre, a[1, i], a[4, i])
            wide = algebra.forward_is_wide(centre, scale, shift), algebra.backward_is_wide(centre, r, s, k, scale)
            results = mean, low, m2, centre, scale, shift, r, s, k, 1.0 * wide[0], 1.0 * wide[1]
            for j in range(len(results)):
                out[i, j] = results[j]

    a = cases.rng_of("algebra").normal(size=(5, 100)) * 10.0 ** np.linspace(-40, 40, 100)
    got, want = np.zeros((100, 11)), np.zeros((100, 11))
    on_scalars(a, got)
    quietly(on_scalars.py_func, a, want)
    assert_same(got, want)


def test_each():
    @njit
    def bent(z):
        return z * 0.5 if z > 0 else np.sqrt(z * z + 1)

    @njit(error_model="numpy", nogil=True, parallel=True)
    def kernel(function, x, y, n, step):
        for part in prange(x.size // n):
            for i in range(part * n, part * n + n, step):
                store(y, i, each(function, load(x, i)))

    for real in REALS:
        x = cases.rng_of("each").normal(size=256).astype(real)
        y = np.zeros_like(x)
        kernel(bent, x, y, 128, lanes_in(real))
        np.testing.assert_array_equal(y, np.array([bent(z) for z in x], real))


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="the control register of x86")
def test_control():
    set_register, calmed = njit(lambda value: restore(value)), njit(lambda: calm())
    small = np.full(4, np.finfo(np.float32).tiny)
    calmed()
    set_register(0x9FC0)  # as a library that wants no subnormal numbers
    try:
        flushed = (small * np.float32(0.5)).tolist()
        assert calmed() & ~0x3F == 0x9FC0 & ~0x3F  # the lowest bits: what has happened
        assert calmed() & ~0x3F == 0x1F80
        assert flushed == [0] * 4
        assert np.all(small * np.float32(0.5) > 0)
    finally:
        set_register(0x1F80)


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="sets of x86")
@pytest.mark.skipif("NUMBA_CPU_NAME" in os.environ, reason="is what this test runs")
@pytest.mark.parametrize("cpu", ["x86-64", "haswell"])
def test_other_sets(cpu):
    chosen = {"NUMBA_CPU_NAME": cpu, "NUMBA_CPU_FEATURES": ""}
    files = sorted(map(str, Path(__file__).parent.glob("test_lane*.py")))
    command = [sys.executable, "-m", "pytest", "-q", "-k", "not activations", *files]
    result = subprocess.run(command, env=os.environ | chosen, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout
