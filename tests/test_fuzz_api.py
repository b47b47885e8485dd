"""Hostile arguments to the whole public surface end in a result, or in an error that was promised."""

from pathlib import Path

import fuzz_api
import pytest

import cpubn


def test_every_public_name_is_called():
    """But for what takes nothing that could be wrong."""
    source = Path(fuzz_api.__file__).read_text(encoding="utf-8")
    quiet = {"available_backends", "get_include", "get_num_threads", "show_config", "typing", "convert", "bench"}
    assert [name for name in cpubn.__all__ if name not in quiet and f"cpubn.{name}" not in source] == []


@pytest.mark.parametrize("maker", sorted(fuzz_api.MAKERS))
def test_hostile_arguments(maker):
    assert fuzz_api.run(seconds=0.5, only=maker).endswith("calls")
