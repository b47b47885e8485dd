"""python -m cpubn bench: cpubn beside other libraries, on the batch-norm layers of real networks.

layers.py names the layers, contestants/ who runs, case.py and edge.py what all of them must compute, measure.py how
they are timed, standing.py what that says; suite.py is the run itself.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path

from cpubn.bench.case import OPS
from cpubn.bench.contestants import LIBRARIES, absence
from cpubn.bench.edge import EDGE_OPS, HALF
from cpubn.bench.layers import MODELS
from cpubn.machine import libraries

LAYOUTS = ("NCHW", "NHWC")
NEEDED = {"rich": "rich"}
NEEDED_FOR_PLOT = {"matplotlib": "matplotlib"}
NEEDED_FOR_HALF = {"ml_dtypes": "ml_dtypes"}
# The modules of those who may be named in --compare, to be looked for before any of them is imported.
NEEDED_BY = {
    "torch": "torch",
    "onnxruntime": "onnxruntime",
    "openvino": "openvino",
    "jax": "jax",
    "opencv": "cv2",
    "cpubn-numba": "numba",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--op",
        nargs="+",
        choices=(*OPS, *EDGE_OPS),
        metavar="OP",
        help=f"what to measure: some of {' '.join(OPS)} (the default), or of "
        f"{' '.join(EDGE_OPS)} (the default with --model edge alone)",
    )
    parser.add_argument(
        "--layout", nargs="+", choices=LAYOUTS, default=LAYOUTS, help="of cpubn's arrays (default: both)"
    )
    parser.add_argument(
        "--model",
        nargs="+",
        choices=MODELS,
        default=["standard"],
        metavar="MODEL",
        help=f"whose layers: some of {' '.join(MODELS)} (default: standard, a mixture; few: of few channels; "
        "edge: large ones)",
    )
    parser.add_argument(
        "--batch", nargs="+", type=number, metavar="N", help="batch sizes (default: 1 8 32; mixtures: all)"
    )
    parser.add_argument("--threads", type=number, default=2, metavar="N", help="of every library (default: 2)")
    parser.add_argument(
        "--rounds", type=number, default=15, metavar="N", help="samples of each, interleaved (default: 15)"
    )
    parser.add_argument(
        "--compare",
        type=names,
        metavar="LIST",
        help=f"with whom: some of {','.join(LIBRARIES)}, which must be installed (default: all there are)",
    )
    parser.add_argument("--summary", action="store_true", help="print geometric means alone")
    parser.add_argument("--json", type=writable, metavar="FILE", help="keep the results, for the report command too")
    parser.add_argument("--plot", type=writable, metavar="FILE.png", help="draw bars a layer, and a roofline")


def run(arguments: argparse.Namespace) -> int:
    """Run the benchmark; 0, or 2 where there is nothing to measure, or a library missing that it or --compare needs."""
    ops: Sequence[str] = arguments.op or (EDGE_OPS if set(arguments.model) == {"edge"} else OPS)
    wanted = NEEDED | (NEEDED_FOR_PLOT if arguments.plot else {})
    wanted |= NEEDED_FOR_HALF if set(HALF).intersection(ops) else {}
    reason = libraries.refusal("the benchmark", wanted, "bench")
    if reason:
        return refuse(reason)

    for name in arguments.compare or ():
        module = NEEDED_BY.get(name) or NEEDED_BY.get(name.split("-")[0])
        if module and importlib.util.find_spec(module) is None:
            return refuse(str(absence(name, f"there is no module {module}")))

    from cpubn.bench.show import show

    reason = show(arguments, ops)
    return refuse(reason) if reason else 0


def refuse(reason: str) -> int:
    print(f"cpubn bench: {reason}", file=sys.stderr)
    return 2


def number(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 1024:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 to 1024, got '{text}'")
    return int(text)


def names(text: str) -> list[str]:
    """Libraries, or single contestants of one, as in torch or cpubn-numba."""
    given = [name for name in text.split(",") if name]
    for name in given:
        if name.split("-")[0] not in LIBRARIES:
            raise argparse.ArgumentTypeError(
                f"must be some of {', '.join(LIBRARIES)} with commas between, got '{name}'"
            )
    return given


def writable(text: str) -> Path:
    """A file that can be written, which is found out before the measurement, not after."""
    path = Path(text)
    existed = path.exists()
    try:
        path.open("ab").close()
    except OSError as error:
        raise argparse.ArgumentTypeError(
            f"must be a file that can be written, got '{text}': {error.strerror}"
        ) from None
    if not existed:
        path.unlink()
    return path
