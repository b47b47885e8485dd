"""The benchmark of fused activations, half types, images of bytes and quantized data."""

import math

import numpy as np
import oracle
import pytest
from conftest import need_library
from test_bench import SHAPES

from cpubn import cli
from cpubn.bench import suite, tables
from cpubn.bench.case import EPS, Prepared
from cpubn.bench.contestants import LIBRARIES, LIMIT, Contestant, Field, gather, limit_
from cpubn.bench.edge import EDGE_OPS, FUSED, HALF, INPUT, QUANTIZED, case_of
from cpubn.bench.layers import EDGE, IMAGES, Layer, layers_of
from cpubn.bench.results import Results

ACTIVATIONS = {
    "relu": lambda z: max(z, 0.0),
    "hardswish": lambda z: z * min(max(z + 3, 0.0), 6.0) / 6,
    "silu": lambda z: z / (1 + math.exp(-z)),
    "gelu": lambda z: z * (1 + math.erf(z / math.sqrt(2))) / 2,
}
IMAGE = (2, 3, 5, 7)


def shapes_of(op):
    """Of images three channels, which is what OpenCV takes; quantized data as torch takes it."""
    return [IMAGE] if op in INPUT else [shape for shape in SHAPES if len(shape) == 4 or op not in QUANTIZED]


def expected_of(case):
    """What a pass of a case must give, by the oracle and by `math`."""
    x = case.x().astype(np.float64)
    if case.op in QUANTIZED:
        x = (x - case.ZERO) * case.SCALE
    mean, var = case.mean, case.var
    if case.op.startswith(("train", "backward")):
        mean, var = oracle.moments(x)
    if case.op.startswith("backward"):
        return oracle.batch_norm_backward(case.dy().astype(np.float64), x, mean, var, case.weight, EPS).dx
    if case.op in INPUT:
        return (x - case.along(mean)) / np.sqrt(case.along(var))
    y = oracle.batch_norm(x, mean, var, case.weight, case.bias, EPS).y
    if case.op == "add_relu":
        y = y + case.residual()
    if case.op in FUSED or case.op == "int8_relu":
        y = np.vectorize(ACTIVATIONS[case.activation], otypes=[float])(y)
    if case.op in QUANTIZED:
        return np.clip(np.rint(y / case.OUT_SCALE) + case.OUT_ZERO, -128, 127)
    return y


@pytest.mark.parametrize("op", EDGE_OPS)
def test_what_contestants_must_reach_is_what_the_oracle_says(op):
    need_library("ml_dtypes", "bench")
    for shape in shapes_of(op):
        case = case_of(op, Layer("tiny", shape), seed=0)
        tolerance = 1e-6 if op in ("gelu", *INPUT) else 1e-12
        np.testing.assert_allclose(case.expected, expected_of(case).astype(float), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
    ("op", "types", "transfers"),
    [
        ("relu", ("float32", "float32"), 8),
        ("add_relu", ("float32", "float32"), 12),
        ("eval_float16", ("float16", "float16"), 4),
        ("backward_bfloat16", ("bfloat16", "bfloat16"), 6),
        ("input", ("uint8", "float32"), 5),
        ("int8", ("int8", "int8"), 2),
    ],
)
def test_types_and_bytes(op, types, transfers):
    need_library("ml_dtypes", "bench")
    case = case_of(op, Layer("tiny", IMAGE))
    assert (case.x().dtype.name, case.y().dtype.name) == types
    assert case.nbytes == transfers * case.x().size


@pytest.mark.parametrize("library", LIBRARIES)
def test_contestants_reach_it(library):
    need_library("ml_dtypes", "bench")
    field = gather(1, (library,))
    if library in field.absent:
        pytest.skip(f"{library} is absent: {field.absent[library]}")
    for contestant in field.contestants:
        for op in set(contestant.passes) & set(EDGE_OPS):
            for shape in shapes_of(op):
                case = case_of(op, Layer("tiny", shape), seed=1)
                prepared = contestant.passes[op](case, contestant.layout)
                if contestant.name == LIMIT:
                    prepared.call()
                    continue
                assert case.error(prepared, contestant.layout) <= case.tolerance, (contestant, op, shape)


@pytest.mark.parametrize("op", EDGE_OPS)
def test_a_wrong_result_is_seen(op):
    """One that was never written, and that of another image."""
    need_library("ml_dtypes", "bench")
    case = case_of(op, Layer("tiny", shapes_of(op)[0]))
    other = case_of(op, case.layer).expected
    for result in (case.y, lambda: other):
        wrong = Contestant("wrong", "NCHW", {op: lambda case, layout, result=result: Prepared(lambda: None, result)})
        failed = {}
        assert suite.set_up(wrong, case, failed) is None
        assert "off by" in failed[f"wrong NCHW, {op} {case.layer.name}"]


@pytest.mark.parametrize("compiler", [None, "no-such-compiler"])
def test_limit_moves_the_bytes(compiler, monkeypatch):
    """With a compiler and without: a residual as dy, bytes to floats, bytes to bytes."""
    need_library("ml_dtypes", "bench")
    limit_.load.cache_clear()
    if compiler:
        pytest.importorskip("numba", reason="without a compiler the limit needs Numba")
        monkeypatch.setenv("CXX", compiler)
    (limit,) = limit_.contestants(1)
    limit_.load.cache_clear()
    cases = {op: case_of(op, Layer("tiny", (2, 3, 4, 6))) for op in EDGE_OPS}
    for op, case in cases.items():
        limit.passes[op](case, "NCHW").call()
    case = cases["silu"]
    np.testing.assert_array_equal(case.y(), np.float32(1.5) * case.x())
    case = cases["add_relu"]
    np.testing.assert_allclose(case.y(), np.float32(1.5) * case.residual() + case.x(), rtol=1e-5, atol=1e-6)
    case = cases["train_bfloat16"]
    np.testing.assert_array_equal(case.y().view(np.float32), np.float32(1.5) * case.x().view(np.float32))
    case = cases["input"]
    np.testing.assert_array_equal(case.y(), np.float32(1.5) * case.x())
    case = cases["int8"]
    np.testing.assert_array_equal(case.y(), case.x() ^ -128)


def test_layers():
    assert layers_of("edge") == [Layer("edge", shape) for shape in EDGE]
    plan = suite.Plan(("input", "relu", "train_float16"), [Layer("tiny", (1, 3))], ("NCHW",), None, 1, 1)
    assert plan.cases == [("relu", Layer("tiny", (1, 3))), *(("input", layer) for layer in IMAGES)]


def test_who_takes_part():
    """cpubn's other backends only where they are asked for; what the pass is compared with always."""
    names = "limit", "cpubn-cython", "cpubn-numba", "cpubn-plain", "numpy", "torch"
    field = Field([Contestant(name, "NCHW", {"relu": None}) for name in names])

    def chosen(compare):
        return [c.name for c in suite.chosen(field, "relu", ("NCHW",), compare)]

    assert chosen(None) == ["limit", "cpubn-cython", "cpubn-plain", "numpy", "torch"]
    assert chosen(["torch"]) == ["limit", "cpubn-cython", "cpubn-plain", "torch"]
    assert chosen(["cpubn-numba"]) == ["limit", "cpubn-cython", "cpubn-numba", "cpubn-plain"]


def test_command(tmp_path, capsys, monkeypatch):
    need_library("ml_dtypes", "bench")
    pytest.importorskip("rich", reason='the benchmark needs rich: pip install "cpubn[bench]"')
    pytest.importorskip("matplotlib", reason='the picture needs matplotlib: pip install "cpubn[bench]"')
    from cpubn.bench import plot

    tiny = Layer("tiny", IMAGE)
    monkeypatch.setattr("cpubn.bench.show.layers_of", lambda model, batch: [tiny])
    monkeypatch.setitem(suite.OWN_LAYERS, "input", (tiny,))
    kept, picture = tmp_path / "results.json", tmp_path / "results.png"
    words = ["bench", "--model", "edge", "--rounds", "1", "--threads", "1", "--compare", "numpy", "--layout", "NHWC"]
    assert cli.main([*words, "--json", str(kept)]) == 0
    out = capsys.readouterr().out
    for op in EDGE_OPS:
        assert tables.TITLES[op] in out
    results = Results.read(kept)
    assert {r.op for r in results.records} == set(EDGE_OPS)
    assert {r.op for r in results.records if r.name == "cpubn-float32"} == {*HALF, *QUANTIZED}
    assert {r.op for r in results.records if r.name == "cpubn-plain"} == set(FUSED)
    assert results.made["failed"] == {}
    # Of two passes: a picture of all of them took longer than all that is measured.
    results.records = [r for r in results.records if r.op in (FUSED[0], QUANTIZED[0])]
    plot.draw(results, picture)
    assert picture.read_bytes().startswith(b"\x89PNG")
