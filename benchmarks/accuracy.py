"""How far float32 training output is from the truth, cpubn beside torch: the table in README.md and docs/benchmarks.md.

    python benchmarks/accuracy.py            print it
    python benchmarks/accuracy.py --write    put it into the pages, between its markers

Needs torch; its CPU build will do: pip install torch --index-url https://download.pytorch.org/whl/cpu
"""

import argparse
import datetime
import platform
import sys

import numpy as np
from report import PAGES, written_into

import cpubn

SHAPE = (32, 16, 28, 28)
EPS = 1e-5


def error(y, x):
    """max |y - true| / max(1, |true|), true = (x - mean) / sqrt(var + eps) in long double from the same float32 x."""
    exact = x.astype(np.longdouble)
    mean, var = (f(exact, axis=(0, 2, 3), keepdims=True) for f in (np.mean, np.var))
    true = (exact - mean) / np.sqrt(var + EPS)
    return float((np.abs(y - true) / np.maximum(1, np.abs(true))).max())


def table(torch):
    """The table and a line that says what it was measured with."""
    backend = cpubn.available_backends()[0]
    noise = np.random.default_rng(0).standard_normal(SHAPE)
    lines = ["| mean / std | cpubn | torch |", "|---:|---:|---:|"]
    for exponent in (0, 2, 4, 6, 7):
        x = (noise + 10.0**exponent).astype(np.float32)
        ours = cpubn.batch_norm(x, None, None, training=True, eps=EPS, backend=backend)
        theirs = torch.nn.functional.batch_norm(torch.from_numpy(x), None, None, training=True, eps=EPS).numpy()
        lines.append(f"| 1e{exponent} | {error(ours, x):.0e} | {error(theirs, x):.0e} |")
    made = (
        f"cpubn {cpubn.__version__} ({backend}), torch {torch.__version__}, "
        f"NumPy {np.__version__}, {platform.machine()}, {datetime.date.today()}: float32 input of shape {SHAPE}, "
        "largest `|y - true| / max(1, |true|)`."
    )
    return "\n".join([*lines, "", made])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="put the table into the pages")
    arguments = parser.parse_args()
    try:
        import torch
    except ImportError:
        parser.exit(2, "torch is missing; install its CPU build: see --help\n")
    made = table(torch)
    print(made)
    if arguments.write:
        try:
            texts = {page: page.read_text(encoding="utf-8") for page in PAGES}
            texts = written_into(texts, "accuracy", made, "accuracy.py")
        except (OSError, ValueError) as error:
            sys.exit(str(error))
        for page, text in texts.items():
            page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
