"""README's table of speeds, from what `python -m cpubn bench --json FILE` measured.

    python benchmarks/report.py results.json            print it
    python benchmarks/report.py results.json --write    put it into README.md, between its markers

No figure there is written by hand.
"""

import argparse
import re
import sys
from pathlib import Path

from cpubn.bench.results import Results
from cpubn.bench.tables import beaten_lines, overhead_grid, summary_grid

README = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- speed: begin (written by benchmarks/report.py) -->", "<!-- speed: end -->"


def page(results):
    """The tables, where cpubn is behind, and a paragraph that says what it was measured with."""
    made = results.made
    parts = [summary_grid(results).markdown()]
    if any(record.op == "overhead" for record in results.records):
        grid = overhead_grid(results)
        parts += [f"The {grid.title}:", grid.markdown()]
    beaten = "\n".join(f"* {line}" for line in beaten_lines(results))
    if beaten:
        count = beaten.count("\n") + 1
        summary = f"A peer is over 10% faster in {count} of the layers and passes"
        parts += [f"<details><summary>{summary}, by these factors:</summary>", beaten, "</details>"]
    else:
        parts.append("No peer is over 10% faster on any single layer.")
    passes = [record for record in results.records if record.op != "overhead"]
    layers, models = (
        ", ".join(dict.fromkeys(names)) for names in ((r.layer for r in passes), (r.model for r in passes))
    )
    versions = ", ".join(f"{name} {version}" for name, version in made["versions"].items())
    parts += [
        f"Layers ({models}): {layers}.",
        f"float32, {made['threads']} threads on {made['cpu']} ({made['instruction_set']}), Python {made['python']}, "
        f"{versions}; medians of {made['rounds']} interleaved rounds, {made['date']}; other processes kept "
        f"{made['other_cpus']} CPUs busy meanwhile.",
    ]
    return "\n\n".join(parts)


def main(words=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, help="what --json wrote")
    parser.add_argument("--write", action="store_true", help="put it into the page")
    parser.add_argument("--page", type=Path, default=README, metavar="FILE", help="default: README.md")
    arguments = parser.parse_args(words)
    try:
        made = page(Results.read(arguments.results))
    except (OSError, ValueError) as error:
        sys.exit(str(error))
    print(made)
    if arguments.write:
        text = arguments.page.read_text(encoding="utf-8")
        between = re.compile(f"{re.escape(BEGIN)}.*{re.escape(END)}", re.DOTALL)
        if not between.search(text):
            sys.exit(f"{arguments.page} must hold the two markers, {BEGIN} and {END}")
        arguments.page.write_text(between.sub(lambda _: f"{BEGIN}\n{made}\n{END}", text), encoding="utf-8")


if __name__ == "__main__":
    main()
