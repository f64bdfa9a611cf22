from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from stemcodecs.marks import find_marks
from stemcodecs_pipelines.store.virtual_images import VirtualDetectors, block_sums, image_sums

DETECTORS = VirtualDetectors(center_y=3.0, center_x=4.5, radius=2.0, inner=3.0)

blocks = st.sampled_from(["u1", "u2", "i1", "i2", "u4", "i4"]).flatmap(
    lambda dtype: hnp.arrays(dtype, st.tuples(st.integers(1, 5), st.integers(1, 8), st.integers(1, 9)))
)


def reference(patterns, masked=False):
    """The same sums by plain NumPy."""
    marks = find_marks(patterns)
    marks = np.broadcast_to(masked if marks is None else marks | masked, patterns.shape)
    values = np.where(marks, 0, patterns).astype(object)
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


@pytest.mark.slow
@given(blocks)
def test_integer_sums_are_exact_and_without_marks(patterns):
    sums = block_sums(patterns, DETECTORS)
    pattern, images = reference(patterns)
    assert np.array_equal(sums.pattern, pattern.astype(np.int64))
    assert np.array_equal(sums.images, images.astype(np.int64))
    marks = find_marks(patterns)
    assert np.array_equal(sums.left_out, np.zeros((0, 0)) if marks is None else marks.sum(0))


@pytest.mark.parametrize("dtype", ["u1", "u2", "i2", "u4", "i4", "f4", "f8"])
@pytest.mark.parametrize("where", ["one value", "a gap", "a masked pixel", "the last pattern"])
def test_marks_are_left_out_and_counted(dtype, where):
    rng = np.random.default_rng(3)
    patterns = rng.poisson(3, (9, 8, 10)).astype(dtype)
    expected = np.zeros(patterns.shape, bool)
    if where == "one value":
        expected[4, 2, 5] = True
    elif where == "a gap":
        expected[:, :, 6] = True
    elif where == "the last pattern":
        expected[-1, -1, -1] = True
    masked = np.zeros((8, 10), bool)
    masked[3, 4] = where == "a masked pixel"
    if dtype == "u1":
        masked |= expected.all(0)
        expected[:] = False
    mark = np.nan if dtype[0] == "f" else np.iinfo(dtype).max
    patterns[expected] = mark
    patterns[:, masked] = mark
    sums = block_sums(patterns, DETECTORS, masked=masked)
    pattern, images = reference(patterns, masked)
    assert np.array_equal(sums.pattern, pattern.astype(float))
    assert np.array_equal(sums.images, images.astype(float))
    counted = (expected | masked).sum(0)
    assert np.array_equal(sums.left_out, counted if counted.any() else np.zeros((0, 0)))


def test_a_row_as_bright_as_the_mark_is_no_mark():
    patterns = np.full((2, 3, 300), 400, np.uint16)
    sums = block_sums(patterns, None)
    assert sums.left_out.size == 0
    assert sums.images[:, 0].tolist() == [400 * 900] * 2


@pytest.mark.slow
def test_a_corner_of_the_detector_is_summed_in_its_place():
    patterns = np.random.default_rng(4).poisson(2, (5, 8, 10)).astype(np.uint16)
    whole = block_sums(patterns, DETECTORS)
    parts = [
        block_sums(patterns[:, y, x], DETECTORS, corner=(y.start, x.start))
        for y in (slice(0, 3), slice(3, 8))
        for x in (slice(0, 6), slice(6, 10))
    ]
    assert np.array_equal(sum(part.images for part in parts), whole.images)


@pytest.mark.parametrize(
    ("dtype", "shape"),
    [("u2", (70_000, 1, 2)), ("i2", (40_000, 1, 2)), ("u1", (2, 300, 300)), ("u2", (2, 300, 300))],
)
def test_inner_sums_do_not_overflow(dtype, shape):
    # The largest value of 16 bits is a mark.
    extreme = np.iinfo(dtype).min or np.iinfo(dtype).max - 1
    patterns = np.full(shape, extreme, dtype)
    sums = block_sums(patterns, None)
    assert (sums.pattern == extreme * shape[0]).all()
    assert (sums.images[:, 0] == extreme * shape[1] * shape[2]).all()


@pytest.mark.slow
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


def test_disk_is_found_behind_gaps_and_dead_pixels():
    y, x = np.mgrid[:64, :64]
    disk = ((y - 30) ** 2 + (x - 35) ** 2 <= 100) * 5.0 + 0.1
    whole = VirtualDetectors.from_pattern(disk)
    disk[28] = disk[31, 30] = disk[2, 2] = np.nan
    found = VirtualDetectors.from_pattern(disk)
    assert (found.center_y, found.center_x) == pytest.approx((whole.center_y, whole.center_x), abs=0.2)
    assert found.radius == pytest.approx(whole.radius, abs=0.3)


@pytest.mark.parametrize("value", [0.0, -1.0, np.nan])
def test_detector_without_a_disk_gives_a_radius_all_the_same(value):
    assert VirtualDetectors.from_pattern(np.full((8, 8), value)).radius > 0


def test_virtual_images_follow_from_the_sums():
    images = np.array([[10, 4, 6, 30, 20], [0, 0, 0, 0, 0]])
    made = image_sums(images)
    assert made["annular_dark_field"].tolist() == [4, 0]
    assert made["com_y"][0] == 3.0
    assert np.isnan(made["com_x"][1])
