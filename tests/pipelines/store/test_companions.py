"""Everything beside the chunks of `data` is covered: no bit can flip and no object can go without being told."""

from __future__ import annotations

import json
import random
import shutil
import warnings

import numpy as np
import pytest
import xarray
import zarr

from stemcodecs.location import Location
from stemcodecs.readers import open_scan
from stemcodecs.store import require_complete
from stemcodecs_pipelines.store.companions import check_companions, missing_checksums, note_objects
from stemcodecs_pipelines.store.compress import compress

FLIPS_PER_FILE = 9


@pytest.fixture
def marked(counts, tmp_path):
    """A store with a pixel mask."""
    counts = counts.copy()
    counts[:, :, 3] = 65535
    np.save(tmp_path / "marked.npy", counts)
    with open_scan(tmp_path / "marked.npy") as scan:
        compress(scan, tmp_path / "marked.zarr", chunk=(4, 8))
    return tmp_path / "marked.zarr"


def beside(store):
    """All files but the chunks of `data`."""
    return [p for p in sorted(store.rglob("*")) if p.is_file() and "data/c/" not in p.as_posix()]


def problems(store):
    """What `verify` would say: the root first, then everything beside the data."""
    location = Location.of(store)
    try:
        require_complete(location)
    except Exception as error:
        return [str(error)]
    return check_companions(location)


@pytest.mark.slow
def test_an_intact_store_has_no_problem(store, marked):
    assert check_companions(Location.of(store)) == []
    assert check_companions(Location.of(marked)) == []
    assert missing_checksums(require_complete(store).attributes) is None


@pytest.mark.slow
def test_every_bit_that_flips_is_an_error(marked):
    dice = random.Random(11)
    files = beside(marked)
    assert {"pixel_mask", "scan_y", "sum_image", "provenance", "data"} <= {
        p.relative_to(marked).parts[0] for p in files
    }
    flips = 0
    for path in files:
        whole = path.read_bytes()
        for bit in sorted(dice.sample(range(8 * len(whole)), FLIPS_PER_FILE)):
            damaged = bytearray(whole)
            damaged[bit // 8] ^= 1 << bit % 8
            path.write_bytes(damaged)
            found = problems(marked)
            assert found, f"bit {bit} of {path}"
            assert all("\n" not in line for line in found)
            flips += 1
        path.write_bytes(whole)
    assert flips >= 180
    assert problems(marked) == []


@pytest.mark.slow
def test_plain_zarr_does_not_decode_a_flipped_bit(marked):
    dice = random.Random(12)
    for path in [p for p in beside(marked) if p.name != "zarr.json"]:
        name = path.relative_to(marked).as_posix().split("/c/")[0]
        whole = path.read_bytes()
        for bit in dice.sample(range(8 * len(whole)), 5):
            damaged = bytearray(whole)
            damaged[bit // 8] ^= 1 << bit % 8
            path.write_bytes(damaged)
            with pytest.raises((ValueError, RuntimeError)):
                zarr.open_group(marked, mode="r")[name][...]
        path.write_bytes(whole)


@pytest.mark.slow
def test_missing_truncated_and_replaced_objects_are_named(marked):
    for path in beside(marked):
        key = path.relative_to(marked).as_posix()
        whole = path.read_bytes()
        path.unlink()
        assert any(key in line or "no such store" in line or "not a store" in line for line in problems(marked)), key
        path.write_bytes(whole[:-1])
        assert any(key in line for line in problems(marked)), key
        path.write_bytes(whole)
    # What was copied from another place reads without an error, and is another image.
    shutil.copyfile(marked / "com_y/c/0/0", marked / "com_x/c/0/0")
    assert problems(marked) == ["com_x/c/0/0 is damaged; restore it from another copy of the store"]
    assert check_companions(Location.of(marked), arrays=["scan_y", "data"]) == []


def test_images_without_counts_have_their_chunks(tmp_path):
    np.save(tmp_path / "dark.npy", np.zeros((4, 4, 8, 8), "u2"))
    with open_scan(tmp_path / "dark.npy") as scan:
        compress(scan, tmp_path / "dark.zarr")
    (tmp_path / "dark.zarr/sum_image/c/0/0").unlink()
    assert problems(tmp_path / "dark.zarr") == ["sum_image/c/0/0 is missing; restore it from another copy of the store"]


@pytest.mark.slow
def test_notes_of_others_in_the_root_are_left_alone(store):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", zarr.errors.ZarrUserWarning)
        zarr.open_group(store, mode="r+").attrs["operator"] = "A. Nonymous"
        zarr.consolidate_metadata(store)
    assert problems(store) == []
    assert xarray.open_zarr(store).attrs["operator"] == "A. Nonymous"


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        lambda root: root["attributes"]["stemcodecs"].update(verified=False),
        lambda root: root["attributes"]["stemcodecs"].update(layout=1),
        lambda root: root["attributes"]["stemcodecs"].update(layout=3),
        lambda root: root["attributes"]["stemcodecs"]["objects"].pop("sum_image/zarr.json"),
        lambda root: root["consolidated_metadata"]["metadata"].pop("sum_image"),
        lambda root: root["consolidated_metadata"]["metadata"].update(other={"node_type": "array"}),
        lambda root: root["consolidated_metadata"]["metadata"]["sum_image"].update(data_type="float64"),
        lambda root: root["consolidated_metadata"]["metadata"]["provenance"]["consolidated_metadata"].update(kind="no"),
        lambda root: root.pop("consolidated_metadata"),
        lambda root: root.update(zarr_format=4),
    ],
)
def test_a_root_that_says_something_else_is_an_error(store, change):
    root = json.loads((store / "zarr.json").read_text())
    change(root)
    (store / "zarr.json").write_text(json.dumps(root))
    (line,) = problems(store)
    assert line.startswith("zarr.json")


@pytest.mark.slow
def test_digests_of_objects_that_were_written_again_are_renewed(store):
    location = Location.of(store)
    noted = zarr.open_group(store, mode="r+")["provenance/stored_sha256"]
    noted[2] = np.zeros(32, "u1")
    (line,) = problems(store)
    (store / ".stemcodecs").mkdir()
    note_objects(location, [line.split(" ")[0]])
    assert problems(store) == []
    assert (store / "zarr.json").read_text().startswith('{\n  "attributes"')


@pytest.mark.slow
def test_a_store_of_layout_1_is_decoded_and_says_what_it_lacks(store):
    root = json.loads((store / "zarr.json").read_text())
    known = root["attributes"]["stemcodecs"]
    del known["objects"], known["sha256"]
    known["layout"] = 1
    (store / "zarr.json").write_text(json.dumps(root))
    assert problems(store) == []
    assert "carry no checksum" in missing_checksums(known)
    image = store / "sum_image/c/0/0"
    image.write_bytes(image.read_bytes()[:-5])
    (line,) = problems(store)
    assert line.startswith("sum_image is damaged")
    assert check_companions(Location.of(store), arrays=["com_x"]) == []
    (store / "sum_image/zarr.json").write_text("{")
    (line,) = problems(store)
    assert "\n" not in line
