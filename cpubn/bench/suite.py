"""The run: for each pass and layer everyone is set up, checked and then timed together."""

from __future__ import annotations

import datetime
import math
import os
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from cpubn.backends import report
from cpubn.bench.case import TRAFFIC, Case, Prepared
from cpubn.bench.contestants import (
    FREE_OF_LAYOUT,
    LIBRARIES,
    LIMIT,
    REFERENCES,
    AbsentError,
    Contestant,
    Field,
    absence,
    gather,
)
from cpubn.bench.edge import EDGE_OPS, case_of
from cpubn.bench.layers import OWN_LAYERS, Layer
from cpubn.bench.measure import OtherWork, measure
from cpubn.bench.results import Record, Results
from cpubn.machine import cpus
from cpubn.version import __version__

OURS = "cpubn"
# Variables that decide how fast somebody is.
SETTINGS = ("CPUBN_", "GOMP_", "KMP_", "MKL_", "NUMBA_", "OMP_")
# For one contestant, half of what they were on two busy cores of a Xeon: a visit, and for each byte that a pass moves
# its set-up and check, and the calls of a round.
VISIT_SECONDS, CHECK_SECONDS, CALLS_SECONDS = 35e-3, 6e-9, 0.6e-9


class Plan(NamedTuple):
    """What to measure; `compare` names libraries or contestants, None for all."""

    ops: Sequence[str]
    layers: Sequence[Layer]
    layouts: Sequence[str]
    compare: Sequence[str] | None
    threads: int
    rounds: int

    @property
    def cases(self) -> list[tuple[str, Layer]]:
        """Passes of layers; one value per channel cannot be trained on, some passes have layers of their own."""
        pairs = [(op, layer) for op in self.ops if op not in OWN_LAYERS for layer in self.layers]
        pairs = [(op, layer) for op, layer in pairs if layer.samples > 1 or not op.startswith(("train", "backward"))]
        return pairs + [(op, layer) for op in self.ops for layer in OWN_LAYERS.get(op, ())]


class Watch(Protocol):
    """Told how far the run is."""

    def start(self, seconds: float) -> None: ...

    def case(self, op: str, layer: Layer) -> None: ...

    def round(self) -> None: ...


def libraries_of(compare: Sequence[str] | None) -> tuple[str, ...]:
    """Those to import: the limit and cpubn in any case."""
    if compare is None:
        return LIBRARIES
    wanted = {LIMIT, OURS, *(name.split("-")[0] for name in compare)}
    return tuple(library for library in LIBRARIES if library in wanted)


def chosen(field: Field, op: str, layouts: Sequence[str], compare: Sequence[str] | None) -> list[Contestant]:
    """Who takes part in a pass: the limit, cpubn by its first backend, and those to compare with."""
    able = [c for c in field.contestants if op in c.passes]
    layouts_of: dict[str, set[str]] = {}
    for c in able:
        layouts_of.setdefault(c.name, set()).add(c.layout)
    present = [c for c in able if c.layout in layouts or len(layouts_of[c.name]) == 1 or c.name in FREE_OF_LAYOUT]
    subject = next((c.name for c in present if c.name.startswith(OURS)), None)

    def wanted(name: str) -> bool:
        if name in (LIMIT, subject, *REFERENCES) or (op == "overhead" and name.startswith(OURS)):
            return True
        if compare is None:
            return not (op in EDGE_OPS and name.startswith(OURS))  # the other backends, by name alone
        return any(is_meant(name, item) for item in compare)

    return [c for c in present if wanted(c.name)]


def is_meant(contestant: str, item: str) -> bool:
    """Whether an item of `compare` names this contestant, or the library or backend that it is of."""
    return contestant == item or contestant.startswith(f"{item}-")


def expected_seconds(plan: Plan, field: Field) -> float:
    """Roughly how long the run will take: right within a factor of 2 or 3."""
    seconds = 0.0
    for op, layer in plan.cases:
        nbytes = 4 * math.prod(layer.shape) * TRAFFIC.get(op, 2)
        each = plan.rounds * VISIT_SECONDS + nbytes * (CHECK_SECONDS + plan.rounds * CALLS_SECONDS)
        seconds += len(chosen(field, op, plan.layouts, plan.compare)) * each
    return seconds


def check_presence(compare: Sequence[str], field: Field, absent: Mapping[str, str]) -> None:
    """Raise AbsentError where an item of `compare` means nobody who is here."""
    for item in compare:
        if not any(is_meant(c.name, item) for c in field.contestants):
            if item in absent:
                raise absence(item, absent[item])
            kin = ", ".join(dict.fromkeys(c.name for c in field.contestants if is_meant(c.name, item.split("-")[0])))
            raise AbsentError(f"--compare must name contestants that there are, got '{item}'; name one of {kin}")


def run_suite(plan: Plan, watch: Watch) -> Results:
    """Measure everything. What a peer cannot do, or does wrong, is noted in `made` and left out; cpubn must not err.

    Ctrl-C ends it with the cases that are finished, if there are any, and `made["interrupted"]` says how many.

    Raises
    ------
    AbsentError : a peer that `plan.compare` names is absent; before anything is measured.
    """
    compare = plan.compare or ()
    field = gather(plan.threads, libraries_of(plan.compare), [name.split("-")[0] for name in compare])
    failed: dict[str, str] = {}
    results = Results(circumstances(plan, field) | {"failed": failed})
    check_presence(compare, field, results.made["absent"])
    watch.start(expected_seconds(plan, field))
    others = OtherWork()
    for finished, (op, layer) in enumerate(plan.cases):
        try:
            watch.case(op, layer)
            present = chosen(field, op, plan.layouts, plan.compare)
            records = list(records_of(case_of(op, layer), present, plan.rounds, failed, watch.round))
        except KeyboardInterrupt:
            if not results.records:
                raise
            results.made["interrupted"] = f"after {finished} of {len(plan.cases)} cases"
            break
        results.records += records
    results.made["other_cpus"] = others.cpus()
    return results


def records_of(
    case: Case, contestants: Sequence[Contestant], rounds: int, failed: dict[str, str], after_round: Callable[[], None]
) -> Iterator[Record]:
    ready = {(c.name, c.layout): outcome for c in contestants if (outcome := set_up(c, case, failed))}
    timings = measure({key: prepared.call for key, (prepared, _) in ready.items()}, rounds, after_round)
    for (name, layout), timing in timings.items():
        _, error = ready[name, layout]
        yield Record(case.op, case.layer.model, case.layer.shape, name, layout, case.nbytes, timing, error)


def set_up(contestant: Contestant, case: Case, failed: dict[str, str]) -> tuple[Prepared, float] | None:
    """The contestant and its error; None, with the reason in `failed`, where it is a peer that failed."""
    try:
        prepared = contestant.passes[case.op](case, contestant.layout)
        error = case.error(prepared, contestant.layout)
        if not error <= case.tolerance:
            raise ArithmeticError(f"its result is off by {error:.1e}")
    except Exception as problem:
        if contestant.name.startswith(OURS):
            raise
        failed[f"{contestant.name} {contestant.layout}, {case.op} {case.layer.name}"] = str(problem)
        return None
    return prepared, error


def circumstances(plan: Plan, field: Field) -> dict[str, Any]:
    config = report.config()
    return {
        "date": datetime.date.today().isoformat(),
        "cpu": cpus.model(),
        "cpus": cpus.usable(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "instruction_set": config["instruction_set"]["chosen"],
        "threads": plan.threads,
        "rounds": plan.rounds,
        "versions": {OURS: __version__, "numpy": np.__version__} | field.versions,
        "environment": {name: value for name, value in os.environ.items() if name.startswith(SETTINGS)},
        "absent": {f"{OURS}-{name}": reason for name, reason in config["backend"]["absent"].items()} | field.absent,
        "notes": field.notes,
    }
