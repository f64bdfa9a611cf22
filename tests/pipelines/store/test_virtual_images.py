from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from stemcodecs_pipelines.store.virtual_images import VirtualDetectors, block_sums, image_sums

DETECTORS = VirtualDetectors(center_y=3.0, center_x=4.5, radius=2.0, inner=3.0)

blocks = st.sampled_from(["u1", "u2", "i1", "i2", "u4", "i4"]).flatmap(
    lambda dtype: hnp.arrays(dtype, st.tuples(st.integers(1, 5), st.integers(1, 8), st.integers(1, 9)))
)


def reference(patterns):
    """The same sums by plain NumPy."""
    values = patterns.astype(object)
    y, x = np.indices(patterns.shape[1:])
    distance = (y - DETECTORS.center_y) ** 2 + (x - DETECTORS.center_x) ** 2
    return values.sum(0), np.stack(
        [
            values.sum((1, 2)),
            (values * (distance <= DETECTORS.radius**2)).sum((1, 2)),
            (values * (distance <= DETECTORS.inner**2)).sum((1, 2)),
            (values * y).sum((1, 2)),
            (values * x).sum((1, 2)),
        ],
        axis=1,
    )


@given(blocks)
def test_integer_sums_are_exact(patterns):
    sums = block_sums(patterns, DETECTORS)
    pattern, images = reference(patterns)
    assert np.array_equal(sums.pattern, pattern.astype(np.int64))
    assert np.array_equal(sums.images, images.astype(np.int64))


@pytest.mark.parametrize(
    ("dtype", "shape"),
    [("u2", (70_000, 1, 2)), ("i2", (40_000, 1, 2)), ("u1", (2, 300, 300)), ("u2", (2, 300, 300))],
)
def test_inner_sums_do_not_overflow(dtype, shape):
    extreme = np.iinfo(dtype).min or np.iinfo(dtype).max
    patterns = np.full(shape, extreme, dtype)
    sums = block_sums(patterns, None)
    assert (sums.pattern == extreme * shape[0]).all()
    assert (sums.images[:, 0] == extreme * shape[1] * shape[2]).all()


@pytest.mark.parametrize("dtype", ["?", "f2", "f4", "f8", "i8", "u8"])
def test_other_dtypes_are_summed_in_float64(dtype):
    patterns = np.random.default_rng(0).integers(0, 2, (3, 6, 7)).astype(dtype)
    sums = block_sums(patterns, DETECTORS)
    pattern, images = reference(patterns.astype(int))
    assert np.array_equal(sums.pattern, pattern.astype(float))
    assert np.array_equal(sums.images, images.astype(float))


def test_disk_is_found_in_a_mean_pattern():
    y, x = np.mgrid[:64, :64]
    disk = ((y - 30) ** 2 + (x - 35) ** 2 <= 100) * 5.0 + 0.1
    found = VirtualDetectors.from_pattern(disk)
    assert found.center_y == pytest.approx(30, abs=0.2)
    assert found.center_x == pytest.approx(35, abs=0.2)
    assert found.radius == pytest.approx(10, abs=0.5)


@pytest.mark.parametrize("value", [0.0, -1.0, np.nan])
def test_detector_without_a_disk_gives_a_radius_all_the_same(value):
    assert VirtualDetectors.from_pattern(np.full((8, 8), value)).radius > 0


def test_virtual_images_follow_from_the_sums():
    images = np.array([[10, 4, 6, 30, 20], [0, 0, 0, 0, 0]])
    made = image_sums(images)
    assert made["annular_dark_field"].tolist() == [4, 0]
    assert made["com_y"][0] == 3.0
    assert np.isnan(made["com_x"][1])
