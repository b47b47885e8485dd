"""Ctrl-C in the benchmark."""

import re

import pytest

from cpubn import cli
from cpubn.bench import measure, suite
from cpubn.bench.results import Results


def test_ctrl_c_keeps_what_is_finished(tmp_path, capsys, monkeypatch):
    pytest.importorskip("rich", reason='the benchmark needs rich: pip install "cpubn[bench]"')
    kept, measured = tmp_path / "results.json", []

    def measure_twice(*given):
        if len(measured) == 2:
            raise KeyboardInterrupt
        measured.append(given)
        return measure.measure(*given)

    monkeypatch.setattr(suite, "measure", measure_twice)
    words = ["bench", "--model", "mlp", "--batch", "3", "--rounds", "1", "--threads", "1", "--compare", "numpy"]
    assert cli.main([*words, "--json", str(kept)]) == 130
    printed = capsys.readouterr()
    assert "Interrupted after 2 of 9 cases; those are shown and kept" in printed.out
    loading, takes, first, second, _, last = printed.err.splitlines()
    assert loading == "loading the libraries"
    assert re.fullmatch(r"It takes about \d+ seconds on a machine of its own; Ctrl-C ends it .*", takes)
    assert first == "case 1 of 9: eval mlp 3x256"
    assert re.fullmatch(r"case 2 of 9: eval mlp 3x128, \d+ seconds to go at the pace so far", second)
    assert last == "cpubn: interrupted"
    assert len({(r.op, r.shape) for r in Results.read(kept).records}) == 2
