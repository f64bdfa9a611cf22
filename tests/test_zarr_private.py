"""What Zarr does not promise to keep is named in one module."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import stemcodecs
import stemcodecs_pipelines

PRIVATE = ("zarr.core", "zarr._", "zarr.storage._", "zarr.abc._", "zarr.codecs._")
ATTRIBUTES = {"_store_dict", "_async_array", "_zarr_format"}
PACKAGES = [Path(package.__file__ or "").parent for package in (stemcodecs, stemcodecs_pipelines)]


def private_names(source: str) -> list[str]:
    """Private names of Zarr that a module takes, with the lines."""
    found = []
    for node in ast.walk(ast.parse(source)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Attribute):
            names = [f"zarr._{node.attr}" if node.attr in ATTRIBUTES else ast.unparse(node)]
        found += [f"{node.lineno}: {name}" for name in names if f"{name}.".startswith(PRIVATE)]
    return found


@pytest.mark.slow
@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.name)
def test_one_module_takes_private_names_of_zarr(package):
    for path in sorted(package.rglob("*.py")):
        if path.name != "zarr_private.py":
            assert private_names(path.read_text(encoding="utf-8")) == [], path


@pytest.mark.parametrize(
    "line",
    [
        "from zarr.core.array import AsyncArray",
        "from zarr.core import sync",
        "import zarr.core.buffer",
        "zarr.core.sync.sync(f())",
        "from zarr.storage._common import StorePath",
        "store._store_dict[key] = value",
    ],
)
def test_private_names_are_seen(line):
    assert private_names(line)
