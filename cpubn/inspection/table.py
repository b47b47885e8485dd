"""The norms of a file as a table, and below it what was found, kind by kind."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cpubn.convert._fold_onnx import printable
from cpubn.inspection.findings import MEANINGS, Kind
from cpubn.inspection.places import Contents, Place
from cpubn.inspection.report import Finding, Health, NormHealth, counted, spread

SEVERE, PLAIN = "bold red", "yellow"
STYLES: dict[Kind, str] = {"broken": SEVERE, "negative variance": SEVERE}
WHOLE: tuple[Kind, ...] = ("not updated", "equal weights")  # of a norm, not of some of its channels
NORMS = 8  # of one kind that are named


def show(console: Console, title: str, report: Health, contents: Contents) -> None:
    console.print(table_of(title, report, contents.places))
    for line in [*lines_of(report), *place_lines(contents), *unread_lines(contents)]:
        console.print(line, soft_wrap=not console.is_terminal)


def table_of(title: str, report: Health, places: Mapping[str, Place]) -> Table:
    table = Table(box=SIMPLE, title=Text(printable(title)), title_justify="left", title_style="bold")
    table.add_column("norm", overflow="fold")
    table.add_column("channels", justify="right", no_wrap=True)
    table.add_column("eps", justify="right", no_wrap=True)
    table.add_column("stands", overflow="fold")
    table.add_column("folds", no_wrap=True)
    table.add_column("scale", no_wrap=True)
    table.add_column("health", overflow="fold")
    for name, norm in report.items():
        place = places[name]
        row = (
            named(name),
            str(norm.num_features),
            f"{norm.eps:g}",
            place.stands or "unknown",
            place.answer,
            scales(norm),
        )
        table.add_row(*(Text(printable(cell)) for cell in row), health_of(norm))
    return table


def scales(norm: NormHealth) -> str:
    """From the least to the largest."""
    of = spread(norm.scale)
    if of["min"] is None or of["max"] is None:
        return "none"
    return f"{of['min']:.2g}" if of["min"] == of["max"] else f"{of['min']:.2g} to {of['max']:.2g}"


def health_of(norm: NormHealth) -> Text:
    if not norm.findings:
        return Text("good", style="green")
    parts = [Text(short(finding), style=STYLES.get(finding.kind, PLAIN)) for finding in norm.findings]
    return Text(", ").join(parts)


def short(finding: Finding) -> str:
    if finding.kind in WHOLE:
        return finding.kind
    return f"{'all' if finding.is_everywhere else len(finding.channels)} {finding.kind}"


def lines_of(report: Health) -> Iterator[Text]:
    """What each kind means that was found, and where."""
    if report.is_healthy:
        yield Text("Nothing was found in any of them.", style="green")
    for kind in report.kinds:
        found = {name: f for name, norm in report.items() for f in norm.findings if f.kind == kind}
        channels = sum(len(finding.channels) for finding in found.values())
        yield Text.assemble(
            (kind, STYLES.get(kind, PLAIN)),
            f", {counted(channels, 'channel')} in {counted(len(found), 'norm')}: {MEANINGS[kind][0]}",
        )
        if kind in WHOLE:
            yield Text(f"    {listed(list(found))}", style="dim")
            continue
        for name, finding in list(found.items())[:NORMS]:
            yield Text(f"    {named(name)}: {finding.where}", style="dim")
        if len(found) > NORMS:
            yield Text(f"    and {len(found) - NORMS} more norms; --json has all", style="dim")


def place_lines(contents: Contents) -> Iterator[Text]:
    """How many fold, why the others do not, and how far to believe it."""
    places = contents.places
    told = [f"{sum(place.answer == answer for place in places.values())} {answer}" for answer in answers(places)]
    yield Text(f"Folds into a layer beside it: {', '.join(told)}.")
    reasons = {name: place.how for name, place in places.items() if place.answer in ("no", "unknown")}
    for name, why in list(reasons.items())[:NORMS]:
        yield Text(f"    {named(name)}: {printable(why)}", style="dim")
    if len(reasons) > NORMS:
        yield Text(f"    and {len(reasons) - NORMS} more norms; --json has all", style="dim")
    if "likely" in answers(places):
        yield Text(
            "Likely by names and shapes; an activation between a layer and its norm would not show in this file."
        )


def answers(places: Mapping[str, Place]) -> list[str]:
    return list(dict.fromkeys(place.answer for place in places.values()))


def named(name: str) -> str:
    return printable(name) or "(no name)"


def listed(names: list[str]) -> str:
    more = f" and {len(names) - NORMS} more; --json has all" if len(names) > NORMS else ""
    return ", ".join(map(named, names[:NORMS])) + more


def unread_lines(contents: Contents) -> Iterator[Text]:
    for name, reason in contents.unread.items():
        yield Text.assemble((f"{named(name)} could not be read: ", SEVERE), printable(reason))
