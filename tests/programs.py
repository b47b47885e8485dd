"""The programs of tools/ as modules, which import each other by name."""

from importlib import import_module
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[1] / "tools"


def program(name):
    if not TOOLS.exists():
        pytest.skip("no tools beside these tests")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(TOOLS)
        return import_module(name)
