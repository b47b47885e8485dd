"""Recalibration on the workers of a cluster: the bits of one process, and what goes wrong there."""

import numpy as np
import pytest
from conftest import need_library

for library in ("dask", "distributed"):
    need_library(library, "frameworks")
import dask.array
from dask.distributed import Client

import cpubn.dask

C = 4
X = np.random.default_rng(1).normal(size=(230, C)) * np.linspace(1, 9, 230)[:, None] + np.arange(C) * 10


class Network:
    """norm -> matrix -> norm, whose first norm may be called twice, and of which the second sees some batches alone."""

    def __init__(self, twice=False, only=lambda x: True):
        self.norms = {name: cpubn.BatchNorm1d(C, activation="relu") for name in "ab"}
        self.matrix, self.twice, self.only = np.random.default_rng(0).normal(size=(C, C)), twice, only

    def __call__(self, x):
        y = self.norms["a"](x)
        y = self.norms["a"](y) if self.twice else y
        return self.norms["b"](y @ self.matrix) if self.only(x) else y


def test_without_a_client():
    bn = cpubn.BatchNorm1d(C)
    with pytest.raises(RuntimeError, match=r"needs a client of dask.distributed, got none; .*call cpubn.recalibrate"):
        cpubn.dask.recalibrate(bn, bn, dask.array.from_array(X, chunks=(50, -1)))


@pytest.fixture(scope="module")
def client():
    with Client(processes=False, n_workers=2, threads_per_worker=2, dashboard_address=None) as client:
        yield client


def parts(rows):
    return [X[k : k + rows] for k in range(0, len(X), rows)]


def check_same(one, other):
    for name, norm in one.norms.items():
        for key, value in norm.state_dict().items():
            np.testing.assert_array_equal(value, other.norms[name].state_dict()[key], err_msg=f"{name}.{key}")


@pytest.mark.parametrize("by_layer", [False, True])
@pytest.mark.parametrize("chunks", [(7, C), (50, C), (230, C), (50, 3)])
def test_the_bits_are_those_of_one_process(chunks, by_layer, client):
    one, other = Network(), Network()
    expected = cpubn.recalibrate(one.norms, one, parts(chunks[0]), layer_by_layer=by_layer)
    other.norms["b"].eval()
    found = cpubn.dask.recalibrate(other.norms, other, dask.array.from_array(X, chunks=chunks), layer_by_layer=by_layer)
    assert found == expected
    assert list(found) == ["a", "b"]
    check_same(one, other)
    assert [norm.training for norm in other.norms.values()] == [True, False]


def test_a_layer_that_is_called_twice_and_one_that_some_batches_miss(client):
    one, other = (Network(True, lambda x: len(x) == 20 and x[0, 0] < 5) for _ in range(2))
    cpubn.recalibrate(one.norms, one, parts(20))
    cpubn.dask.recalibrate(other.norms, other, dask.array.from_array(X, chunks=(20, -1)))
    check_same(one, other)


def raises(x):
    raise OSError("on a worker")


@pytest.mark.parametrize("by_layer", [False, True])
def test_an_interrupted_one_goes_on_to_the_same_bits(by_layer, client, tmp_path):
    one, other, path = Network(), Network(), tmp_path / "found.npz"
    expected = cpubn.recalibrate(one.norms, one, parts(20), layer_by_layer=by_layer)
    broken = dask.array.concatenate(
        [
            dask.array.from_array(X[:120], chunks=(20, -1)),
            dask.array.from_array(X[120:], chunks=(20, -1)).map_blocks(raises, dtype=X.dtype),
        ]
    )
    with pytest.raises(OSError, match="on a worker"):
        cpubn.dask.recalibrate(other.norms, other, broken, layer_by_layer=by_layer, checkpoint=path)
    check_same(other, Network())
    whole = dask.array.from_array(X, chunks=(20, -1))
    with pytest.raises(ValueError, match="batches must be those that the checkpoint"):
        cpubn.dask.recalibrate(other.norms, other, whole + 1, layer_by_layer=by_layer, checkpoint=path)
    found = cpubn.dask.recalibrate(other.norms, other, whole, layer_by_layer=by_layer, checkpoint=path)
    assert found == expected
    check_same(one, other)
    assert not path.exists()


class Holds(Network):
    def __getstate__(self):
        raise TypeError("it is open")


@pytest.mark.parametrize(
    ("make", "kind", "match"),
    [
        (lambda n, x: (n.norms, n, X), TypeError, "batches must be a dask array, got ndarray"),
        (lambda n, x: (n.norms, n, x.sum()), ValueError, "a batch axis, got an array of no dimensions"),
        (lambda n, x: (n.norms, 3, x), TypeError, "forward must be a function of a batch, got int"),
        (lambda n, x: ([], n, x), ValueError, "layers must hold at least one"),
        (lambda n, x: (n.norms, n.norms["a"], x), ValueError, "call every layer, got no call of 'b'"),
        (lambda n, x: (n.norms, n, x[:, :3]), ValueError, "x must have 4 channels"),
        (lambda n, x: (n.norms, Holds(), x), TypeError, "that cloudpickle takes them .* it is open; leave open files"),
    ],
)
def test_what_cannot_be_done_changes_nothing(make, kind, match, client):
    network = Network()
    with pytest.raises(kind, match=match):
        cpubn.dask.recalibrate(*make(network, dask.array.from_array(X, chunks=(50, -1))))
    check_same(network, Network())
    network(X)
    assert network.norms["a"].num_batches_tracked == 1
