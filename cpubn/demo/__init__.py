"""python -m cpubn demo: the same network trained with and without batch norm, then served frozen.

network.py is the one to read; training.py, serving.py, show.py and plot.py are what its name says each.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from cpubn.machine import libraries

NEEDED = {"rich": "rich", "sklearn": "scikit-learn"}
NEEDED_FOR_PLOT = {"matplotlib": "matplotlib"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seed", type=seed, default=0, help="of split, weights and minibatches (default: 0)")
    parser.add_argument("--epochs", type=epochs, default=30, help="of each training (default: 30)")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="draw the accuracy curves")


def run(arguments: argparse.Namespace) -> int:
    """Run the demo; 0, or 2 where a library is missing or the plot cannot be written."""
    wanted = NEEDED | (NEEDED_FOR_PLOT if arguments.plot else {})
    reason = libraries.refusal("the demo", wanted, "demo")
    if reason is None and arguments.plot:
        from cpubn.inspection import plot

        reason = plot.refusal(arguments.plot)
    if reason:
        return refuse(reason)

    from cpubn.demo.story import tell

    tell(arguments.seed, arguments.epochs, arguments.plot)
    return 0


def refuse(reason: str) -> int:
    print(f"cpubn demo: {reason}", file=sys.stderr)
    return 2


def seed(text: str) -> int:
    return whole_number(text, 0, 2**32 - 1)


def epochs(text: str) -> int:
    return whole_number(text, 1, 1000)


def whole_number(text: str, low: int, high: int) -> int:
    if not text.isdecimal() or not low <= int(text) <= high:
        raise argparse.ArgumentTypeError(f"must be a whole number from {low} to {high}, got '{text}'")
    return int(text)
