"""Images that do not follow from the source are found, those that do are not doubted."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import zarr

from stemcodecs.location import Location
from stemcodecs.readers import open_scan
from stemcodecs.store import require_complete
from stemcodecs_pipelines.run.plan import make_plan
from stemcodecs_pipelines.store.compress import compress
from stemcodecs_pipelines.store.image_check import ImageCheck, ImageSums

IMAGES = ["mean_pattern", "sum_image", "bright_field", "annular_dark_field", "com_y", "com_x"]


def checked(store, source):
    """Problems of a store's images, from the blocks of the source in another order."""
    location = Location.of(store)
    with open_scan(source) as scan:
        plan = make_plan(scan, chunk=require_complete(store).attributes["chunk"])
        sums = pickle.loads(pickle.dumps(ImageSums.of(location, require_complete(store).attributes)))
        check = ImageCheck(location, plan)
        for index in reversed(range(plan.blocks)):
            region = plan.region(index)
            check.add(region, sums.of_block(scan.read(region), region))
    return check.problems()


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["u1", "u2", "f4", "?"])
@pytest.mark.parametrize("chunk", [(4, 8), (4, 8, 5, 16)])
def test_images_follow_from_their_source(counts, tmp_path, dtype, chunk):
    values = counts.astype(dtype)
    if dtype != "?":
        values[:, :, 2:4] = np.nan if dtype == "f4" else np.iinfo(dtype).max
    np.save(tmp_path / "a.npy", values)
    with open_scan(tmp_path / "a.npy") as scan:
        compress(scan, tmp_path / "a.zarr", chunk=chunk)
    assert checked(tmp_path / "a.zarr", tmp_path / "a.npy") == []


@pytest.mark.slow
@pytest.mark.parametrize("name", IMAGES)
def test_an_image_with_another_value_is_named(store, source, name):
    image = zarr.open_group(store, mode="r+")[name]
    image[3, 4] = image[3, 4] + 1
    assert checked(store, source) == [f"{name} does not follow from the source; compress it again"]


@pytest.mark.slow
def test_stacks_have_two_and_patterns_none(counts, tmp_path):
    for values in (counts[0], counts[0, 0]):
        np.save(tmp_path / "a.npy", values)
        with open_scan(tmp_path / "a.npy") as scan:
            compress(scan, tmp_path / f"{values.ndim}.zarr")
        assert checked(tmp_path / f"{values.ndim}.zarr", tmp_path / "a.npy") == []
    image = zarr.open_group(tmp_path / "3.zarr", mode="r+")["sum_image"]
    image[5] = 7
    np.save(tmp_path / "a.npy", counts[0])
    (line,) = checked(tmp_path / "3.zarr", tmp_path / "a.npy")
    assert line.startswith("sum_image")
