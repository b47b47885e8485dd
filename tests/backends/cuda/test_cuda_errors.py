"""What is wrong with arrays on a GPU, or beside one on the host: errors that say what to do, and nothing is written."""

import numpy as np
import pytest
from gpu import Shown, get, put

import cpubn

X, DY, RESIDUAL = np.random.default_rng(0).standard_normal((3, 4, 3, 2)).astype(np.float32)
VECTORS = {"weight": np.full(3, 2.0), "bias": np.ones(3), "running_mean": np.zeros(3), "running_var": np.ones(3)}
NAMES = (*VECTORS, "residual", "out")


def arguments(on_gpu=True, **instead):
    """Of batch_norm in training, on the GPU or on the host, with others in place of some."""
    given = {"x": X, **VECTORS, "residual": RESIDUAL, "out": np.zeros_like(X)}
    given = {name: put(a) if on_gpu else a.copy() for name, a in given.items()}
    return given | instead


def check(given, error, match, **how):
    """batch_norm says so, and writes nothing."""
    arrays = {name: a for name, a in given.items() if a is not None}
    before = {name: host(a).copy() for name, a in arrays.items()}
    with pytest.raises(error, match=match):
        cpubn.batch_norm(**given, training=True, **how)
    for name, a in arrays.items():
        np.testing.assert_array_equal(host(a), before[name])


def host(a):
    return a if isinstance(a, np.ndarray) else get(a)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_on_the_host_beside_x_on_a_gpu(name):
    wrong = arguments(on_gpu=False)[name]
    way = r"allocate it with numba.cuda.device_array\(" if name == "out" else rf"copy it there.*to_device\({name}\)"
    match = rf"{name} must be on GPU 0 like x, got ndarray on the host; {way}"
    check(arguments(**{name: wrong}), TypeError, match)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_on_a_gpu_beside_x_on_the_host(name, backend):
    wrong = arguments()[name]
    match = rf"{name} must be on the host like x, got one on GPU 0; copy x to that GPU, or {name} to the host"
    check(arguments(on_gpu=False, **{name: wrong}), TypeError, match, backend=backend)


def test_the_default_backend_of_the_host_says_the_same():
    for name in NAMES:
        match = rf"{name} must be on the host like x, got one on GPU 0"
        check(arguments(on_gpu=False, **{name: arguments()[name]}), TypeError, match)


@pytest.mark.parametrize("name", ["dy", "mean", "var", "weight", "out"])
@pytest.mark.parametrize("on_gpu", [True, False])
def test_backward_of_arrays_here_and_there(name, on_gpu):
    given = {"dy": DY, "x": X, "mean": np.zeros(3), "var": np.ones(3), "weight": np.ones(3), "out": np.zeros_like(X)}
    here = {key: put(a) if (key == name) != on_gpu else a for key, a in given.items()}
    with pytest.raises(TypeError, match=rf"{name} must be on {'GPU 0' if on_gpu else 'the host'} like x, got .* on"):
        cpubn.batch_norm_backward(**here)
    np.testing.assert_array_equal(host(here["out"]), 0)


def test_a_backend_of_the_host_for_an_array_on_a_gpu(backend):
    match = f"backend must be 'cuda' for an array on a GPU, got '{backend}'.*; leave it out, or copy x to the host"
    check(arguments(), ValueError, match, backend=backend)
    with cpubn.use_backend(backend):
        check(arguments(), ValueError, match)
        with pytest.raises(ValueError, match=match):
            cpubn.moments(put(X))
    with pytest.raises(ValueError, match=match):
        cpubn.batch_norm_backward(*put((DY, X, np.zeros(3), np.ones(3))), backend=backend)


def test_cuda_for_an_array_on_the_host():
    match = r"x must be an array on a GPU for backend 'cuda', got ndarray on the host; copy it.*to_device\(x\)"
    check(arguments(on_gpu=False), ValueError, match, backend="cuda")
    with cpubn.use_backend("cuda"):
        check(arguments(on_gpu=False), ValueError, match)
    with pytest.raises(ValueError, match=match):
        cpubn.moments(X, backend="cuda")


SHIFTED = np.zeros((5, 3, 2), np.float32)
OUTS = {
    "of another shape": (np.zeros((4, 3), np.float32), ValueError, r"out must have the result's shape \(4, 3, 2\)"),
    "of another dtype": (np.zeros((4, 3, 2)), TypeError, "out must have the result's dtype float32, got float64"),
    "with a stride of zero": (
        np.broadcast_to(np.float32(0), (4, 3, 2)), ValueError, "out must not overlap itself, got strides"
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", OUTS)
def test_outputs_that_cannot_be(kind):
    out, error, match = OUTS[kind]
    check(arguments(out=Shown(out)), error, match)


def test_a_read_only_output():
    out = Shown(np.zeros_like(X))
    out.__cuda_array_interface__["data"] = out.__cuda_array_interface__["data"][0], True
    check(arguments(out=out), ValueError, "out must be writeable, got a read-only array")


@pytest.mark.parametrize("name", ["x", "residual"])
def test_an_output_that_overlaps_in_part(name):
    whole = Shown(SHIFTED)
    low, high = part_of(whole, 0), part_of(whole, 1)
    match = f"out must be x or residual itself or apart from it, got memory that partly overlaps {name}"
    check(arguments(**{name: low, "out": high}), ValueError, match)


def part_of(whole, start):
    """4 of its 5 images."""
    part = Shown(X)
    part.memory, part.low = whole.memory, X.ctypes.data - start * X[0].nbytes
    address, writeable = whole.__cuda_array_interface__["data"]
    part.__cuda_array_interface__["data"] = address + start * X[0].nbytes, writeable
    return part


def test_running_statistics_that_cannot_be_updated():
    one = put(np.ones(3))
    check(arguments(running_mean=one, running_var=one), ValueError, "must be two arrays, got overlapping memory")
    check(arguments(weight=one, running_mean=one), ValueError, "running_mean must not overlap weight")
    strided = Shown(np.ones(6)[::2])
    check(arguments(running_mean=strided), ValueError, "running_mean must be contiguous on a GPU, got strides")


def test_arrays_that_cannot_be_taken():
    """A mask, another byte order, a type that is none of ours."""
    masked = Shown(X, mask=Shown(X > 0))
    check(arguments(x=masked, residual=None, out=None), TypeError, "x must be an array of plain memory, .*mask")
    check(arguments(x=Shown(X.astype(">f4"))), TypeError, "x must be an array of plain memory, .*byte order")
    check(arguments(x=put(X.astype(int))), TypeError, "x must be an array of .*, got .* of int64")
    check(arguments(weight=put(np.ones(4))), ValueError, r"weight must have shape \(3,\), .*got \(4,\)")
    check(arguments(weight=put(np.ones(3, bool))), TypeError, "weight must be .*float64 or integers, got")
    check(
        arguments(weight=put(np.ones(3, np.int64))),
        TypeError,
        "weight must have at most 32 bits .* on a GPU, got int64",
    )
    check(
        arguments(running_var=put(np.ones(3, np.float16))), TypeError, "running_var must be .*float32 or float64, got"
    )


def test_layers_and_arrays_apart():
    bn, gone = cpubn.BatchNorm1d(3), cpubn.BatchNorm1d(3).to_device()
    with pytest.raises(TypeError, match=r"running_mean must be on GPU 0 .*to_device\(\)"):
        bn(put(X))
    with pytest.raises(TypeError, match=r"running_mean must be on the host .*to_host\(\)"):
        gone(X)
    for layer, x in ((bn.eval(), put(X)), (gone.eval(), X), (bn.freeze(), put(X)), (gone.freeze(), X)):
        with pytest.raises((TypeError, ValueError), match=r"must be on .* like x|must be an array on a GPU"):
            layer(x)
    assert bn.num_batches_tracked == gone.num_batches_tracked == 0
    np.testing.assert_array_equal(get(gone.running_var), 1)
    gone.train()(put(X))
    with pytest.raises(TypeError, match=r"dy must be on GPU 0"):
        gone.backward(DY)
    np.testing.assert_array_equal(get(gone.weight_grad), 0)


def test_a_layer_for_a_backend_of_the_host_stays_there(backend):
    bn = cpubn.BatchNorm1d(3, backend=backend)
    with pytest.raises(ValueError, match=f"backend must be None or 'cuda' for a layer on a GPU, got '{backend}'"):
        bn.to_device()
    assert type(bn.weight) is np.ndarray


def test_one_value_a_channel():
    match = "need more than 1 value per channel, got x of shape"
    with pytest.raises(ValueError, match=match):
        cpubn.batch_norm(put(X[:1, :, 0]), None, None, training=True)
