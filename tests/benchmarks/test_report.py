import json
from html.parser import HTMLParser

import pytest

from benchmarks import report

EDGE = {"cores": 0.1, "full_network_ms": 120.0, "holds_rps": 8.0}
RESULT = {
    "created": "today",
    "machine": "2 cores",
    "commit": "0123456789abcdef",
    "settings": {
        "duration_s": 30.0,
        "warm_up_s": 10.0,
        "took_s": 7200,
        "one_way_ms": 5.0,
        "edge": {"cifar10": EDGE},
    },
}


class Page(HTMLParser):
    """What a page refers to and holds."""

    def __init__(self, text):
        super().__init__()
        self.sources, self.cells, self.anchors, self.links = [], 0, set(), []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        """Count."""
        found = dict(attributes)
        self.sources += [found[key] for key in ("src",) if key in found]
        self.links += [found["href"]] if "href" in found else []
        self.anchors |= {found["id"]} if "id" in found else set()
        self.cells += tag == "td"


@pytest.fixture
def results(tmp_path, make_rows):
    """A folder with the comparison's main result alone."""
    rows = make_rows()
    (tmp_path / "figure4.json").write_text(json.dumps({**RESULT, "rows": rows}))
    return tmp_path


def test_the_page_needs_no_other_file(results, tmp_path):
    """All pictures are within, and every link leads to a part of it; pictures are kept as well."""
    page = Page(report.page(results, tmp_path))
    assert page.sources
    assert all(source.startswith("data:image/png;base64,") for source in page.sources)
    assert {link.removeprefix("#") for link in page.links} == page.anchors
    assert page.cells > 0
    assert (tmp_path / "figure4.png").stat().st_size > 0


def test_what_is_not_measured_is_said(results, tmp_path):
    """Instead of a picture."""
    text = report.page(results, tmp_path)
    for name in ("capacity", "handle_calls"):  # with a picture and without
        assert text.count(f"{name} is not measured yet") == 1
    assert "800 requests in 8 runs" in text
    empty = report.page(tmp_path / "nowhere", tmp_path)
    assert "figure4 is not measured yet" in empty


def test_the_small_comparison_has_files_of_its_own(results, tmp_path):
    """It takes none of the large one's."""
    assert "figure4 is not measured yet" in report.page(results, tmp_path, short=True)
    (results / "figure4.json").rename(results / "figure4_short.json")
    report.page(results, tmp_path, short=True)
    assert (tmp_path / "short_figure4.png").exists()


def test_every_part_shows_what_there_is_to_show():
    """No table or plot is missing, and none is shown twice."""
    tables = [name for section in report.SECTIONS for name in section.tables]
    plots = [name for section in report.SECTIONS for name in section.plots]
    assert sorted(tables) == sorted(report.TABLES)
    assert sorted(plots) == sorted(report.comparison_plots.COMPARISON)
