"""HDF5 files as older Keras wrote them, and as nobody should have: links, bombs, circles, what is not there."""

import json
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from conftest import need_library
from norms import EPS

from cpubn import convert
from cpubn.convert import _hdf5, _keras, _keras_files
from cpubn.convert._keras_config import Configs

need_library("h5py", "convert")
import h5py

FIELDS = ("gamma", "beta", "moving_mean", "moving_variance")


def fill(group, prefix, value, fields=FIELDS, ending=":0"):
    for field in fields:
        group[f"{prefix}{field}{ending}"] = np.full(3, value, np.float32)


def layer(kind, name, **config):
    return {"class_name": kind, "config": {"name": name} | config}


def norm(name, epsilon, **config):
    return layer("BatchNormalization", name, epsilon=epsilon, momentum=0.75, axis=[3], **config)


MODEL = layer(
    "Functional",
    "model",
    layers=[
        norm("bn", 1e-2),
        layer("TimeDistributed", "timed", layer=norm("inside", 2e-2)),
        layer("Sequential", "inner", layers=[norm("bn", 3e-2), norm("bn_1", 4e-2)]),
        layer("Functional", "other", layers=[norm("bn", 5e-2)]),
        norm("block1/bn", 6e-2),
    ],
)


def write_model(path, config=MODEL):
    """As Keras 2 did: by the names of variables, some with a number that TF1 gave, some without the model's layer."""
    with h5py.File(path, "w") as file:
        if config is not None:
            file.attrs["model_config"] = json.dumps(config).encode()
        file.create_group("optimizer_weights")["bn/gamma:0"] = np.ones(3)
        weights = file.create_group("model_weights")
        for outer, prefixes in {
            "bn": ["bn_1/"],
            "timed": ["timed/"],
            "inner": ["bn/", "bn_1/"],
            "other": ["bn/"],
            "block1/bn": ["block1/bn/"],
        }.items():
            group = weights.create_group(outer)
            group.attrs["weight_names"] = np.array([b"some"])
            for i, prefix in enumerate(prefixes):
                fill(group, prefix, 1 + i)


NAMES = {"bn": 1e-2, "timed": 2e-2, "inner/bn": 3e-2, "inner/bn_1": 4e-2, "other/bn": 5e-2, "block1/bn": 6e-2}


def test_a_model_of_keras_2(tmp_path):
    write_model(tmp_path / "model.h5")
    norms = convert.read(tmp_path / "model.h5")
    assert {name: norm.eps for name, norm in norms.items()} == NAMES
    assert list(norms) == list(NAMES)
    assert {(norm.momentum, norm.layout, norm.variance) for norm in norms.values()} == {(0.25, "NHWC", "biased")}
    np.testing.assert_array_equal(norms["inner/bn_1"].weight, [2, 2, 2])
    given = convert.from_keras(tmp_path / "model.h5", epsilon={"bn": 0.5}, axis=1)
    assert (given["bn"].eps, given["timed"].eps, given["bn"].layout) == (0.5, 2e-2, "NCHW")


def test_weights_of_keras_2(tmp_path):
    write_model(tmp_path / "model.h5", None)
    with pytest.raises(
        ValueError, match=r"epsilon must be given, .*got none for 'block1/bn', 'bn', .* and 2 more; pass"
    ):
        convert.read(tmp_path / "model.h5")
    assert set(convert.read(tmp_path / "model.h5", eps=EPS)) == set(NAMES)
    assert set(convert.from_keras(tmp_path / "model.h5", epsilon=NAMES)) == set(NAMES)


def test_a_sequential_model_of_keras_1_and_names_of_tf2(tmp_path):
    write_model(tmp_path / "model.h5", {"class_name": "Sequential", "config": MODEL["config"]["layers"]})
    assert {name: norm.eps for name, norm in convert.read(tmp_path / "model.h5").items()} == NAMES
    names = {f"layer-{i}/{field}/.ATTRIBUTES/VARIABLE_VALUE": np.ones(3) for i in range(2) for field in FIELDS}
    slots = {f"layer-0/{field}/.OPTIMIZER_SLOT/opt/m/.ATTRIBUTES/VARIABLE_VALUE": np.ones(3) for field in FIELDS}
    assert list(convert.from_keras(names | slots, epsilon=EPS)) == ["layer-0", "layer-1"]
    with pytest.raises(ValueError, match="must hold each array once, got 'a/gamma' twice"):
        convert.from_keras({"a/gamma": np.ones(3), "a/gamma:0": np.ones(3), "a/moving_mean": np.ones(3)}, epsilon=EPS)


def test_a_file_of_keras_before_it_wrote_names(tmp_path):
    with h5py.File(tmp_path / "weights", "w") as file:
        for group in ("batch_normalization", "batch_normalization_1", "sequential/layers/batch_normalization"):
            for i in range(4):
                file[f"_layer_checkpoint_dependencies/{group}/vars/{i}"] = np.ones(3)
    inner = layer("Sequential", "inner", layers=[norm("c", 3e-2)])
    config = layer("Functional", "model", layers=[layer("InputLayer", "x"), norm("a", 1e-2), norm("b", 2e-2), inner])
    with zipfile.ZipFile(tmp_path / "model.keras", "w") as archive:
        archive.writestr("config.json", json.dumps(config))
        archive.write(tmp_path / "weights", "model.weights.h5")
    norms = convert.read(tmp_path / "model.keras")
    assert {name: norm.eps for name, norm in norms.items()} == {"a": 1e-2, "b": 2e-2, "inner/c": 3e-2}
    assert list(convert.read(tmp_path / "weights", eps=EPS)) == [
        "batch_normalization",
        "batch_normalization_1",
        "sequential/batch_normalization",
    ]


def soft(file):
    file["bn/gamma"] = h5py.SoftLink("/bn/beta")


def external(file):
    file["bn/gamma"] = h5py.ExternalLink("/etc/hostname", "/")


def circle(file):
    file["bn/bn"] = file["bn"]


def outside(file):
    file.create_dataset("bn/gamma", (3,), "f4", external=[(b"/etc/hostname", 0, 12)])


def virtual(file):
    file.create_virtual_dataset("bn/gamma", h5py.VirtualLayout((3,), "f4"))


def bomb(file):
    file.create_dataset("bn/gamma", (1 << 40,), "f4", chunks=(1 << 20,), compression="gzip")


def integers(file):
    file["bn/gamma"] = np.arange(3)


def scalar(file):
    file["bn/gamma"] = 1.0


HOSTILE = {
    soft: "it must hold its arrays itself, got a link at 'bn/gamma'",
    external: "it must hold its arrays itself, got a link at 'bn/gamma'",
    circle: "it must hold at most .* in 64 levels, got more",
    outside: "gamma must be a vector of floating numbers in the file itself",
    virtual: "gamma must be a vector of floating numbers in the file itself",
    bomb: "its vectors must take at most 256 MiB, got more at '/bn/gamma'",
    integers: "gamma must be a vector of floating numbers in the file itself",
    scalar: "gamma must be a vector of floating numbers in the file itself",
}


@pytest.mark.parametrize("change", HOSTILE, ids=lambda change: change.__name__)
def test_only_what_a_file_holds_itself_is_read(tmp_path, change):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        fill(file, "bn/", 1, FIELDS[1:], "")
        change(file)
    with pytest.raises(ValueError, match=HOSTILE[change]):
        convert.read(tmp_path / "a.h5", eps=EPS)


@pytest.mark.parametrize("config", ["[" * 100_000, "{", '{"class_name": 1}', "[]", '{"config": {"layers": [1]}}'])
def test_a_config_of_another_kind(tmp_path, config):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.attrs["model_config"] = config
        fill(file, "bn/", 1)
    with pytest.raises(ValueError, match=r"cannot be read|epsilon must be given"):
        convert.read(tmp_path / "a.h5")


@pytest.mark.parametrize(
    ("field", "value", "match"),
    [
        ("epsilon", "1e-3", "batch norm 'bn': eps must be .* got '1e-3'"),
        ("epsilon", 10**400, "batch norm 'bn': eps must be .* got inf"),
        ("epsilon", float("nan"), "batch norm 'bn': eps must be .* got nan"),
        ("momentum", None, "batch norm 'bn': momentum must be .* got None"),
        ("axis", [1, 2], r"batch norm 'bn': axis must be .* got \[1, 2\]"),
        ("axis", {"a": 1}, "batch norm 'bn': axis must be .* got {'a': 1}"),
        ("scale", False, "gamma must be there where scale=True .* got scale=False and gamma"),
    ],
)
def test_a_config_of_other_values(tmp_path, field, value, match):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        one = layer("BatchNormalization", "bn", **{"epsilon": 1e-3} | {field: value})
        file.attrs["model_config"] = json.dumps(layer("Functional", "model", layers=[one]))
        fill(file, "bn/", 1)
    with pytest.raises(ValueError, match=match):
        convert.read(tmp_path / "a.h5")


def test_many_layers_are_looked_up(tmp_path):
    """Twenty thousand of them, in one model within another."""
    count = 20_000
    many = [layer("BatchNormalization", f"bn_{i}", epsilon=1e-3) for i in range(count)]
    config = layer("Functional", "model", layers=[layer("Sequential", "inner", layers=many)])
    vector = _hdf5.Vector(("inner",), (1,), np.ones(1, np.float32))
    said = Configs(json.dumps(config))
    arrays = {("inner", f"bn_{i}", f"{field}:0"): vector for i in range(count) for field in FIELDS}
    found = _keras_files._named(arrays, said, _keras.NAMES)
    assert len(found) == count
    assert all(one.config.names[-1] == name.split("/")[-1] for name, one in found.items())


def test_no_batch_norm(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["dense/kernel:0"] = np.ones((3, 3))
        file["layers/layer_normalization/vars/0"] = file["layers/layer_normalization/vars/1"] = np.ones(3)
    with pytest.raises(
        ValueError, match=r"must hold a batch norm's moving_mean and moving_variance, got the keys .*dense"
    ):
        convert.read(tmp_path / "a.h5", eps=EPS)


def test_the_library_may_crash_or_hang(tmp_path, monkeypatch):
    """What it does in a file is an error of that file, and the next is read."""
    paths = [str(tmp_path / name) for name in "abc"]
    for path in paths:
        with h5py.File(path, "w") as file:
            fill(file, "bn/", 1)
    for trouble, match in (("os.abort()", "it ended with"), ("while True:\n            1", "it took longer than 1 s")):
        program = tmp_path / "program.py"
        change = f"    import h5py\n    if path[-1] == 'b':\n        {trouble}\n"
        program.write_text(Path(_hdf5.__file__).read_text("utf-8").replace("    import h5py\n", change), "utf-8")
        with monkeypatch.context() as patch:
            patch.setattr(_hdf5, "__file__", str(program))
            first, second, third = _hdf5.contents(paths, 1 << 20, seconds=1)
        assert len(first.arrays) == len(third.arrays) == 4
        assert match in second


def test_the_other_process_finds_what_this_one_does(tmp_path, monkeypatch):
    """By the same folders, whatever stands in sys.path; but a frozen program has no Python to start."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        fill(file, "bn/", 1)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "path", [Path(sys.path[0]), *sys.path])
    monkeypatch.chdir(tmp_path)
    assert convert.read("a.h5", eps=EPS)
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    with pytest.raises(
        ValueError, match="HDF5 files are read by a second Python, which a frozen program does not have"
    ):
        convert.read("a.h5", eps=EPS)
