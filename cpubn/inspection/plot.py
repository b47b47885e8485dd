"""Scales and shifts of every norm as a picture: their range, their middle, and the channels that stand out."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from cpubn.convert._fold_onnx import printable
from cpubn.inspection.report import Health, NormHealth
from cpubn.typing import Vector

# Blue and vermilion of Okabe and Ito, which most colour-blind readers tell apart.
BLUE, RED, INK, FAINT = "#0072b2", "#d55e00", "#444444", "#cccccc"
ROW, HEAD, WIDTH, TALLEST = 0.24, 2.4, 13.0, 120.0  # inches
FAR = 3.0  # quartile distances beyond a quartile: Tukey's "far out"
NAMED = 3  # outliers of one norm on one side
LEGEND = (
    "line: from the least to the largest channel; bar: the middle half of them; dot: the median; "
    f"red: numbers of channels over {FAR:g} times the bar's length away from it, and of those whose scale is 0"
)
NAME = 44  # characters of a norm's name
OTHER_SIDE = {"left": "right", "right": "left"}
LEAST, MOST = 2.0**-25, 65520.0  # magnitudes that float16 makes 0 and infinity


def refusal(path: Path) -> str | None:
    """Why a picture cannot be written to `path`, or None; found out before the work, not after."""
    kinds = Figure().canvas.get_supported_filetypes()
    if path.suffix.lower().removeprefix(".") not in kinds:
        return (
            f"--plot must name a file that ends in .png (or .{', .'.join(sorted(set(kinds) - {'png'}))}), got '{path}'"
        )
    existed = path.exists()
    try:
        path.open("ab").close()
    except OSError as error:
        return f"--plot must name a file that can be written, got '{path}': {error.strerror}; choose another"
    if not existed:
        path.unlink()
    return None


def draw(title: str, report: Health, path: Path) -> None:
    """One row a norm, from the top; |scale| on the left, shift on the right. There must be a norm."""
    norms = list(report.values())
    height = min(HEAD + ROW * len(norms), TALLEST)
    figure = Figure(figsize=(WIDTH, height), dpi=110, layout="constrained")
    figure.suptitle(printable(title), color=INK, fontsize=12, parse_math=False)
    figure.supxlabel(LEGEND, color=INK, fontsize=8)
    scales, shifts = figure.subplots(1, 2, sharey=True)
    draw_scales(scales, norms)
    draw_shifts(shifts, norms)
    room = (height - HEAD) / len(norms) * 72  # points a row
    names = [shortened(printable(norm.name)) for norm in norms]
    scales.set_yticks(range(len(norms)), names, fontsize=min(8.0, 0.8 * room), parse_math=False)
    scales.set_ylim(len(norms) - 0.4, -0.6)
    if len(norms) > 30:  # too far down to be read off the axis below
        for panel in (scales, shifts):
            panel.tick_params(top=True, labeltop=True)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # a letter that the font lacks is drawn as a box
        figure.savefig(path)


def draw_scales(panel: Axes, norms: list[NormHealth]) -> None:
    panel.set_xscale("log")
    sizes = [np.abs(norm.scale) for norm in norms]
    drawn = np.concatenate([size[np.isfinite(size) & (size > 0.0)] for size in sizes])
    low, high = (drawn.min(), drawn.max()) if drawn.size else (1.0, 1.0)
    margin = max((high / low) ** 0.27, 1.5)
    zeros = any((size == 0.0).any() for size in sizes)
    panel.set_xlim(low / margin ** (2 if zeros else 1), high * margin)
    for row, (norm, size) in enumerate(zip(norms, sizes, strict=True)):
        draw_row(panel, row, size, logarithmic=True)
        at_zero = np.flatnonzero(size == 0.0)
        if at_zero.size:
            tell(panel, row, f"scale 0: {channels(at_zero)}")
        tell_broken(panel, row, norm)
    for limit, label, side in ((LEAST, "0 in float16", "left"), (MOST, "infinite in float16", "right")):
        if panel.get_xlim()[0] < limit < panel.get_xlim()[1]:
            panel.axvline(limit, color=RED, linewidth=0.8, linestyle=(0, (4, 3)))
            panel.text(
                limit, 1.0, label, color=RED, fontsize=7, ha=side, va="bottom", transform=panel.get_xaxis_transform()
            )
    finish(panel, "|scale| = |weight| / sqrt(running_var + eps)")


def draw_shifts(panel: Axes, norms: list[NormHealth]) -> None:
    drawn = np.concatenate([norm.shift[np.isfinite(norm.shift)] for norm in norms])
    largest = float(np.abs(drawn).max(initial=0.0))
    if largest > 30.0:
        panel.set_xscale("symlog", linthresh=1.0)
    low, high = (drawn.min(), drawn.max()) if drawn.size else (0.0, 0.0)
    margin = 0.27 * (high - low) or 1.0
    if largest > 30.0:
        panel.set_xlim(min(20 * low, -1.0), max(20 * high, 1.0))
    else:
        panel.set_xlim(low - margin, high + margin)
    panel.axvline(0.0, color=FAINT, linewidth=0.8, zorder=0)
    for row, norm in enumerate(norms):
        draw_row(panel, row, norm.shift, logarithmic=False)
        tell_broken(panel, row, norm)
    finish(panel, "shift = bias - running_mean * scale")


def draw_row(panel: Axes, row: int, values: Vector, logarithmic: bool) -> None:
    """A line from least to largest, a bar from quartile to quartile, a dot in the middle; outliers with channels."""
    shown = np.isfinite(values) & (values > 0.0) if logarithmic else np.isfinite(values)
    if not shown.any():
        return
    numbers = values[shown]
    first, middle, third = np.quantile(numbers, (0.25, 0.5, 0.75))
    panel.plot([numbers.min(), numbers.max()], [row, row], color=BLUE, linewidth=0.8, solid_capstyle="butt")
    panel.plot([first, third], [row, row], color=BLUE, linewidth=5.0, alpha=0.45, solid_capstyle="butt")
    panel.plot(middle, row, color=BLUE, marker="o", markersize=3.5)
    for side, outliers in far_out(values, shown, logarithmic).items():
        if outliers.size:
            panel.plot(values[outliers], np.full(outliers.size, row), color=RED, marker=".", markersize=5, linestyle="")
            panel.annotate(
                channels(outliers), (values[outliers[0]], row), (-4 if side == "left" else 4, 0), ha=OTHER_SIDE[side],
                textcoords="offset points", va="center", color=RED, fontsize=7,
            )  # fmt: skip


def far_out(values: Vector, shown: NDArray[np.bool_], logarithmic: bool) -> dict[str, NDArray[np.intp]]:
    """The channels below and above all others, the farthest first."""
    with np.errstate(all="ignore"):
        places = np.log10(np.abs(values)) if logarithmic else values
    first, third = np.quantile(places[shown], (0.25, 0.75))
    reach = FAR * max(third - first, 1e-3)
    order = np.argsort(places)
    return {
        "left": np.array([c for c in order if shown[c] and places[c] < first - reach], np.intp),
        "right": np.array([c for c in order[::-1] if shown[c] and places[c] > third + reach], np.intp),
    }


def channels(numbers: NDArray[np.intp]) -> str:
    """A few of them by number."""
    more = f" +{numbers.size - NAMED}" if numbers.size > NAMED else ""
    return ", ".join(map(str, numbers[:NAMED])) + more


def tell_broken(panel: Axes, row: int, norm: NormHealth) -> None:
    broken = np.flatnonzero(~(np.isfinite(norm.scale) & np.isfinite(norm.shift)))
    if broken.size:
        tell(panel, row, f"no number: {channels(broken)}")


def tell(panel: Axes, row: int, text: str) -> None:
    """At the left edge of a row."""
    panel.annotate(
        text, (0.0, row), (3, 0), xycoords=panel.get_yaxis_transform(), textcoords="offset points",
        color=RED, fontsize=7, va="center",
    )  # fmt: skip


def finish(panel: Axes, label: str) -> None:
    panel.set_xlabel(label, color=INK, fontsize=9)
    panel.grid(axis="y", color="#eeeeee", linewidth=0.6)
    panel.set_axisbelow(True)
    panel.spines[["top", "right"]].set_visible(False)
    panel.tick_params(colors=INK, labelsize=8)


def shortened(name: str) -> str:
    """A long name without its middle."""
    half = (NAME - 1) // 2
    return (name if len(name) <= NAME else f"{name[:half]}…{name[-half:]}") or "(no name)"
