"""The accuracy curves as a picture, one panel a learning rate."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from numpy.typing import NDArray

from cpubn.demo.show import NORMALIZED, PLAIN
from cpubn.demo.training import TARGET, Run

# Orange and blue of Okabe and Ito, which most colour-blind readers tell apart.
COLOURS = {PLAIN: "#e69f00", NORMALIZED: "#0072b2"}
INK = "#444444"
TICKS = (10, 50, 80, 90, 95, 97, 99)
BEST = 99.5


def draw(runs: Mapping[float, tuple[Run, Run]], epochs: int, path: Path) -> None:
    figure = Figure(figsize=(12, 6), dpi=150, layout="constrained")
    figure.suptitle("The same network on handwritten digits, without and with batch norm", color=INK)
    panels = figure.subplots(2, 4, sharex=True, sharey=True).ravel()
    for panel, (rate, pair) in zip(panels, runs.items(), strict=False):
        draw_panel(panel, rate, pair, epochs)
    for panel in panels[len(runs) :]:
        panel.axis("off")
    handles, labels = panels[0].get_legend_handles_labels()
    panels[-1].legend(handles, labels, loc="center", frameon=False, fontsize=11, labelcolor=INK)
    figure.supxlabel("epoch", color=INK)
    figure.supylabel("held-out accuracy (error on a logarithmic scale)", color=INK)
    figure.savefig(path)


def draw_panel(panel: Axes, rate: float, pair: tuple[Run, Run], epochs: int) -> None:
    panel.set_title(f"learning rate {rate:g}", fontsize=11, color=INK)
    panel.set_yscale("function", functions=(log_error, accuracy_of))
    panel.set_ylim(-15, BEST)
    panel.set_xlim(0, epochs + 1)
    panel.yaxis.set_major_locator(FixedLocator(TICKS))
    panel.yaxis.set_minor_locator(NullLocator())
    panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f}%"))
    panel.axhline(100 * TARGET, color=INK, linewidth=0.8, linestyle=(0, (4, 3)), label=f"{TARGET:.0%}")
    # The wider line shows below the other where both networks stay at 10%.
    for (name, colour), width, run in zip(COLOURS.items(), (2.8, 1.4), pair, strict=True):
        percent = np.minimum(100 * np.array(run.accuracies), BEST)
        shown = range(1, len(percent) + 1)
        panel.plot(shown, percent, color=colour, linewidth=width, marker="o", markersize=3.5, label=name)
        if run.diverged:
            draw_divergence(panel, len(percent) + 1, colour)
    panel.spines[["top", "right"]].set_visible(False)
    panel.tick_params(colors=INK, labelsize=9)


def draw_divergence(panel: Axes, epoch: int, colour: str) -> None:
    panel.plot(epoch, 10, color=colour, marker="x", markersize=7, markeredgewidth=2)
    panel.annotate(
        "diverged", (epoch, 10), (6, 5), textcoords="offset points", color=colour, fontsize=9, annotation_clip=False
    )


def log_error(percent: NDArray[np.float64]) -> NDArray[np.float64]:
    return -np.log(np.maximum(100.0 - percent, 1e-3))


def accuracy_of(scaled: NDArray[np.float64]) -> NDArray[np.float64]:
    percent: NDArray[np.float64] = 100.0 - np.exp(-scaled)
    return percent
