"""``stemcodecs compare --html``: a real comparison on its page."""

from __future__ import annotations

import json
import sys

import pytest
from typer.testing import CliRunner

from stemcodecs_pipelines.cli import app
from tests.pipelines.compare.conftest import GZIP
from tests.pipelines.compare.page_elements import elements_of

pytest.importorskip("matplotlib")


def compared(*words):
    return CliRunner().invoke(app, ["compare", *map(str, words)])


def test_a_comparison_as_a_page(disk_file, few, tmp_path):
    few("pixel_histogram", "poisson:r=0.5", "poisson:r=1", "tcs:frames=10", GZIP)
    done = compared(disk_file, "--html", tmp_path / "report.html", "--json", tmp_path / "report.json")
    assert done.exit_code == 0, done.output
    assert f"{tmp_path / 'report.html'}: page with figures" in done.stdout
    elements = elements_of((tmp_path / "report.html").read_text(encoding="utf-8"))
    page = next(e.text for e in elements if e.tag == "main")
    written = json.loads((tmp_path / "report.json").read_text())
    # Every row stands in a table, and everything that was said in words stands in the page.
    heads = [e.text for e in elements if e.tag == "th" and e.attributes["scope"] == "row"]
    assert {row["name"] for row in written["rows"]} == set(heads)
    said = written["recommendation"]
    assert said["advice"]
    for sentence in (*said["advice"], *said["findings"]):
        assert sentence.replace("`", "") in page
    alts = [e.attributes["alt"] for e in elements if e.tag == "img"]
    for picture in ("Mean pattern, 24 × 24", "Bits of each detector pixel, 24 × 24", "Original pattern", "decoded by"):
        assert any(picture in alt for alt in alts), picture
    assert sum("Errors of" in (e.attributes.get("aria-label") or "") for e in elements) == 2


@pytest.mark.parametrize("package", ["jinja2", "matplotlib"])
def test_missing_package_is_said_before_anything_is_measured(disk_file, few, tmp_path, package, monkeypatch):
    few(GZIP)
    monkeypatch.setitem(sys.modules, package, None)
    done = compared(disk_file, "--html", tmp_path / "report.html")
    assert done.exit_code == 2, done.output
    assert done.stdout == ""
    assert "pip install 'stemcodecs[compare]'" in done.stderr
    assert not (tmp_path / "report.html").exists()
