"""python -m cpubn norms FILE: every batch norm of a file, where it stands, and its health."""

from __future__ import annotations

import argparse
import json
import sys
from io import TextIOWrapper
from pathlib import Path
from typing import Any

from cpubn.convert._content import KINDS, content_of
from cpubn.convert._fold_command import progress
from cpubn.convert._fold_onnx import printable
from cpubn.inspection.files import look_into
from cpubn.inspection.health import health
from cpubn.inspection.places import Contents
from cpubn.inspection.report import Health, counted
from cpubn.machine import libraries

NEEDED = {"rich": "rich"}
NEEDED_FOR_PLOT = {"matplotlib": "matplotlib"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, metavar="FILE", help="ONNX, .safetensors, .npz, or of torch or Keras")
    parser.add_argument("--eps", type=eps, help="of all norms, where the file does not hold it, as torch's do not")
    parser.add_argument("--json", action="store_true", help="for machines")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="draw the scales and shifts of each norm")


def run(arguments: argparse.Namespace) -> int:
    """Print the norms; 0, or 2 where the file cannot be read, a library is missing or the plot cannot be written."""
    wanted = ({} if arguments.json else NEEDED) | (NEEDED_FOR_PLOT if arguments.plot else {})
    reason = libraries.refusal("the norms command", wanted, "inspect")
    if reason is None and arguments.plot:
        from cpubn.inspection import plot

        reason = plot.refusal(arguments.plot)
    if reason:
        return refuse(reason)
    try:
        with progress() as say:
            contents = look_into(str(arguments.file), arguments.eps, say)
            say("judging its norms")
            report = health(contents.norms)
            title = title_of(arguments.file, report)
            if arguments.plot:
                say("drawing")
                plot.draw(title, report, arguments.plot)
    except OSError as error:
        return refuse(f"a file must be such that it can be read or written, got {error}")
    except (ValueError, TypeError, ModuleNotFoundError) as error:
        return refuse(str(error))
    if arguments.json:
        print(json.dumps(told(arguments.file, report, contents), indent=2, allow_nan=False))
        return 0
    show(title, report, contents)
    return 0


def title_of(path: Path, report: Health) -> str:
    channels = sum(norm.num_features for norm in report.values())
    return f"{path.name}: {counted(len(report), 'batch norm')}, {counted(channels, 'channel')}"


def told(path: Path, report: Health, contents: Contents) -> dict[str, Any]:
    said = report.to_dict()
    for norm in said["norms"]:
        norm["place"] = contents.places[norm["name"]].to_dict()
    return {"file": str(path), "kind": KINDS[content_of(str(path))][0], **said, "unread": contents.unread}


def show(title: str, report: Health, contents: Contents) -> None:
    from rich.console import Console

    from cpubn.inspection import table

    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a name may have letters that the terminal has not
    console = Console()
    # The table is wider than 80 columns; where the output is no terminal it need not be cut to that.
    if not console.is_terminal:
        console = Console(width=200)
    table.show(console, title, report, contents)


def refuse(reason: str) -> int:
    """In one line, whatever a library has said."""
    print(f"cpubn norms: {printable(' '.join(reason.split()))}", file=sys.stderr)
    return 2


def eps(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0.0 <= number < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a number of at least 0, got '{text}'")
    return number
