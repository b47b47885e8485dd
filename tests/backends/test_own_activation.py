"""A user's own function, compiled by Numba, fused into the loops of its backend; with its derivative in training."""

import copy
import pickle
import re

import cases
import numpy as np
import oracle
import pytest
from conftest import need_backend, python

import cpubn

need_backend("numba")

import numba


@numba.njit
def bent(z):
    """sqrt(z**2 + 1) + z / 2, nothing that has a name here."""
    return np.sqrt(z * z + 1) + z / 2


@numba.njit
def bent_derivative(z):
    return z / np.sqrt(z * z + 1) + 0.5


def expected_of(x, running, residual):
    shape = [1, -1] + [1] * (x.ndim - 2)
    mean, var = (v.reshape(shape) for v in running)
    z = (x.astype(float) - mean) / np.sqrt(var + 1e-5) + (0 if residual is None else residual)
    return bent.py_func(z)


def arrays(dtype=np.float32):
    rng = cases.rng_of("own")
    x, residual, dy = rng.standard_normal((3, 4, 6, 5, 8)).astype(dtype)
    return x, residual, dy, (rng.standard_normal(6), rng.uniform(0.5, 2, 6))


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_every_way_to_pass_it(dtype, threads_restored):
    """Alone in inference; it chooses the backend by itself."""
    x, residual, _, running = arrays(dtype)
    close = {"rtol": 2e-3 if dtype == np.float16 else 2e-6, "atol": 1e-6}
    frozen = cpubn.FrozenBatchNorm(**cases.named(*running), activation=bent)
    assert frozen.backend == "numba"
    bn = cpubn.BatchNorm2d(6, activation=(bent, bent_derivative)).eval()
    assert bn.backend == "numba"
    bn.running_mean[...], bn.running_var[...] = running
    for added in (None, residual):
        expected = expected_of(x, running, added)
        for activation in (bent, (bent, bent_derivative), [bent, bent_derivative]):
            got = cpubn.batch_norm(x, *running, activation=activation, residual=added)
            assert got.dtype == dtype
            np.testing.assert_allclose(got, expected, **close)
        for threads in (1, 2):
            cpubn.set_num_threads(threads)
            np.testing.assert_array_equal(frozen(x, added), got)
        np.testing.assert_array_equal(bn(x, added), got)
        np.testing.assert_array_equal(bn.freeze()(x, added), got)
        out = np.empty_like(x)
        assert cpubn.batch_norm(x, *running, activation=bent, residual=added, out=out, backend="numba") is out
        np.testing.assert_array_equal(out, got)


def test_another_type_and_layout():
    x, _, _, running = arrays()
    whole = (x * 20).astype(np.int8)
    got = cpubn.batch_norm(whole, *running, activation=bent, dtype="float32", out_layout="NHWC")
    np.testing.assert_allclose(got.transpose(0, 3, 1, 2), expected_of(whole, running, None), rtol=1e-5, atol=1e-6)


def test_training():
    """The gradient of what was activated is dy * derivative(z), and from there on it is batch norm's."""
    x, residual, dy, _ = arrays()
    bn = cpubn.BatchNorm2d(6, activation=(bent, bent_derivative))
    bn.weight[...], bn.bias[...] = cases.vectors(6)
    bn.weight[...] = np.clip(bn.weight, -3, 3)
    y = bn(x, residual)
    dx = bn.backward(dy)
    moments = cpubn.moments(x)
    wide = [a.astype(float) for a in (dy, x, residual)]
    z = oracle.batch_norm(wide[1], moments.mean, moments.var(), bn.weight, bn.bias).y + wide[2]
    np.testing.assert_allclose(y, bent.py_func(z).astype(float), rtol=1e-5, atol=1e-5)
    g = (wide[0] * bent_derivative.py_func(z)).astype(float)
    expected = oracle.batch_norm_backward(g, wide[1], moments.mean, moments.var(), bn.weight)
    for got in (
        (dx, bn.weight_grad, bn.bias_grad, bn.residual_grad),
        cpubn.batch_norm_backward(
            *(dy, x, moments.mean, moments.var(), bn.weight),
            bias=bn.bias,
            activation=(bent, bent_derivative),
            residual=residual,
        ),
    ):
        for a, b in zip(got, (*expected[:3], g), strict=True):
            np.testing.assert_allclose(a, b.astype(float), rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("backend", ["cython", "numpy"])
def test_another_backend_is_refused(backend):
    need_backend(backend)
    x, _, _, running = arrays()
    for make in (
        lambda: cpubn.batch_norm(x, *running, activation=bent, backend=backend),
        lambda: cpubn.BatchNorm2d(6, activation=(bent, bent_derivative), backend=backend),
        lambda: cpubn.FrozenBatchNorm(**cases.named(*running), activation=bent, backend=backend),
    ):
        with pytest.raises(ValueError, match=f"backend must be 'numba' for an activation .*got '{backend}'.*leave"):
            make()


def test_a_default_backend_does_not_stand_in_its_way():
    x, _, _, running = arrays()
    with cpubn.use_backend("numpy"):
        got = cpubn.batch_norm(x, *running, activation=bent)
    np.testing.assert_array_equal(got, cpubn.batch_norm(x, *running, activation=bent))


def test_a_function_alone_has_no_gradient():
    """Named early: in backward before dx is written, in a layer by its first use in training."""
    x, _, dy, running = arrays()
    out = np.zeros_like(x)
    with pytest.raises(ValueError, match=r"activation must come with its derivative .*got .*pair"):
        cpubn.batch_norm_backward(dy, x, *running, activation=bent, out=out)
    np.testing.assert_array_equal(out, 0)
    bn = cpubn.BatchNorm2d(6, activation=bent)
    before = bn.state_dict()
    with pytest.raises(ValueError, match=r"activation must come with its derivative .*got .*pair"):
        bn(x)
    for name, expected in before.items():
        np.testing.assert_array_equal(bn.state_dict()[name], expected)
    with cpubn.no_grad():
        bn(x)
    assert bn.num_batches_tracked == 1


@numba.njit
def strict(z):
    if z > 1:
        raise ValueError("beyond 1")
    return z


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_its_errors_pass_through(threads, threads_restored):
    x = cases.rng_of("strict").standard_normal((64, 64, 28, 28)).astype(np.float32)
    running = np.zeros(64), np.ones(64)
    cpubn.set_num_threads(threads)
    with pytest.raises(ValueError, match="beyond 1"):
        cpubn.batch_norm(x, *running, training=True, activation=strict)
    np.testing.assert_array_equal(running, [np.zeros(64), np.ones(64)])


@pytest.mark.parametrize(
    "value", [lambda z: z, (lambda z: z, bent), (bent, lambda z: z), (bent, 3), (bent, bent, bent), (bent, None)]
)
def test_what_is_no_pair_of_compiled_functions(value):
    x, _, _, running = arrays()
    with pytest.raises((TypeError, ValueError), match=f"activation must be .*got {re.escape(repr(value))}"):
        cpubn.batch_norm(x, *running, activation=value)


def test_a_function_that_cannot_be_compiled_for_a_number():
    """Numba's own error tells what is wrong with it; the output and the statistics are as they were."""

    @numba.njit
    def wrong(z):
        return z.nothing

    x, _, _, running = arrays()
    out, moved = np.zeros_like(x), [v.copy() for v in running]
    with pytest.raises(Exception, match="nothing"):
        cpubn.batch_norm(x, *moved, training=True, activation=wrong, out=out)
    np.testing.assert_array_equal(out, 0)
    np.testing.assert_array_equal(moved, running)


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda bn: pickle.loads(pickle.dumps(bn))])
def test_copies_and_pickles(duplicate):
    x, _, dy, running = arrays()
    bn = cpubn.BatchNorm2d(6, activation=(bent, bent_derivative))
    expected = bn(x)
    dx = bn.backward(dy)
    twin = duplicate(bn)
    np.testing.assert_array_equal(twin(x), expected)
    np.testing.assert_array_equal(twin.backward(dy), dx)
    frozen = cpubn.FrozenBatchNorm(**cases.named(*running), activation=bent)
    np.testing.assert_array_equal(duplicate(frozen)(x), frozen(x))


@pytest.mark.parametrize("activation", cases.ACTIVATIONS, ids=str)
@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda bn: pickle.loads(pickle.dumps(bn))])
def test_copies_and_pickles_of_named_ones(duplicate, activation):
    x, residual, dy, running = arrays()
    bn = cpubn.BatchNorm2d(6, activation=activation)
    expected = bn(x, residual), bn.backward(dy), bn.residual_grad
    twin = duplicate(bn)
    assert repr(twin) == repr(bn)
    got = twin(x, residual), twin.backward(dy), twin.residual_grad
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_array_equal(a, b)
    frozen = cpubn.FrozenBatchNorm(**cases.named(*running), activation=activation, out_layout="NHWC")
    np.testing.assert_array_equal(duplicate(frozen)(x), frozen(x))
    assert repr(activation if isinstance(activation, str) else activation[0]) in repr(bn)


def test_without_numba_the_message_names_it():
    program = "\n".join(
        (
            "import sys; sys.modules['numba'] = None; import numpy as np, cpubn",
            "def f(z): return z",
            "f.py_func = f",
            "cpubn.batch_norm(np.ones((2, 1)), np.zeros(1), np.ones(1), activation=f)",
        )
    )
    assert "numba" in python(program)
