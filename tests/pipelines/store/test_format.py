"""store/FORMAT.md says what is in a store: its keys, types and arrays, no more and no fewer."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import zarr
from typer.testing import CliRunner

from stemcodecs.simulate import simulate_scan
from stemcodecs_pipelines.cli import app
from tests.conftest import REPOSITORY

PAGE = (REPOSITORY / "pipelines/stemcodecs_pipelines/store/FORMAT.md").read_text(encoding="utf-8")
TYPES = {
    "true": bool,
    "boolean": bool,
    "integer": int,
    "number": (int, float),
    "string": str,
    "object": dict,
    "object or null": (dict, type(None)),
    "array of strings": list,
    "array of integers": list,
    "array of integers or null": (list, type(None)),
}


def section(number: int) -> str:
    return re.split(r"^## \d+\. ", PAGE, flags=re.MULTILINE)[number]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("format")
    np.save(folder / "a.npy", simulate_scan("grains", (5, 6), (8, 9), mean_counts=1.0).counts)
    done = CliRunner().invoke(app, ["compress", str(folder / "a.npy"), str(folder / "a.zarr"), "--chunk", "2,3"])
    assert done.exit_code == 0, done.output
    return folder / "a.zarr"


@pytest.mark.slow
def test_provenance_has_the_keys_and_types_of_the_page(store):
    written = json.loads((store / "zarr.json").read_text())["attributes"]["stemcodecs"]
    rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \|(.*)\|$", section(2), re.MULTILINE)
    # These are counts as they are.
    rows = [(key, kind) for key, kind, text in rows if "absent where they are counts" not in text]
    assert [key for key, _ in rows] == list(written)
    for key, kind in rows:
        assert isinstance(written[key], TYPES[kind.strip()]), key


@pytest.mark.slow
def test_what_is_found_behind_the_values_is_noted_where_the_page_says(tmp_path):
    np.save(tmp_path / "a.npy", 17 * simulate_scan("grains", (12, 12), (16, 16), mean_counts=1.0).counts)
    done = CliRunner().invoke(app, ["compress", str(tmp_path / "a.npy"), str(tmp_path / "a.zarr"), "--chunk", "12,12"])
    assert done.exit_code == 0, done.output
    written = json.loads((tmp_path / "a.zarr/zarr.json").read_text())["attributes"]["stemcodecs"]
    rows = re.findall(r"^\| `(\w+)` \|", section(2), re.MULTILINE)
    assert "17" in written["values"]
    assert rows == list(written)


def test_store_has_the_arrays_of_the_page(store):
    group = zarr.open_group(store, mode="r")
    tree = re.search(r"```\n(.*?)```", section(1), re.DOTALL)
    named = set(re.findall(r"(\w+)/", tree[1])) - {"models", "pixel_mask", "zarr"}
    assert {name.split("/")[0] for name, _ in group.members()} == named
    images = dict(re.findall(r"^\| ([^|]*_[^|]*|`bright_field`) \| ([^|]+) \|", section(5), re.MULTILINE))
    for names, dtypes in images.items():
        for name in re.findall(r"`(\w+)`", names):
            assert str(group[name].dtype) in dtypes, name
    for name in ("scan_y", "scan_x", "det_y", "det_x"):
        assert set(group[name].attrs) == {"scale", "offset", "units"}
        assert group[name].dtype == np.float64
    assert group["provenance"].attrs["block"] == [2, 3, 8, 9]
    assert group["provenance/raw_sha256"].shape == group["provenance/stored_sha256"].shape == (6, 32)
