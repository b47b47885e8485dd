"""Who is measured: a module a library, imported only when that library takes part.

Every module has `contestants(threads)`, which pins the library to that many threads, and `VERSION`. A module whose
library is absent raises ImportError when imported, or when asked for its contestants.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, TypeAlias

from cpubn.bench.case import Prepared

# Sets a contestant up for a case of its pass in a memory layout, outside the timed part.
Prepare: TypeAlias = Callable[[Any, str], Prepared]

# The limit first: it is measured whatever is chosen. Then in the order of the tables.
LIBRARIES = ("limit", "cpubn", "numpy", "torch", "onnxruntime", "openvino", "jax", "onednn", "opencv")
LIMIT = "limit"
# What to install where a library is absent; for those that are not here, the benchmark's extra brings them.
INSTALLED_WITH = {
    "torch": "pip install torch --index-url https://download.pytorch.org/whl/cpu",
    "jax": "pip install jax",
}
# Whose users lay every tensor out as the library likes best: the fastest of its layouts is what counts. Others that
# come in both layouts take part in those asked for; the rest have one layout, and take part in that.
FREE_OF_LAYOUT = {"onednn", "onednn-unaligned"}
# cpubn in another way, to see what a pass costs or saves beside it: no rivals.
REFERENCES = {"cpubn-plain", "cpubn-float32", "cpubn-function"}


class AbsentError(Exception):
    """Someone who was asked for by name is not here."""


def absence(name: str, reason: str) -> AbsentError:
    """What to raise where a peer cannot be imported."""
    how = INSTALLED_WITH.get(name.split("-")[0], 'pip install "cpubn[bench]"')
    return AbsentError(
        f"whom --compare names must be installed here, got '{name}': {reason}; install with: {how}, or leave it out"
    )


@dataclass(frozen=True)
class Contestant:
    """A way to compute batch norm: what it can (a function a pass), in one memory layout."""

    name: str
    layout: str
    passes: Mapping[str, Prepare]
    note: str = ""  # what a reader of its figures must know


@dataclass
class Field:
    """Everyone who is here, and why others are not."""

    contestants: list[Contestant] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)

    @property
    def notes(self) -> dict[str, str]:
        return {c.name: c.note for c in self.contestants if c.note}


def gather(threads: int, libraries: tuple[str, ...] = LIBRARIES, required: Collection[str] = ()) -> Field:
    """Import these libraries and pin each to `threads`.

    Raises
    ------
    AbsentError : one that is required is absent; of others `absent` tells why.
    """
    found = Field()
    for library in libraries:
        try:
            module = import_module(f"{__name__}.{library}_")
            found.contestants += module.contestants(threads)
            if library != LIMIT:
                found.versions[library] = module.VERSION
        except ImportError as error:
            if library in required:
                raise absence(library, str(error)) from error
            found.absent[library] = str(error)
    return found
