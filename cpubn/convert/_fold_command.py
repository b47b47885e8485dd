"""python -m cpubn fold: an ONNX model without its batch norms."""

from __future__ import annotations

import argparse
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from cpubn.ask.files import writing
from cpubn.convert._fold_onnx import FoldReport, fold_and_say, printable

TOLERANCE = 0.01  # of the largest output,
FLOOR = 1e-6  # and this: engines compute a sigmoid to about 1e-7, whatever its size
PATIENCE = 1.0  # seconds without a word
LARGEST = 2**31 - 1  # bytes of a file of ONNX's


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", type=Path, metavar="MODEL.onnx", help="which is left as it is")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FOLDED.onnx", help="the file to write")
    parser.add_argument(
        "--check",
        action="store_true",
        help=f"run both on random inputs; write nothing where that fails or outputs differ by over {TOLERANCE:.0%}%",
    )


def run(arguments: argparse.Namespace) -> int:
    """Fold a model and say what became of its norms; 1 where a check fails, 2 where it cannot be read or written."""
    model, output = arguments.model, arguments.output
    if not output.parent.is_dir() or output.is_dir():
        return refuse(f"--output must name a file in a folder that exists, got '{output}'", 2)
    if output.exists() and model.exists() and output.samefile(model):
        return refuse(f"--output must be another file than the model, got '{output}'", 2)
    try:
        with progress() as say:
            folded, report = fold_and_say(model, None, arguments.check, say)
    except OSError as error:
        return refuse(f"the model must be a file that can be read, got '{model}': {error.strerror or error}", 2)
    except (ValueError, ModuleNotFoundError) as error:
        return refuse(str(error), 2)
    print(report)
    reason = failure(report)
    if reason:
        return refuse(f"{reason}; nothing is written", 1)
    if folded.ByteSize() > LARGEST:
        return refuse("the folded model must be below 2 GB to be one file; save what fold_onnx returns in parts", 2)
    try:
        with writing(output) as file:
            file.write(folded.SerializeToString())
    except OSError as error:
        return refuse(f"--output must name a file that can be written, got '{output}': {error.strerror or error}", 2)
    print(f"wrote {output}, {output.stat().st_size / 1e6:.1f} MB; {model} has {model.stat().st_size / 1e6:.1f} MB")
    return 0


@contextmanager
def progress() -> Iterator[Callable[[str], None]]:
    """A function to say what is being done, which a terminal shows once it takes over a second."""
    if find_spec("rich") is None or not sys.stderr.isatty():
        yield lambda what: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn()
    bar = Progress(*columns, console=Console(stderr=True), transient=True)
    task = bar.add_task("", total=None)
    timer = threading.Timer(PATIENCE, bar.start)
    timer.daemon = True
    timer.start()
    try:
        yield lambda what: bar.update(task, description=what)
    finally:
        timer.cancel()
        timer.join()
        bar.stop()


def failure(report: FoldReport) -> str | None:
    """What a check found wrong."""
    comparison = report.comparison
    if comparison is None:
        return None
    if comparison.difference is None:
        return "the models could not be compared"
    if comparison.difference <= TOLERANCE * comparison.largest + FLOOR:
        return None
    return f"the outputs differ by more than {TOLERANCE:.0%} of the largest"


def refuse(reason: str, status: int) -> int:
    print(f"cpubn fold: {printable(reason)}", file=sys.stderr)
    return status
