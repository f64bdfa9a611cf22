"""Gain and offset from the noise of a scan."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from stemcodecs.counts.photon_transfer import PhotonTransfer, TransferSums, unit_offset
from stemcodecs.errors import ConfigurationError

Array = np.ndarray[Any, Any]
DISK = 120.0 * (np.hypot(*(np.mgrid[:16, :16] - 7.5)) < 5) + 6.0


def scan(gain: float, offset: float, noise: float = 0.0, structure: float = 0.0, n: int = 600) -> Array:
    random = np.random.default_rng(n)
    rate = DISK.ravel() * (1 + structure * np.sin(np.arange(n) / 6))[:, None]
    return np.rint(gain * random.poisson(rate) + offset + random.normal(0, noise, rate.shape)).astype(np.int64)


def sums(values: Array, base: int = 0, row: int = 60) -> TransferSums:
    return TransferSums.of(values, np.arange(len(values)), (len(values) // row, row), base)


@pytest.mark.parametrize("structure", [0.0, 0.2])
@pytest.mark.parametrize(
    ("gain", "offset", "noise"), [(1, 0, 0), (1, 30000, 0), (2.5, -100, 0), (0.6, 50, 0), (7, 100, 3)]
)
def test_gain_and_offset_lie_within_their_error(gain: float, offset: float, noise: float, structure: float) -> None:
    found = PhotonTransfer.fit(sums(scan(gain, offset, noise, structure), base=int(offset)))
    # Rounding adds a twelfth to the variance, read noise its square: both as an offset that is lower.
    lower = (noise**2 + (gain != round(gain)) / 12) / gain
    assert abs(found.gain - gain) < 4 * found.gain_error
    assert abs(found.offset - (offset - lower)) < 4 * found.offset_error
    assert found.gain_error < 0.05 * gain
    assert found.offset_error < 1.5 * gain
    assert "±" in str(found)


def test_sums_do_not_depend_on_blocks() -> None:
    values = scan(2, 10)
    whole = sums(values)
    positions = np.arange(len(values))
    cut = [TransferSums.of(values[p], positions[p], (10, 60), 0) for p in (slice(0, 240), slice(240, 600))]
    for one, other in ((cut[0], cut[1]), (cut[1], cut[0])):
        both = one.merge(other)
        for name in ("times", "mean", "squares", "second", "common"):
            assert (getattr(both, name) == getattr(whole, name)).all()


def test_marks_and_ends_of_rows_do_not_count() -> None:
    values = scan(1, 0)
    found = sums(values)
    marked = values.copy()
    marked[:, 3] = np.iinfo(np.int32).max
    assert PhotonTransfer.fit(sums(marked)).gain == pytest.approx(PhotonTransfer.fit(found).gain, rel=0.05)
    assert sums(marked).times.sum() == found.times.sum() * 255 // 256
    # Rows that are unlike each other: no run goes from one to the next.
    rows = values + 5000 * (np.arange(600) // 60)[:, None]
    assert (sums(rows).squares.sum(), sums(rows).second.sum()) == (found.squares.sum(), found.second.sum())


def test_an_offset_of_counts_is_known_to_a_fraction() -> None:
    dim = np.random.default_rng(0).poisson(DISK.ravel() / 40, (600, 256)) - 30000
    offset, error = unit_offset(sums(dim, base=-30000))
    assert error < 0.05
    assert abs(offset + 30000) < 4 * error


@pytest.mark.parametrize(
    "values",
    [
        np.full((600, 256), 7),
        np.random.default_rng(1).integers(0, 999, (600, 256)),
        np.rint(100 * np.sqrt(scan(1, 0))).astype(np.int64),
        scan(1, 0)[:6],
        np.random.default_rng(2).poisson(DISK.ravel() * np.random.default_rng(3).choice([1, 4], (600, 1))),
    ],
    ids=["constant", "uniform", "stabilised", "too few", "dose"],
)
def test_what_is_not_poisson_is_refused(values: Array) -> None:
    with pytest.raises(ConfigurationError, match="gain= and offset="):
        PhotonTransfer.fit(sums(values))
