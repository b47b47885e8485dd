"""benchmarks/bench_cuda.py on tiny tensors, by the simulator too, whose clock is then the host's."""

import json
import sys
import time
from importlib import import_module
from pathlib import Path

import pytest
from conftest import need_library
from gpu import SIMULATED

need_library("rich", "bench")
BENCHMARKS = Path(__file__).parents[3] / "benchmarks"
if not BENCHMARKS.exists():
    pytest.skip("no checkout around these tests", allow_module_level=True)

SHAPE, RECORDS = "2x5x3x3", 4 * (4 + 3)  # of layouts and types; records with one copy


class HostEvent:
    def record(self):
        self.seconds = time.perf_counter()

    def query(self):
        return False

    def synchronize(self):
        pass

    def elapsed_time(self, end):
        return 1e3 * (end.seconds - self.seconds)


@pytest.fixture
def bench(monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path, str(BENCHMARKS)])
    case, timing, suite, bench = map(import_module, ("cuda_case", "cuda_timing", "cuda_suite", "bench_cuda"))
    monkeypatch.setattr(case, "MOST_BUFFERS", 2)
    monkeypatch.setattr(timing, "MOST_CALLS", 2)
    monkeypatch.setattr(timing, "MOST_SPINS", timing.FIRST_SPINS)
    if SIMULATED:
        facts = {"device": "a simulator", "compute_capability": "0", "driver": "0", "cuda": "0", "l2_bytes": 1 << 20}
        monkeypatch.setattr(suite, "device_facts", lambda: facts)
        monkeypatch.setattr(suite, "SMALL", (2, 3, 2, 2))
        monkeypatch.setattr(timing, "HOST_CALLS", 1)
        monkeypatch.setattr(timing, "hold", lambda spins: None)
        monkeypatch.setattr(timing.cuda, "event", HostEvent)
        monkeypatch.setattr(bench, "refusal", lambda: None)
    return bench


def page(path):
    begin, end = import_module("report").markers("cuda", "bench_cuda.py")
    path.write_text(f"before\n{begin}\nold\n{end}\nafter\n", encoding="utf-8")
    return path, f"before\n{begin}\n", f"\n{end}\nafter\n"


def test_tables_pages_and_figures(bench, tmp_path, capsys):
    readme, head, foot = page(tmp_path / "README.md")
    notes, kept = page(tmp_path / "NOTES.md")[0], tmp_path / "figures.json"
    words = "--rounds", "1", "--shapes", SHAPE, "--json", str(kept), "--write", "--pages", str(readme), str(notes)
    bench.main(words)
    printed, text = capsys.readouterr().out, readme.read_text(encoding="utf-8")
    assert text == notes.read_text(encoding="utf-8")
    assert text.startswith(head)
    assert text.endswith(foot)
    assert "old" not in text
    loaded = json.loads(kept.read_text(encoding="utf-8"))
    assert loaded["made"]["device"] in text
    assert loaded["made"]["device"] in printed
    ours = [r for r in loaded["records"] if not r["name"].startswith("torch")]
    assert len(ours) == RECORDS
    assert {(r["op"], r["layout"], r["dtype"]) for r in ours} == {
        (op, layout, dtype)
        for op in ("eval", "train", "backward")
        for layout in ("NCHW", "NHWC")
        for dtype in ("float32", "float16")
    }
    assert all(r["timing"][0] > 0 for r in ours)
    assert text.count(f"| {SHAPE} ") == 16
    assert {c["call"]: c["launches"] for c in loaded["calls"]}["inference, frozen"] == 1
    assert all(c["launches"] <= 4 for c in loaded["calls"])


def test_a_wrong_result_is_not_timed(bench, monkeypatch):
    oracle = import_module("oracle")
    right = oracle.batch_norm
    monkeypatch.setattr(oracle, "batch_norm", lambda *a: right(*a)._replace(y=right(*a).y + 1))
    with pytest.raises(ArithmeticError, match="the result of cpubn is off by"):
        bench.run([(2, 5, 3, 3)], 1)


def test_refusals(bench, monkeypatch, tmp_path, capsys):
    path = tmp_path / "README.md"
    path.write_text("no markers", encoding="utf-8")
    for words in (["--shapes", "3x3"], ["--shapes", "1x4x1x1"], ["--write", "--pages", str(path)]):
        with pytest.raises(SystemExit) as refused:
            bench.main(words)
        assert refused.value.code == 2
        assert " must " in capsys.readouterr().err
    monkeypatch.setattr(bench, "refusal", lambda: "no GPU")
    with pytest.raises(SystemExit) as refused:
        bench.main([])
    assert refused.value.code == 2
    assert capsys.readouterr().err == "bench_cuda: no GPU\n"
