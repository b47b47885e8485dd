"""The report on ranks: its fit, its model on paper, and pictures that are those of its tables."""

import importlib
import re

import numpy as np
import pytest
from conftest import need_library
from pages import ROOT

need_library("matplotlib", "demo")


@pytest.fixture
def scaling(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("scaling")


@pytest.mark.parametrize(("alpha", "beta"), [(10.0, 1e-3), (0.0, 2e-3), (7.0, 0.0)])
def test_the_fit_finds_what_the_model_has(scaling, alpha, beta):
    least = {(p, n): scaling.allgather_on_paper(p, n, alpha, beta) for p in (2, 3, 4) for n in (512, 4096, 98336)}
    np.testing.assert_allclose(scaling.fitted(least), [alpha, beta], rtol=1e-9, atol=1e-12)


def test_no_part_of_the_fit_is_below_0(scaling):
    assert scaling.fitted({(2, 100): 9.0, (2, 1000): 5.0, (2, 10000): 4.0})[1] == 0.0


def test_rows_on_paper(scaling, monkeypatch):
    monkeypatch.setattr(scaling, "own_work", lambda name, p, channels: float(p))
    rows = scaling.on_paper(2.0, 1e-3, 1024)
    size = 8 * (4 + 3 * 1024)
    assert rows[16] == pytest.approx((15 * size / 1e6, 8 + 15e-3 * size, 16, 8 + 15e-3 * size + 16))
    within, between = 10 + 31e-3 * size + 32, 10 + 31e-3 * size + 32
    assert rows[1024][3] == pytest.approx(within + between + 5 * (2 + 1e-3 * size))


def test_the_pictures_are_those_of_the_tables(scaling, tmp_path):
    text = scaling.PAGE.read_text("utf-8")
    for shade in scaling.INKS:
        scaling.draw(text, shade, tmp_path / "drawn.svg")
        drawn, stored = (path.read_text() for path in (tmp_path / "drawn.svg", scaling.FOLDER / f"ranks-{shade}.svg"))
        values = [re.findall(r">([\d,]+ us)</text>", svg) for svg in (drawn, stored)]
        assert len(values[0]) == 8
        assert values[0] == values[1]
