"""Gaps, dead and saturated pixels are in no image, in the store and in the accessor alike, and they are counted."""

from __future__ import annotations

import json

import numpy as np
import pytest
import zarr

import stemcodecs
from stemcodecs.readers import open_scan
from stemcodecs_pipelines.store.compress import compress
from stemcodecs_pipelines.store.info import info
from stemcodecs_pipelines.store.survey import MarkedPixels, survey_scan

SCAN, DETECTOR = (7, 8), (20, 24)
DERIVED = ["mean_pattern", "sum_image", "bright_field", "annular_dark_field", "com_y", "com_x"]


def a_scan():
    y, x = np.mgrid[: DETECTOR[0], : DETECTOR[1]]
    rate = np.where((y - 9) ** 2 + (x - 11) ** 2 <= 25, 9.0, 0.3)
    return np.random.default_rng(5).poisson(rate, SCAN + DETECTOR)


GAP = np.zeros(DETECTOR, bool)
GAP[:, 14] = GAP[3, 4] = GAP[9, 9] = True


def written(values, tmp_path, **options):
    np.save(tmp_path / "source.npy", values)
    with open_scan(tmp_path / "source.npy") as scan:
        compress(scan, tmp_path / "out.zarr", **({"chunk": (3, 4)} | options))
    return stemcodecs.open(tmp_path / "out.zarr")


# What the detector writes in its gaps, by dtype, and what kind of mark that is.
GAPS = {
    "65535 of uint16": ("u2", 65535, "largest_value"),
    "2³² − 1 of uint32": ("u4", 2**32 - 1, "largest_value"),
    "255 of uint8": ("u1", 255, "full_scale"),
    "4095 of uint16": ("u2", 4095, "full_scale"),
    "65535 of uint32": ("u4", 65535, "full_scale"),
    "−1 of int32": ("i4", -1, "negative"),
    "−2 of int16": ("i2", -2, "negative"),
    "32767 of int16": ("i2", 32767, "largest_value"),
    "NaN": ("f4", np.nan, "not_finite"),
    "infinity": ("f8", -np.inf, "not_finite"),
    "2³² − 1 of float32": ("f4", 2**32 - 1, "full_scale"),
    "−1 of float32": ("f4", -1, "negative"),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", GAPS)
@pytest.mark.parametrize("chunk", [(3, 4), (3, 8, 11, 7)])
def test_a_gap_changes_no_image(case, chunk, tmp_path):
    dtype, mark, kind = GAPS[case]
    counts = a_scan()
    values = np.where(GAP, mark, counts.astype("f8")).astype(dtype)
    dataset = written(values, tmp_path, chunk=chunk)
    assert np.array_equal(dataset["data"], values, equal_nan=dtype[0] == "f")
    known = json.loads(dataset.attrs["stemcodecs"])
    assert known["marked_pixels"] == {kind: GAP.sum()}
    assert known["marked_values"] == 0
    detectors = known["virtual_detectors"]
    assert (detectors["center_y"], detectors["center_x"]) == pytest.approx((9, 11), abs=0.4)
    assert detectors["radius"] == pytest.approx(5, abs=0.6)
    # The images are those of a detector that counts nothing in its gaps.
    counts = np.where(GAP, 0, counts)
    y, x = np.indices(DETECTOR)
    distance = (y - detectors["center_y"]) ** 2 + (x - detectors["center_x"]) ** 2
    weight = counts.sum((2, 3))
    assert np.array_equal(dataset["sum_image"], weight)
    assert np.array_equal(dataset["bright_field"], (counts * (distance <= detectors["radius"] ** 2)).sum((2, 3)))
    assert np.array_equal(dataset["annular_dark_field"], (counts * (distance > detectors["inner"] ** 2)).sum((2, 3)))
    assert np.allclose(dataset["com_y"], (counts * y).sum((2, 3)) / weight)
    assert np.allclose(dataset["com_x"], (counts * x).sum((2, 3)) / weight)
    assert np.allclose(dataset["mean_pattern"], np.where(GAP, np.nan, counts.mean((0, 1))), equal_nan=True)
    assert np.array_equal(dataset["pixel_mask"], GAP)
    assert json.loads(dataset["sum_image"].attrs["left_out"]) == {"marked_pixels": GAP.sum(), "marked_values": 0}
    assert ("marked", f"{GAP.sum()} pixels ({kind.replace('_', ' ')}), in no image") in info(
        tmp_path / "out.zarr"
    ).rows()


@pytest.mark.slow
@pytest.mark.parametrize("case", GAPS)
def test_accessor_leaves_out_the_same(case, tmp_path):
    dtype, mark, _ = GAPS[case]
    values = np.where(GAP, mark, a_scan().astype("f8")).astype(dtype)
    dataset = written(values, tmp_path)
    bare = dataset.drop_vars(DERIVED)
    pairs = [
        (dataset.stem.bright_field(), bare.stem.bright_field()),
        (dataset.stem.dark_field(), bare.stem.dark_field()),
        (dataset.stem.sum_image(), bare.stem.sum_image()),
        (dataset.stem.mean_pattern(), bare.stem.mean_pattern()),
        *zip(dataset.stem.center_of_mass().values(), bare.stem.center_of_mass().values(), strict=True),
    ]
    for stored, computed in pairs:
        assert stored.name in dataset
        assert computed.chunks is not None
        np.testing.assert_allclose(stored, computed, rtol=1e-6)
    cut = bare.isel(det_x=slice(12, 20))
    mean = (
        np.where(np.isfinite(values) & (values != np.array(mark, dtype)), values, 0)[..., 12:20]
        .astype(float)
        .sum((2, 3))
    )
    np.testing.assert_allclose(cut.stem.sum_image(), mean)


@pytest.mark.slow
def test_saturation_is_left_out_where_it_stands(tmp_path):
    values = a_scan().astype("u2")
    values[1, 2, 9, 11] = values[4, 4, 9, 11] = values[4, 4, 0, 0] = 65535
    dataset = written(values, tmp_path)
    known = json.loads(dataset.attrs["stemcodecs"])
    assert (known["marked_pixels"], known["marked_values"]) == ({}, 3)
    assert "pixel_mask" not in dataset
    marks = values == 65535
    assert np.array_equal(dataset["sum_image"], np.where(marks, 0, values).sum((2, 3)))
    mean = np.where(marks, 0, values).sum((0, 1)) / (~marks).sum((0, 1))
    assert np.allclose(dataset["mean_pattern"], mean)
    np.testing.assert_allclose(dataset.drop_vars(DERIVED).stem.mean_pattern(), mean)
    assert ("marked", "3 values, in no image") in info(tmp_path / "out.zarr").rows()


@pytest.mark.slow
@pytest.mark.parametrize(
    "values",
    [
        pytest.param(np.minimum(30 * a_scan(), 255).astype("u1"), id="8 bits, the disk saturated here and there"),
        pytest.param(np.where(GAP, -1, a_scan() - 3).astype("i2"), id="a background below zero"),
        pytest.param(np.where(GAP, 4095, 900 * a_scan()).clip(0, 9000).astype("u2"), id="4095 of a larger range"),
        pytest.param(np.full(SCAN + DETECTOR, 255, "u1"), id="one value only"),
        pytest.param(np.full((1, 1, *DETECTOR), 255, "u1"), id="one pattern only"),
        pytest.param(a_scan() > 1, id="booleans"),
    ],
)
def test_counts_are_not_taken_for_marks(values, tmp_path):
    dataset = written(values, tmp_path)
    known = json.loads(dataset.attrs["stemcodecs"])
    assert (known["marked_pixels"], known["marked_values"]) == ({}, 0)
    assert np.array_equal(dataset["sum_image"], values.sum((2, 3), dtype=int))


@pytest.mark.slow
def test_stacks_have_gaps_too(tmp_path):
    values = np.where(GAP, 255, a_scan()).astype("u1").reshape(-1, *DETECTOR)
    dataset = written(values, tmp_path, chunk=(10,))
    assert json.loads(dataset.attrs["stemcodecs"])["marked_pixels"] == {"full_scale": GAP.sum()}
    assert np.array_equal(dataset["sum_image"], np.where(GAP, 0, values).sum((1, 2), dtype=int))


def test_marked_pixels_are_kept_in_the_job():
    rng = np.random.default_rng(6)
    masks = {"full_scale": rng.random(DETECTOR) > 0.7, "negative": np.zeros(DETECTOR, bool)}
    found = MarkedPixels.of(DETECTOR, masks)
    assert set(found.runs) == {"full_scale"}
    again = MarkedPixels.from_dict(found.to_dict())
    assert again == found
    assert np.array_equal(again.mask, masks["full_scale"])


def test_survey_of_a_single_pattern_reads_nothing(tmp_path):
    np.save(tmp_path / "one.npy", np.full(DETECTOR, 65535, "u2"))
    with open_scan(tmp_path / "one.npy") as scan:
        marked, detectors = survey_scan(scan)
    assert marked.mask is None
    assert detectors is None


@pytest.mark.slow
def test_images_resumed_from_records_are_the_same(tmp_path, digests, monkeypatch):
    from stemcodecs_pipelines.store import compress as module

    values = np.where(GAP, 65535, a_scan()).astype("u2")
    values[2, 2, 0, 0] = 65535
    np.save(tmp_path / "source.npy", values)
    with open_scan(tmp_path / "source.npy") as scan:
        compress(scan, tmp_path / "whole.zarr", chunk=(3, 4))
        with monkeypatch.context() as patch:
            patch.setattr(module, "finish", lambda job, place: (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                compress(scan, tmp_path / "again.zarr", chunk=(3, 4))
        assert compress(scan, tmp_path / "again.zarr", resume=True).kept_blocks == 6
    assert digests(tmp_path / "again.zarr") == digests(tmp_path / "whole.zarr")
    assert "pixel_mask" in zarr.open_group(tmp_path / "again.zarr", mode="r")
