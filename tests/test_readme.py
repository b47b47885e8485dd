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
ACTIVATIONS = ROOT / "docs" / "how-to" / "activations.md"


@pytest.mark.parametrize("name", pages(frameworks=False))
def test_the_code_on_a_page_runs(name, tmp_path):
    run_page(name, tmp_path)


def test_readme_shows_what_the_benchmarks_page_has():
    page = (ROOT / "docs" / "benchmarks.md").read_text("utf-8").splitlines()
    readme = (ROOT / "README.md").read_text("utf-8")
    sections = re.findall(r"<!-- (\w+): begin .*? -->\n(.*?)<!-- \1: end -->", readme, re.DOTALL)
    assert [name for name, _ in sections] == ["accuracy", "standing"]
    assert not [line for _, made in sections for line in made.splitlines() if line not in page]


def test_the_picture_is_that_of_the_tables(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
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
