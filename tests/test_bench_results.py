"""What becomes of the benchmark's figures: how cpubn stands, and the table in README."""

import runpy
from pathlib import Path

import numpy as np
import pytest

from cpubn.bench import tables
from cpubn.bench.measure import Timing
from cpubn.bench.results import Record, Results
from cpubn.bench.standing import line_of, rows_of

CHECKOUT = Path(__file__).parents[1]


def record(name, layout, seconds, shape=(1, 64, 112, 112), op="eval"):
    return Record(op, "standard", shape, name, layout, 8 * int(np.prod(shape)), Timing(seconds, seconds, seconds), 0.0)


MADE = {
    "date": "2026-01-02",
    "cpu": "A CPU",
    "threads": 2,
    "rounds": 3,
    "instruction_set": "avx2",
    "python": "3.13.1",
    "versions": {"cpubn": "1.2", "torch": "3.4"},
    "absent": {},
    "failed": {},
    "notes": {},
    "environment": {},
    "other_cpus": 0.0,
}


@pytest.fixture
def results():
    """cpubn at half of the limit; torch 4 times and 1 times as long; oneDNN's fastest layout is not ours."""
    small = (2, 4)
    return Results(
        MADE,
        [
            record("limit", "NCHW", 1e-3),
            record("cpubn-cython", "NCHW", 2e-3),
            record("torch", "NCHW", 8e-3),
            record("numpy", "NCHW", 20e-3),
            record("numpy", "NHWC", 1e-3),
            record("onednn", "NCHW", 5e-3),
            record("onednn", "nChw16c", 1e-3),
            record("limit", "NCHW", 1e-6, small),
            record("cpubn-cython", "NCHW", 10e-6, small),
            record("torch", "NCHW", 10e-6, small),
            record("limit", "NCHW", 1e-7, op="overhead"),
            record("cpubn-frozen", "NCHW", 4e-7, op="overhead"),
        ],
    )


def test_standing(results):
    large, small = rows_of(results)
    assert (large.share, small.share) == (pytest.approx(0.5), pytest.approx(0.1))
    assert {name: large.ratio(name) for name in large.rivals} == pytest.approx({"torch": 4, "numpy": 10, "onednn": 0.5})
    line = line_of("eval", "NCHW", [large, small])
    assert line.share == pytest.approx(0.5)  # the small one costs a call, not memory
    assert line.ratios == pytest.approx({"torch": 2, "numpy": 10, "onednn": 0.5})
    assert tables.beaten_lines(results) == ["eval NCHW 1x64x112x112 (2.00 ms): onednn nChw16c 2.00"]


def test_report(results, tmp_path, capsys):
    script = CHECKOUT / "benchmarks" / "report.py"
    if not script.exists():
        pytest.skip("no checkout around these tests")
    kept, page = tmp_path / "results.json", tmp_path / "README.md"
    results.write(kept)
    report = runpy.run_path(str(script))
    begin, end = report["markers"]("speed")
    page.write_text(f"before\n{begin}\nold\n{end}\nafter\n", encoding="utf-8")
    report["main"]([str(kept), "--write", "--page", str(page)])
    text = page.read_text(encoding="utf-8")
    assert text.startswith(f"before\n{begin}\n| pass | of limit | torch |")
    assert text.endswith(f"{end}\nafter\n")
    assert "| inference, NCHW, standard | 0.50 | 2.00 | 10 | **0.50** |" in text
    assert "| cpubn-frozen NCHW | 0.40 | 0.30 |" in text
    assert "2 threads on A CPU (avx2), Python 3.13.1, cpubn 1.2, torch 3.4; medians of 3 " in text
    assert text.splitlines()[2] in capsys.readouterr().out
    page.write_text("no markers", encoding="utf-8")
    with pytest.raises(SystemExit, match="must hold the two markers"):
        report["main"]([str(kept), "--write", "--page", str(page)])
    kept.write_text("{}", encoding="utf-8")
    with pytest.raises(SystemExit, match="must be what python -m cpubn bench --json wrote"):
        report["main"]([str(kept)])


def test_report_of_edge(results, tmp_path):
    """Each section between markers of its own, and no other is touched."""
    script = CHECKOUT / "benchmarks" / "report.py"
    if not script.exists():
        pytest.skip("no checkout around these tests")
    results.records = [
        record("limit", "NCHW", 1e-3, op="relu"),
        record("cpubn-cython", "NCHW", 2e-3, op="relu"),
        record("cpubn-plain", "NCHW", 1.6e-3, op="relu"),
        record("torch", "NCHW", 1e-3, op="relu"),
        record("cpubn-cython", "NCHW", 2e-3, op="train_float16"),
        record("cpubn-float32", "NCHW", 3e-3, op="train_float16"),
    ]
    assert tables.beaten_lines(results) == ["relu NCHW 1x64x112x112 (2.00 ms): torch NCHW 2.00"]
    kept, page = tmp_path / "results.json", tmp_path / "README.md"
    results.write(kept)
    report = runpy.run_path(str(script))
    places = [(*report["markers"](section), section) for section in report["SECTIONS"]]
    page.write_text("\n".join(f"{begin}\nold {name}\n{end}" for begin, end, name in places), encoding="utf-8")
    report["main"]([str(kept), "--write", "--page", str(page)])
    text = page.read_text(encoding="utf-8")
    assert [s for s in report["SECTIONS"] if f"old {s}" in text] == ["speed", "input", "int8"]
    assert "| relu | 1x64x112x112 NCHW | 2.00 ms | 0.50 | 0.80 | **0.50** |" in text
    assert "| training, forward, float16 | 1x64x112x112 NCHW | 2.00 ms |  | 1.50 |" in text
    assert "Python 3.13.1, cpubn 1.2; medians" in text  # of the libraries in that table
