"""python -m cpubn fold: what it prints and writes, and what it refuses."""

import io
import os
import stat
import sys
import time

import numpy as np
import pytest
from conftest import need_library

from cpubn import cli
from cpubn.convert import _fold_command

for name in ("ml_dtypes", "onnx"):
    need_library(name, "convert")
import onnx
from fold_cases import BEFORE
from fold_left import LEFT
from onnx_models import model, node, norm, operators, vectors

nodes, arrays, shape = BEFORE["Conv"]
MADE = model([*nodes, node("Relu", "y", "r"), norm("r", "z")], arrays | vectors("z", 4), shape, output="z")


@pytest.fixture
def given(tmp_path):
    path = tmp_path / "model.onnx"
    onnx.save(MADE, path)
    return path


def fold(*words):
    return cli.main(["fold", *map(str, words)])


@pytest.mark.parametrize("check", [(), ("--check",)])
def test_a_model_is_folded(given, check, capsys):
    content, output = given.read_bytes(), given.with_name("folded.onnx")
    assert fold(given, "-o", output, *check) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    lines = printed.out.splitlines()
    assert lines[:3] == ["folded 1 of 2 batch norms", "  y: into Conv 'c' before it", "left 1"]
    assert lines[-1] == f"wrote {output}, 0.0 MB; {given} has 0.0 MB"
    assert (lines[-2].startswith("largest difference of outputs ")) == bool(check)
    assert operators(onnx.load(output)) == ["Conv", "Relu", "BatchNormalization"]
    assert given.read_bytes() == content
    assert sorted(path.name for path in given.parent.iterdir()) == ["folded.onnx", "model.onnx"]
    assert stat.S_IMODE(output.stat().st_mode) == stat.S_IMODE(given.stat().st_mode)


def test_what_is_refused(given, tmp_path, capsys):
    (tmp_path / "text").write_text("text")
    onnx.save(model([node("Relu", "x", "y")], {}, [2, 3]), tmp_path / "none.onnx")
    output = tmp_path / "out.onnx"
    for words, wrong in (
        ((given, "-o", given), "--output must be another file than the model"),
        ((given, "-o", tmp_path), "--output must name a file in a folder that exists"),
        ((given, "-o", tmp_path / "no" / "out"), "--output must name a file in a folder that exists"),
        ((tmp_path / "absent", "-o", output), "the model must be a file that can be read, got"),
        ((tmp_path, "-o", output), "the model must be a file that can be read, got"),
        ((tmp_path / "text", "-o", output), "must be an ONNX model, got one that cannot be read"),
        ((tmp_path / "none.onnx", "-o", output), "the model must have a BatchNormalization node, got 1 nodes of other"),
    ):
        assert fold(*words) == 2
        printed = capsys.readouterr()
        assert printed.out == ""
        assert printed.err.startswith("cpubn fold: ")
        assert wrong in printed.err
        assert not output.exists()


def test_what_cannot_be_written_leaves_what_is_there(given, capsys, monkeypatch):
    output = given.with_name("folded.onnx")
    output.write_text("before")

    class Folded:
        def ByteSize(self):  # noqa: N802
            return 10

        def SerializeToString(self):  # noqa: N802
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(_fold_command, "fold_and_say", lambda *_: (Folded(), None))
    monkeypatch.setattr(_fold_command, "failure", lambda report: "")
    assert fold(given, "-o", output) == 2
    assert "--output must name a file that can be written" in capsys.readouterr().err
    monkeypatch.setattr(_fold_command, "LARGEST", 9)
    assert fold(given, "-o", output) == 2
    assert "the folded model must be below 2 GB to be one file" in capsys.readouterr().err
    assert output.read_text() == "before"
    assert sorted(path.name for path in given.parent.iterdir()) == ["folded.onnx", "model.onnx"]


def test_a_terminal_is_told_what_is_being_done(monkeypatch):
    need_library("rich", "progress")

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setattr(_fold_command, "PATIENCE", 0)
    with _fold_command.progress() as say:
        while "folding" not in sys.stderr.getvalue():
            say("folding")
            time.sleep(0.01)


def test_help(capsys):
    with pytest.raises(SystemExit, match=r"^0$"):
        fold("-h")
    assert "where that fails or outputs differ by over 1%" in " ".join(capsys.readouterr().out.split())


def test_without_an_output(given, capsys):
    with pytest.raises(SystemExit, match=r"^2$"):
        fold(given)
    assert "the following arguments are required: -o/--output" in capsys.readouterr().err


def test_a_check_that_fails(given, capsys, monkeypatch):
    output = given.with_name("folded.onnx")
    monkeypatch.setattr("cpubn.convert._fold_check._difference", lambda a, b: np.inf)
    assert fold(given, "-o", output, "--check") == 1
    assert (
        capsys.readouterr().err == "cpubn fold: the outputs differ by more than 1% of the largest; nothing is written\n"
    )
    made = onnx.load(given)
    made.graph.node[1].op_type, made.graph.node[1].domain = "Unheard", "com.example"
    made.opset_import.append(onnx.helper.make_opsetid("com.example", 1))
    onnx.save(made, given)
    assert fold(given, "-o", output, "--check") == 1
    printed = capsys.readouterr()
    assert "not compared: reference does not run the model" in printed.out
    assert printed.err == "cpubn fold: the models could not be compared; nothing is written\n"
    assert not output.exists()


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written(given, tmp_path, capsys):
    folder = tmp_path / "closed"
    folder.mkdir(mode=0o500)
    assert fold(given, "-o", folder / "out.onnx") == 2
    assert "--output must name a file that can be written" in capsys.readouterr().err


def test_names_cannot_steer_a_terminal(tmp_path, capsys):
    made = model(*LEFT["at the start"][:3])
    made.graph.node[0].name = "\x1b[2J"
    onnx.save(made, tmp_path / "model.onnx")
    assert fold(tmp_path / "model.onnx", "-o", tmp_path / "out.onnx") == 0
    assert "  \\x1b[2J: before it" in capsys.readouterr().out
