"""The command line: python -m cpubn, or cpubn."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from cpubn.backends import report
from cpubn.version import __version__

# The module that has a command's add_arguments and run, what it does, and an example of its options.
COMMANDS = {
    "demo": (
        "cpubn.demo",
        "train a small network with and without batch norm, then serve it",
        "--epochs 10 --plot curves.png",
    ),
    "bench": (
        "cpubn.bench",
        "measure cpubn beside other libraries on the layers of real networks",
        "--model resnet50 --batch 8 --compare numpy,torch --json results.json",
    ),
    "fold": (
        "cpubn.convert._fold_command",
        "write an ONNX model whose batch norms are part of the layers beside them",
        "model.onnx -o folded.onnx --check",
    ),
    "norms": (
        "cpubn.inspection.command",
        "list the batch norms of a file, where they stand, and what is wrong",
        "weights.safetensors --eps 1e-5 --plot norms.png",
    ),
}


class Command(argparse.ArgumentParser):
    """A command, which says itself what it does not know; else argparse shows the usage of the whole for it."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        known, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return known, unknown


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    parser = argparse.ArgumentParser(prog="cpubn", description="Batch normalization for NumPy arrays on the CPU.")
    parser.add_argument("--version", action="version", version=f"cpubn {__version__}")
    parser.set_defaults(run=lambda options: print_help(parser))
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", parser_class=Command)

    what = "print version, backends, instruction set, threads and CPU"
    info = commands.add_parser("info", help=what, epilog=example("info --json"))
    info.add_argument("--json", action="store_true", help="for machines")
    info.set_defaults(run=print_info)

    for name, (module, what, options_shown) in COMMANDS.items():
        command = commands.add_parser(name, help=what, epilog=example(f"{name} {options_shown}"))
        if words[:1] == [name]:  # no other command needs it imported
            part = import_module(module)
            part.add_arguments(command)
            command.set_defaults(run=part.run)

    options = parser.parse_args(words)
    try:
        status: int = options.run(options)
        sys.stdout.flush()  # here, where a reader that has left can be caught
    except KeyboardInterrupt:
        print("cpubn: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Python flushes once more at its end, and would tell of the reader that has left.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return status


def example(words: str) -> str:
    return f"Example: cpubn {words}"


def print_help(parser: argparse.ArgumentParser) -> int:
    parser.print_help()
    return 0


def print_info(options: argparse.Namespace) -> int:
    if options.json:
        print(json.dumps(report.config(), indent=2))
    else:
        report.show_config()
    return 0
