"""What README and docs/ show and list: the code of a page runs and holds what it asserts; activations."""

import importlib
import re
from typing import get_args, get_origin

import pytest
from pages import ROOT, pages, run_page

import cpubn
import cpubn.typing
from cpubn.maths.activations import TABLE

PICTURES = "docs/pictures"
MADE = "2 threads on A CPU (avx2), Python 3.13.1, cpubn 1.2; medians of 3 interleaved rounds,"
ACTIVATIONS = ROOT / "docs" / "how-to" / "activations.md"


@pytest.mark.parametrize("name", pages(frameworks=False))
def test_the_code_on_a_page_runs(name, tmp_path):
    run_page(name, tmp_path)


@pytest.fixture
def benchmarks(monkeypatch):
    """benchmarks/, from which scripts are imported, and the text of the page that has all tables."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return (ROOT / "docs" / "benchmarks.md").read_text("utf-8")


def test_readme_shows_what_the_benchmarks_page_has(benchmarks):
    readme = (ROOT / "README.md").read_text("utf-8")
    report, front = map(importlib.import_module, ("report", "front"))
    assert report.between(readme, "accuracy", "accuracy.py") == report.between(benchmarks, "accuracy", "accuracy.py")
    assert report.between(readme, "standing", "front.py") == f"\n{front.made_of(benchmarks)}\n"


def test_what_readme_shows_of_a_page(benchmarks):
    """The table of means with some columns, and the means over a table of layers."""
    front = importlib.import_module("front")
    page = f"""
        <!-- speed: begin (written by benchmarks/report.py) -->
        | pass | share | torch | torch channels_last | onnxruntime | oneDNN nhwc | oneDNN best |
        | --- | --- | --- | --- | --- | --- | --- |
        | inference | 0.5 / 1.5 | 2.00 | 3.00 |  | 5.00 | **0.80** |

        | another | table |

        float32, {MADE} 2026-01-01; other processes kept 0 CPUs busy meanwhile.
        <!-- speed: end -->
        <!-- input: begin (written by benchmarks/report.py) -->
        | pass | layer | time | of limit | torch | torch-channels-last |
        | --- | --- | --- | --- | --- | --- |
        | bytes to float32 | 1x3x8x8 NCHW | 1 us | 0.25 | 2.00 | 100 |
        | bytes to float32 | 8x3x8x8 NCHW | 1 us | 1.00 | **0.50** | 100 |
        | bytes to float32 | 8x3x8x8 NHWC | 1 us |  | 100 | 11 |
        <!-- input: end -->
        <!-- int8: begin (written by benchmarks/report.py) -->
        | pass | layer | time | of limit | torch |
        | --- | --- | --- | --- | --- |
        | int8 | 1x3x8x8 NCHW | 1 us | 0.25 | 9.00 |
        | int8, relu | 1x3x8x8 NCHW | 1 us | 0.25 | 4.00 |

        {MADE} 2026-01-02; other processes kept 0 CPUs busy meanwhile.
        <!-- int8: end -->
    """
    assert front.made_of(re.sub("^ +", "", page, flags=re.MULTILINE)).splitlines() == [
        "| pass | of limit, NCHW / NHWC | torch | torch channels_last | onnxruntime | oneDNN best |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
        "| inference | 0.5 / 1.5 | 2.00 | 3.00 |  | **0.80** |",
        "| bytes to float32 | 0.50 / - | 1.00 | 11 |  |  |",
        "| int8 | 0.25 / - | 6.00 |  |  |  |",
        "",
        "2 threads on A CPU (avx2), 2026-01-01 and 2026-01-02.",
    ]


def test_the_picture_is_that_of_the_tables(tmp_path, benchmarks):
    importlib.import_module("picture").main([str(tmp_path)])
    for shade in ("light", "dark"):
        drawn, stored = ((folder / f"standing-{shade}.svg").read_text() for folder in (tmp_path, ROOT / PICTURES))
        assert re.findall(r">([\d.]+)</text>", drawn) == re.findall(r">([\d.]+)</text>", stored)


def test_links_of_readme_lead_somewhere():
    targets = re.findall(r"\]\(([^)#:]+)\)|(?:src|srcset)=\"([^\"]+)\"", (ROOT / "README.md").read_text("utf-8"))
    assert len(targets) > 20
    assert not [name for pair in targets for name in pair if name and not (ROOT / name).exists()]


def test_the_citation_is_of_this_version():
    assert f"\nversion: {cpubn.__version__}\n" in (ROOT / "CITATION.cff").read_text("utf-8")


def test_every_activation_is_listed():
    text, doc = ACTIVATIONS.read_text(encoding="utf-8"), " ".join(cpubn.batch_norm.__doc__.split())
    for entry in TABLE:
        for form in entry.form.replace("'", '"').split(" or "):
            assert f"`{form}`" in text
            assert form in doc


def test_every_activation_has_its_type():
    """A name alone, or with as many numbers as it has parameters."""
    alone = {entry.name for entry in TABLE if all(parameter.default is not None for parameter in entry.parameters)}
    given = {entry.name: len(entry.parameters) for entry in TABLE if entry.parameters}
    names, *others = get_args(cpubn.typing.Activation)
    tuples = [get_args(kind) for kind in others if get_origin(kind) is tuple and get_args(kind)[1] is float]
    assert set(get_args(names)) == alone
    assert {name: len(numbers) for literal, *numbers in tuples for name in get_args(literal)} == given


def test_what_is_kept_for_a_gradient_is_listed():
    bits = [entry.name for entry in TABLE if entry.sides is not None]
    outputs = [entry.name for entry in TABLE if entry.sides is None and entry.of_output is not None]
    expected = f"one bit an element for {listed(bits)}, the output for {listed(outputs)}, and the residual for"
    assert expected in " ".join(ACTIVATIONS.read_text(encoding="utf-8").split())


def listed(names):
    return f"{', '.join(names[:-1])} and {names[-1]}"
