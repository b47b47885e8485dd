"""README.md's table of speeds, from the tables of docs/benchmarks.md, which report.py writes.

    python benchmarks/front.py            print it
    python benchmarks/front.py --write    put it into README.md, between its markers

picture.py draws it.
"""

import argparse
import re
import sys

from report import PAGES, between, table, written

from cpubn.bench.standing import mean
from cpubn.bench.tables import Cell, Grid, ratio, share

PEERS = ("torch", "torch channels_last", "onnxruntime", "oneDNN best")
# The sections that have every layer, and of which column and layout a peer's mean is taken there: like with like.
DETAILED = {"input": "bytes to float32", "int8": "int8"}
COLUMNS = {"torch": ("torch", "NCHW"), "torch channels_last": ("torch-channels-last", "NHWC")}


def made_of(page):
    """The table, and what it was measured with; versions stand below each table of the page."""
    found = [
        re.search(r"(\d+ threads on .*?), Python .*, (\d{4}-\d\d-\d\d); other", between(page, section))
        for section in ("speed", *DETAILED)
    ]
    machines, days = (sorted({match[i] for match in found if match}) for i in (1, 2))
    return f"{standing(page).markdown()}\n\n{'; '.join(machines)}, {' and '.join(days)}."


def standing(page):
    """A row a pass: the share of the limit, and how many times as long each peer takes."""
    heads, rows = table(page, "speed")
    lines = [[row[0], row[1], *(number(row[heads.index(peer)]) for peer in PEERS)] for row in rows]
    lines += [[title, *means(*table(page, section))] for section, title in DETAILED.items()]
    made = [[Cell(title), Cell(shares), *map(ratio, values, PEERS)] for title, shares, *values in lines]
    return Grid("", ["pass", "of limit, NCHW / NHWC", *PEERS], made)


def means(heads, rows):
    """Over all layers of a table: the shares of the limit in both layouts, and each peer's ratio."""

    def over(column, layout):
        if column not in heads:
            return None
        return mean(number(row[heads.index(column)]) for row in rows if row[1].endswith(layout))

    shares = " / ".join(share(over("of limit", layout)).text or "-" for layout in ("NCHW", "NHWC"))
    return [shares, *(over(*COLUMNS.get(peer, (None, None))) for peer in PEERS)]


def number(text):
    return float(text) if text else None


def main(words=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="put it into README.md")
    arguments = parser.parse_args(words)
    front, tables = PAGES
    try:
        made = made_of(tables.read_text(encoding="utf-8"))
        print(made)
        if arguments.write:
            text = written(front.read_text(encoding="utf-8"), "standing", made, "front.py")
            front.write_text(text, encoding="utf-8")
    except (OSError, ValueError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
