"""The code that README shows, from first to last as a reader would type it, runs and holds what it asserts."""

import re
from pathlib import Path

from conftest import need_library

README = Path(__file__).parents[1] / "README.md"


def test_the_code_in_readme_runs(tmp_path, monkeypatch):
    for library, extra in (("numba", "numba"), ("onnx", "convert"), ("safetensors", "convert")):
        need_library(library, extra)
    monkeypatch.chdir(tmp_path)
    code = tmp_path / "readme.py"  # a file, because Numba reads the source of what it compiles
    code.write_text("\n".join(re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)))
    names = {}
    exec(compile(code.read_text(), code, "exec"), names)
    assert names["image"].dtype == "uint8"
    assert names["z"].shape == (1, 3, 224, 224)
