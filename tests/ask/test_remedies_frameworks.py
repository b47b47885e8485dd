"""What a message says to do with what other frameworks have in place of an array of numbers."""

import re
import warnings

import numpy as np
import pytest
from conftest import need_library

import cpubn

for name in ("torch", "jax"):
    need_library(name, "frameworks")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of their own imports
    import jax
    import torch

PLAIN = np.arange(12, dtype=np.float32).reshape(4, 3)


@pytest.mark.parametrize(
    ("make", "way"),
    [
        (lambda x: torch.tensor(x, requires_grad=True), "x.detach().cpu().numpy()"),
        (lambda x: torch.tensor(x).to_sparse(), "x.to_dense().detach().cpu().numpy()"),
    ],
    ids=["with a gradient", "sparse"],
)
def test_tensors_that_numpy_cannot_read(make, way):
    x = make(PLAIN)
    with pytest.raises(TypeError) as caught:
        cpubn.moments(x)
    assert str(caught.value).endswith(f"; pass {way}")
    np.testing.assert_array_equal(cpubn.moments(eval(way, {"x": x})).mean, PLAIN.mean(0))


@pytest.mark.parametrize(
    "call",
    [
        jax.jit(lambda x: cpubn.batch_norm(x, np.zeros(3), np.ones(3))),
        jax.jit(lambda x: cpubn.batch_norm(PLAIN, x[0], np.ones(3))),
        jax.jit(lambda x: cpubn.moments([x, x])),
        jax.grad(lambda x: cpubn.moments(x).mean.sum()),
        jax.vmap(cpubn.BatchNorm1d(3)),
    ],
    ids=["jit", "a vector", "in a list", "grad", "vmap"],
)
def test_a_tracer_of_jax_is_refused_in_one_line(call):
    with pytest.raises(TypeError) as caught:
        call(jax.numpy.ones((4, 3)))
    message = caught.value.args[0]  # without the notes that JAX puts under it
    assert re.fullmatch(r"\w+ must be an array, got a JAX tracer, .*outside of jit, grad and vmap, .*", message)
    assert caught.value.__suppress_context__  # JAX's own words
