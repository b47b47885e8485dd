"""Arrays of zarr as the data: recalibrations, moments and blocks of dask, with the bits of the same array in memory."""

import pytest
from conftest import need_library
from test_recalibrate import Network, check_same, data

import cpubn

need_library("zarr", "frameworks")


@pytest.fixture(params=["float64", "float32"])
def pair(request, tmp_path):
    """In memory, and as a store on disk, whose chunks are not the batches."""
    import zarr

    x = data().astype(request.param)
    zarr.create_array(tmp_path / "x.zarr", data=x, chunks=(50, 3))
    return x, zarr.open_array(tmp_path / "x.zarr", mode="r")


@pytest.mark.parametrize("by_layer", [False, True])
def test_recalibrations(by_layer, pair):
    one, other = Network(), Network()
    for network, x in zip((one, other), pair, strict=True):
        cpubn.recalibrate(network.norms, network, x, layer_by_layer=by_layer)
    check_same(other.state(), one.state())


def test_an_interrupted_one_goes_on(pair, tmp_path):
    (x, stored), (one, other) = pair, (Network(), Network())
    cpubn.recalibrate(one.norms, one, x)

    def stops(batch):
        if other.batches == 2:
            raise KeyboardInterrupt
        other(batch)

    with pytest.raises(KeyboardInterrupt):
        cpubn.recalibrate(other.norms, stops, stored, checkpoint=tmp_path / "found.npz")
    cpubn.recalibrate(other.norms, other, stored, checkpoint=tmp_path / "found.npz")
    check_same(other.state(), one.state())
    assert other.batches == one.batches


def test_moments(pair):
    x, stored = pair
    assert cpubn.moments(stored) == cpubn.moments(x)
    totals = [cpubn.Moments.empty(x.shape[1]) for _ in pair]
    for k in range(0, len(x), 64):
        for total, a in zip(totals, pair, strict=True):
            total.update(a[k : k + 64])
    assert totals[0] == totals[1]


def test_blocks_of_dask(pair):
    need_library("dask", "frameworks")
    import dask.array

    import cpubn.dask

    x, stored = pair
    m = cpubn.dask.moments(dask.array.from_zarr(stored).rechunk((64, -1))).compute(scheduler="synchronous")
    assert m == cpubn.Moments.merge_all(cpubn.moments(x[k : k + 64]) for k in range(0, len(x), 64))
