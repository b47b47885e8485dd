"""What masks, policies and the scaler cost: the tables of their pages in docs/how-to.

    python benchmarks/costs.py                      measure and print all three
    python benchmarks/costs.py masks --write        put one of them into its page, between its markers

What a call is set beside is timed by turns with it, as `python -m cpubn bench` does. Needs scikit-learn for the scaler:
pip install "cpubn[sklearn]"
"""

import argparse
import datetime
import platform
import sys

import numpy as np
from report import ROOT, written

import cpubn
from cpubn.backends import report
from cpubn.bench.measure import OtherWork, measure
from cpubn.bench.tables import Cell, Grid, duration
from cpubn.machine import cpus

PAGES = {name: ROOT / "docs" / "how-to" / f"{name}.md" for name in ("masks", "policies", "scaler")}
SEQUENCES = (32, 64, 12544), (4, 64, 784), (8, 32, 100)  # (N, C, L), float32: from memory, in cache, small
BATCHES = {"small": (32, 64), "large": (32, 64, 12544)}
POLICIES = {"on_single": "running"}, {"on_empty": "raise"}, {"on_nonfinite": "raise"}, {"on_nonfinite": "skip"}
ROWS, FEATURES = 1_000_000, 50


def masks(rounds):
    """Each pass of sequences in both layouts, without a mask and with each way to say what counts."""
    rows = []
    for shape in SEQUENCES:
        for layout in ("NCHW", "NHWC"):
            kinds = {kind: passes(*masked(shape, layout, kind), layout) for kind in ("", *KINDS)}
            for name in kinds[""]:
                took = seconds({kind: found[name] for kind, found in kinds.items()}, rounds)
                cells = [Cell("x".join(map(str, shape))), Cell(layout), Cell(name), Cell(duration(took[""]))]
                rows.append(cells + [times(took[kind], took[""]) for kind in KINDS])
    return Grid("", ["N, C, L", "layout", "pass", "unmasked", *KINDS], rows)


# By what is written in the head of a column: the arguments, of the random numbers, N and L.
KINDS = {
    "`mask`, positions": lambda rng, n, length: {"mask": rng.random((n, length)) < 0.7},
    "`lengths`": lambda rng, n, length: {"lengths": rng.integers(length // 2, length + 1, n)},
    "`weights`, positions": lambda rng, n, length: {"weights": rng.integers(0, 3, (n, length)).astype(np.float32)},
    '`nan="omit"`': lambda rng, n, length: {"nan": "omit"},
}


def masked(shape, layout, kind):
    """x, and the arguments that say what of it counts."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal(shape, np.float32)
    if "nan" in kind:
        x[rng.random(shape) < 0.01] = np.nan
    named = KINDS[kind](rng, shape[0], shape[2]) if kind else {}
    return (x if layout == "NCHW" else np.ascontiguousarray(np.moveaxis(x, 1, -1))), named


def passes(x, named, layout):
    """By name a call of each pass, into an output that is there."""
    out, dy, same = np.empty_like(x), np.ones_like(x), {"layout": layout, **named}
    batch = cpubn.moments(x, **same)
    mean, var = batch.mean, batch.var()
    return {
        "inference": lambda: cpubn.batch_norm(x, mean, var, out=out, **same),
        "training, forward": lambda: cpubn.batch_norm(x, None, None, training=True, out=out, **same),
        "backward": lambda: cpubn.batch_norm_backward(dy, x, batch, var, out=out, **same),
        "moments": lambda: cpubn.moments(x, **same),
    }


def policies(rounds):
    """A layer's training forward: us more than by default of a small batch, times as long of a large one."""
    took = {size: seconds(policy_calls(shape), rounds) for size, shape in BATCHES.items()}
    rows = []
    for policy in dict.fromkeys(policy for policy, _ in took["small"] if policy):
        cells = [Cell(policy)]
        for size in BATCHES:
            for out in ("", "out"):
                this, default = took[size][policy, out], took[size]["", out]
                cells.append(Cell(f"{1e6 * (this - default):.0f} us") if size == "small" else times(this, default))
        rows.append(cells)
    small, large = ("x".join(map(str, shape)) for shape in BATCHES.values())
    heads = f"{small}: more", f"{small}, `out=`: more", f"{large}: times", f"{large}, `out=`: times"
    return Grid("", ["policy", *heads], rows)


def policy_calls(shape):
    """By policy, and whether the output is there."""
    x, calls = np.random.default_rng(0).standard_normal(shape, np.float32), {}
    out = np.empty_like(x)
    for policy in ({}, *POLICIES):
        layer = cpubn.BatchNorm1d(shape[1], **policy)
        name = "".join(f'`{argument}="{value}"`' for argument, value in policy.items())
        calls[name, ""] = lambda layer=layer: layer(x)
        calls[name, "out"] = lambda layer=layer: layer(x, out=out)
    return calls


def times(this, default):
    """How many times as long."""
    return Cell(f"{this / default:.2f}" if this < 10 * default else f"{this / default:.0f}")


def scaler(rounds):
    """scikit-learn's and cpubn's, call by call."""
    rows = []
    for name, calls in scaler_calls().items():
        took = seconds(calls, rounds)
        theirs, ours = took["scikit-learn"], took["cpubn"]
        rows.append([Cell(name), Cell(duration(theirs)), Cell(duration(ours)), times(theirs, ours)])
    return Grid("", ["", "scikit-learn", "cpubn", "ratio"], rows)


def scaler_calls():
    """By row of the table, by library."""
    from sklearn import preprocessing

    from cpubn.sklearn import StandardScaler

    kinds = {"scikit-learn": preprocessing.StandardScaler, "cpubn": StandardScaler}
    rng = np.random.default_rng(0)
    x = rng.normal(5, 2, (ROWS, FEATURES)).astype(np.float32)
    missing = np.where(rng.random(x.shape, np.float32) < 0.01, np.float32(np.nan), x)
    weights = rng.random(ROWS)

    def each(call, *arguments):
        return {name: lambda made=made: call(made(), *arguments) for name, made in kinds.items()}

    def fit(new, *arguments):
        return new.fit(*arguments)

    def more(*arguments):
        begun = {name: made().partial_fit(*arguments) for name, made in kinds.items()}
        return {name: lambda one=one: one.partial_fit(*arguments) for name, one in begun.items()}

    fitted = {name: made().fit(x) for name, made in kinds.items()}
    size = f"{ROWS:,} x {FEATURES}"
    return {
        f"`fit`, {size}": each(fit, x),
        f"`transform`, {size}, into a new array": {
            name: lambda one=one: one.transform(x) for name, one in fitted.items()
        },
        f"`partial_fit`, 100 x {FEATURES}": more(x[:100]),
        f"`partial_fit`, 1000 x {FEATURES}": more(x[:1000]),
        f"`fit` with weights, {size}": each(fit, x, None, weights),
        f"`fit` with NaN, one in a hundred, {size}": each(fit, missing),
        "`fit` with both": each(fit, missing, None, weights),
        f"`partial_fit` with weights, 100 x {FEATURES}": more(x[:100], None, weights[:100]),
        f"`partial_fit` with NaN, 1000 x {FEATURES}": more(missing[:1000]),
    }


def seconds(calls, rounds):
    return {key: timing.median for key, timing in measure(calls, rounds).items()}


def made_with(threads, rounds, others):
    """A line below a table: on what it was measured, and when."""
    versions = f"Python {platform.python_version()}, cpubn {cpubn.__version__}, NumPy {np.__version__}"
    if "sklearn" in sys.modules:
        versions += f", scikit-learn {sys.modules['sklearn'].__version__}"
    chosen, busy = report.config()["instruction_set"]["chosen"], others.cpus()
    return (
        f"float32, {threads} thread{'s' * (threads > 1)} of cpubn's on {cpus.model()} ({chosen}), "
        f"{versions}; medians of {rounds} interleaved rounds, {datetime.date.today()}; other processes kept "
        f"{'an unknown number of' if busy is None else busy} CPUs busy meanwhile."
    )


TABLES = {"masks": masks, "policies": policies, "scaler": scaler}


def main(words=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("of", nargs="*", metavar="TABLE", help=f"{', '.join(TABLES)}; all of them by default")
    parser.add_argument("--write", action="store_true", help="put them into their pages")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args(words)
    if unknown := [name for name in given.of if name not in TABLES]:
        parser.error(f"TABLE must be one of {', '.join(TABLES)}, got {unknown[0]!r}")
    cpubn.set_num_threads(given.threads)
    try:
        for name in given.of or TABLES:
            others = OtherWork()
            grid = TABLES[name](given.rounds)
            made = f"{grid.markdown()}\n\n{made_with(given.threads, given.rounds, others)}"
            print(made, end="\n\n")
            if given.write:
                text = PAGES[name].read_text(encoding="utf-8")
                PAGES[name].write_text(written(text, name, made, "costs.py"), encoding="utf-8")
    except (ImportError, OSError, ValueError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
