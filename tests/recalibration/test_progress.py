"""The bar with the time left: on a terminal alone, and where it is wanted."""

import io
import sys

import pytest
from conftest import need_library
from test_recalibrate import C, data

import cpubn

need_library("rich", "progress")


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("stream", "wanted", "shown"), [(Terminal, True, True), (Terminal, False, False), (io.StringIO, True, False)]
)
@pytest.mark.parametrize("by_layer", [False, True])
def test_a_bar_on_a_terminal(stream, wanted, shown, by_layer, monkeypatch):
    monkeypatch.setattr(sys, "stderr", stream())
    bn = cpubn.BatchNorm1d(C)
    cpubn.recalibrate(bn, bn, data(), layer_by_layer=by_layer, progress=wanted)
    text = sys.stderr.getvalue()
    assert ("4/4" in text) is shown
    assert (("layer 1 of 1" if by_layer else "one pass") in text) is shown
