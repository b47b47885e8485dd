"""Whether libraries are installed, which are looked for and not imported."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec


def refusal(who: str, wanted: Mapping[str, str], extra: str) -> str | None:
    """What is said of those that are missing, of modules and their libraries' names; None where all are there."""
    missing = [name for module, name in wanted.items() if find_spec(module) is None]
    if not missing:
        return None
    return f'{who} needs {" and ".join(missing)}; install with: pip install "cpubn[{extra}]"'
