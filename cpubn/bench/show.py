"""The benchmark as a person sees it: who is here, how far it is, and the tables."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from cpubn.bench.contestants import AbsentError
from cpubn.bench.layers import Layer, layers_of
from cpubn.bench.results import Results
from cpubn.bench.suite import Plan, run_suite
from cpubn.bench.tables import all_grids, beaten_lines, counts, standing_grid, summary_grid
from cpubn.machine import cpus

DISTURBED_CPUS = 0.1
LOADING = "loading the libraries"


class Bar:
    """A progress bar, a step a round."""

    def __init__(self, progress: Progress, steps: int) -> None:
        self.progress = progress
        self.task: TaskID = progress.add_task(LOADING, total=steps)

    def start(self, seconds: float) -> None:
        self.progress.console.print(takes(seconds), style="dim")

    def case(self, op: str, layer: Layer) -> None:
        self.progress.update(self.task, description=f"{op} {layer.model} {layer.name}")

    def round(self) -> None:
        self.progress.advance(self.task)


class Lines:
    """A line a case on stderr, for who reads it from a file or a pipe."""

    def __init__(self, cases: int) -> None:
        self.cases, self.begun, self.since = cases, 0, 0.0
        print(LOADING, file=sys.stderr, flush=True)

    def start(self, seconds: float) -> None:
        print(takes(seconds), file=sys.stderr, flush=True)
        self.since = time.monotonic()

    def case(self, op: str, layer: Layer) -> None:
        rest = ""
        if self.begun:
            seconds = (time.monotonic() - self.since) / self.begun * (self.cases - self.begun)
            rest = f", {rough(seconds)} to go at the pace so far"
        self.begun += 1
        print(f"case {self.begun} of {self.cases}: {op} {layer.model} {layer.name}{rest}", file=sys.stderr, flush=True)

    def round(self) -> None:
        pass


def takes(seconds: float) -> str:
    return f"It takes about {rough(seconds)} on a machine of its own; Ctrl-C ends it and keeps the finished cases"


def rough(seconds: float) -> str:
    return f"{seconds:.0f} seconds" if seconds < 100 else f"{seconds / 60:.0f} minutes"


@contextmanager
def watching(plan: Plan) -> Iterator[Bar | Lines]:
    console = Console(stderr=True)
    if not console.is_terminal:
        yield Lines(len(plan.cases))
        return
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, transient=True) as progress:
        yield Bar(progress, len(plan.cases) * plan.rounds)


def show(arguments: argparse.Namespace, ops: Sequence[str]) -> str | None:
    """Measure and print; why there is nothing to measure, or None."""
    models = dict.fromkeys(arguments.model)
    layers = [layer for model in models for layer in layers_of(model, arguments.batch)]
    chosen = ops, layers, arguments.layout, arguments.compare, arguments.threads, arguments.rounds
    plan = Plan(*chosen)
    if not plan.cases:
        return f"{' '.join(models)} has no such layers; choose another --batch or --op"
    if arguments.plot and set(ops) == {"overhead"}:
        return "--plot draws passes over layers; name another --op besides overhead"
    console = Console()
    # Tables are wider than 80 columns; where the output is no terminal they need not be cut to that.
    if not console.is_terminal:
        console = Console(width=200)
    # At once: the libraries that are imported next take seconds.
    console.print(announcement(plan, models), markup=False, soft_wrap=True, style="dim")
    try:
        with watching(plan) as watch:
            results = run_suite(plan, watch)
    except AbsentError as error:
        return str(error)
    print_results(console, results, arguments.summary)
    if arguments.json:
        results.write(arguments.json)
    if arguments.plot:
        from cpubn.bench.plot import draw

        draw(results, arguments.plot)
    if "interrupted" in results.made:
        raise KeyboardInterrupt
    return None


def announcement(plan: Plan, models: Iterable[str]) -> str:
    beside = "all that is installed" if plan.compare is None else ", ".join(plan.compare)
    return (
        f"{cpus.model()}, {plan.threads} threads. To be measured: {', '.join(plan.ops)} of the layers "
        f"{', '.join(models)} ({len(plan.cases)} cases) in {', '.join(plan.layouts)}, {plan.rounds} rounds, "
        f"beside {beside}"
    )


def print_results(console: Console, results: Results, summary: bool) -> None:
    made = results.made
    console.print(
        f"{made['cpu']}, {made['threads']} threads, {made['instruction_set']}; "
        f"medians of {made['rounds']} interleaved rounds, {made['date']}",
        style="dim",
    )
    if made["other_cpus"] is not None and made["other_cpus"] > DISTURBED_CPUS:
        console.print(
            f"Other processes kept {made['other_cpus']:.2f} CPUs busy meanwhile: measure again on a quiet machine",
            style="bold red",
        )
    if "interrupted" in made:
        console.print(f"Interrupted {made['interrupted']}; those are shown and kept", style="bold red")
    console.print(", ".join(f"{name} {version}" for name, version in made["versions"].items()), style="dim")
    for title, style in (("environment", "dim"), ("notes", "dim"), ("absent", "yellow"), ("failed", "yellow")):
        for name, told in made[title].items():
            console.print(f"{title}: {name}: {told}", style=style, markup=False)
    for grid in [] if summary else all_grids(results):
        console.print(grid.for_terminal())
    console.print(summary_grid(results).for_terminal())
    if not summary:
        beaten = beaten_lines(results)
        print_list(console, f"Some peer, in whatever layout, is over 10% faster in {len(beaten)} cases", beaten)
    console.print(standing_grid(results).for_terminal())
    for title, behind in counts(results):
        print_list(console, title, behind)


def print_list(console: Console, title: str, lines: list[str]) -> None:
    console.print(f"{title}{', so many times as fast:' if lines else '.'}", markup=False, soft_wrap=True)
    for line in lines:
        console.print(f"  {line}", markup=False, soft_wrap=True)
