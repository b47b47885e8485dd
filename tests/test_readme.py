"""What README shows and lists: its code, as a reader would type it, runs and holds what it asserts; activations."""

import importlib
import re
from pathlib import Path
from typing import get_args, get_origin

from conftest import need_library

import cpubn
import cpubn.typing
from cpubn.maths.activations import TABLE

README = Path(__file__).parents[1] / "README.md"


def test_the_code_in_readme_runs(tmp_path, monkeypatch):
    for library, extra in (("numba", "numba"), ("onnx", "convert"), ("safetensors", "convert")):
        need_library(library, extra)
    importlib.import_module("cpubn.njit").init()  # which Numba calls where cpubn was installed with this entry point
    monkeypatch.chdir(tmp_path)
    code = tmp_path / "readme.py"  # a file, because Numba reads the source of what it compiles
    code.write_text("\n".join(re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)))
    names = {}
    exec(compile(code.read_text(), code, "exec"), names)
    assert names["image"].dtype == "uint8"
    assert names["z"].shape == (1, 3, 224, 224)


def test_every_activation_is_listed():
    text, doc = README.read_text(encoding="utf-8"), " ".join(cpubn.batch_norm.__doc__.split())
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
    assert expected in " ".join(README.read_text(encoding="utf-8").split())


def listed(names):
    return f"{', '.join(names[:-1])} and {names[-1]}"
