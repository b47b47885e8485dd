"""The tables of speeds in docs/benchmarks.md, from what `python -m cpubn bench --json FILE` measured.

    python benchmarks/report.py results.json            print them
    python benchmarks/report.py results.json --write    put them into the page, each between its markers

front.py takes from there what README.md shows.

Only those sections are touched that the results have passes of: those of --model edge have all but the first. No figure
there is written by hand.
"""

import argparse
import re
import sys
from pathlib import Path

from cpubn.bench.case import OPS
from cpubn.bench.edge import FUSED, HALF, INPUT, QUANTIZED
from cpubn.bench.results import Results
from cpubn.bench.tables import counts, overhead_grid, section_grid, standing_grid, summary_grid

ROOT = Path(__file__).parents[1]
PAGES = ROOT / "README.md", ROOT / "docs" / "benchmarks.md"
SECTIONS = {"speed": OPS, "fused": FUSED, "half": HALF, "input": INPUT, "int8": QUANTIZED}


def markers(section, writer="report.py"):
    return f"<!-- {section}: begin (written by benchmarks/{writer}) -->", f"<!-- {section}: end -->"


def pages(results):
    """Each section that there are results for, by name."""
    made = {}
    for section, ops in SECTIONS.items():
        part = Results(results.made, [record for record in results.records if record.op in ops])
        if part.records:
            made[section] = summary(part) if section == "speed" else details(part)
    return made


def details(results):
    """Every layer in one table, and who and what it was measured with."""
    names = dict.fromkeys(record.name for record in results.records)
    notes = "\n".join(f"* {name}: {note}" for name, note in results.made["notes"].items() if name in names)
    grid = section_grid(results).markdown()
    return "\n\n".join((grid, folded("How the others do it", notes), measured_with(results)))


def folded(title, text):
    return f"<details><summary>{title}</summary>\n\n{text}\n\n</details>"


def summary(results):
    """Like with like, where cpubn is behind, the means of everyone, and what it was measured with."""
    parts = [standing_grid(results).markdown()]
    for title, behind in counts(results):
        lines = "\n".join(f"* {line}" for line in behind)
        parts += [folded(f"{title}, by these factors:", lines) if behind else f"{title}."]
    if any(record.op == "overhead" for record in results.records):
        grid = overhead_grid(results)
        parts += [f"The {grid.title}:", grid.markdown()]
    parts += [folded("Everyone, in whatever layout they have", summary_grid(results).markdown())]
    passes = [record for record in results.records if record.op != "overhead"]
    layers, models = (
        ", ".join(dict.fromkeys(names)) for names in ((r.layer for r in passes), (r.model for r in passes))
    )
    parts += [f"Layers ({models}): {layers}.", f"float32, {measured_with(results)}"]
    return "\n\n".join(parts)


def measured_with(results):
    made, libraries = results.made, {record.name.split("-")[0] for record in results.records}
    versions = ", ".join(f"{name} {version}" for name, version in made["versions"].items() if name in libraries)
    return (
        f"{made['threads']} threads on {made['cpu']} ({made['instruction_set']}), Python {made['python']}, "
        f"{versions}; medians of {made['rounds']} interleaved rounds, {made['date']}; other processes kept "
        f"{made['other_cpus']} CPUs busy meanwhile."
    )


def between(text, section, writer="report.py"):
    """What is between the section's markers."""
    begin, end = markers(section, writer)
    return text.partition(begin)[2].partition(end)[0]


def table(text, section, writer="report.py"):
    """The first table between the section's markers: its heads, and its rows without emphasis."""
    lines = between(text, section, writer).strip().partition("\n\n")[0].splitlines()
    if len(lines) < 3 or not all(line.startswith("|") for line in lines):
        raise ValueError(f"the page must hold a table in its section {section}; write it first by benchmarks/{writer}")
    cells = [[cell.strip(" *") for cell in line.strip("|").split("|")] for line in lines]
    return cells[0], cells[2:]


def written(text, section, made, writer="report.py"):
    """The page's text with what is between the section's markers replaced."""
    return written_into({"the page": text}, section, made, writer)["the page"]


def written_into(texts, section, made, writer="report.py"):
    """The same of all pages that hold the markers, which one of them must; texts by page."""
    begin, end = markers(section, writer)
    between = re.compile(f"{re.escape(begin)}.*{re.escape(end)}", re.DOTALL)
    if not any(map(between.search, texts.values())):
        raise ValueError(f"{' or '.join(map(str, texts))} must hold the two markers, {begin} and {end}")
    return {page: between.sub(lambda _: f"{begin}\n{made}\n{end}", text) for page, text in texts.items()}


def main(words=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, help="what --json wrote")
    parser.add_argument("--write", action="store_true", help="put them into the page")
    parser.add_argument("--page", type=Path, default=PAGES[1], metavar="FILE", help="another than docs/benchmarks.md")
    arguments = parser.parse_args(words)
    try:
        made = pages(Results.read(arguments.results))
        print("\n\n".join(made.values()))
        if arguments.write:
            text = arguments.page.read_text(encoding="utf-8")
            for section, tables in made.items():
                text = written(text, section, tables)
            arguments.page.write_text(text, encoding="utf-8")
    except (OSError, ValueError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
