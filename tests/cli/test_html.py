"""stats --html: one page, the figures of the JSON report, nothing loaded, nothing run."""

from __future__ import annotations

import json
import shutil
import subprocess
from html.parser import HTMLParser

import pytest

from kvq_cli.cli import charts
from kvq_cli.cli.html import page
from support.captures import canonical_capture
from support.shell import done, kvq, left_alone, refused

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
PROFILES = ("int8", "int4", "turboquant-3bit")


class Page(HTMLParser):
    """Cells of every table, tags and attributes, and the text."""

    def __init__(self, text):
        super().__init__()
        self.tables, self.tags, self.words, self._cell = [], [], [], None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self._cell = ""

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self.tables[-1][-1].append(self._cell)
            self._cell = None

    def handle_data(self, data):
        self.words.append(data)
        if self._cell is not None:
            self._cell += data


@pytest.fixture
def folder(tmp_path):
    cache = canonical_capture(layers=3, heads=2, tokens=90, channels=16)
    (tmp_path / "cache").write_bytes(cache)
    return tmp_path


def written(folder, *more):
    call = ["stats", folder / "cache", "--html", folder / "r.html", "--queries", "self", "--json"]
    results = done(*call, *more).report["results"]
    return results, (folder / "r.html").read_text(encoding="utf-8")


def test_every_figure_is_that_of_the_report(folder):
    """Tables of one profile, cell by cell."""
    (report,), text = written(folder, "-p", "int4")
    tables = Page(text).tables
    cells = {tuple(row) for table in tables for row in table}
    assert ("bits per element", str(report["bits_per_element"])) in cells
    assert ("content root", report["content_root"]) in cells
    for name, count in report["parts"].items():
        assert ((name, str(count)) in cells) == (count > 0)
    for each in report["planes"]:
        assert (each["name"], str(each["packed"]), str(each["stored"])) in cells
    for rows in (report["errors"], report["attention"]):
        for row in (row for row in rows if row["layer"] is None):
            told = [str(row[name]) for name in row if name not in ("layer", "head")]
            assert tuple(told) in cells


def test_profiles_are_compared(folder):
    """A line and a point each."""
    results, text = written(folder, *(word for name in PROFILES for word in ("-p", name)))
    first = Page(text).tables[0]
    assert first[0] == ["profile", "ratio", "bits per element", "attention total variation"]
    for name, report, row in zip(PROFILES, results, first[1:], strict=True):
        variation = report["attention"][-1]["attention_tv"]
        told = (name, report["ratio"], report["bits_per_element"], variation)
        assert row == [str(each) for each in told]
    assert text.count("<circle") == 2 * len(PROFILES), "in the plot and beside its name"
    assert text.count("<h2>") == len(PROFILES)


def test_nothing_is_loaded_or_run(folder):
    """No script, no address but that of SVG's name, and a policy that forbids the rest."""
    name = '<script>alert("x")</script>'
    (folder / "cache").rename(folder / "cache<b>&.safetensors")
    cache = folder / "cache<b>&.safetensors"
    rule = {"schema": "kvq_profile_v1", "name": "p", "rules": [{"codec": "int8"}]}
    (folder / "p.json").write_text(json.dumps(rule | {"description": name}))
    call = ["stats", cache, "-p", folder / "p.json", "--html", folder / "r.html"]
    done(*call)
    text = (folder / "r.html").read_text(encoding="utf-8")
    found = Page(text)
    assert not {"script", "img", "link", "iframe", "b"} & {tag for tag, _ in found.tags}
    for _, attributes in found.tags:
        assert not {"src", "href", "onload", "onclick"} & attributes.keys()
    assert text.count("http://") == text.count('xmlns="http://www.w3.org/2000/svg"')
    assert "default-src 'none'" in text
    assert "cache<b>&.safetensors" in "".join(found.words)


def test_heat_maps_show_every_layer_and_head():
    """A cell each; the largest is darkest, zero the lightest, and 80 by 64 take little."""
    cells = {(layer, head): 10.0 ** -(layer % 5) for layer in range(80) for head in range(64)}
    cells[3, 3] = 0.0
    drawing = charts.heat(cells)
    assert drawing.count("h8v8h-8z") == 80 * 64
    assert len(drawing) < 120_000
    assert "0.0001 (light) to 1 (dark)" in drawing
    rows = [
        {"layer": layer, "head": head, "role": role, "relative_mse": 0.1, "attention_tv": 0.1}
        for layer in range(80)
        for head in range(64)
        for role in ("key", "value")
    ]
    report = {
        "path": "p", "profiles": [{"roles": ["key"], "name": "n", "digest": "d"}], "ratio": 2.0,
        "ratio_against": "source f16", "bits_per_element": 8.0, "source_bytes": 2, "file_bytes": 1,
        "content_root": "r", "parts": {}, "planes": [], "raw_pages": {"budget": 3},
        "sample": None,
        "errors": rows, "attention": [{**row, "role": None} for row in rows[::2]], "notes": ["x"],
    }  # fmt: skip
    text = page([report])
    assert len(text) < 1_000_000
    assert ["budget", "3"] in Page(text).tables[-1]


def test_corners_of_drawings():
    """Nothing lost, one point, no point, one part."""
    for points in ([], [("a", 8.0, 0.0)], [("a", None, None)], [("a", 1.0, 1e-9), ("b", 2.0, 3)]):
        assert charts.scatter(points, "x", "y").startswith("<svg")
    assert "100.00%" in charts.stacked([("one", 1)])
    assert charts.heat({(0, 0): 0.0}).count("h8v8h-8z") == 1


def test_a_page_that_exists_is_kept(folder):
    """As any output: refused without --force, before anything is measured."""
    (folder / "r.html").write_text("mine")
    call = ["stats", folder / "cache", "-p", "int8", "--html", folder / "r.html"]
    with left_alone(folder):
        refused(kvq(*call), 5, "E103", "r.html")
    done(*call, "--force")
    refused(kvq("stats", folder / "cache", "--html", folder / "cache", "-f"), 5, "E104")


@pytest.mark.long
@pytest.mark.parametrize("size", ["1100,1600", "390,1600"])
def test_a_browser_shows_it(folder, size):
    """Headless Chromium draws it without an error on its console, wide and on a phone."""
    browser = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if browser is None:
        pytest.skip("no Chromium to draw the page")
    written(folder, *(word for name in PROFILES for word in ("-p", name)))
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--v=0"]
    shot = folder / "shot.png"
    ran = subprocess.run(
        [browser, *flags, f"--window-size={size}", f"--screenshot={shot}",
         (folder / "r.html").as_uri()],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert shot.stat().st_size > 10_000, ran.stderr
    assert "CONSOLE" not in ran.stderr
