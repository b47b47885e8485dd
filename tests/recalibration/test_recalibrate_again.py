"""Recalibrations that were interrupted go on to the same bits, or say what is another now."""

import signal

import numpy as np
import pytest
from damage import check_refused_or_read
from test_recalibrate import SOURCES, C, Network, check_same, data

import cpubn
from cpubn.recalibration import checkpoint


@pytest.fixture
def x():
    return data()


class StopError(Exception):
    pass


def control_c():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs inherit it ignored
    try:
        signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


def error():
    raise StopError


@pytest.mark.parametrize("again", ["array", "list", "folder"])
@pytest.mark.parametrize("stop", [control_c, error])
@pytest.mark.parametrize(("by_layer", "at"), [(False, 1), (False, 3), (True, 2), (True, 5), (True, 12)])
def test_an_interrupted_one_goes_on_to_the_same_bits(by_layer, at, stop, again, x, tmp_path):
    expected, network, path = Network(), Network(), tmp_path / "found.npz"
    cpubn.recalibrate(expected.norms, expected, x, layer_by_layer=by_layer)
    before = network.state()

    def forward(batch):
        if network.batches == at:
            stop()
        network(batch)

    with pytest.raises((KeyboardInterrupt, StopError)):
        cpubn.recalibrate(network.norms, forward, x, layer_by_layer=by_layer, checkpoint=path)
    check_same(network.state(), before)
    assert all(norm.training for norm in network.norms.values())
    assert path.exists() is (at > by_layer)
    other = Network()
    (tmp_path / "parts").mkdir()
    source = SOURCES[again](x, tmp_path / "parts")
    cpubn.recalibrate(other.norms, other, source, layer_by_layer=by_layer, checkpoint=path)
    check_same(other.state(), expected.state())
    assert not path.exists()
    assert other.batches == expected.batches - at + by_layer


def interrupted(x, path):
    network = Network()

    def forward(batch):
        network(batch)
        if network.batches == 3:
            raise StopError

    with pytest.raises(StopError):
        cpubn.recalibrate(network.norms, forward, x, checkpoint=path)
    return Network()


def trained(network):
    network(np.random.default_rng(0).normal(size=(9, C)))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda network, x, path, how: trained(network), "other layers, of these in another state"),
        (lambda network, x, path, how: network.norms.pop("c"), "other layers"),
        (lambda network, x, path, how: how.update(layer_by_layer=True), "another layer_by_layer"),
        (lambda network, x, path, how: how.update(batch_size=32), "batches must be those .* got others at batch 1"),
        (lambda network, x, path, how: x.__imul__(2), "batches must be those .* got others"),
        (lambda network, x, path, how: how.update(batches=[x[:64]]), "batches must be those .* got fewer"),
        (lambda network, x, path, how: path.write_bytes(b"no"), "must be an .npz archive of arrays"),
        (
            lambda network, x, path, how: np.savez(path, a=x),
            "must be a checkpoint of this recalibration, but it holds other",
        ),
        (lambda network, x, path, how: cpubn.moments(x).save(path), "must be a checkpoint of this recalibration"),
    ],
)
def test_a_checkpoint_of_something_else_is_refused(change, match, x, tmp_path):
    path, how = tmp_path / "found.npz", {"batches": x}
    network = interrupted(x, path)
    change(network, x, path, how)
    before = network.state()
    with pytest.raises(ValueError, match=match):
        cpubn.recalibrate(network.norms, network, how.pop("batches"), checkpoint=path, **how)
    check_same(network.state(), before)


def test_damaged_checkpoints(x, tmp_path):
    path = tmp_path / "found.npz"
    network = interrupted(x, path)
    layers = checkpoint.fingerprint(network.norms, False)
    check_refused_or_read(lambda other: checkpoint.load(other, layers, network.norms), path, 200)
