"""Results as tables, for a terminal (rich) and for a page (Markdown)."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from cpubn.bench.contestants import FREE_OF_LAYOUT, LIMIT, REFERENCES
from cpubn.bench.edge import FUSED, HALF
from cpubn.bench.results import Record, Results
from cpubn.bench.standing import (
    PEERS,
    TOLERATED,
    Line,
    Pair,
    Row,
    groups,
    judged_of,
    line_of,
    mean,
    names_of,
    pairs_of,
    rows_of,
)

if TYPE_CHECKING:
    from rich.table import Table

TITLES = {
    "eval": "inference",
    "train": "training, forward",
    "backward": "backward",
    "moments": "moments",
    "overhead": "cost of a call on a 1x64x1x1 tensor",
    "input": "bytes to float32",
    "int8": "int8",
    "int8_relu": "int8, relu",
}
TITLES |= {op: op.replace("add_", "residual, ") for op in FUSED}
TITLES |= {op: f"{TITLES[op.partition('_')[0]]}, {op.partition('_')[2]}" for op in HALF}
# All but the layout that oneDNN is slowest in, which counts among the pairs alone.
MEANS = tuple(peer.title for peer in PEERS if peer.title != "oneDNN nchw")
HEAD_WIDTH = 12


class Cell(NamedTuple):
    text: str
    beaten: bool = False


class Grid(NamedTuple):
    """A table: names first, then figures; the last row may be the mean of those above."""

    title: str
    heads: list[str]
    rows: list[list[Cell]]
    has_mean: bool = False

    def for_terminal(self) -> Table:
        from rich.box import SIMPLE
        from rich.table import Table
        from rich.text import Text

        table = Table(box=SIMPLE, title=self.title, title_justify="left", title_style="bold")
        for i, head in enumerate(self.heads):
            lines = textwrap.wrap(head, HEAD_WIDTH, break_long_words=False, break_on_hyphens=False)
            table.add_column("\n".join(lines), justify="right" if i else "left", no_wrap=True)
        for i, row in enumerate(self.rows):
            if self.has_mean and i == len(self.rows) - 1:
                table.add_section()
            table.add_row(*(Text(cell.text, "bold red" if cell.beaten else "") for cell in row))
        return table

    def markdown(self) -> str:
        lines = [self.heads, ["---", *["---:"] * (len(self.heads) - 1)]]
        lines += [[f"**{cell.text}**" if cell.beaten else cell.text for cell in row] for row in self.rows]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def all_grids(results: Results) -> Iterator[Grid]:
    """A table a pass and layout, then the cost of a call."""
    for key, rows in groups(rows_of(results)):
        yield layer_grid(*key, rows)
    if any(record.op == "overhead" for record in results.records):
        yield overhead_grid(results)


def layer_grid(op: str, layout: str, model: str, rows: list[Row]) -> Grid:
    names = names_of(rows)
    heads = ["layer", "MB", "time", "GB/s", "of limit", *map(heading, names)]
    lines = [
        [
            Cell(row.ours.layer),
            Cell(f"{row.ours.nbytes / 1e6:.1f}"),
            Cell(duration(row.ours.seconds)),
            Cell(f"{row.ours.gigabytes_per_second:.1f}"),
            share(row.share),
            *ratios(row, names),
        ]
        for row in rows
    ]
    means = line_of(op, layout, rows)
    lines.append([*map(Cell, ("geometric mean", "", "", "")), *mean_cells(means, names)])
    title = f"{TITLES[op]}, {layout}, {model}: {rows[0].ours.name}, and how many times as long the others take"
    return Grid(title, heads, lines, has_mean=True)


def summary_grid(results: Results) -> Grid:
    """Geometric means alone, a row a pass, layout and model."""
    rows = rows_of(results)
    names = names_of(rows)
    lines = [
        [Cell(f"{TITLES[op]}, {layout}, {model}"), *mean_cells(line_of(op, layout, group), names)]
        for (op, layout, model), group in groups(rows)
    ]
    title = "geometric means: share of the limit, and how many times as long the others take"
    return Grid(title, ["pass", "of limit", *map(heading, names)], lines)


def standing_grid(results: Results) -> Grid:
    """A row a pass: cpubn beside the limit, and the means of its pairs."""
    rows, pairs = rows_of(results), pairs_of(results)
    layouts = list(dict.fromkeys(row.ours.layout for row in rows))
    lines = []
    for op in dict.fromkeys(row.ours.op for row in rows):
        models = judged_of(row.ours for row in rows if row.ours.op == op)
        judged = [row for row in rows if row.ours.op == op and row.ours.model in models]
        shares = [line_of(op, layout, [r for r in judged if r.ours.layout == layout]).share for layout in layouts]
        means = [
            mean(p.ratio for p in pairs if p.peer.title == title and p.ours.op == op and p.ours.model in models)
            for title in MEANS
        ]
        cells = [ratio(value, title) for value, title in zip(means, MEANS, strict=True)]
        lines.append([Cell(TITLES[op]), Cell(" / ".join(share(value).text or "-" for value in shares)), *cells])
    title = "like with like: how many times as long peers take in the same layout, and oneDNN's best beside cpubn's"
    head = f"share of limit, {' / '.join(layouts)} (layers of 1 MB or more)"
    return Grid(title, ["pass", head, *MEANS], lines)


def section_grid(results: Results) -> Grid:
    """Every pass of every layer in one table."""
    rows = rows_of(results)
    names = names_of(rows)
    lines = [
        [
            Cell(TITLES[row.ours.op]),
            Cell(f"{row.ours.layer} {row.ours.layout}"),
            Cell(duration(row.ours.seconds)),
            share(row.share),
            *ratios(row, names),
        ]
        for row in rows
    ]
    title = "times of cpubn, its share of the limit, and how many times as long the others take"
    return Grid(title, ["pass", "layer", "time", "of limit", *map(heading, names)], lines)


def ratios(row: Row, names: list[str]) -> list[Cell]:
    return [ratio(row.ratio(name), name) for name in names]


def mean_cells(means: Line, names: list[str]) -> list[Cell]:
    return [share(means.share), *(ratio(means.ratios.get(name), name) for name in names)]


def overhead_grid(results: Results) -> Grid:
    records = [record for record in results.records if record.op == "overhead"]
    empty = min((r.seconds for r in records if r.name == LIMIT), default=0.0)
    lines = [
        [Cell(f"{r.name} {r.layout}"), Cell(f"{r.seconds * 1e6:.2f}"), Cell(f"{(r.seconds - empty) * 1e6:.2f}")]
        for r in sorted(records, key=lambda r: r.seconds)
        if r.name != LIMIT
    ]
    return Grid(TITLES["overhead"], ["by", "us", "us over an empty call"], lines)


def beaten_lines(results: Results) -> list[str]:
    """Every layer, pass and layout in which a peer is clearly faster, and how many times as fast."""
    lines = []
    for row in rows_of(results):
        rivals = [f"{r.name} {r.layout} {row.ours.seconds / r.seconds:.2f}" for r in row.faster_rivals]
        if rivals:
            lines.append(f"{case_name(row.ours)}: {', '.join(rivals)}")
    return lines


def counts(results: Results) -> Iterator[tuple[str, list[str]]]:
    """In the same layout and in the best: how many pairs there are in which cpubn is clearly behind, and which."""
    pairs = pairs_of(results)
    for side, chosen in (
        ("Beside peers in the same layout", [pair for pair in pairs if pair.peer.layout is not None]),
        ("Beside oneDNN, each in its best layout", [pair for pair in pairs if pair.peer.layout is None]),
    ):
        if chosen:
            yield f"{side}, cpubn is over 10% slower in {tally(chosen)}", behind_lines(chosen)


def tally(pairs: Sequence[Pair]) -> str:
    def count(some: Sequence[Pair]) -> str:
        return f"{sum(pair.behind for pair in some)} of {len(some)}"

    ops = dict.fromkeys(pair.ours.op for pair in pairs)
    each = (f"{op} {count([pair for pair in pairs if pair.ours.op == op])}" for op in ops)
    return f"{count(pairs)} pairs ({', '.join(each)})"


def behind_lines(pairs: Sequence[Pair]) -> list[str]:
    """The cases in which cpubn is clearly behind: who is faster, and how many times as fast."""
    behind: dict[Record, list[str]] = {}
    for pair in pairs:
        if pair.behind:
            who = pair.peer.title
            if pair.peer.layout is None:
                who += f" ({pair.theirs.name} {pair.theirs.layout})"
            behind.setdefault(pair.ours, []).append(f"{who} {1 / pair.ratio:.2f}")
    return [f"{case_name(ours)}: {', '.join(faster)}" for ours, faster in behind.items()]


def case_name(ours: Record) -> str:
    return f"{ours.op} {ours.layout} {ours.layer} ({duration(ours.seconds)})"


def heading(name: str) -> str:
    return f"{name} (best layout)" if name in FREE_OF_LAYOUT else name


def share(value: float | None) -> Cell:
    return Cell("" if value is None else f"{value:.2f}")


def ratio(value: float | None, name: str) -> Cell:
    if value is None:
        return Cell("")
    return Cell(f"{value:.2f}" if value < 10 else f"{value:.0f}", name not in REFERENCES and value * TOLERATED < 1)


def duration(seconds: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.2f} {unit}"
    return f"{seconds * 1e6:.1f} us"
