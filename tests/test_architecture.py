"""The lower floor stands alone, and importing is fast enough not to be noticed."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import stemcodecs

ROOT = Path(stemcodecs.__file__).parent
FORBIDDEN = {"dask", "distributed", "stemcodecs_pipelines"}


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_lower_floor_never_imports_the_upper_one(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [node.module or ""]
        assert not FORBIDDEN & {name.split(".")[0] for name in names}, (path, node.lineno)


def modules_after(code: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    return {name.split(".")[0] for name in done.stdout.split()}


def test_importing_every_lower_module_loads_no_dask():
    names = [
        ".".join(("stemcodecs", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")
        for path in ROOT.rglob("*.py")
    ]
    code = "\n".join(f"import {name}" for name in names)
    assert not {"distributed", "stemcodecs_pipelines"} & modules_after(code)


def test_command_starts_without_the_heavy_packages():
    heavy = {"numpy", "numba", "xarray", "dask", "distributed", "h5py", "matplotlib", "zarr"}
    assert not heavy & modules_after("import stemcodecs; import stemcodecs_pipelines.cli")
