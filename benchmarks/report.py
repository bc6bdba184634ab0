"""One page that tells the comparison of Xpi with its peers, from the result files.

    python -m benchmarks.report [--short] [--output docs/results/comparison.html]

benchmarks/results/*.json ─► tables, plots ─► one HTML file that needs no other, and PNG files

What is not measured yet is said to be missing. ``--short`` tells the small comparison instead.
"""

import argparse
import base64
import html
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from benchmarks import comparison_plots, comparison_tables, testbed_tables
from benchmarks.plots import DPI, PICTURES
from benchmarks.result import FOLDER

PAGE = PICTURES / "comparison.html"
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; background: #fff; margin: 0 auto;
       max-width: 68rem; padding: 1.5rem; }
h1 { line-height: 1.2; } h2 { margin-top: 3rem; border-bottom: 1px solid #ccc; }
table { border-collapse: collapse; margin: 1rem 0; font-size: 0.85rem; display: block;
        overflow-x: auto; }
th, td { padding: 0.3rem 0.7rem; border-bottom: 1px solid #ddd; text-align: right;
         font-variant-numeric: tabular-nums; }
th { text-align: left; vertical-align: bottom; background: #f4f4f4; }
td.name { text-align: left; } tr.ours { font-weight: 600; }
img { max-width: 100%; height: auto; } figure { margin: 1rem 0; }
figcaption, .missing, footer { color: #555; font-size: 0.9rem; }
nav a { margin-right: 1rem; }
"""
TABLES = {**comparison_tables.COMPARISON, **testbed_tables.TESTBED}
TABLE_SOURCES = comparison_tables.SOURCES | testbed_tables.SOURCES
PLOT_SOURCES = comparison_plots.SOURCES


class Section(NamedTuple):
    """A part of the page."""

    title: str
    text: str
    tables: tuple[str, ...] = ()
    """Of ``TABLES``."""
    plots: tuple[str, ...] = ()
    """Of ``comparison_plots``."""


SECTIONS = (
    Section(
        "Accuracy and deadlines",
        "Every system answered the same test images, at the same times, with the same deadlines "
        "(100 to 500 ms), over the same recorded links. A request is in time if its answer was "
        "there by its deadline, counted from when the request was due. Accuracy is of the answers "
        "in time. Figures are means over links and loads; ± is the standard deviation over seeds.",
        ("figure4", "figure4_goals"),
        ("figure4",),
    ),
    Section(
        "Load",
        "Loads are multiples of the requests a second that the edge holds when the full network "
        "runs there.",
        ("figure4_loads",),
        ("figure4_load",),
    ),
    Section(
        "Latency",
        "Share of all requests that were answered within a time. A curve that ends lower has "
        "requests that nobody answered.",
        (),
        ("figure4_latency",),
    ),
    Section(
        "Bandwidth",
        "Requests in time by what the link could carry while each of them had time, over all "
        "loads.",
        (),
        ("figure4_bandwidth",),
    ),
    Section("Exits", "Which exit answered, and where it ran.", (), ("figure4_exits",)),
    Section(
        "What a request costs",
        "Bytes of frames that crossed the link, and processor time at the edge of the processes "
        "that run blocks, idling included.",
        (),
        ("figure4_costs",),
    ),
    Section(
        "Capacity",
        "The highest load at which 95 % of the requests are in time; 0 where a light load is too "
        "much already.",
        ("capacity",),
        ("capacity",),
    ),
    Section(
        "What each part of Xpi brings",
        "Xpi without one of its parts, with the same requests and links.",
        ("ablation",),
        ("ablation",),
    ),
    Section(
        "A cable pulled",
        "Nothing crosses the link for 5 s, three times a run, and what was under way is lost.",
        ("cable_pull",),
        ("cable_pull",),
    ),
    Section(
        "Predicted by the simulator",
        "The same requests and links in the simulator, beside what was measured; a point is a run.",
        ("figure4_simulated",),
        ("figure4_simulated",),
    ),
    Section(
        "The testbed",
        "What the links and the edge's processor were told to do, and did; and what a call from an "
        "edge replica to a cloud replica takes, in brackets beside its bits and the delay.",
        ("testbed_rates", "testbed_shares", "testbed_round_trips", "handle_calls"),
    ),
)


def main() -> None:
    """Write the page and its pictures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--short", action="store_true", help="of `figure4 --short`")
    parser.add_argument("--output", type=Path, default=PAGE)
    options = parser.parse_args()
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(page(FOLDER, options.output.parent, options.short))
    print(options.output)


def page(results: Path, pictures: Path, short: bool = False) -> str:
    """The page.

    Args:
        results: Folder of the result files.
        pictures: Where PNG files of its plots are written as well.
        short: Whether it is of the small comparison.
    """
    whole = _result(results, "figure4", short)
    body = "\n".join(_section(each, results, pictures, short) for each in SECTIONS)
    links = "".join(f'<a href="#{_anchor(each)}">{each.title}</a>' for each in SECTIONS)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>Xpi and its peers</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f"<h1>Xpi and its peers on two hosts</h1>\n{_facts(whole)}\n<nav>{links}</nav>\n{body}\n"
        "</body>\n</html>\n"
    )


def _result(folder: Path, name: str, short: bool) -> dict[str, Any] | None:
    """A result file, if it is there."""
    if short:
        name = name.replace("figure4", "figure4_short")
    path = folder / f"{name}.json"
    if not path.is_file():
        return None
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def _facts(result: dict[str, Any] | None) -> str:
    """How it was measured."""
    if result is None:
        return '<p class="missing">figure4 is not measured yet.</p>'
    settings, rows = result["settings"], result["rows"]
    edges = "; ".join(
        f"{comparison_tables.DATASETS[dataset]}: {edge['cores']:g} of a core, on which the full "
        f"network takes {edge['full_network_ms']:.0f} ms and {edge['holds_rps']:.1f} requests a "
        "second are held"
        for dataset, edge in settings["edge"].items()
    )
    requests = sum(row["requests"] for row in rows)
    traces = ", ".join(dict.fromkeys(row["trace"] for row in rows))
    text = (
        f"{requests:,} requests in {len(rows)} runs of {settings['duration_s']:g} s, measured "
        f"after {settings['warm_up_s']:g} s of warm-up, {settings['took_s'] / 3600:.1f} hours in "
        f"all. Two network namespaces of one machine, joined by a link that replays {traces} both "
        f"ways with {settings['one_way_ms']:g} ms of delay each way. The edge's processes that run "
        f"blocks share a part of a processor. {edges}. Measured {result['created']} on "
        f"{result['machine']}, commit {str(result['commit'])[:12]}."
    )
    return f"<p>{html.escape(text)}</p>"


def _section(section: Section, results: Path, pictures: Path, short: bool) -> str:
    parts = [f'<h2 id="{_anchor(section)}">{section.title}</h2>', f"<p>{section.text}</p>"]
    plots = {name: PLOT_SOURCES.get(name, name) for name in section.plots}
    tables = {name: TABLE_SOURCES.get(name, name) for name in section.tables}
    sources = dict.fromkeys((*plots.values(), *tables.values()))
    found = {source: _result(results, source, short) for source in sources}
    for source, result in found.items():
        if result is None:
            parts.append(f'<p class="missing">{source} is not measured yet.</p>')
    for name, source in plots.items():
        if (result := found[source]) is not None:
            parts += _figures(name, result["rows"], pictures, short)
    for name, source in tables.items():
        if (result := found[source]) is not None:
            parts.append(_table(TABLES[name](result["rows"])))
    return "\n".join(parts)


def _figures(
    name: str, rows: list[dict[str, float | int | str]], pictures: Path, short: bool
) -> Iterator[str]:
    for title, figure in comparison_plots.COMPARISON[name](rows):
        data = _png(figure)
        (pictures / f"{'short_' if short else ''}{title}.png").write_bytes(data)
        source = f"data:image/png;base64,{base64.b64encode(data).decode()}"
        yield f'<figure><img alt="{title}" src="{source}"></figure>'


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI)
    return buffer.getvalue()


def _table(table: list[list[str]]) -> str:
    """Rows of Xpi itself are set in bold."""
    head, *rows = table
    lines = ["<tr>" + "".join(f"<th>{html.escape(cell)}</th>" for cell in head) + "</tr>"]
    for row in rows:
        ours = ' class="ours"' if row[1] in (comparison_tables.NAMES["xpi"], "nothing") else ""
        cells = [
            f"<td{' class=name' if place < 2 else ''}>{html.escape(cell)}</td>"
            for place, cell in enumerate(row)
        ]
        lines.append(f"<tr{ours}>{''.join(cells)}</tr>")
    return "<table>\n" + "\n".join(lines) + "\n</table>"


def _anchor(section: Section) -> str:
    return section.title.lower().replace(" ", "-")


if __name__ == "__main__":
    main()
