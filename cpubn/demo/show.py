"""What the demo prints: two curves that grow downwards, a line an epoch, and two tables."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cpubn.demo.serving import Served, difference, same_bits
from cpubn.demo.training import TARGET, Run

PLAIN, NORMALIZED = "without batch norm", "with batch norm"
STYLES = ("yellow", "bold cyan")
# The curves' axis: accuracy from 80 % to 100 %, in steps of half a percent where there are as many columns.
LEFT, MOST_COLUMNS, FEWEST_COLUMNS = 0.80, 41, 21
BESIDE = 30  # columns of figures and spaces


class Curves:
    """Both accuracy curves, drawn as they come: accuracy to the right, epochs downwards."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.columns = min(max(console.width - BESIDE, FEWEST_COLUMNS), MOST_COLUMNS)
        self.marks = "o*" if console.options.ascii_only else "○●"
        self.beyond, self.target = "<:" if console.options.ascii_only else "◂┊"

    def head(self) -> None:
        names = [f"{mark} {name}" for mark, name in zip(self.marks, (PLAIN, NORMALIZED), strict=True)]
        self.console.print(Text.assemble("Held-out accuracy   ", (names[0], STYLES[0]), "   ", (names[1], STYLES[1])))
        axis = [" "] * self.columns
        for percent in (80, 85, 90, 97):
            start = self.column(percent / 100)
            axis[start : start + 2] = str(percent)
        self.console.print(Text(f"epoch{'without':>10}{'with':>10}   {''.join(axis)} %", style="dim"))

    def epoch(self, number: int, plain: Run, normalized: Run) -> None:
        line = Text(f"{number:5d}")
        cells = {self.column(TARGET): (self.target, "dim")}
        for run, mark, style in zip((plain, normalized), self.marks, STYLES, strict=True):
            if run.diverged:
                line.append("  diverged", style)
            else:
                accuracy = run.accuracies[-1]
                line.append(f"{accuracy:10.1%}", style)
                cells[self.column(accuracy)] = (mark if accuracy >= LEFT else self.beyond, style)
        line.append("   ")
        for position in range(max(cells) + 1):
            line.append(*cells.get(position, (" ", "")))
        self.console.print(line)

    def column(self, accuracy: float) -> int:
        last = self.columns - 1
        return min(max(round((accuracy - LEFT) / (1.0 - LEFT) * last), 0), last)


def learning_rates(runs: Mapping[float, tuple[Run, Run]], epochs: int) -> Table:
    table = Table(box=SIMPLE, title_justify="left", title_style="bold")
    table.title = f"Epochs to {TARGET:.0%} of the held-out digits, and accuracy after {epochs}"
    table.add_column("learning rate", justify="right")
    for name, style in zip((PLAIN, NORMALIZED), STYLES, strict=True):
        table.add_column(name.replace(" ", "\n", 1), justify="right", style=style)
        table.add_column("at the\nend", justify="right", style=style)
    for rate, pair in runs.items():
        table.add_row(f"{rate:g}", *(cell for run in pair for cell in outcome(run)))
    return table


def outcome(run: Run) -> tuple[str, str]:
    reached = run.epochs_to_target
    end = "diverged" if run.diverged else f"{run.accuracies[-1]:.1%}"
    return "never" if reached is None else str(reached), end


def backends(served: Mapping[str, Served], formula: Served) -> Table:
    table = Table(box=SIMPLE, title_justify="left", title_style="bold")
    table.title = "The network with batch norm, frozen, classifies the held-out digits"
    table.caption, table.caption_justify = "Times in microseconds an image; differences of its scores.", "left"
    table.add_column("batch norm by")
    for name in ("accuracy", "one by\none", "in one\nbatch", "largest\ndifference"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_row("NumPy formula, float64", *figures_of(formula), "reference")
    for name, result in served.items():
        table.add_row(f"cpubn, {name}", *figures_of(result), f"{difference(result.scores, formula.scores):.1e}")
    return table


def figures_of(served: Served) -> tuple[str, str, str]:
    return f"{served.accuracy:.1%}", f"{served.one_at_a_time * 1e6:.1f}", f"{served.one_batch * 1e6:.2f}"


def agreement(served: Mapping[str, Served]) -> list[str]:
    """Whether cython and numba gave the same bits, frozen and in a training step, and how far numpy was from them."""
    compiled = [name for name in ("cython", "numba") if name in served]
    lines = []
    if len(compiled) == 2:
        a, b = (served[name] for name in compiled)
        if same_bits(a, b):
            lines.append("cython and numba gave the same bits, frozen and in a training step.")
        else:
            lines.append(f"cython and numba did NOT give the same bits: they agree {distance(a, b)}.")
    if compiled and "numpy" in served:
        far = distance(served[compiled[0]], served["numpy"])
        lines.append(f"numpy, which adds up in another order, agrees with {' and '.join(compiled)} {far}.")
    return lines


def distance(a: Served, b: Served) -> str:
    frozen, step = closeness(a.scores, b.scores), closeness(a.step, b.step)
    return f"{frozen} in the frozen network's scores, {step} in a training step"


def closeness(a: NDArray[np.floating], b: NDArray[np.floating]) -> str:
    """float32 numbers, which are right to 1e-7 of themselves, beside the largest of them."""
    off = difference(a, b) / float(np.abs(b).max() or 1.0)
    return f"to {off:.0e} of the largest number" if off else "to the last bit"
