"""The house is built in one direction: every import of the tree is read and held against the rules.

Two floors: ``stemcodecs`` codes one chunk and never imports Dask, torch or the floor above;
``stemcodecs_pipelines`` runs whole scans, a room a capability over a thin shared floor. Imports inside functions count
as others do: a circle of files that is closed lazily is a circle.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import stemcodecs
import stemcodecs_pipelines

FLOORS = {package.__name__: Path(package.__file__).parent for package in (stemcodecs, stemcodecs_pipelines)}
UPPER = "stemcodecs_pipelines"

# Each row may import from its own and from those above it, never from those below it.
LOWER_ORDER = (
    {"errors", "_version", "disk", "dtypes", "marks", "compiled", "last_used", "zarr_private", "provenance"},
    {"remote", "zip_members", "required_chunks"},
    {"location"},
    {"metrics"},
    {"entropy.kernels"},
    {"entropy.values", "entropy.model"},
    {"entropy.fit"},
    {"entropy.chunk"},
    {"learned"},
    {"quantize"},
    {"counts"},
    {"lowrank"},
    {"temporal"},
    {"codecs"},
    {"accessor", "movies"},
    {"store"},
    {"readers"},
    {"simulate"},
    {""},
)
# `values` and `model` lie side by side, so that neither leans on the other.
SIDE_BY_SIDE = ({"entropy.values", "entropy.model"},)

CAPABILITIES = {"histograms", "poisson", "pca", "learned", "temporal", "ptychography", "tomography"}
KNOW_EVERYONE = {"cli", "methods.registry", "compare", "", "__main__"}
"""Who may import any room; the package itself hands out the public names."""

ASKED_OF_A_METHOD = {"methods.base", "methods.options"}
METHODS_ROOM = {"methods", "methods.base", "methods.options", "methods.registry", "methods.commands"}
NAMES_BECOME_METHODS = {(f"{UPPER}.store.job", "methods.registry")}
"""The one place where the name of a method that a store notes becomes the method."""

RUNS_NETWORKS = {("stemcodecs.temporal.runtime", "onnxruntime")}
"""The one file of the lower floor that may ask for it, inside a function: decoding a movie by a network."""


def modules() -> dict[str, Path]:
    """Every module of both packages, by its dotted name."""
    return {
        ".".join((name, *path.relative_to(root).with_suffix("").parts)).removesuffix(".__init__"): path
        for name, root in FLOORS.items()
        for path in sorted(root.rglob("*.py"))
    }


MODULES = modules()


def imported(name: str) -> Iterator[tuple[str, int]]:
    """What a module imports, anywhere in its text, and in which line: modules of the tree, or packages by name."""
    for node in ast.walk(ast.parse(MODULES[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}:{node.lineno} imports relatively"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield (full if full in MODULES else str(node.module)), node.lineno


IMPORTS = {name: sorted({(target, line) for target, line in imported(name)}) for name in MODULES}


def lower_row(module: str) -> int:
    """Row of a module of the lower floor in `LOWER_ORDER`."""
    inside = module.removeprefix("stemcodecs").removeprefix(".")
    for row, rooms in enumerate(LOWER_ORDER):
        if any(inside == room or (room and inside.startswith(f"{room}.")) for room in rooms):
            return row
    raise AssertionError(f"{module} is in no row of the lower floor; give it one")


def room(module: str) -> str:
    """Room of a module of the upper floor; registry and base stand for themselves."""
    inside = module.removeprefix(UPPER).removeprefix(".")
    return inside if inside.startswith("methods.") else inside.split(".")[0]


@pytest.mark.parametrize("name", [name for name in MODULES if not name.startswith(UPPER)])
def test_lower_floor_imports_downward_only(name):
    for target, line in IMPORTS[name]:
        top = target.split(".")[0]
        if (name, top) in RUNS_NETWORKS:
            continue
        assert top not in {"dask", "distributed", "torch", "onnxruntime", UPPER}, f"{name}:{line} imports {target}"
        if top == "stemcodecs" and name not in ("stemcodecs.entropy",):
            assert lower_row(target) <= lower_row(name), f"{name}:{line} imports {target} from above"
            for rooms in SIDE_BY_SIDE:
                mine = {r for r in rooms if name.startswith(f"stemcodecs.{r}")}
                theirs = {r for r in rooms if target.startswith(f"stemcodecs.{r}")}
                assert not mine or not theirs or mine == theirs, f"{name}:{line} imports {target} from beside"


@pytest.mark.parametrize("name", [name for name in MODULES if name.startswith(UPPER)])
def test_upper_floor_keeps_to_its_rooms(name):
    mine = room(name)
    for target, line in IMPORTS[name]:
        if not target.startswith(UPPER) or mine in KNOW_EVERYONE:
            continue
        theirs = room(target)
        if mine == "run":
            allowed = {"run"}
        elif mine.startswith("methods."):
            allowed = {"run", *METHODS_ROOM}
        else:
            allowed = {mine, "run", *ASKED_OF_A_METHOD}
        if (name, theirs) in NAMES_BECOME_METHODS:
            continue
        assert theirs in allowed, f"{name}:{line}: {mine} imports {target}"


@pytest.mark.parametrize("name", [name for name in MODULES if room(name) in ("methods.registry", "cli", "")])
def test_who_knows_everyone_imports_them_lazily(name):
    if not name.startswith(UPPER):
        return
    for node in ast.parse(MODULES[name].read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith(UPPER):
            theirs = room(str(node.module))
            # Commands are mounted at the start; they import what they need when they are called.
            assert theirs in {"run", *ASKED_OF_A_METHOD} or str(node.module).endswith("commands"), (name, node.lineno)


def test_no_circle_of_files():
    graph = {name: [t for t, _ in IMPORTS[name] if t in MODULES and t != name] for name in MODULES}
    done: set[str] = set()
    path: list[str] = []

    def visit(name: str) -> None:
        assert name not in path, " -> ".join([*path[path.index(name) :], name])
        if name in done:
            return
        path.append(name)
        for target in graph[name]:
            visit(target)
        path.pop()
        done.add(name)

    for name in graph:
        visit(name)


def modules_after(code: str) -> set[str]:
    """Top-level packages that a fresh process has loaded after some code."""
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    return {name.split(".")[0] for name in done.stdout.split()}


HEAVY_ABOVE = {"dask", "distributed", "torch", "stemcodecs_pipelines"}


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in MODULES if name.startswith("stemcodecs.entropy")][::8])
def test_a_sample_of_the_engine_loads_nothing_of_the_upper_floor(name):
    assert not HEAVY_ABOVE & modules_after(f"import {name}")


@pytest.mark.slow
def test_importing_every_lower_module_loads_nothing_of_the_upper_floor():
    # xarray finds Dask by itself where it is installed: the modules that import it are left out here.
    names = [
        name
        for name in MODULES
        if not name.startswith(UPPER) and name not in ("stemcodecs.accessor", "stemcodecs.__main__")
    ]
    assert not HEAVY_ABOVE & modules_after("\n".join(f"import {name}" for name in names))


@pytest.mark.slow
def test_codecs_and_decoding_a_chunk_load_neither_dask_nor_torch():
    code = """
import numpy as np
import stemcodecs.codecs
from stemcodecs.codecs import PixelHistogram

counts = np.random.default_rng(0).poisson(1.0, (64, 8, 8)).astype("u2")
codec = PixelHistogram()
assert (codec.decode_chunk(codec.encode_chunk(counts)) == counts).all()
"""
    assert not HEAVY_ABOVE & modules_after(code)


@pytest.mark.slow
def test_opening_a_store_and_reading_a_pattern_loads_neither_dask_nor_torch(tmp_path):
    code = f"""
import numpy as np
import zarr
from stemcodecs.codecs import PixelHistogram

data = zarr.create_array({str(tmp_path / "scan.zarr")!r}, shape=(4, 4, 8, 8), dtype="u2", chunks=(4, 4, 8, 8),
                         serializer=PixelHistogram(), compressors=None)
data[:] = np.ones((4, 4, 8, 8), "u2")
"""
    subprocess.run([sys.executable, "-c", code], check=True)
    read = f"import zarr; assert zarr.open({str(tmp_path / 'scan.zarr')!r}, mode='r')[3, 1].sum() == 64"
    assert not HEAVY_ABOVE & modules_after(read)


@pytest.mark.slow
def test_command_starts_without_the_heavy_packages():
    heavy = {"numpy", "numba", "xarray", "dask", "distributed", "h5py", "matplotlib", "zarr"}
    assert not heavy & modules_after("import stemcodecs; import stemcodecs_pipelines.cli")
