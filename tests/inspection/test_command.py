"""python -m cpubn norms: files of each format, as a table, as JSON and as a picture; and what cannot be read."""

import json
import os
import struct
import subprocess
import sys

import numpy as np
import pytest
from conftest import need_library

for name in ("onnx", "safetensors", "rich", "matplotlib"):
    need_library(name, "inspect")

import onnx
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import save_file

import cpubn
from cpubn import cli, convert
from cpubn.inspection import plot

RNG = np.random.default_rng(5)


def norm(channels=4, **given):
    vectors = {"running_mean": RNG.normal(0, 1, channels), "running_var": RNG.uniform(0.5, 2, channels)}
    vectors |= {"weight": RNG.uniform(0.5, 2, channels), "bias": RNG.normal(0, 1, channels)}
    return convert.Norm(**vectors | given, eps=1e-3)


def arrays_of(norms, **others):
    """As a state_dict holds them."""
    found = {f"{name}.{key}": v for name, n in norms.items() for key, v in n.vectors().items()}
    return {key: np.asarray(v, np.float32) for key, v in (others | found).items()}


def onnx_model(norms):
    """conv0, bn of that name, Relu, conv1, ..."""
    nodes, tensors, value = [], [], "X"
    for at, (name, n) in enumerate(norms.items()):
        tensors.append(numpy_helper.from_array(np.ones((4, 4, 1, 1), np.float32), f"W{at}"))
        nodes.append(helper.make_node("Conv", [value, f"W{at}"], [f"c{at}"], f"conv{at}"))
        inputs = [f"{name}.{key}" for key in ("weight", "bias", "running_mean", "running_var")]
        tensors += [
            numpy_helper.from_array(n.vectors()[key.rpartition(".")[2]].astype(np.float32), key) for key in inputs
        ]
        nodes.append(helper.make_node("BatchNormalization", [f"c{at}", *inputs], [f"n{at}"], name, epsilon=n.eps))
        value = f"r{at}"
        nodes.append(helper.make_node("Relu", [f"n{at}"], [value], f"relu{at}"))
    x, y = (helper.make_tensor_value_info(v, TensorProto.FLOAT, [1, 4, 5, 5]) for v in ("X", value))
    graph = helper.make_graph(nodes, "g", [x], [y], tensors)
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 15)])


def run(capsys, *words):
    status = cli.main(["norms", *map(str, words)])
    printed = capsys.readouterr()
    return status, printed.out, printed.err


def refused(capsys, *words):
    status, out, err = run(capsys, *words)
    assert (status, out) == (2, "")
    assert err.startswith("cpubn norms: ")
    assert err.count("\n") == 1
    return err


SICK = {"weight": np.array([0.0, 1.0, 1.0, 1e6])}


@pytest.fixture(params=["onnx", "safetensors", "npz", "foreign safetensors", "foreign npz"])
def file(request, tmp_path):
    """Of norms "a.bn0", which is well, and "a.bn1", which is not, after convolutions "a.conv0" and "a.conv1"."""
    norms = {"a.bn0": norm(), "a.bn1": norm(**SICK)}
    path = tmp_path / f"model.{request.param.split()[-1]}"
    kernels = {f"a.conv{i}.weight": np.ones((4, 4, 1, 1)) for i in range(2)}
    if request.param == "onnx":
        onnx.save(onnx_model(norms), path)
    elif request.param == "safetensors":
        convert.to_safetensors(norms, path)
    elif request.param == "npz":
        convert.to_npz(norms, path)
    elif request.param == "foreign npz":
        np.savez(path, **arrays_of(norms, **kernels))
    else:
        save_file(arrays_of(norms, **kernels), path)
    return request.param, path


def test_every_format(file, capsys):
    kind, path = file
    words = [path, "--eps", "1e-3"] if kind.startswith("foreign") else [path]
    status, out, err = run(capsys, *words)
    assert (status, err) == (0, "")
    assert out.splitlines()[0].strip() == f"{path.name}: 2 batch norms, 8 channels"
    well, sick = (next(line for line in out.splitlines() if name in line) for name in ("a.bn0", "a.bn1"))
    assert " 4   0.001 " in well
    assert well.rstrip().endswith("good")
    assert sick.rstrip().endswith("1 dead, 1 float16 overflow, 1 int8 outlier, 2 int8 underflow")
    assert "dead, 1 channel in 1 norm: weight 0, or an output that does not vary\n    a.bn1: channel 0 of 4\n" in out
    if kind == "onnx":
        assert "after Conv conv0, before Relu   yes " in well
        assert "Folds into a layer beside it: 2 yes.\n" in out
    elif kind.startswith("foreign"):
        assert "likely after a.conv0 (4x4x1x1)   likely " in well
        assert "an activation between a layer and its norm would not show" in out
    else:
        assert " unknown   unknown " in well
        assert "Folds into a layer beside it: 2 unknown.\n    a.bn0: no layer of its name or just before it" in out


def test_json(file, capsys):
    kind, path = file
    words = [path, "--eps", "1e-3"] if kind.startswith("foreign") else [path]
    status, out, err = run(capsys, *words, "--json")
    told = json.loads(out)
    assert (status, err) == (0, "")
    assert told["file"] == str(path)
    assert kind.split()[-1] in told["kind"].lower()
    expected = cpubn.health(convert.read(path, eps=1e-3)).to_dict()
    assert told["kinds"] == expected["kinds"]
    for got, norm in zip(told["norms"], expected["norms"], strict=True):
        assert got.pop("place").keys() == {"stands", "how", "foldable"}
        assert got == norm


def test_damaged_files_are_refused_or_read(file, capsys):
    """Some flips are of a name or a number, which nothing can see."""
    kind, path = file
    whole, rng = path.read_bytes(), np.random.default_rng(7)
    for at in rng.integers(0, len(whole), 60):
        flipped = bytearray(whole)
        flipped[at] ^= 1 << rng.integers(8)
        for damaged in (flipped, whole[:at]):
            path.write_bytes(damaged)
            status, out, err = run(capsys, path, "--json", "--eps", "1e-3")
            assert (status, bool(out), bool(err)) in ((0, True, False), (2, False, True)), (kind, at)
            assert err.startswith("cpubn norms: ") or not err


def test_what_cannot_be_read_is_said(tmp_path, capsys):
    model = onnx_model({"bn0": norm(), "bn1": norm()})
    model.graph.node[4].input[2] = "X"
    onnx.save(model, tmp_path / "m.onnx")
    status, out, _ = run(capsys, tmp_path / "m.onnx")
    assert (status, "1 batch norm, 4 channels" in out) == (0, True)
    assert "bn1 could not be read: input 'X' of node 'bn1' must be a readable constant" in out
    assert list(json.loads(run(capsys, tmp_path / "m.onnx", "--json")[1])["unread"]) == ["bn1"]
    model.graph.node[1].input[2] = "X"
    onnx.save(model, tmp_path / "m.onnx")
    assert "none of its batch norms can be read" in refused(capsys, tmp_path / "m.onnx")


def test_where_fold_onnx_fails(tmp_path, capsys):
    model = onnx_model({"bn0": norm()})
    onnx.external_data_helper.set_external_data(model.graph.initializer[0], "none.bin")
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    status, out, _ = run(capsys, tmp_path / "m.onnx")
    assert (status, "Folds into a layer beside it: 1 unknown.\n    bn0: " in out) == (0, True)
    assert "none.bin" in out


def test_letters_that_a_terminal_lacks(tmp_path):
    convert.to_npz({"\u0416": norm()}, tmp_path / "m.npz")
    command = [sys.executable, "-m", "cpubn", "norms", str(tmp_path / "m.npz")]
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=environment)
    assert (done.returncode, "| ? " in done.stdout) == (0, True), done.stderr


def test_eps_is_asked_for(tmp_path, capsys):
    path = tmp_path / "model.npz"
    np.savez(path, **arrays_of({"bn": norm()}))
    assert "eps must be given, because" in refused(capsys, path)
    assert "--eps 1e-5" in refused(capsys, path)


@pytest.mark.parametrize("count", [1, 60])
def test_plot(count, tmp_path, capsys):
    sick = {"running_mean": np.full(4, 1e30), "running_var": np.array([0.0, 1e-30, 1.0, 1e30])}
    convert.to_npz({f"norm{i}": norm(**SICK | (sick if i else {})) for i in range(count)}, tmp_path / "model.npz")
    assert run(capsys, tmp_path / "model.npz", "--plot", tmp_path / "a.png")[0] == 0
    signature, _, _, width, height = struct.unpack(">8sI4sII", (tmp_path / "a.png").read_bytes()[:24])
    assert signature == b"\x89PNG\r\n\x1a\n"
    assert (width, height) == (1430, round(110 * (plot.HEAD + plot.ROW * count)))


def test_plot_of_what_is_nowhere_a_number(tmp_path):
    bn = cpubn.BatchNorm1d(3)
    bn.running_var[...] = np.nan
    for norms in ({"": bn}, {"a": bn, "b": norm(1), "c": norm(weight=np.zeros(4))}):
        plot.draw("title", cpubn.health(norms), tmp_path / "a.png")


def test_outliers():
    values = np.array([1.0, 1.1, 0.9, 1e-4, 1.0, 50.0, 60.0, np.nan, 1.05, 0.95])
    far = plot.far_out(values, np.isfinite(values), logarithmic=True)
    assert (far["left"].tolist(), far["right"].tolist()) == ([3], [6, 5])
    same = plot.far_out(np.ones(5), np.ones(5, bool), logarithmic=False)
    assert (same["left"].size, same["right"].size) == (0, 0)
    assert plot.channels(np.arange(5)) == "0, 1, 2 +2"


@pytest.mark.parametrize("name", ["[bold]x[/nothing]", "$x_$", "\x1b[31mred\nline", "\u6c49\u5b57", "x" * 300])
def test_names_are_shown_and_not_obeyed(name, tmp_path, capsys):
    """By rich, which takes what is in brackets for a style, by matplotlib, which sets formulas, or by the terminal."""
    path = tmp_path / "[red]m$_$.npz"
    convert.to_npz({name: norm(**SICK)}, path)
    status, out, err = run(capsys, path, "--plot", tmp_path / "a.png")
    assert (status, err) == (0, "")
    shown = name.replace("\x1b", r"\x1b").replace("\n", r"\n")
    assert f"    {shown}: channel 0 of 4\n" in out
    assert "\x1b" not in out
    assert out.startswith(f"{path.name}: 1 batch norm")
    assert (tmp_path / "a.png").exists()


@pytest.mark.parametrize(("content", "message"), [
    (b"", "opset"),
    (b"not a model", "cannot be read"),
    (b"PK\3\4 and no more", "zip archive"),
    (b"\x93NUMPY", "cannot be read"),
])  # fmt: skip
def test_files_that_are_none(content, message, tmp_path, capsys):
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    assert message in refused(capsys, path)


def test_wrong_files(tmp_path, capsys):
    assert "can be read or written, got [Errno 2] No such file" in refused(capsys, tmp_path / "none.onnx")
    assert "directory" in refused(capsys, tmp_path)
    np.savez(tmp_path / "none.npz", fc=np.ones((3, 3)))
    assert "running_mean and running_var, got the keys fc" in refused(capsys, tmp_path / "none.npz")
    convert.to_npz({"bn": norm()}, tmp_path / "a.npz")
    assert "--plot must name a file that ends in .png" in refused(capsys, tmp_path / "a.npz", "--plot", "a.txt")
    assert "can be written" in refused(capsys, tmp_path / "a.npz", "--plot", tmp_path / "none" / "a.png")


@pytest.mark.parametrize("eps", ["-1", "nan", "inf", "much"])
def test_wrong_eps(eps, capsys):
    with pytest.raises(SystemExit, match=r"^2$"):
        cli.main(["norms", "a.npz", f"--eps={eps}"])
    assert f"must be a number of at least 0, got '{eps}'" in capsys.readouterr().err


def test_json_needs_no_rich(tmp_path):
    convert.to_npz({"bn": norm()}, tmp_path / "a.npz")
    program = (
        "import sys; sys.modules.update(dict.fromkeys(['rich', 'matplotlib'])); "
        "import importlib.util as u; find = u.find_spec; "
        "u.find_spec = lambda name, *a: None if name in ('rich', 'matplotlib') else find(name, *a); "
        "from cpubn.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    for words, status in ((["--json"], 0), ([], 2), (["--json", "--plot", "a.png"], 2)):
        command = [sys.executable, "-c", program, "norms", str(tmp_path / "a.npz"), *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == status, done.stderr
        assert ('install with: pip install "cpubn[inspect]"' in done.stderr) == (status == 2)
