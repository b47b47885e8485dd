"""The health report: a record of each norm, with what was found in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from cpubn.convert._fold_onnx import printable
from cpubn.inspection.findings import MEANINGS, Drift, Kind
from cpubn.typing import Vector

NAMED = 5  # channels in a line of text
LINES = 20  # of text that print(report) gives


@dataclass(frozen=True)
class Finding:
    """One kind of finding in one norm: the channels that have it, and for each the value that it was seen by."""

    kind: Kind
    channels: tuple[int, ...]
    values: tuple[float, ...]
    of: int  # channels that the norm has

    @property
    def meaning(self) -> str:
        return MEANINGS[self.kind][0]

    @property
    def is_everywhere(self) -> bool:
        return len(self.channels) == self.of

    @property
    def where(self) -> str:
        """The channels in words, a few of them by number."""
        if self.is_everywhere:
            return f"all {self.of} channels" if self.of > 1 else "its one channel"
        named = ", ".join(map(str, self.channels[:NAMED]))
        more = f" and {len(self.channels) - NAMED} more" if len(self.channels) > NAMED else ""
        return f"channel{'s' * (len(self.channels) > 1)} {named}{more} of {self.of}"

    def __str__(self) -> str:
        return f"{self.kind}: {self.where}"

    def to_dict(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "meaning": self.meaning,
            "channels": list(self.channels),
            "values": [finite(value) for value in self.values],
            "values_are": MEANINGS[self.kind][1],
        }


@dataclass(frozen=True, eq=False)
class NormHealth:
    """One norm: y = scale * x + shift in each channel, what was found, and with a batch how far that has drifted."""

    name: str
    eps: float
    scale: Vector
    shift: Vector
    findings: tuple[Finding, ...]
    drift: Drift | None = None

    @property
    def num_features(self) -> int:
        return self.scale.size

    def channels(self, *kinds: Kind) -> tuple[int, ...]:
        """The channels that have any of these findings, of all kinds if none is given."""
        having = {c for finding in self.findings if not kinds or finding.kind in kinds for c in finding.channels}
        return tuple(sorted(having))

    def __repr__(self) -> str:
        found = "; ".join(map(str, self.findings)) or "nothing found"
        return f"<{printable(self.name) or 'norm'}: {self.num_features} channels; {found}>"

    def to_dict(self) -> dict[str, Any]:
        told: dict[str, Any] = {
            "name": self.name,
            "channels": self.num_features,
            "eps": self.eps,
            "scale": spread(self.scale),
            "shift": spread(self.shift),
            "findings": [finding.to_dict() for finding in self.findings],
        }
        if self.drift is not None:
            parts = ("deviations", "ratio", "distance")
            told["drift"] = {"count": self.drift.count}
            told["drift"] |= {part: [finite(v) for v in getattr(self.drift, part)] for part in parts}
        return told


@dataclass(frozen=True, eq=False, repr=False)
class Health(Mapping[str, NormHealth]):
    """Norms by name, each with its findings; `print(report)` says them in a line each."""

    norms: Mapping[str, NormHealth]

    def __getitem__(self, name: str) -> NormHealth:
        return self.norms[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.norms)

    def __len__(self) -> int:
        return len(self.norms)

    @property
    def is_healthy(self) -> bool:
        """Whether nothing was found."""
        return not any(norm.findings for norm in self.norms.values())

    @property
    def kinds(self) -> dict[Kind, int]:
        """In how many channels each kind was found, in the order of MEANINGS."""
        counts: Counter[Kind] = Counter()
        for norm in self.norms.values():
            for finding in norm.findings:
                counts[finding.kind] += len(finding.channels)
        return {kind: counts[kind] for kind in MEANINGS if kind in counts}

    def __repr__(self) -> str:
        found = ", ".join(f"{kind} {count}" for kind, count in self.kinds.items()) or "nothing found"
        return f"<Health of {counted(len(self), 'norm')}, channels with findings: {found}>"

    def __str__(self) -> str:
        channels = sum(norm.num_features for norm in self.norms.values())
        lines = [
            f"{printable(name) or 'norm'}: {finding} ({finding.meaning})"
            for name, norm in self.norms.items()
            for finding in norm.findings
        ]
        told = len({name for name, norm in self.norms.items() if norm.findings})
        head = f"{counted(len(self), 'norm')}, {counted(channels, 'channel')}: "
        head += f"findings in {told}" if told else "nothing found"
        more = [f"and {len(lines) - LINES} lines more"] if len(lines) > LINES else []
        return "\n".join([head, *lines[:LINES], *more])

    def to_dict(self) -> dict[str, Any]:
        """All of it in what JSON has; NaN and infinity, which it has not, are None."""
        return {"norms": [norm.to_dict() for norm in self.norms.values()], "kinds": dict(self.kinds)}


def counted(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


def finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def spread(vector: Vector) -> dict[str, float | None]:
    """Least, middle and largest of the numbers that there are."""
    numbers = vector[np.isfinite(vector)]
    if not numbers.size:
        return {"min": None, "median": None, "max": None}
    return {"min": float(numbers.min()), "median": float(np.median(numbers)), "max": float(numbers.max())}
