"""The picture on README.md and the manual's first page: how long others take, and how far off they are.

    python benchmarks/picture.py            draw it from the tables of docs/benchmarks.md, for light and dark pages
    python benchmarks/picture.py FOLDER     into another folder than docs/pictures

Those tables are written by report.py and accuracy.py; write them first.
"""

import sys
from contextlib import contextmanager
from pathlib import Path

import matplotlib as mpl
from front import standing
from matplotlib.figure import Figure
from report import PAGES, ROOT, table

from cpubn.bench.plot import COLOURS

FOLDER = ROOT / "docs" / "pictures"
INKS = {"light": "#333333", "dark": "#dddddd"}
# Heads of the first table, and whose colour they take.
PEERS = {"torch": "torch", "onnxruntime": "onnxruntime", "oneDNN best": "onednn"}
OURS = COLOURS["cpubn-cython"]
SIZE = (9.0, 3.2)  # inches


@contextmanager
def panels(path, shade, count, **how):
    """So many panels side by side, and the colour of their words; the picture is written when they are drawn."""
    ink = INKS[shade]
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "cpubn", "font.size": 9, "font.family": "sans-serif"}):
        figure = Figure(figsize=SIZE, layout="constrained")
        figure.get_layout_engine().set(h_pad=0.08)
        drawn = figure.subplots(1, count, **how)
        yield drawn, ink
        for panel in drawn:
            panel.set_facecolor("none")
            panel.spines[["top", "right"]].set_visible(False)
            panel.spines[["left", "bottom"]].set_color(ink)
            panel.tick_params(colors=ink, which="both")
            panel.legend(frameon=False, labelcolor=ink, fontsize=8)
        figure.savefig(path, transparent=True, metadata={"Date": None})


def draw(text, shade, path):
    with panels(path, shade, 2, width_ratios=(3, 2)) as ((speed, error), ink):
        draw_speed(speed, standing(text), ink)
        draw_error(error, *table(text, "accuracy", "accuracy.py"), ink)


def draw_speed(panel, grid, ink):
    """Bars from cpubn's time on: up takes longer than cpubn, down less."""
    heads, rows = grid.heads, [[cell.text for cell in row] for row in grid.rows]
    peers = [head for head in PEERS if head in heads]
    width = 0.8 / len(peers)
    for k, head in enumerate(peers):
        values = {place: row[heads.index(head)] for place, row in enumerate(rows)}
        known = {place: float(value) for place, value in values.items() if value}
        lefts = [place - 0.4 + k * width for place in known]
        heights = [value - 1.0 for value in known.values()]
        bars = panel.bar(lefts, heights, width, 1.0, align="edge", color=COLOURS[PEERS[head]], label=head)
        panel.bar_label(bars, [f"{value:.2g}" for value in known.values()], fontsize=7, color=ink, padding=1)
    panel.axhline(1.0, color=OURS, linewidth=2, label="cpubn")
    panel.set_xticks(range(len(rows)), [row[0].replace(" to ", "\nto ").replace(", ", ",\n") for row in rows])
    panel.set_ylim(bottom=0)
    panel.set_title("time, as a multiple of cpubn's (geometric means)", loc="left", fontsize=9, color=ink)


def draw_error(panel, heads, rows, ink):
    x = [float(row[0]) for row in rows]
    for name, colour in (("torch", COLOURS["torch"]), ("cpubn", OURS)):
        values = [float(row[heads.index(name)]) for row in rows]
        panel.plot(x, values, marker="o", markersize=4, color=colour, label=name)
    panel.set_xscale("log")
    panel.set_yscale("log")
    panel.set_xlabel("mean / standard deviation", color=ink)
    panel.set_title("error of float32 training", loc="left", fontsize=9, color=ink)


def main(words=None):
    given = sys.argv[1:] if words is None else words
    folder = Path(given[0]) if given else FOLDER
    try:
        text = PAGES[1].read_text(encoding="utf-8")
        for shade in INKS:
            draw(text, shade, folder / f"standing-{shade}.svg")
    except (OSError, ValueError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
