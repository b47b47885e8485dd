"""The results as a picture: bars a layer for each pass, layout and model, and everyone under the roof of memory."""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from cpubn.bench.results import Results
from cpubn.bench.standing import Row, groups, names_of, rows_of
from cpubn.bench.tables import TITLES, heading

# Okabe and Ito's colours, which most colour-blind readers tell apart, and lighter ones for what is near of kin.
COLOURS = {
    "cpubn-cython": "#0072b2",
    "cpubn-numba": "#56b4e9",
    "cpubn-numpy": "#a6d8f5",
    "cpubn-plain": "#56b4e9",
    "cpubn-float32": "#56b4e9",
    "cpubn-function": "#a6d8f5",
    "numpy": "#999999",
    "torch": "#d55e00",
    "torch-channels-last": "#f0a875",
    "onnxruntime": "#009e73",
    "openvino": "#8fd4bf",
    "opencv": "#f0e442",
    "jax": "#cc79a7",
    "onednn": "#e69f00",
    "onednn-unaligned": "#f5cf73",
}
INK = "#444444"
PANEL_HEIGHT, BARS_WIDTH, ROOF_WIDTH = 4.2, 0.16, 5.5  # inches; the second a bar


def draw(results: Results, path: Path) -> None:
    """Write a picture; `results` must hold at least one pass other than the cost of a call."""
    parts = list(groups(rows_of(results)))
    bars = max(len(rows) * (len(names_of(rows)) + 2) for _, rows in parts)
    widths = [max(8.0, BARS_WIDTH * bars), ROOF_WIDTH]
    figure = Figure(figsize=(sum(widths), PANEL_HEIGHT * len(parts)), dpi=110, layout="constrained")
    panels = figure.subplots(len(parts), 2, squeeze=False, width_ratios=widths)
    for ((op, layout, model), rows), (left, right) in zip(parts, panels, strict=True):
        draw_bars(left, f"{TITLES[op]}, {layout}, {model}", rows)
        draw_roof(right, rows)
    names = list(dict.fromkeys(name for _, rows in parts for name in (rows[0].ours.name, *names_of(rows))))
    handles = [Line2D([], [], marker="s", linestyle="", color=COLOURS.get(n, INK), label=heading(n)) for n in names]
    figure.legend(handles=handles, loc="outside upper center", ncols=6, frameon=False, labelcolor=INK)
    figure.savefig(path)


def records_by_name(row: Row) -> dict[str, float]:
    """GB/s of everyone on a layer, cpubn first."""
    return {name: r.gigabytes_per_second for name, r in {row.ours.name: row.ours, **row.rivals}.items()}


def draw_bars(panel: Axes, title: str, rows: list[Row]) -> None:
    panel.set_title(title, loc="left", fontsize=11, color=INK)
    names = [rows[0].ours.name, *names_of(rows)]
    width = 0.84 / len(names)
    for place, row in enumerate(rows):
        for name, speed in records_by_name(row).items():
            left = place - 0.42 + width * names.index(name)
            panel.bar(left, speed, width, align="edge", color=COLOURS.get(name, INK))
        if row.limit:
            panel.hlines(row.limit.gigabytes_per_second, place - 0.45, place + 0.45, color=INK, linewidth=1.2)
    panel.set_xticks(range(len(rows)), [row.ours.layer for row in rows], rotation=20, ha="right", fontsize=8)
    panel.set_xlim(-0.6, len(rows) - 0.4)
    panel.set_ylabel("GB/s (line: the limit)", color=INK)
    tidy(panel)


def draw_roof(panel: Axes, rows: list[Row]) -> None:
    """Speed over the bytes that must move: from the call's cost on the left, through the caches, to memory."""
    panel.set_xscale("log")
    panel.set_yscale("log")
    roof = sorted((r.limit.nbytes, r.limit.gigabytes_per_second) for r in rows if r.limit)
    if roof:
        panel.plot(*zip(*roof, strict=True), color=INK, linewidth=1.5)
        panel.annotate("limit", roof[-1], (0, 5), textcoords="offset points", ha="right", color=INK, fontsize=9)
    for row in rows:
        for name, speed in reversed(records_by_name(row).items()):
            panel.plot(row.ours.nbytes, speed, marker="o", markersize=4, linestyle="", color=COLOURS.get(name, INK))
    panel.set_xlabel("bytes that must move", color=INK)
    panel.set_ylabel("GB/s", color=INK)
    tidy(panel)


def tidy(panel: Axes) -> None:
    panel.spines[["top", "right"]].set_visible(False)
    panel.tick_params(colors=INK)
