"""Arrays that NumPy does not know, by the buffer protocol, __array_interface__ and DLPack: read and written to."""

import array

import numpy as np
import pytest

import cpubn

C = 3
X = np.random.default_rng(0).normal(2, 3, (4, C, 5)).astype(np.float32)


class OfDLPack:
    """What has nothing else."""

    def __init__(self, a):
        self.a = a

    def __dlpack__(self, **options):
        return self.a.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.a.__dlpack_device__()


class OfInterface:
    def __init__(self, a):
        self.a = a
        self.__array_interface__ = a.__array_interface__


class OfCopies:
    def __init__(self, a):
        self.a = a

    def __array__(self, dtype=None, copy=None):
        return np.array(self.a, dtype)


class Elsewhere(OfDLPack):
    def __dlpack__(self, **options):
        raise BufferError("it is on another device\nand more")


KINDS = {"DLPack": OfDLPack, "interface": OfInterface, "buffer": memoryview}
VECTORS = np.array([[0.5, -1.0, 2.0], [1.0, 2.0, 0.5], [1.5, -2.0, 1.0], [0.0, 1.0, -1.0]])


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_read_and_written_to(backend, kind):
    expected = cpubn.batch_norm(X, *VECTORS, backend=backend)
    result = np.empty_like(X)
    out = kind(result)
    assert cpubn.batch_norm(kind(X), *map(kind, VECTORS), out=out, backend=backend) is out
    np.testing.assert_array_equal(result, expected)
    running, plain = [np.zeros(C), np.ones(C)], [np.zeros(C), np.ones(C)]
    cpubn.batch_norm(kind(X), *map(kind, running), training=True, backend=backend)
    cpubn.batch_norm(X, *plain, training=True, backend=backend)
    np.testing.assert_array_equal(running, plain)


def test_arrays_of_the_standard_library(backend):
    mean, var = array.array("d", [0.0] * C), array.array("f", [1.0] * C)
    cpubn.batch_norm(X, mean, var, training=True, backend=backend)
    batch = cpubn.moments(X)
    np.testing.assert_allclose(mean, 0.1 * batch.mean, rtol=1e-6)
    np.testing.assert_allclose(var, 0.9 + 0.1 * batch.var(ddof=1), rtol=1e-6)


def test_copies_are_read_and_not_written_to(backend):
    y = cpubn.batch_norm(OfCopies(X), *map(OfCopies, VECTORS), backend=backend)
    np.testing.assert_array_equal(y, cpubn.batch_norm(X, *VECTORS, backend=backend))
    with pytest.raises(TypeError, match=r"running_mean must be an array.*got OfCopies"):
        cpubn.batch_norm(X, OfCopies(np.zeros(C)), OfCopies(np.ones(C)), training=True, backend=backend)
    with pytest.raises(TypeError, match="out must be a writable array, got OfCopies"):
        cpubn.batch_norm(X, *VECTORS, out=OfCopies(np.empty_like(X)), backend=backend)


def test_memory_of_another_device_is_refused(backend):
    with pytest.raises(TypeError, match="array in the CPU's memory, got Elsewhere: it is on another device; pass"):
        cpubn.batch_norm(Elsewhere(X), *VECTORS, backend=backend)


def test_a_layer_shares_what_it_is_given():
    layer, mean = cpubn.BatchNorm1d(C), np.zeros(C)
    layer.running_mean = memoryview(mean)
    layer(X)
    assert (mean != 0).all()
