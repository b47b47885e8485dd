"""cpubn on an NVIDIA GPU, beside a copy on the device and torch's CUDA batch norm (cuDNN's and its own).

    python benchmarks/bench_cuda.py                  print the tables; torch takes part where it is installed with CUDA
    python benchmarks/bench_cuda.py --json FILE      keep every figure
    python benchmarks/bench_cuda.py --write          put the tables into docs/benchmarks.md and NOTES.md

Kernels are timed by device events, interleaved, medians of rounds. While the calls of a sample are queued the GPU is
kept busy by something else, so that no gap between launches counts; what a call costs the host has a table of its own.
Calls go from buffer to buffer, which together are several times the second-level cache. Results are checked first,
against the formula in long double (tests/oracle.py). Exit code 2: no GPU, or a library is missing.
"""

import argparse
import gc
import json
import math
from importlib import import_module
from importlib.util import find_spec
from itertools import product
from pathlib import Path

from report import written

from cpubn.backends import choice
from cpubn.bench import number, writable

ROOT = Path(__file__).parents[1]
PAGES = ROOT / "docs" / "benchmarks.md", ROOT / "benchmarks" / "NOTES.md"
DTYPES, LAYOUTS = ("float32", "float16"), ("NCHW", "NHWC")
SHAPES = (32, 64, 112, 112), (32, 256, 56, 56), (256, 256, 56, 56), (32, 2048, 7, 7)
CACHE_TIMES, DEFAULT_SPAN = 4, 128 << 20  # what the buffers exceed the cache by; their size where it is not known
FORMAT = 1


def main(words=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=number, default=15, metavar="N", help="samples of each (default: 15)")
    parser.add_argument("--shapes", type=shape, nargs="+", default=SHAPES, metavar="NxCxHxW", help="of the tensors")
    parser.add_argument("--json", type=writable, metavar="FILE", help="keep the figures")
    parser.add_argument("--write", action="store_true", help="put the tables into the pages")
    parser.add_argument("--pages", type=Path, nargs="+", default=PAGES, metavar="FILE", help="others than the two")
    arguments = parser.parse_args(words)
    reason = refusal()
    if reason:
        parser.exit(2, f"bench_cuda: {reason}\n")
    try:
        pages = {page: page.read_text(encoding="utf-8") for page in arguments.pages} if arguments.write else {}
        for text in pages.values():
            with_tables(text, "")
    except (OSError, ValueError) as error:  # said before the measurement, not after
        parser.exit(2, f"bench_cuda: {error}\n")
    made, records, costs = run(arguments.shapes, arguments.rounds)
    show(made, records, costs)
    if arguments.json:
        kept = {"format": FORMAT, "made": made, "records": [r._asdict() for r in records], "calls": costs}
        arguments.json.write_text(json.dumps(kept, indent=1), encoding="utf-8")
    for page, text in pages.items():
        page.write_text(with_tables(text, markdown(made, records, costs)), encoding="utf-8")


def run(shapes, rounds):
    """How it was made, the records of every case, and the costs of calls."""
    from rich.console import Console
    from rich.progress import track

    suite, torch = import_module("cuda_suite"), torch_with_cuda()
    made = suite.circumstances(rounds, torch)
    records, noted = [], made["noted"]
    cases = list(product(shapes, LAYOUTS, DTYPES))
    for case in track(cases, "measuring", console=Console(stderr=True), transient=True):
        span = max(CACHE_TIMES * made["l2_bytes"], DEFAULT_SPAN)
        records += suite.records_of(*case, span, rounds, torch, noted)
        gc.collect()
        if torch:
            torch.cuda.empty_cache()
    return made, records, suite.costs_of_calls(rounds)


def show(made, records, costs):
    from rich.console import Console

    suite, console = import_module("cuda_suite"), Console()
    if not console.is_terminal:
        console = Console(width=200)
    console.print(measured_with(made), style="dim", markup=False)
    for name, told in made["noted"].items():
        console.print(f"{name}: {told}", style="yellow", markup=False)
    for grid in (suite.passes_grid(records), suite.calls_grid(costs)):
        console.print(grid.for_terminal())


def markdown(made, records, costs):
    suite = import_module("cuda_suite")
    parts = [f"On {made['device']}:"]
    for grid in (suite.passes_grid(records), suite.calls_grid(costs)):
        parts += [f"{grid.title}.", grid.markdown()]
    notes = "\n".join(f"* {name}: {told}" for name, told in made["noted"].items())
    return "\n\n".join(part for part in (*parts, notes, measured_with(made)) if part)


def measured_with(made):
    versions = ", ".join(f"{name} {version}" for name, version in made["versions"].items())
    return (
        f"{made['device']} (compute capability {made['compute_capability']}, driver {made['driver']}, "
        f"CUDA {made['cuda']}), Python {made['python']}, {versions}; medians of {made['rounds']} interleaved rounds, "
        f"{made['date']}."
    )


def with_tables(text, tables):
    return written(text, "cuda", tables, Path(__file__).name)


def shape(text):
    lengths = [int(n) if n.isdecimal() else 0 for n in text.split("x")]
    if len(lengths) != 4 or min(lengths) < 1 or math.prod(lengths) == lengths[1]:
        raise argparse.ArgumentTypeError(f"must be NxCxHxW with over one value a channel, got '{text}'")
    return tuple(lengths)


def torch_with_cuda():
    """The module, or None."""
    if find_spec("torch") is None:
        return None
    import torch

    return torch if torch.cuda.is_available() else None


def refusal():
    """Why nothing can be measured here, or None."""
    if find_spec("rich") is None:
        return 'the tables need rich; install it with: pip install "cpubn[bench]"'
    absent = choice.absence("cuda")
    if absent:
        return f'an NVIDIA GPU is needed, with its driver and pip install "cpubn[cuda]": {absent}'
    from cpubn.backends.gpu import target

    return "Numba's simulator has no times; unset NUMBA_ENABLE_CUDASIM" if target.SIMULATED else None


if __name__ == "__main__":
    main()
