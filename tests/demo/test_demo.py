"""The demo, from its gradients to its picture."""

import argparse
import dataclasses
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import need_backend, need_library

import cpubn
from cpubn import demo

need_library("rich", "demo")
need_library("sklearn", "demo")

from cpubn.demo import serving, show, story
from cpubn.demo.network import Linear, Network, cross_entropy
from cpubn.demo.training import Digits, load, train

TIMES = re.compile(r"( +\d+\.\d+){2}(?= +(reference|\d\.\de[-+]\d+))")


@pytest.fixture(scope="module")
def digits() -> Digits:
    return load(seed=0)


def parse(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    demo.add_arguments(parser)
    return parser.parse_args(words)


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert demo.run(parse(*words)) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("normalized", [False, True])
def test_gradients_against_central_differences(normalized: bool) -> None:
    rng = np.random.default_rng(1)
    network = Network(normalized, rng)
    layers = [layer for layer in network.layers if isinstance(layer, Linear | cpubn.BatchNorm1d)]
    for layer in layers:
        layer.weight, layer.bias = layer.weight.astype(np.float64), layer.bias.astype(np.float64)
        layer.zero_grad()
    x, answers = rng.random((16, 64)), rng.integers(0, 10, 16)
    network.backward(cross_entropy(network(x), answers)[1])
    step = 1e-6
    for layer in layers:
        for parameter, gradient in ((layer.weight, layer.weight_grad), (layer.bias, layer.bias_grad)):
            for at in rng.integers(0, parameter.size, 5):
                kept = parameter.flat[at]
                losses = []
                for moved in (kept + step, kept - step):
                    parameter.flat[at] = moved
                    losses.append(cross_entropy(network(x), answers)[0])
                parameter.flat[at] = kept
                expected = (losses[0] - losses[1]) / (2 * step)
                assert gradient.flat[at] == pytest.approx(expected, rel=1e-4, abs=1e-8)


def test_batch_norm_needs_fewer_epochs(digits: Digits) -> None:
    plain, normalized = (story.new_run(normalized, story.SHOWN, seed=0) for normalized in (False, True))
    for _ in train(normalized, digits, 10, np.random.default_rng(0)):
        if normalized.epochs_to_target is not None:
            break
    assert normalized.epochs_to_target is not None
    for _ in train(plain, digits, normalized.epochs_to_target, np.random.default_rng(0)):
        pass
    assert plain.epochs_to_target is None


def test_divergence_is_a_result_and_no_warning(digits: Digits) -> None:
    run = story.new_run(False, 1e6, seed=0)
    assert list(train(run, digits, 3, np.random.default_rng(0))) == [None] * len(run.accuracies)
    assert run.diverged
    assert show.outcome(run) == ("never", "diverged")


def test_prints_curves_and_tables(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    picture = tmp_path / "curves.png"
    out = printed(capsys, "--epochs", "2", "--plot", str(picture))
    assert re.search(r"^ +1 +\d+\.\d% +\d+\.\d% .*[○o].*[●*]", out, re.MULTILINE)
    assert re.search(r"^ +2 +\d+\.\d% +\d+\.\d% ", out, re.MULTILINE)
    for rate in story.RATES:
        assert re.search(rf"^ +{rate:g} +(\d|never) +", out, re.MULTILINE), rate
    for backend in serving.BACKENDS:
        if backend in cpubn.available_backends():
            assert re.search(rf"cpubn, {backend} +\d+\.\d%.* (0\.0e\+00|\d\.\de-0[5-9])", out), backend
        else:
            assert f"The {backend} backend is absent and was skipped: " in out
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_fits_sixty_columns(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    out = printed(capsys, "--epochs", "1")
    assert max(len(line.rstrip()) for line in out.splitlines()) <= 60
    assert re.search(r"^ +1 +\d+\.\d% +\d+\.\d% .*[●*]", out, re.MULTILINE)
    assert "…" not in out


def test_figures_repeat_with_the_seed(capsys: pytest.CaptureFixture[str]) -> None:
    first, again, other = (TIMES.sub("", printed(capsys, "--epochs", "1", "--seed", seed)) for seed in ("7", "7", "8"))
    assert first == again
    assert first.replace("seed 7", "seed 8") != other


def test_backends_train_to_the_same_bits(digits: Digits) -> None:
    scores = []
    for backend in ("cython", "numba"):
        need_backend(backend)
        with cpubn.use_backend(backend):
            run = story.new_run(True, story.SHOWN, seed=0)
            next(train(run, digits, 1, np.random.default_rng(0)))
            scores.append(run.network(digits.held_out_pixels).tobytes())
    assert scores[0] == scores[1]


def test_says_which_backends_agree() -> None:
    same = serving.Served(np.ones((2, 10), np.float32), np.ones(5), 1.0, 1e-6, 1e-6)
    off = dataclasses.replace(same, scores=same.scores + np.float32(1e-6))
    assert show.agreement({"cython": same, "numba": same, "numpy": off}) == [
        "cython and numba gave the same bits, frozen and in a training step.",
        "numpy, which adds up in another order, agrees with cython and numba to 1e-06 of the largest number in the "
        "frozen network's scores, to the last bit in a training step.",
    ]
    assert "did NOT give the same bits" in show.agreement({"cython": same, "numba": off})[0]
    assert show.agreement({"numpy": same}) == []


def test_terminal_that_has_ascii_alone() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "cpubn", "demo", "--epochs", "1"],
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
        capture_output=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr.decode()
    assert b"o without batch norm" in done.stdout
    assert b"Warning" not in done.stderr


@pytest.mark.parametrize(
    ("words", "absent", "message"),
    [
        ((), "rich", 'the demo needs rich; install with: pip install "cpubn[demo]"'),
        (("--plot", "c.png"), "matplotlib", 'the demo needs matplotlib; install with: pip install "cpubn[demo]"'),
    ],
)
def test_missing_library(
    words: tuple[str, ...],
    absent: str,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, absent, None)
    assert demo.run(parse(*words)) == 2
    assert capsys.readouterr() == ("", f"cpubn demo: {message}\n")


@pytest.mark.parametrize("name", ["no/such/folder/c.png", "c.docx", "c", "folder.png"])
def test_plot_that_cannot_be_written_is_refused_first(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "folder.png").mkdir()
    monkeypatch.setattr(story, "tell", lambda *_: pytest.fail("it trained first"))
    assert demo.run(parse("--plot", str(tmp_path / name))) == 2
    assert "--plot must name a file" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["folder.png"]


@pytest.mark.parametrize("words", [("--seed", "-1"), ("--seed", "x"), ("--epochs", "0"), ("--seed", str(2**32))])
def test_numbers_out_of_range(words: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        parse(*words)
    assert "must be a whole number from" in capsys.readouterr().err
