"""How the exchange between ranks grows with ranks and channels: tables and picture of docs/how-to/many-ranks.md.

    python benchmarks/scaling.py                       measure 1 to 4 ranks of MPI here, and print
    python benchmarks/scaling.py --write               put it into the page, between its markers, and draw the pictures
    python benchmarks/scaling.py --draw                draw them again, from the page's tables
    python benchmarks/scaling.py --alpha 5e-6 --beta 8e-11
                                                       on paper with a network of yours: s a message, s a byte

On paper allgather is recursive doubling (Thakur, Rabenseifner and Gropp, 2005), of p ranks that send n bytes each:

    t = alpha * ceil(log2(p)) + beta * (p - 1) * n

Beside it each rank puts together what it got, in the order of ranks: that needs no other rank, and is measured for
1,024 as well. Needs mpi4py and an MPI: pip install "cpubn[mpi]"
"""

import argparse
import datetime
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from picture import FOLDER, INKS, OURS, panels
from report import ROOT, table, written_into

from cpubn.ask import exchange
from cpubn.bench.plot import COLOURS
from cpubn.machine import cpus

PAGE = ROOT / "docs" / "how-to" / "many-ranks.md"
MEASURED, PAPER = "ranks", "paper"
RANKS, CHANNELS = (1, 2, 3, 4), (16, 64, 256, 1024, 4096)
ON_PAPER, SHOWN = [2**k for k in range(1, 11)], (64, 1024)
NODE = 32  # ranks of a node, for two levels
FIT = "alpha {:.2g} us, beta {:.2g} ns a byte"


class Ready:
    """A comm that has what all ranks sent: what is left is a rank's own work."""

    def __init__(self, ranks):
        self.ranks = ranks

    def allgather(self, values):
        return np.broadcast_to(values, (self.ranks, len(values)))


def put_together(name, comm, channels):
    """What a layer does in a pass, with its own part at hand."""
    vectors = np.ones((exchange.ROWS[name], channels))
    counts, stats = exchange.exchanged(comm, name, channels, lambda: (100, vectors))
    return exchange.merged(counts, stats) if name == "forward" else exchange.summed(stats)


def numbers(name, channels):
    """That a rank sends, float64."""
    return exchange.HEADER + max(exchange.ROWS[name] * channels, exchange.ROOM)


def one_rank(rounds):
    """Print, on rank 0, us of each round's slowest rank, as a list by pass and channels."""
    import cpubn.mpi

    ranks, found = cpubn.mpi.world(), {}
    for name in exchange.ROWS:
        for channels in CHANNELS:
            values, took = np.ones(numbers(name, channels)), np.empty(rounds)
            for k in range(-5, rounds):
                ranks.comm.Barrier()
                start = time.perf_counter()
                ranks.allgather(values)
                took[k] = time.perf_counter() - start
            found[f"{name} {channels}"] = (1e6 * ranks.allgather(took).max(0)).tolist()
    if ranks.rank == 0:
        print(json.dumps(found))


def over_ranks(count, rounds):
    mpirun = shutil.which("mpirun", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    if mpirun is None:
        raise OSError('no mpirun beside this Python, or in PATH; install it with: pip install "cpubn[mpi]"')
    program = __file__, "--rank", "--rounds", str(rounds)
    return subprocess.run(
        [mpirun, "--allow-run-as-root", "--oversubscribe", "-n", str(count), sys.executable, "-m", "mpi4py", *program],
        capture_output=True,
        text=True,
        check=True,
        # Ranks that wait give way, since there may be more of them than CPUs.
        env={**os.environ, "OMP_NUM_THREADS": "1", "OMPI_MCA_mpi_yield_when_idle": "1"},
    ).stdout


def fitted(least):
    """Alpha and beta, us and us a byte, of us by (ranks, bytes): least squares of relative errors, neither below 0."""
    terms = np.array([(np.ceil(np.log2(p)), (p - 1) * n) for p, n in least])
    took = np.array([*least.values()])
    scaled = terms / took[:, None]
    both = np.linalg.lstsq(scaled, np.ones(len(took)), rcond=None)[0]
    if (both >= 0).all():
        return both.tolist()
    alone = scaled.sum(0) / (scaled**2).sum(0)
    keep = int(np.argmin([((scaled[:, k] * alone[k] - 1) ** 2).sum() for k in (0, 1)]))
    return [float(alone[k]) if k == keep else 0.0 for k in (0, 1)]


def allgather_on_paper(ranks, size, alpha, beta):
    return alpha * np.ceil(np.log2(ranks)) + beta * (ranks - 1) * size


def own_work(name, ranks, channels):
    """us that a rank takes to put together what so many sent, the least of some."""
    comm, took = Ready(ranks), []
    for _ in range(20 if ranks * channels < 2**16 else 5):
        start = time.perf_counter()
        put_together(name, comm, channels)
        took.append(time.perf_counter() - start)
    return 1e6 * min(took)


def on_paper(alpha, beta, channels):
    """By ranks: MB received, and us of the exchange, of a rank's own work, and of two levels together, of a forward.

    Two levels: allgather within each node, its sum put together, allgather of one rank a node, and a broadcast within
    each node, of as many bytes.
    """
    size = 8 * numbers("forward", channels)
    work = {p: own_work("forward", p, channels) for p in ON_PAPER}
    rows = {}
    for p in ON_PAPER:
        flat = allgather_on_paper(p, size, alpha, beta)
        rows[p] = (p - 1) * size / 1e6, flat, work[p], flat + work[p]
        if p > NODE:
            levels = [allgather_on_paper(k, size, alpha, beta) + work[k] for k in (NODE, p // NODE)]
            rows[p] = *rows[p][:3], sum(levels) + np.ceil(np.log2(NODE)) * (alpha + beta * size)
    return rows


def measured_table(found):
    lines = [
        f"| ranks | pass | {' | '.join(f'{c} channels' for c in CHANNELS)} |",
        f"|---:|---|{'---:|' * len(CHANNELS)}",
    ]
    for p in RANKS:
        for name in exchange.ROWS:
            cells = [found[p][f"{name} {c}"] for c in CHANNELS]
            shown = " | ".join(f"{min(cell):.3g} / {np.median(cell):.3g}" for cell in cells)
            lines.append(f"| {p} | {name} | {shown} |")
    return "\n".join(lines)


def paper_table(alpha, beta):
    heads = ["ranks"]
    columns = {}
    for c in SHOWN:
        heads += [f"{c} channels: MB", "exchange", "own work", "two levels"]
        columns[c] = on_paper(alpha, beta, c)
    lines = [f"| {' | '.join(heads)} |", "|---:|" + "---:|" * (len(heads) - 1)]
    for p in ON_PAPER:
        cells = []
        for c in SHOWN:
            megabytes, exchanged, work, levels = columns[c][p]
            cells += [f"{megabytes:.2g}", f"{exchanged:.0f}", f"{work:.0f}", f"{levels:.0f}" if p > NODE else ""]
        lines.append(f"| {p} | {' | '.join(cells)} |")
    return "\n".join(lines)


def measure(rounds):
    """The section of what was measured, and alpha and beta."""
    load = os.getloadavg()[0]
    found = {p: json.loads(over_ranks(p, rounds)) for p in RANKS}
    processors = len(os.sched_getaffinity(0))
    least = {
        (p, 8 * numbers(name, c)): min(found[p][f"{name} {c}"])
        for p in RANKS
        for name in exchange.ROWS
        for c in CHANNELS
        if 1 < p <= max(2, processors)
    }
    alpha, beta = fitted(least)
    off = max(abs(allgather_on_paper(p, n, alpha, beta) / took - 1) for (p, n), took in least.items())
    made = (
        f"us of `cpubn.mpi`'s allgather, least / median of {rounds}, of the slowest rank each time; {processors} CPUs "
        f"({cpus.model()}), shared memory, other programs on them: a load of {load:.1f} before and "
        f"{os.getloadavg()[0]:.1f} after, {datetime.date.today()}. Fitted to the least of as many ranks as there are "
        f"CPUs: {FIT.format(alpha, 1e3 * beta)}, which is off by {off:.0%} at most."
    )
    return f"{measured_table(found)}\n\n{made}", alpha, beta


def draw(text, shade, path):
    with panels(path, shade, 2) as ((seen, paper), ink):
        heads, rows = table(text, MEASURED, "scaling.py")
        channels = [int(head.split()[0]) for head in heads[2:]]
        colours = OURS, COLOURS["torch"], COLOURS["onnxruntime"], COLOURS["onednn"]
        for row, colour in zip([row for row in rows if row[1] == "forward"], colours, strict=True):
            least = [float(cell.split(" / ")[0]) for cell in row[2:]]
            seen.plot(
                channels,
                least,
                "o-",
                markersize=4,
                color=colour,
                label=f"{row[0]} ranks" if row[0] != "1" else "1 rank",
            )
            ended(seen, channels[-1], least[-1], ink)
        seen.set_xlabel("channels", color=ink)
        seen.set_title("measured: allgather of a forward, us", loc="left", fontsize=9, color=ink)
        heads, rows = table(text, PAPER, "scaling.py")
        for start, colour in zip(range(1, len(heads), 4), colours, strict=False):
            name = heads[start].partition(":")[0]
            total = [(int(row[0]), float(row[start + 1]) + float(row[start + 2])) for row in rows]
            levels = [(int(row[0]), float(row[start + 3])) for row in rows if row[start + 3]]
            paper.plot(*zip(*total, strict=True), color=colour, label=name)
            paper.plot(*zip(*levels, strict=True), "--", color=colour, label=f"{name}, two levels")
            for line in (total, levels):
                ended(paper, *line[-1], ink)
        paper.set_xlabel("ranks", color=ink)
        paper.set_title("on paper: exchange and own work, us", loc="left", fontsize=9, color=ink)
        for panel in (seen, paper):
            panel.set_xscale("log", base=2)
            panel.set_yscale("log")


def ended(panel, x, us, ink):
    """What a line ends at, behind it."""
    panel.annotate(f"{us:,.0f} us", (x, us), (4, -2), textcoords="offset points", fontsize=7, color=ink)


def main(words=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="put them into the page, and draw")
    parser.add_argument("--draw", action="store_true", help="draw the page's tables again")
    parser.add_argument("--alpha", type=float, help="seconds a message, in place of what is measured")
    parser.add_argument("--beta", type=float, help="seconds a byte")
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--rank", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args(words)
    if given.rank:
        one_rank(given.rounds)
        return
    if (given.alpha is None) != (given.beta is None) or (given.write and given.alpha is not None):
        parser.error("--alpha and --beta come together, and without --write")
    try:
        if given.alpha is not None:
            print(paper_table(1e6 * given.alpha, 1e6 * given.beta))
            return
        texts = {PAGE: PAGE.read_text(encoding="utf-8")}
        if not given.draw:
            measured, alpha, beta = measure(given.rounds)
            for section, made in ((MEASURED, measured), (PAPER, paper_table(alpha, beta))):
                print(made, end="\n\n")
                texts = written_into(texts, section, made, "scaling.py")
        if given.write:
            PAGE.write_text(texts[PAGE], encoding="utf-8")
        if given.write or given.draw:
            for shade in INKS:
                draw(texts[PAGE], shade, FOLDER / f"ranks-{shade}.svg")
    except (OSError, ValueError, subprocess.CalledProcessError) as error:
        sys.exit(f"{error}\n{getattr(error, 'stderr', '')}".strip())


if __name__ == "__main__":
    main()
