"""Damaged files of every format that is read without a framework: refused, or read as other numbers; nothing else."""

import json
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from conftest import need_library
from damage import check_refused_or_read, damaged
from norms import EPS, trained_layer

from cpubn import convert
from cpubn.convert import _hdf5, _keras_files

for name in ("h5py", "ml_dtypes", "onnx", "safetensors"):
    need_library(name, "convert")
import h5py
import onnx

COUNTS = pytest.mark.parametrize("count", [200, pytest.param(5000, marks=pytest.mark.slow)])


def norms():
    norm = convert.Norm.of(trained_layer())
    return {"layer1.0.bn": norm, "layer1.1.bn": replace(norm, weight=None, momentum=None)}


def write_onnx(path):
    """Two nodes: of float16 initializers, and of Constants."""
    model = convert.new_onnx(trained_layer())
    (node,) = model.graph.node
    for tensor in model.graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        tensor.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float16), tensor.name))
        constant = onnx.helper.make_node("Constant", [], [f"{tensor.name}.1"], value_floats=values.tolist())
        model.graph.node.insert(0, constant)
    second = [node.output[0], *(f"{name}.1" for name in node.input[1:])]
    model.graph.node.append(onnx.helper.make_node("BatchNormalization", second, ["Z"], epsilon=EPS))
    onnx.save(model, path)


CONFIG = {
    "class_name": "Sequential",
    "config": {
        "name": "model",
        "layers": [{"class_name": "BatchNormalization", "config": {"name": "bn", "epsilon": EPS, "axis": [3]}}],
    },
}


def write_h5(path):
    """As Keras 2 does."""
    weights, _ = convert.to_keras({"bn": trained_layer()}, values_per_channel=None)
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = json.dumps(CONFIG)
        group = file.create_group("model_weights/bn")
        group.attrs["weight_names"] = np.array([f"{name}:0".encode() for name in weights])
        for name, array in weights.items():
            group[f"{name}:0"] = array


def write_numbered_h5(path):
    """As Keras 3 does."""
    weights, _ = convert.to_keras({"": trained_layer()}, values_per_channel=None)
    with h5py.File(path, "w") as file:
        group = file.create_group("layers/batch_normalization/vars")
        group.attrs["name"] = "bn"
        for i, array in enumerate(weights.values()):
            group[str(i)] = array


def write_keras(path):
    write_numbered_h5(path.with_name("weights"))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", json.dumps(CONFIG))
        archive.write(path.with_name("weights"), _keras_files.WEIGHTS)


WRITE = {
    "npz": lambda path: convert.to_npz(norms(), path),
    "safetensors": lambda path: convert.to_safetensors(norms(), path),
    "onnx": write_onnx,
    "keras": write_keras,
}


@COUNTS
@pytest.mark.parametrize("kind", list(WRITE))
def test_damaged_files(tmp_path, monkeypatch, kind, count):
    WRITE[kind](tmp_path / kind)
    options = {"eps": EPS} if kind == "keras" else {}
    assert convert.read(tmp_path / kind, **options)
    if kind == "keras":  # the checksum has passed; each other process would take a fifth of a second
        (weights,) = _hdf5.contents([str(tmp_path / "weights")], 1 << 20)
        monkeypatch.setattr(_keras_files, "contents", lambda paths, most: [weights])
    check_refused_or_read(lambda path: convert.read(path, **options), tmp_path / kind, count)


@pytest.mark.parametrize("count", [100, pytest.param(2500, marks=pytest.mark.slow)])
@pytest.mark.parametrize("write", [write_h5, write_numbered_h5])
def test_damaged_hdf5_files(tmp_path, monkeypatch, write, count):
    """Whatever its library does: read a hundred at a time by one process, or by the next where it crashes or hangs."""
    path = tmp_path / "model"
    write(path)
    whole, answers = path.read_bytes(), []

    def before(numbers):
        assert not answers
        paths = [tmp_path / str(number) for number in numbers]
        for number, other in zip(numbers, paths, strict=True):
            other.write_bytes(damaged(whole, number))
        answers.extend(_hdf5.contents([str(other) for other in paths], 1 << 20, seconds=1))
        for other in paths:
            other.unlink()

    def read(path):
        answer = answers.pop(0)
        monkeypatch.setattr(_keras_files, "contents", lambda paths, most: [answer])
        monkeypatch.setattr(_keras_files, "content_of", lambda path: "hdf5")
        return convert.from_keras(path, epsilon=EPS)

    monkeypatch.setattr(_keras_files, "no_other", lambda path, *contents: None)
    check_refused_or_read(read, path, count, before)


@pytest.mark.parametrize(
    ("name", "size", "packing", "match"),
    [
        (
            "running_mean",
            257 << 20,
            zipfile.ZIP_DEFLATED,
            "take more than 256 MiB once unpacked, which no batch norms do",
        ),
        ("running_mean", 10, zipfile.ZIP_LZMA, "compressed in a way that NumPy does not write"),
    ],
)
def test_a_bomb_in_an_npz(tmp_path, name, size, packing, match):
    convert.to_npz(norms(), tmp_path / "a")
    with zipfile.ZipFile(tmp_path / "a") as whole, zipfile.ZipFile(tmp_path / "b", "w") as bomb:
        for entry in whole.namelist():
            content = bytes(size) if entry.endswith(f"{name}.npy") else whole.read(entry)
            bomb.writestr(entry, content, packing)
    assert (tmp_path / "b").stat().st_size < 1 << 21
    with pytest.raises(ValueError, match=match):
        convert.read(tmp_path / "b")


def test_a_bomb_in_a_keras_file(tmp_path):
    for name in ("config.json", _keras_files.WEIGHTS):
        with zipfile.ZipFile(tmp_path / "a.keras", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("config.json", bytes(257 << 20) if name == "config.json" else "{}")
            archive.writestr(_keras_files.WEIGHTS, bytes(257 << 20))
        with pytest.raises(ValueError, match=f"{name} and what was read before it take more than 256 MiB"):
            convert.read(tmp_path / "a.keras", eps=EPS)
