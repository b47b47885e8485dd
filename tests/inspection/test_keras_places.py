"""Where norms stand by the config of a Keras file."""

import json

import numpy as np
import pytest
from conftest import need_library

for name in ("h5py", "rich"):
    need_library(name, "inspect")

import h5py

from cpubn import cli
from cpubn.inspection.keras_places import by_config, layers_of

KERNELS = {"Conv2D": (3, 3, 3, 4), "Dense": (3, 4), "Add": None, "Activation": None}


def layer(kind, name, *before, **config):
    """As Keras 2 writes it in a functional model; without `before` as in a sequential one."""
    found = {"class_name": kind, "name": name, "config": {"name": name, **config}}
    return found | ({"inbound_nodes": [[[other, 0, 0, {}] for other in before]]} if before else {})


def write(path, layers, kind="Functional"):
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = json.dumps({"class_name": kind, "config": {"name": "m", "layers": layers}})
        for node in layers:
            group = file.create_group(f"model_weights/{node['config']['name']}/{node['config']['name']}")
            group.parent.attrs["weight_names"] = []
            if node["class_name"] == "BatchNormalization":
                for weight in ("gamma", "beta", "moving_mean", "moving_variance"):
                    group[f"{weight}:0"] = np.linspace(0.5, 1, 4, dtype=np.float32)
    return path


NORM = {"epsilon": 1e-3, "axis": [3]}
INPUT = layer("InputLayer", "in")


@pytest.mark.parametrize(("layers", "stands", "how", "foldable"), [
    ([layer("Conv2D", "c", "in", activation="linear"), layer("BatchNormalization", "bn", "c", **NORM),
      layer("Activation", "a", "bn")], "after Conv2D c, before Activation", "into c", True),
    ([layer("Conv2D", "c", "in", activation="relu"), layer("BatchNormalization", "bn", "c", **NORM)],
     "after Conv2D c", "the activation relu of c stands between", False),
    ([layer("Dense", "c", "in", activation={"class_name": "function", "config": "swish"}),
      layer("BatchNormalization", "bn", "c", **NORM)],
     "after Dense c", "the activation swish of c stands between", False),
    ([layer("Conv2D", "c", "in"), layer("BatchNormalization", "bn", "c", **NORM), layer("Add", "a", "c", "bn")],
     "after Conv2D c, before Add", "others take the output of c, too", False),
    ([layer("Add", "c", "in", "in2"), layer("BatchNormalization", "bn", "c", **NORM)],
     "after Add c", "what is before it is no convolution and no dense layer", False),
])  # fmt: skip
def test_functional(layers, stands, how, foldable, tmp_path, capsys):
    path = write(tmp_path / "m.h5", [INPUT, *layers])
    assert cli.main(["norms", str(path), "--json"]) == 0
    (norm,) = json.loads(capsys.readouterr().out)["norms"]
    assert norm["place"] == {"stands": stands, "how": how, "foldable": foldable}
    assert (norm["channels"], norm["eps"]) == (4, 1e-3)


def test_sequential_and_models_within(tmp_path):
    inner = {"class_name": "Sequential", "name": "inner", "config": {"name": "inner", "layers": [
        layer("Conv2D", "c"), layer("BatchNormalization", "bn", **NORM)]}}  # fmt: skip
    path = write(
        tmp_path / "m.h5", [layer("Dense", "d"), layer("BatchNormalization", "bn", **NORM), inner], "Sequential"
    )
    with h5py.File(path) as file:
        layers = layers_of(file.attrs["model_config"])
    assert by_config(["bn", "inner/bn"], layers) == {
        "bn": ("after Dense d, before Sequential", True, "into d"),
        "inner/bn": ("after Conv2D c", True, "into c"),
    }
    assert by_config(["other/bn"], layers)["other/bn"].stands is None


@pytest.mark.parametrize(
    "config", ["[]", "{}", '{"config": 3}', '{"config": {"layers": [1, {"config": 2}, {"name": 3}]}}']
)
def test_configs_of_other_forms(config):
    assert layers_of(config) == {}


def test_nesting_without_end():
    config = {"class_name": "Sequential", "config": {"layers": []}}
    for _ in range(200):
        config = {"class_name": "Sequential", "config": {"name": "m", "layers": [config | {"name": "m"}]}}
    assert 0 < len(layers_of(json.dumps(config))) < 70
