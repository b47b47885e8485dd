"""What becomes of the benchmark's figures: how cpubn stands, and the tables on pages."""

import runpy
from pathlib import Path

import numpy as np
import pytest

from cpubn.bench import measure, tables
from cpubn.bench.case import TRAFFIC
from cpubn.bench.measure import Timing
from cpubn.bench.results import Record, Results
from cpubn.bench.standing import PEERS, line_of, pairs_of, rows_of

CHECKOUT = Path(__file__).parents[2]


def record(name, layout, seconds, shape=(1, 64, 112, 112), op="eval", model="standard"):
    return Record(op, model, shape, name, layout, 8 * int(np.prod(shape)), Timing(seconds, seconds, seconds), 0.0)


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


@pytest.fixture
def like_with_like():
    """A standard layer and one of few channels, in which all but cpubn is 100 times as fast."""
    seconds = {
        ("limit", "NCHW"): 1e-3,
        ("cpubn-cython", "NCHW"): 2e-3,
        ("cpubn-cython", "NHWC"): 4e-3,
        ("torch", "NCHW"): 3e-3,
        ("torch-channels-last", "NHWC"): 3e-3,
        ("onnxruntime", "NCHW"): 8e-3,
        ("onednn", "NCHW"): 5e-3,
        ("onednn-unaligned", "NCHW"): 1.9e-3,
        ("onednn", "NHWC"): 6e-3,
        ("onednn-unaligned", "NHWC"): 5e-3,
        ("onednn", "nChw8c"): 1.5e-3,
        ("onednn-unaligned", "nChw8c"): 1.6e-3,
    }
    few = {key: value / (1 if key[0].startswith("cpubn") else 100) for key, value in seconds.items()}
    return Results(
        MADE,
        [
            *(record(*key, value) for key, value in seconds.items()),
            *(record(*key, value, (1, 3, 640, 640), model="few") for key, value in few.items()),
        ],
    )


def test_pairs(like_with_like):
    """Same layout beside same layout, the better of aligned and unaligned; each side's best beside the other's."""
    pairs = pairs_of(like_with_like)
    assert {p.peer.title: p.ratio for p in pairs if p.ours.model == "standard"} == pytest.approx(
        {
            "torch": 1.5,
            "torch channels_last": 0.75,
            "onnxruntime": 4,
            "oneDNN nchw": 0.95,
            "oneDNN nhwc": 1.25,
            "oneDNN best": 0.75,
        }
    )
    assert len(pairs) == 2 * len(PEERS)
    assert all(p.behind for p in pairs if p.ours.model == "few")
    like_with_like.records = [r for r in like_with_like.records if r[3:5] != ("cpubn-cython", "NHWC")]
    assert {p.peer.title for p in pairs_of(like_with_like)} == {"torch", "onnxruntime", "oneDNN nchw"}


def test_means_and_counts(like_with_like):
    """The means are those of the standard layers alone; cases count in all groups."""
    assert tables.standing_grid(like_with_like).markdown().splitlines() == [
        "| pass | share of limit, NCHW / NHWC (layers of 1 MB or more) | torch | torch channels_last | onnxruntime "
        "| oneDNN nhwc | oneDNN best |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
        "| inference | 0.50 / 0.25 | 1.50 | **0.75** | 4.00 | 1.25 | **0.75** |",
    ]
    (same, same_lines), (best, best_lines) = tables.counts(like_with_like)
    assert same.endswith("in 6 of 10 pairs (eval 6 of 10)")
    assert same_lines == [
        "eval NHWC 1x64x112x112 (4.00 ms): torch channels_last 1.33",
        "eval NCHW 1x3x640x640 (2.00 ms): torch 66.67, onnxruntime 25.00, oneDNN nchw 105.26",
        "eval NHWC 1x3x640x640 (4.00 ms): torch channels_last 133.33, oneDNN nhwc 80.00",
    ]
    assert best.endswith("in 2 of 2 pairs (eval 2 of 2)")
    assert best_lines[0] == "eval NCHW 1x64x112x112 (2.00 ms): oneDNN best (onednn nChw8c) 1.33"


@pytest.mark.parametrize("op", ["eval", "train", "backward"])
def test_small_layers_have_no_share_of_the_limit(op):
    """The first is 1 MB, the second 1 MB less a row."""
    for shape, share in (((1, 1, 512, 512), 0.25), ((1, 1, 511, 512), None)):
        records = [
            Record(op, "few", shape, name, "NCHW", TRAFFIC[op] * 4 * int(np.prod(shape)), Timing(t, t, t), 0.0)
            for name, t in (("limit", 1e-3), ("cpubn-cython", 4e-3))
        ]
        assert line_of(op, "NCHW", rows_of(Results(MADE, records))).share == share


def test_report(results, tmp_path, capsys):
    script = CHECKOUT / "benchmarks" / "report.py"
    if not script.exists():
        pytest.skip("no checkout around these tests")
    kept, page = tmp_path / "results.json", tmp_path / "page.md"
    results.write(kept)
    report = runpy.run_path(str(script))
    begin, end = report["markers"]("speed")
    page.write_text(f"before\n{begin}\nold\n{end}\nafter\n", encoding="utf-8")
    report["main"]([str(kept), "--write", "--page", str(page)])
    text = page.read_text(encoding="utf-8")
    assert text.startswith(f"before\n{begin}\n| pass | share of limit, NCHW (layers of 1 MB or more) | torch |")
    assert "| inference | 0.50 | 2.00 |  |  |  |  |" in text
    assert "Beside peers in the same layout, cpubn is over 10% slower in 0 of 3 pairs (eval 0 of 3)." in text
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
    kept, page = tmp_path / "results.json", tmp_path / "page.md"
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


def test_timing_takes_the_median():
    assert measure.timing([5.0, 1.0, 2.0]) == Timing(2.0, 1.5, 3.5)
    assert measure.timing([5.0]) == Timing(5.0, 5.0, 5.0)


def test_other_work_is_a_number_of_cpus():
    cpus = measure.OtherWork().cpus()
    assert cpus is None or cpus >= 0
