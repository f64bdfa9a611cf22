"""What is found in the data, and what is advised."""

from __future__ import annotations

import re

import numpy as np
import pytest

from stemcodecs.readers import open_scan
from stemcodecs_pipelines.compare.advice import recommend
from stemcodecs_pipelines.compare.findings import look_at
from stemcodecs_pipelines.compare.report import Group, Loss, Row, State
from stemcodecs_pipelines.compare.sample import choose_blocks


def looked(values, tmp_path):
    np.save(tmp_path / "scan.npy", values)
    with open_scan(tmp_path / "scan.npy") as scan:
        return look_at(scan, choose_blocks(scan, scan.nbytes, whole_detector=True))


def found(values, tmp_path):
    return " ".join(looked(values, tmp_path).findings)


@pytest.fixture
def counts(disk):
    return disk.copy()


def test_nothing_is_wrong_with_good_data(counts, tmp_path):
    assert looked(counts, tmp_path).findings == ()


def test_hot_and_dead_pixels_are_counted(counts, tmp_path):
    counts[:, :, 3, 20] += 50
    counts[:, :, 18, 2] += 40
    counts[:, :, 11, 12] = 0
    text = found(counts, tmp_path)
    assert "2 hot pixels, at (3, 20), (18, 2)" in text
    assert "1 dead pixel, at (11, 12)" in text


def test_marks_and_saturation(counts, tmp_path):
    counts[2, 3, 4, 5] = 65535
    assert "1 values are marks" in found(counts, tmp_path)
    bright = counts.astype(np.uint8)
    bright[2, 3, 11, 12] = 255
    assert "255, the largest of uint8: saturated" in found(bright, tmp_path)


def test_gaps_are_pixels_with_a_mark_everywhere(counts, tmp_path):
    counts[:, :, 7] = 65535
    assert "24 pixels hold a mark in every pattern" in found(counts, tmp_path)


def test_gain_corrected_floats_are_named(counts, tmp_path):
    gain = np.random.default_rng(2).uniform(0.8, 1.2, (24, 24)).astype(np.float32)
    look = looked(counts.astype(np.float32) * gain, tmp_path)
    assert look.findings[0].startswith("The values are counts times a gain per pixel (0.8")
    assert look.counts.map is not None


def test_counts_times_a_number_are_named(counts, tmp_path):
    assert "counts times 0.25" in found((counts * 0.25).astype(np.float32), tmp_path)


def test_few_positions(counts, tmp_path):
    assert "few positions (6)" in found(counts[:2, :3], tmp_path)


def test_drift(counts, tmp_path):
    fading = np.random.default_rng(0).binomial(counts, np.linspace(1, 0.5, 14)[:, None, None, None]).astype(np.uint16)
    text = found(fading, tmp_path)
    assert "from the first to the last third" in text
    assert re.search(r"changes by -[345]\d %", text)


def row(name, group, bits, rate=100.0, **more):
    return Row(name=name, group=group, bits_per_value=bits, stored_bytes=int(bits * 1000), encode_rate=rate, **more)


@pytest.fixture
def rows():
    return [
        row("pixel_histogram", Group.OURS_LOSSLESS, 1.0),
        row("learned", Group.OURS_LOSSLESS, 0.9, rate=20.0),
        row("poisson:r=0.5", Group.OURS_LOSSY, 0.6, loss=Loss(dose_equivalent=0.97)),
        row("JPEG-XL effort 7", Group.PEERS_LOSSLESS, 1.2),
    ]


def test_the_smallest_is_advised_with_its_reason(rows, counts, tmp_path):
    smallest, fastest, lossy = recommend("my scan.npy", rows, looked(counts, tmp_path), 16).advice
    assert smallest.startswith(
        "Smallest without loss: learned, 17.8 times smaller than the scan, 25.0 % smaller than JPEG"
    )
    assert "stemcodecs compress 'my scan.npy' scan.zarr --method learned" in smallest
    assert fastest.startswith("Fastest without loss: pixel_histogram, 5 times as fast at 11.1 % more bytes")
    assert "1.50 times smaller again" in lossy
    assert "3.0 % of the dose" in lossy


def test_loss_that_does_not_pay_is_not_advised(rows, counts, tmp_path):
    rows[2] = row("poisson:r=0.5", Group.OURS_LOSSY, 0.95)
    assert "Loss does not pay" in recommend("a", rows, looked(counts, tmp_path), 16).advice[-1]


def test_who_is_smaller_is_said(rows, counts, tmp_path):
    rows[3] = row("JPEG-XL effort 7", Group.PEERS_LOSSLESS, 0.5)
    text = " ".join(recommend("a", rows, looked(counts, tmp_path), 16).advice)
    assert "80.0 % larger than JPEG-XL" in text
    assert "JPEG-XL effort 7 stores this scan smaller" in text


def test_a_method_that_loses_values_is_named(rows, counts, tmp_path):
    rows.append(Row(name="liar", group=Group.PEERS_LOSSLESS, state=State.LOSES, note="5 instead of 6"))
    assert "liar does not keep" in recommend("a", rows, looked(counts, tmp_path), 16).advice[-1]
