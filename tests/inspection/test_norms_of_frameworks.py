"""python -m cpubn norms of files that torch and Keras wrote."""

import json
import os
import warnings

import pytest
from conftest import need_library

os.environ.setdefault("KERAS_BACKEND", "numpy")
for name in ("torch", "keras", "h5py", "rich"):
    need_library(name, "frameworks")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of their own imports
    import keras
    import torch

from cpubn import cli

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of Keras's variables


def norms_in(path, capsys, *words):
    assert cli.main(["norms", str(path), "--json", *words]) == 0
    told = json.loads(capsys.readouterr().out)
    return told["kind"], {norm["name"]: norm for norm in told["norms"]}


def test_torch(tmp_path, capsys):
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3),
        torch.nn.BatchNorm2d(4),
        torch.nn.ReLU(),
        torch.nn.Linear(4, 5),
        torch.nn.BatchNorm1d(5),
    )
    model[1](torch.randn(8, 4, 5, 5))
    torch.save(model.state_dict(), tmp_path / "m.pth")
    kind, norms = norms_in(tmp_path / "m.pth", capsys, "--eps", "1e-5")
    assert kind == "a file of torch.save"
    assert [norm["place"]["stands"] for norm in norms.values()] == ["likely after 0 (4x3x3x3)", "likely after 3 (5x4)"]
    kinds = {name: [finding["kind"] for finding in norm["findings"]] for name, norm in norms.items()}
    assert kinds == {"1": ["equal weights"], "4": ["not updated", "equal weights"]}


def keras_model():
    x = keras.Input((8, 8, 3))
    y = keras.layers.Conv2D(4, 3, name="first")(x)
    y = keras.layers.BatchNormalization(name="bn")(y)
    y = keras.layers.Conv2D(5, 3, activation="relu", name="second")(y)
    return keras.Model(x, keras.layers.BatchNormalization(epsilon=1e-2, name="last")(y))


@pytest.mark.parametrize("ending", ["keras", "h5"])
def test_keras(ending, tmp_path, capsys):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # .h5 is its older format
        keras_model().save(tmp_path / f"m.{ending}")
    _, norms = norms_in(tmp_path / f"m.{ending}", capsys)
    assert list(norms) == ["bn", "last"]
    assert norms["last"]["eps"] == 1e-2
    assert norms["bn"]["place"] == {
        "stands": "after Conv2D first, before Conv2D",
        "how": "into first",
        "foldable": True,
    }
    assert norms["last"]["place"]["how"] == "the activation relu of second stands between"


def test_keras_weights_alone(tmp_path, capsys):
    model = keras_model()
    model.save_weights(tmp_path / "m.weights.h5")
    _, norms = norms_in(tmp_path / "m.weights.h5", capsys, "--eps", "1e-3")
    assert len(norms) == 2
    assert all(norm["place"]["stands"] is None for norm in norms.values())
