"""The pages for those who carry the project on: what they name exists, and has the value that they give."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import REPOSITORY

PAGES = sorted([*REPOSITORY.glob("docs/*.md"), REPOSITORY / "CONTRIBUTING.md", *REPOSITORY.glob("**/FORMAT.md")])
PAGES = [page for page in PAGES if not {".venv", "build", "dist"} & set(page.relative_to(REPOSITORY).parts)]
ENCODER = REPOSITORY / "docs" / "encoder.md"
ROOMS = {"run": "stemcodecs_pipelines", "store": "stemcodecs_pipelines"}
"""Rooms of the upper floor that the tables of constants name; all others are of the lower one."""
CONSTANT = re.compile(r"^\| `([\w.]+)` \| `(\w+)` \| `([^`]+)` \|", re.MULTILINE)
SUFFIXES = ("py", "md", "svg", "toml", "cff", "run")


def name(page: Path) -> str:
    return str(page.relative_to(REPOSITORY))


def anchors(text: str) -> set[str]:
    """Anchors of the headings of a page, as forges make them."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if link.startswith(("http://", "https://")):
            continue
        place, _, anchor = link.partition("#")
        target = (page.parent / place).resolve() if place else page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target.read_text(encoding="utf-8")), link


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_files_that_are_named_exist(page):
    """Paths in backticks: from the root of the repository, of a floor, or beside the page."""
    roots = (REPOSITORY, REPOSITORY / "stemcodecs", REPOSITORY / "stemcodecs/entropy", page.parent)
    roots += (REPOSITORY / "pipelines/stemcodecs_pipelines",)
    for path in re.findall(r"`((?:\.?\w[\w-]*/)+[\w.-]+)`", page.read_text(encoding="utf-8")):
        if path.rpartition(".")[2] in SUFFIXES or path == ".ci/run":
            assert any((root / path).exists() for root in roots), path


def test_functions_of_the_journeys_are_where_the_page_says():
    text = (REPOSITORY / "docs/architecture.md").read_text(encoding="utf-8")
    named = re.findall(r"`(\w+)` in `([\w/.]+\.py)`", text)
    assert len(named) > 30
    for function, path in named:
        source = (REPOSITORY / path).read_text(encoding="utf-8")
        assert re.search(rf"^\s*(async )?(def|class) {function}\b", source, re.MULTILINE), f"{function} in {path}"


def module_of(short: str) -> str:
    return f"{ROOMS.get(short.split('.')[0], 'stemcodecs')}.{short}"


def test_constants_have_the_values_that_the_page_gives():
    rows = CONSTANT.findall(ENCODER.read_text(encoding="utf-8"))
    assert len(rows) > 80
    for short, constant, value in rows:
        known = vars(importlib.import_module(module_of(short)))
        stated = eval(value, {"__builtins__": {"tuple": tuple}}, dict(known))
        actual = known[constant]
        actual = actual.tolist() if isinstance(actual, np.ndarray) else actual
        assert actual == stated, f"{short}.{constant} is {actual}, the page says {value}"


def test_no_constant_of_the_fit_is_missing_from_the_page():
    rows = {(short, constant) for short, constant, _ in CONSTANT.findall(ENCODER.read_text(encoding="utf-8"))}
    modules = [*(REPOSITORY / "stemcodecs/entropy/fit").glob("*.py")]
    modules += [REPOSITORY / "stemcodecs/entropy" / path for path in ("values/number_map.py", "chunk/encode.py")]
    missing = []
    for path in modules:
        short = ".".join(path.relative_to(REPOSITORY / "stemcodecs").with_suffix("").parts)
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            names = [leaf.id for target in targets if target for leaf in ast.walk(target) if isinstance(leaf, ast.Name)]
            # Text and types are no tuning.
            numeric = [n for n in names if re.fullmatch(r"_?[A-Z][A-Z0-9_]+", n) and n != "_NOT_COUNTS"]
            missing += [(short, n) for n in numeric if (short, n) not in rows]
    assert missing == []
