"""What tests in JAX share: the calls of XLA, built in a folder of their own, and the same numbers in both libraries."""

import tempfile
import warnings

import numpy as np
import pytest
from conftest import need_backend

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of its own imports
    import jax

from cpubn.jax import library

jax.config.update("jax_platforms", "cpu")


@pytest.fixture(scope="session")
def registered():
    need_backend("cython")
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("CPUBN_CACHE_DIR", folder)
        library.register()  # loaded, the library outlives its file


@pytest.fixture
def x64():
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)


def given(shape=(5, 6, 4, 3), dtype="float32", channel=1, seed=0):
    """x, dy and a residual; running mean and variance, weight and bias."""
    rng = np.random.default_rng(seed)
    channels = shape[channel]
    samples = [rng.normal(2.0, 3.0, shape).astype(jax.numpy.dtype(dtype)) for _ in range(3)]
    vectors = [rng.normal(size=channels), rng.uniform(0.5, 2.0, channels), *rng.normal(size=(2, channels))]
    return samples, [v.astype("float64" if dtype == "float64" else "float32") for v in vectors]


def same(got, wanted):
    """Bit for bit, of one type."""
    got, wanted = np.asarray(got), np.asarray(wanted)
    assert got.dtype == wanted.dtype
    assert got.shape == wanted.shape
    assert got.tobytes() == wanted.tobytes()
