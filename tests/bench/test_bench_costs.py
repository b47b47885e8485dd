"""benchmarks/costs.py: its tables, of small arrays, are those that its pages hold, and it puts them there."""

import importlib

import pytest
from conftest import need_library
from pages import ROOT

import cpubn

need_library("sklearn", "test")


@pytest.fixture
def costs(monkeypatch):
    """With arrays that take no time."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    module = importlib.import_module("costs")
    monkeypatch.setattr(module, "SEQUENCES", ((2, 3, 40),))
    monkeypatch.setattr(module, "BATCHES", {"small": (4, 3), "large": (4, 3, 5)})
    monkeypatch.setattr(module, "ROWS", 2000)
    yield module
    cpubn.set_num_threads(None)


@pytest.mark.parametrize("name", ["masks", "policies", "scaler"])
def test_a_table_has_the_heads_of_its_page(costs, monkeypatch, tmp_path, capsys, name):
    report = importlib.import_module("report")
    stored = costs.PAGES[name].read_text("utf-8")
    page = tmp_path / "page.md"
    page.write_text(stored, "utf-8")
    monkeypatch.setitem(costs.PAGES, name, page)
    costs.main([name, "--write", "--rounds", "1"])
    (heads, rows), (stored_heads, stored_rows) = (
        report.table(text, name, "costs.py") for text in (page.read_text("utf-8"), stored)
    )
    shapes = "x".join(map(str, costs.BATCHES["small"])), "x".join(map(str, costs.BATCHES["large"]))
    expected = [head.replace("32x64x12544", shapes[1]).replace("32x64", shapes[0]) for head in stored_heads]
    assert heads == expected
    assert len(rows) == (len(stored_rows) // 3 if name == "masks" else len(stored_rows))
    assert "1 thread of cpubn's on" in capsys.readouterr().out


def test_a_table_that_there_is_not(costs, capsys):
    with pytest.raises(SystemExit):
        costs.main(["mask"])
    assert "TABLE must be one of masks, policies, scaler, got 'mask'" in capsys.readouterr().err
