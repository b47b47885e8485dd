"""Any file by its content; and what a Norm holds, an axis means and errors list, whatever was read."""

import tarfile

import numpy as np
import pytest
from conftest import need_library
from norms import EPS, X, check_same, trained_layer

import cpubn
from cpubn import convert

for name in ("h5py", "ml_dtypes", "onnx", "safetensors"):
    need_library(name, "convert")
import h5py
import onnx

ONES, ZEROS = np.ones(3), np.zeros(3)
TORCH = {"running_mean": ZEROS, "running_var": ONES, "weight": ONES, "bias": ZEROS}
KERAS = {"moving_mean": ZEROS, "moving_variance": ONES, "gamma": ONES, "beta": ZEROS}


def write_h5(norms, path):
    weights, _ = convert.to_keras(norms, values_per_channel=None)
    with h5py.File(path, "w") as file:
        for name, array in weights.items():
            file[f"bn/{name}"] = array


WRITE = {
    "npz": convert.to_npz,
    "safetensors": convert.to_safetensors,
    "onnx": lambda norms, path: onnx.save(convert.to_onnx({}, convert.new_onnx(norms["bn"])), path),
    "hdf5": write_h5,
}


@pytest.mark.parametrize("kind", list(WRITE))
@pytest.mark.parametrize("name", ["model", "model.txt", "model.keras", "model.npz"])
def test_the_content_tells_what_a_file_is(tmp_path, kind, name):
    bn = trained_layer()
    WRITE[kind]({"bn": bn}, tmp_path / name)
    options = {"eps": EPS} if kind == "hdf5" else {}
    (norm,) = convert.read(tmp_path / name, **options).values()
    np.testing.assert_allclose(norm.running_var, bn.running_var, rtol=1e-6)
    assert norm.eps == EPS
    (given,) = convert.read(str(tmp_path / name), eps=0.5, momentum=0.25).values()
    assert (given.eps, given.momentum) == (0.5, 0.25)
    np.testing.assert_array_equal(given.running_mean, norm.running_mean)


def test_options_are_those_of_the_reader(tmp_path):
    WRITE["onnx"]({"bn": trained_layer()}, tmp_path / "a")
    (norm,) = convert.read(tmp_path / "a", variance="unbiased").values()
    assert norm.variance == "unbiased"
    WRITE["npz"]({"bn": trained_layer()}, tmp_path / "b")
    check_same(convert.read(tmp_path / "b")["bn"], convert.Norm.of(trained_layer()))
    with pytest.raises(TypeError, match="variance"):
        convert.read(tmp_path / "b", variance="unbiased")
    with pytest.raises(ValueError, match=r"momentum must be one value, or a mapping by .* 'bn', got 'a'"):
        convert.read(tmp_path / "b", momentum={"a": 0.1})
    with pytest.raises(TypeError, match=r"batch norm 'bn': eps must be .* got '1e-5'"):
        convert.read(tmp_path / "b", eps="1e-5")


def test_other_files_are_named(tmp_path):
    with tarfile.open(tmp_path / "a", "w") as archive:
        archive.addfile(tarfile.TarInfo("b"))
    for content, match in (
        ((tmp_path / "a").read_bytes(), "a tar archive"),
        (b"\0\0\0\0TFL3", "a TensorFlow Lite model"),
        (b"\x80\4.", "a pickle"),
        (b"PK\3\4", "a zip archive of other files"),
    ):
        (tmp_path / "a").write_bytes(content)
        with pytest.raises(
            ValueError, match=f"must be a file of ONNX, safetensors, npz, torch or Keras, got {match}; "
        ):
            convert.read(tmp_path / "a")
    for kind in WRITE:
        WRITE[kind]({"bn": trained_layer()}, tmp_path / kind)
    for kind, read in (
        ("npz", convert.from_safetensors),
        ("hdf5", convert.from_npz),
        ("safetensors", convert.from_torch),
    ):
        reader = {"npz": "from_npz", "hdf5": "from_keras", "safetensors": "from_safetensors"}[kind]
        with pytest.raises(ValueError, match=rf"; read it with cpubn\.convert\.{reader}, or any with read"):
            read(tmp_path / kind)


@pytest.mark.parametrize("axis", [2, 3, 4, [3], (4,), [-1]])
def test_the_last_axis_has_other_numbers(axis):
    assert convert.from_keras(KERAS, epsilon=EPS, axis=axis)[""].layout == "NHWC"
    assert convert.from_keras(KERAS, epsilon=EPS, axis=[1])[""].layout == "NCHW"


def test_a_norm_holds_what_a_layer_does():
    bn = cpubn.BatchNorm2d(3, eps=EPS)
    bn.running_var[...] = -EPS / 2
    norm = convert.Norm.of(bn)
    np.testing.assert_array_equal(norm.freeze()(X[:, :3]), bn.eval()(X[:, :3]))
    np.testing.assert_array_equal(norm.layer(cpubn.BatchNorm2d).running_var, bn.running_var)


def test_many_names_are_not_all_told():
    state = {f"{i}.{name}": value for i in range(52) for name, value in TORCH.items()}
    with pytest.raises(ValueError, match=r"got none for '0', '1', '2', '3' and 48 more; pass eps=1e-05"):
        convert.from_torch(state)
    with pytest.raises(
        ValueError, match=r"names '0', '1', '2', '3' and 48 more, got 'a', 'b', 'c', 'd' and 1 more; lea"
    ):
        convert.from_torch(state, eps=dict.fromkeys("abcde", EPS))
