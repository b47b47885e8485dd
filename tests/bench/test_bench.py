"""The benchmark: its layers, that every contestant computes batch norm, and the command.

No assertion on a time.
"""

import subprocess
import sys

import numpy as np
import oracle
import pytest

from cpubn import cli
from cpubn.bench import measure, suite, tables
from cpubn.bench.case import EPS, OPS, TOLERANCE, Case, Prepared, from_nchw, in_nchw
from cpubn.bench.contestants import LIBRARIES, LIMIT, AbsentError, Contestant, Field, gather, limit_
from cpubn.bench.layers import FEW, MODELS, NETWORKS, OVERHEAD, STANDARD, Layer, layers_of
from cpubn.bench.results import Results

SHAPES = [(6, 24), (3, 24, 5), (2, 16, 3, 5), (2, 17, 2, 3, 2)]
PASSES = [op for op in OPS if op != "overhead"]


def expected_of(case):
    """What a pass of a case must give, by the oracle."""
    mean, var = oracle.moments(case.x())
    if case.op == "moments":
        return np.stack((mean, var))
    if case.op == "backward":
        return oracle.batch_norm_backward(case.dy(), case.x(), mean, var, case.weight, EPS).dx
    if case.op in ("eval", "overhead"):
        mean, var = case.mean, case.var
    return oracle.batch_norm(case.x(), mean, var, case.weight, case.bias, EPS).y


@pytest.mark.parametrize("model", MODELS)
def test_layers(model):
    layers = layers_of(model)
    assert len(set(layers)) == len(layers) > 0
    assert all(2 <= len(layer.shape) <= 5 and min(layer.shape) >= 1 for layer in layers)
    assert all(layer.model == model for layer in layers)
    assert all(layer.shape[0] == 8 for layer in layers_of(model, [8]))


def test_layers_of_the_papers():
    assert len(STANDARD) == 11
    assert len(FEW) == 6
    assert max(shape[1] for shape in FEW) <= 16
    last = {name: list(network())[-1] for name, network in NETWORKS.items()}
    assert last["resnet50"] == (2048, 7, 7)
    assert last["mobilenetv2"] == (1280, 7, 7)
    assert last["densenet121"] == (1024, 7, 7)


def test_layers_for_each_batch():
    assert {layer.shape[0] for layer in layers_of("resnet50")} == {1, 8, 32}
    assert layers_of("mlp", [5]) == [Layer("mlp", (5, 256)), Layer("mlp", (5, 128))]
    assert layers_of("standard", [8]) == [Layer("standard", (8, 256, 56, 56))]


@pytest.mark.parametrize("layout", ["NCHW", "NHWC", "nChw16c", "nChw8c"])
@pytest.mark.parametrize("shape", SHAPES)
def test_memory_layouts_and_back(layout, shape):
    x = np.random.default_rng(0).standard_normal(shape, np.float32)
    there = from_nchw(x, layout)
    assert there.flags.c_contiguous
    np.testing.assert_array_equal(in_nchw(there, layout, shape), x)


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("shape", SHAPES)
def test_what_contestants_must_reach_is_what_the_oracle_says(op, shape):
    case = Case(op, Layer("tiny", shape), seed=0)
    np.testing.assert_allclose(case.expected, expected_of(case), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("library", LIBRARIES)
def test_contestants_against_the_oracle(library):
    field = gather(1, (library,))
    if library in field.absent:
        pytest.skip(f"{library} is absent: {field.absent[library]}")
    assert library == LIMIT or field.versions[library]
    for contestant in field.contestants:
        for op, prepare in contestant.passes.items():
            if op not in OPS:
                continue  # in test_bench_edge.py
            for shape in [OVERHEAD.shape] if op == "overhead" else SHAPES:
                case = Case(op, Layer("tiny", shape), seed=1)
                prepared = prepare(case, contestant.layout)
                if contestant.name == LIMIT:
                    prepared.call()
                    continue
                assert case.error(prepared, contestant.layout) < 1e-4, (contestant, op, shape)
                got = prepared.result()
                if op != "moments":
                    got = in_nchw(got, contestant.layout, shape)
                np.testing.assert_allclose(got, expected_of(case).astype(float), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("compiler", [None, "no-such-compiler"])
def test_limit_moves_the_bytes(compiler, monkeypatch):
    """With a compiler and without: y = a * x, dx = a * dy + x, and a sum."""
    limit_.load.cache_clear()
    if compiler:
        pytest.importorskip("numba", reason="without a compiler the limit needs Numba")
        monkeypatch.setenv("CXX", compiler)
    (limit,) = limit_.contestants(1)
    assert not compiler or "Numba" in limit.note
    limit_.load.cache_clear()
    layer = Layer("tiny", (3, 4, 5))
    case = Case("eval", layer)
    limit.passes["eval"](case, "NCHW").call()
    np.testing.assert_array_equal(case.y(), np.float32(1.5) * case.x())
    case = Case("backward", layer)
    limit.passes["backward"](case, "NCHW").call()
    np.testing.assert_allclose(case.y(), np.float32(1.5) * case.dy() + case.x(), rtol=1e-5, atol=1e-6)
    case = Case("moments", layer)
    assert limit.passes["moments"](case, "NCHW").call() == pytest.approx(case.x().sum(dtype=float), rel=1e-4)


def test_measures_everyone_in_every_round():
    called, rounds = [], []
    calls = {key: lambda key=key: called.append(key) for key in "abc"}
    timings = measure.measure(calls, 2, lambda: rounds.append(len(called)))
    assert set(timings) == set("abc")
    assert all(timing.low <= timing.median <= timing.high for timing in timings.values())
    assert len(rounds) == 2
    # Each round starts with another.
    assert called[rounds[0]] == "b"
    assert called[-1] == "a"


def stub(name, result):
    """A contestant for inference that gives `result(case)`."""
    return Contestant(name, "NCHW", {"eval": lambda case, layout: Prepared(lambda: None, lambda: result(case))})


def test_a_peer_that_errs_is_left_out_and_noted():
    case, failed = Case("eval", Layer("tiny", (2, 3))), {}
    right = stub("right", lambda case: case.expected)
    off = stub("off", lambda case: case.expected + 2 * TOLERANCE * np.maximum(1, abs(case.expected)))
    silent = stub("silent", lambda case: case.y())  # writes nothing
    broken = stub("broken", lambda case: 1 / 0)
    records = list(suite.records_of(case, [right, off, silent, broken], 1, failed, lambda: None))
    assert [record.name for record in records] == ["right"]
    assert list(failed) == [f"{name} NCHW, eval 2x3" for name in ("off", "silent", "broken")]
    with pytest.raises(ArithmeticError, match="off by"):
        list(suite.records_of(case, [stub("cpubn-numba", lambda case: case.expected + 1)], 1, failed, lambda: None))


def test_who_takes_part():
    names = [("limit", "NCHW"), ("cpubn-cython", "NCHW"), ("cpubn-cython", "NHWC"), ("cpubn-numba", "NCHW")]
    names += [("numpy", "NCHW"), ("numpy", "NHWC"), ("torch-channels-last", "NHWC"), ("onednn", "nChw16c")]
    names += [("onednn-unaligned", "NCHW"), ("onednn-unaligned", "NHWC")]
    field = Field([Contestant(name, layout, {"eval": None}) for name, layout in names])

    def chosen(layouts, compare):
        return [(c.name, c.layout) for c in suite.chosen(field, "eval", layouts, compare)]

    assert chosen(("NCHW", "NHWC"), None) == names
    free = "torch-channels-last", "onednn", "onednn-unaligned"  # of one layout alone, or of any
    assert chosen(("NCHW",), None) == [name for name in names if name[0] in free or name[1] != "NHWC"]
    assert chosen(("NHWC",), ["torch"]) == [
        ("limit", "NCHW"),
        ("cpubn-cython", "NHWC"),
        ("torch-channels-last", "NHWC"),
    ]
    assert chosen(("NCHW",), ["cpubn-numba"]) == [("limit", "NCHW"), ("cpubn-cython", "NCHW"), ("cpubn-numba", "NCHW")]
    assert suite.libraries_of(["torch-module"]) == ("limit", "cpubn", "torch")


def test_command(tmp_path, capsys):
    pytest.importorskip("rich", reason='the benchmark needs rich: pip install "cpubn[bench]"')
    pytest.importorskip("matplotlib", reason='the picture needs matplotlib: pip install "cpubn[bench]"')
    kept, picture = tmp_path / "results.json", tmp_path / "results.png"
    words = ["bench", "--model", "mlp", "--batch", "3", "--rounds", "1", "--threads", "1", "--compare", "numpy"]
    assert cli.main([*words, "--json", str(kept)]) == 0
    out = capsys.readouterr().out
    for op in OPS:
        assert tables.TITLES[op] in out
    assert "cpubn-frozen" in out
    assert "geometric mean" in out
    results = Results.read(kept)
    assert {r.op for r in results.records} == set(OPS)
    assert {r.shape for r in results.records if r.op in PASSES} == {(3, 256), (3, 128)}
    assert results.made["failed"] == {}
    again = tmp_path / "again.json"
    results.write(again)
    assert again.read_bytes() == kept.read_bytes()
    # Of one pass: a picture of all of them takes longer than all that is measured.
    assert cli.main([*words, "--op", "eval", "--plot", str(picture)]) == 0
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_command_summary_of_one_value_per_channel(capsys):
    """Inference and moments alone: there is nothing to train on."""
    pytest.importorskip("rich", reason='the benchmark needs rich: pip install "cpubn[bench]"')
    words = ["bench", "--model", "mlp", "--batch", "1", "--rounds", "1", "--compare", "numpy", "--summary"]
    assert cli.main([*words, "--op", "eval", "train"]) == 0
    out = capsys.readouterr().out
    assert "inference, NCHW, mlp" in out
    assert "training" not in out
    assert cli.main([*words, "--op", "train"]) == 2
    assert "mlp has no such layers" in capsys.readouterr().err


def test_command_of_several_models(capsys):
    """Each by itself: no mean over the layers of both; one asked for twice is measured once."""
    pytest.importorskip("rich", reason='the benchmark needs rich: pip install "cpubn[bench]"')
    words = ["bench", "--model", "few", "mlp", "few", "--batch", "1", "--rounds", "1", "--op", "moments"]
    assert cli.main([*words, "--compare", "numpy", "--layout", "NHWC"]) == 0
    out = capsys.readouterr().out
    for shape in FEW:
        assert (f" {Layer('few', shape).name} " in out) == (shape[0] == 1)
    assert out.count("moments, NHWC, few") == out.count("moments, NHWC, mlp") == 2  # its table, and the means


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--threads", "0"), "must be a whole number from 1 to 1024, got '0'"),
        (("--compare", "torch,tensorflow"), "with commas between, got 'tensorflow'"),
        (("--json", "no/such/folder/r.json"), "must be a file that can be written"),
        (("--model", "alexnet"), "invalid choice: 'alexnet'"),
    ],
)
def test_bad_arguments(words, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        cli.main(["bench", *words])
    assert message in capsys.readouterr().err


def test_missing_library(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "rich", None)
    assert cli.main(["bench"]) == 2
    assert capsys.readouterr() == (
        "",
        'cpubn bench: the benchmark needs rich; install with: pip install "cpubn[bench]"\n',
    )


@pytest.mark.parametrize(("name", "how"), [("jax", "pip install jax"), ("opencv-blob", 'pip install "cpubn[bench]"')])
def test_an_absent_peer_is_refused_before_anyone_is_imported(name, how, monkeypatch, capsys):
    pytest.importorskip("rich", reason='the benchmark needs rich: pip install "cpubn[bench]"')
    module = {"jax": "jax", "opencv-blob": "cv2"}[name]
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setattr(suite, "gather", lambda *given: pytest.fail("imports"))
    assert cli.main(["bench", "--compare", f"numpy,{name}"]) == 2
    assert capsys.readouterr() == (
        "",
        f"cpubn bench: whom --compare names must be installed here, got '{name}': there is no module {module}; "
        f"install with: {how}, or leave it out\n",
    )


def test_a_peer_that_fails_to_import_is_refused_before_any_measurement(monkeypatch, capsys):
    """One that is found, but broken; where nobody asked for it, the others run."""
    pytest.importorskip("rich", reason='the benchmark needs rich: pip install "cpubn[bench]"')
    monkeypatch.setitem(sys.modules, "cpubn.bench.contestants.onednn_", None)
    monkeypatch.setattr(suite, "measure", lambda *given: pytest.fail("measures"))
    words = ["bench", "--model", "mlp", "--batch", "1", "--op", "eval", "--threads", "1"]
    assert cli.main([*words, "--compare", "numpy,onednn-unaligned"]) == 2
    error = capsys.readouterr().err
    assert "must be installed here, got 'onednn': import of cpubn.bench.contestants.onednn_ halted" in error
    with pytest.raises(AbsentError, match="got 'cpubn-numba': broken; install with"):
        suite.check_presence(["cpubn-numba"], Field(), {"cpubn-numba": "broken"})
    assert cli.main([*words, "--compare", "numpy-fast"]) == 2
    assert "must name contestants that there are, got 'numpy-fast'; name one of numpy\n" in capsys.readouterr().err
    assert list(gather(1, ("onednn",)).absent) == ["onednn"]


HEAVY = {*LIBRARIES, "numba", "matplotlib", "cv2"} - {LIMIT, "cpubn", "numpy"}


def test_the_first_line_comes_before_libraries_do():
    """It says what is about to happen, while nothing that takes seconds to import has been; the pipe has it by then."""
    pytest.importorskip("rich", reason='the benchmark needs rich: pip install "cpubn[bench]"')
    program = (
        "import os, sys; from cpubn import cli; from cpubn.bench import suite; "
        f"suite.gather = lambda *given, **names: os._exit(len({HEAVY!r} & set(sys.modules))); "
        "cli.main(['bench', '--model', 'standard', 'few', '--op', 'eval', '--threads', '1'])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0
    assert "1 threads. To be measured: eval of the layers standard, few (17 cases) in NCHW, NHWC" in done.stdout


def test_options_bring_no_library():
    """--help works, and stays quick, without any of the contestants."""
    heavy = HEAVY | {"rich"}
    program = (
        "import argparse, sys; from cpubn import bench; bench.add_arguments(argparse.ArgumentParser()); "
        f"print(sorted({heavy!r} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr == "[]\n"
