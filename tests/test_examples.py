"""The examples on real photographs: what they print, their network's gradients, and that what is held out stays so."""

import importlib
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import need_library

for library in ("PIL", "safetensors", "sklearn", "threadpoolctl"):
    need_library(library, "demo")

EXAMPLES = Path(__file__).parents[1] / "examples"
WEIGHTS = EXAMPLES / "edge_network.safetensors"


@pytest.fixture(autouse=True)
def examples_on_path(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)


@pytest.fixture
def edge_network():
    return importlib.import_module("edge_network")


@pytest.fixture
def photographs():
    return importlib.import_module("photographs")


@pytest.fixture
def trainer():
    return importlib.import_module("train_edge_network")


def run(*arguments):
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=240, check=False)


def test_frozen_and_folded_predict_the_same_and_well():
    done = run(EXAMPLES / "edge_inference.py")
    assert (done.returncode, done.stderr) == (0, "")
    equal, windows = re.search(r"(\d+) of (\d+) predictions are equal", done.stdout).groups()
    assert equal == windows == str(2 * 50 * 77)
    assert float(re.search(r"difference of scores is (\S+)\.", done.stdout)[1]) < 1e-4
    accuracies = re.search(r"mean of the classes +(\S+)% +(\S+)%", done.stdout).groups()
    assert accuracies[0] == accuracies[1]
    assert float(accuracies[0]) > 95
    for stage in ("input normalization", "convolutions", "batch norm and ReLU, or ReLU alone", "the whole network"):
        assert re.search(rf"^{stage} +\d+\.\d\d +\d+\.\d\d$", done.stdout, re.MULTILINE), stage


def test_inside_njit(tmp_path, monkeypatch):
    need_library("numba", "numba")
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    start = "import runpy, sys, cpubn.njit; cpubn.njit.init(); "  # which Numba calls where cpubn is installed
    done = run("-c", f"{start}runpy.run_path({str(EXAMPLES / 'inside_njit.py')!r}, run_name='__main__')")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(r"^\d+ peaks in 400 windows, \d+ us a window$", done.stdout, re.MULTILINE)
    assert "as many as outside of compiled code: True" in done.stdout
    assert "trained to weight 2.00 and bias 1.00, wanted 2 and 1" in done.stdout


def test_stored_weights_are_small():
    assert WEIGHTS.stat().st_size < 300_000


def test_trainer_learns_and_writes_what_inference_reads(edge_network, tmp_path):
    stored = tmp_path / "weights.safetensors"
    done = run(EXAMPLES / "train_edge_network.py", "--epochs", "2", "--windows", "256", "--output", stored)
    assert (done.returncode, done.stderr) == (0, "")
    first, second = (float(loss) for loss in re.findall(r"^ +[12] +(\d+\.\d+) ", done.stdout, re.MULTILINE))
    assert second < first
    assert re.search(r"Held-out accuracy by colour alone: \d+\.\d%", done.stdout)
    shapes = [{name: x.shape for name, x in edge_network.Network.load(p).state().items()} for p in (stored, WEIGHTS)]
    assert shapes[0] == shapes[1]


def test_steps_lower_the_loss(trainer, photographs):
    rng = np.random.default_rng(0)
    pictures = photographs.load()
    network = trainer.new_network(pictures, rng)
    descent = trainer.Descent(network)
    windows, labels = photographs.training_windows(pictures, 64, rng)
    losses = [descent.step(windows, labels, 0.02) for _ in range(4)]
    assert losses == sorted(losses, reverse=True)


def test_a_stored_network_is_the_same_network(edge_network, tmp_path):
    expected = edge_network.Network.load(WEIGHTS)
    expected.save(tmp_path / "again.safetensors")
    got = edge_network.Network.load(tmp_path / "again.safetensors")
    for name, value in expected.state().items():
        np.testing.assert_array_equal(got.state()[name], value, err_msg=name)


def test_the_map_holds_the_scores_of_each_window_alone(edge_network, photographs):
    network = edge_network.Network.load(WEIGHTS)
    pixels = photographs.load()[0].pixels
    scores = network(pixels[None])[0]
    for row, column in ((0, 0), (17, 33), (49, 76)):
        y, x = row * edge_network.STEP, column * edge_network.STEP
        window = pixels[None, y : y + edge_network.WINDOW, x : x + edge_network.WINDOW]
        np.testing.assert_allclose(network(window)[0, :, 0, 0], scores[:, row, column], rtol=0, atol=1e-4)


@pytest.mark.parametrize(("kernel", "stride", "size"), [(3, 2, 9), (3, 2, 10), (3, 1, 7), (1, 1, 4)])
def test_gradients_of_a_convolution_against_central_differences(edge_network, kernel, stride, size):
    rng = np.random.default_rng(0)
    conv = edge_network.Conv(rng.normal(size=(4, 3, kernel, kernel)), rng.normal(size=4), stride)
    x = rng.normal(size=(2, 3, size, size))
    dy = rng.normal(size=conv(x).shape)
    dx = conv.backward(dy)
    for values, gradient in ((x, dx), (conv.weight, conv.weight_grad), (conv.bias, conv.bias_grad)):
        for at in rng.integers(0, values.size, 6):
            kept, outputs = values.flat[at], []
            for moved in (kept + 1e-6, kept - 1e-6):
                values.flat[at] = moved
                outputs.append((conv(x) * dy).sum())
            values.flat[at] = kept
            assert gradient.flat[at] == pytest.approx((outputs[0] - outputs[1]) / 2e-6, rel=1e-5, abs=1e-7)


def test_no_box_is_on_both_sides(photographs):
    for photograph in photographs.load():
        assert len(photograph.training_boxes) + len(photograph.held_out_boxes) == len(photograph.boxes)
        assert {box.name for box in photograph.training_boxes} == {box.name for box in photograph.held_out_boxes}
        for box in photograph.boxes:
            height, width = photograph.pixels.shape[:2]
            assert 0 <= box.left <= box.right - 31 <= width - 31, box
            assert 0 <= box.top <= box.bottom - 31 <= height - 31, box


def test_training_windows_show_no_held_out_pixel(photographs):
    pictures = photographs.load()
    for picture in pictures:
        pixels = np.zeros_like(picture.pixels)
        pixels[:, slice(*picture.held_out)] = 255
        object.__setattr__(picture, "pixels", pixels)
    windows, labels = photographs.training_windows(pictures, 4000, np.random.default_rng(0))
    assert not windows.any()
    assert np.bincount(labels).tolist() == [800] * 5
    assert not any(picture.training_pixels.any() for picture in pictures)


@pytest.mark.parametrize(
    ("absent", "needed"),
    [
        ("sklearn.datasets", "scikit-learn, and Pillow with which it reads photographs"),
        ("PIL", "scikit-learn, and Pillow with which it reads photographs"),
        ("safetensors", "safetensors and threadpoolctl"),
        ("threadpoolctl", "safetensors and threadpoolctl"),
    ],
)
def test_missing_library(absent, needed):
    program = f"""
import sys
sys.path.insert(0, {str(EXAMPLES)!r})
sys.modules[{absent!r}] = None
import edge_inference
edge_inference.main()
"""
    done = run("-c", program)
    assert done.returncode == 1
    assert done.stderr == f'this example needs {needed}; install with: pip install "cpubn[demo]"\n'


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--windows", "63", "must be a whole number from 64 to 1000000, got '63'"),
        ("--output", "no/such/w", "must name a file in a folder that exists, got 'no/such/w'"),
    ],
)
def test_options_that_are_refused(option, value, message):
    done = run(EXAMPLES / "train_edge_network.py", option, value)
    assert done.returncode == 2
    assert f"argument {option}: {message}" in done.stderr
