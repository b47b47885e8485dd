"""The demo from beginning to end."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from threadpoolctl import threadpool_limits

from cpubn.backends import report
from cpubn.demo import serving, show
from cpubn.demo.network import Network
from cpubn.demo.training import Digits, Run, load, train

# From too slow for both networks to too fast for both.
RATES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
SHOWN = 0.1


def tell(seed: int, epochs: int, plot: Path | None) -> None:
    console = Console(highlight=False, markup=False)
    data = load(seed)
    # BLAS on one thread: more only cost time on matrices this small, and change the figures with the number of cores.
    with threadpool_limits(1, "blas"):
        console.print(
            f"{len(data.digits)} handwritten digits to train on, {len(data.held_out_digits)} held out. Two networks, "
            f"64-256-128-10, from the same weights and minibatches, without and with cpubn's batch norm; "
            f"learning rate {SHOWN:g}, seed {seed}.\n"
        )
        runs = train_all(data, seed, epochs, console)
        console.print()
        console.print(show.learning_rates(runs, epochs))
        if plot:
            from cpubn.demo.plot import draw

            draw(runs, epochs, plot)
            console.print(f"The curves at all learning rates: {plot}")
        console.print()
        serve_all(runs[SHOWN][1].network, data, console)


def train_all(data: Digits, seed: int, epochs: int, console: Console) -> dict[float, tuple[Run, Run]]:
    """A run without and one with batch norm at every learning rate; SHOWN goes first, with its curves."""
    curves = show.Curves(console)
    runs: dict[float, tuple[Run, Run]] = {}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("epochs"))
    with Progress(*columns, TimeElapsedColumn(), console=console, transient=True) as progress:
        task = progress.add_task("", total=2 * epochs * len(RATES))
        curves.head()
        for rate in sorted(RATES, key=lambda rate: rate != SHOWN):
            progress.update(task, description=f"learning rate {rate:g}")
            plain, normalized = runs[rate] = new_run(False, rate, seed), new_run(True, rate, seed)
            trainings = [train(run, data, epochs, np.random.default_rng([seed, 1])) for run in (plain, normalized)]
            for epoch in range(1, epochs + 1):
                for training in trainings:
                    next(training, None)
                    progress.advance(task)
                if rate == SHOWN:
                    curves.epoch(epoch, plain, normalized)
    return {rate: runs[rate] for rate in RATES}


def new_run(normalized: bool, rate: float, seed: int) -> Run:
    return Run(Network(normalized, np.random.default_rng([seed, 0])), rate)


def serve_all(network: Network, data: Digits, console: Console) -> None:
    """Freeze the network and classify the held-out digits on every backend that is installed."""
    network.train(False)
    served: dict[str, serving.Served] = {}
    # numba compiles at its first run, which takes a while.
    with console.status("loading the backends") as status:
        presence = report.config()["backend"]
        for backend in serving.BACKENDS:
            if backend in presence["available"]:
                status.update(f"classifying with the {backend} backend")
                served[backend] = serving.serve(network, data, backend)
    console.print(show.backends(served, serving.serve(network, data, None)))
    for backend in serving.BACKENDS:
        if backend not in served:
            console.print(f"The {backend} backend is absent and was skipped: {presence['absent'][backend]}")
    for line in show.agreement(served):
        console.print(line)
