"""How cpubn stands: its records beside the limit and every peer, as ratios and their geometric means."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from statistics import geometric_mean
from typing import NamedTuple

from cpubn.bench.case import OPS, TRAFFIC
from cpubn.bench.contestants import FREE_OF_LAYOUT, LIMIT, REFERENCES
from cpubn.bench.edge import EDGE_OPS
from cpubn.bench.results import Record, Results

# Tensors below this are too quick for the share of the limit to say anything but what a call costs.
SHARE_FROM_BYTES = 1 << 20
TOLERATED = 1.1
# The layers that means are promised for; others count one by one.
JUDGED = "standard"


class Peer(NamedTuple):
    """One that cpubn is paired with."""

    title: str
    names: tuple[str, ...]  # of contestants, the fastest of which stands for it
    layout: str | None  # of both sides; None: each in the one that it is fastest in


ONEDNN = ("onednn", "onednn-unaligned")
PEERS = (
    Peer("torch", ("torch",), "NCHW"),
    Peer("torch channels_last", ("torch-channels-last",), "NHWC"),
    Peer("onnxruntime", ("onnxruntime",), "NCHW"),
    Peer("oneDNN nchw", ONEDNN, "NCHW"),
    Peer("oneDNN nhwc", ONEDNN, "NHWC"),
    Peer("oneDNN best", ONEDNN, None),
)


class Pair(NamedTuple):
    """cpubn and a peer on one layer in one pass."""

    peer: Peer
    ours: Record
    theirs: Record

    @property
    def ratio(self) -> float:
        """How many times as long the peer takes."""
        return self.theirs.seconds / self.ours.seconds

    @property
    def behind(self) -> bool:
        return self.ratio * TOLERATED < 1


class Row(NamedTuple):
    """cpubn on one layer, in one pass and layout, and everyone who ran beside it."""

    ours: Record
    limit: Record | None
    rivals: dict[str, Record]  # by name

    @property
    def share(self) -> float | None:
        """Of the limit's speed."""
        return self.limit and self.limit.seconds / self.ours.seconds

    def ratio(self, rival: str) -> float | None:
        """How many times as long that peer takes."""
        return self.rivals[rival].seconds / self.ours.seconds if rival in self.rivals else None

    @property
    def faster_rivals(self) -> list[Record]:
        """Those by which cpubn is beaten clearly."""
        return [
            r for r in self.rivals.values() if r.name not in REFERENCES and r.seconds * TOLERATED < self.ours.seconds
        ]


class Line(NamedTuple):
    """Geometric means over the layers of one pass and layout; None where there is nothing to take them of."""

    op: str
    layout: str
    share: float | None
    ratios: dict[str, float | None]


def rows_of(results: Results) -> list[Row]:
    """In the order of the passes and then of layouts; of cpubn's backends the first is the one that is judged."""
    subject = subject_of(results)
    rows = [
        Row(ours, *beside(ours, records))
        for _, records in cases(results)
        for ours in records
        if ours.name == subject and ours.op != "overhead"
    ]
    return sorted(rows, key=lambda row: ((*OPS, *EDGE_OPS).index(row.ours.op), row.ours.layout))


def subject_of(results: Results) -> str | None:
    return next((r.name for r in results.records if r.name.startswith("cpubn-") and r.op != "overhead"), None)


def pairs_of(results: Results) -> list[Pair]:
    """cpubn and each of PEERS that was measured, layer by layer; the best layouts only where cpubn ran in both."""
    subject, pairs = subject_of(results), []
    for _, records in cases(results):
        for peer in PEERS:
            fitting = [r for r in records if r.op != "overhead" and peer.layout in (r.layout, None)]
            ours = [r for r in fitting if r.name == subject]
            theirs = [r for r in fitting if r.name in peer.names]
            if theirs and len(ours) >= (2 if peer.layout is None else 1):
                pairs.append(Pair(peer, *(min(side, key=lambda r: r.seconds) for side in (ours, theirs))))
    return pairs


def cases(results: Results) -> Iterator[tuple[object, list[Record]]]:
    for case, records in groupby(results.records, key=lambda r: (r.op, r.model, r.shape)):
        yield case, list(records)


def beside(ours: Record, records: Iterable[Record]) -> tuple[Record | None, dict[str, Record]]:
    """The limit, and of every peer the record that counts: in our layout where it has that, or its fastest."""
    limit, rivals = None, dict[str, Record]()
    for record in records:
        known = rivals.get(record.name)
        if record.name == LIMIT:
            limit = record
        elif record.name == ours.name:
            continue
        elif known is None or better(record, known, ours.layout):
            rivals[record.name] = record
    return limit, rivals


def better(record: Record, known: Record, layout: str) -> bool:
    return record.seconds < known.seconds if record.name in FREE_OF_LAYOUT else record.layout == layout


def groups(rows: Iterable[Row]) -> Iterator[tuple[tuple[str, str, str], list[Row]]]:
    """Rows of one pass, layout and model: no mean mixes the layers of two."""
    for key, group in groupby(rows, key=lambda row: (row.ours.op, row.ours.layout, row.ours.model)):
        yield key, list(group)


def names_of(rows: Iterable[Row]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row.rivals))


def line_of(op: str, layout: str, rows: list[Row]) -> Line:
    # Passes that have no such number have layers of their own, every one of which counts.
    judged = [row for row in rows if row.ours.nbytes >= SHARE_FROM_BYTES * TRAFFIC.get(op, 0)]
    return Line(
        op,
        layout,
        mean(row.share for row in judged),
        {name: mean(row.ratio(name) for row in rows) for name in names_of(rows)},
    )


def judged_of(records: Iterable[Record]) -> set[str]:
    """The models whose layers means are taken over: the standard ones where they were measured, or all."""
    models = {record.model for record in records}
    return {JUDGED} & models or models


def mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return geometric_mean(known) if known else None
