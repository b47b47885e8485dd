"""What was measured, as records, and the JSON file that keeps them."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from cpubn.bench.measure import Timing

FORMAT = 1


class Record(NamedTuple):
    """One contestant on one case."""

    op: str
    model: str
    shape: tuple[int, ...]  # channels on axis 1
    name: str
    layout: str
    nbytes: int  # what the pass must move at least
    timing: Timing
    error: float  # max |got - expected| / max(1, |expected|); of quantized data in steps

    @property
    def seconds(self) -> float:
        return self.timing.median

    @property
    def layer(self) -> str:
        return "x".join(map(str, self.shape))

    @property
    def gigabytes_per_second(self) -> float:
        return self.nbytes / self.seconds / 1e9


@dataclass
class Results:
    """All records of a run, and how they were made."""

    made: dict[str, Any]  # date, machine, threads, rounds, versions, absent, notes, failed
    records: list[Record] = field(default_factory=list)

    def write(self, path: Path) -> None:
        path.write_text(json.dumps({"format": FORMAT, **asdict(self)}, indent=1), encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Results:
        """Raises ValueError if the file is not one that `write` made."""
        loaded = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(loaded, dict) or loaded.get("format") != FORMAT:
            raise ValueError(f"{path} must be what python -m cpubn bench --json wrote, format {FORMAT}; measure again")
        records = []
        for op, model, shape, name, layout, nbytes, timing, error in loaded["records"]:
            records.append(Record(op, model, tuple(shape), name, layout, nbytes, Timing(*timing), error))
        return cls(loaded["made"], records)
