"""FORMAT.md is enough: a decoder written from it alone reads what the package writes."""

from __future__ import annotations

import importlib
import pkgutil

import numpy as np
import pytest

import stemcodecs
from stemcodecs.codecs import PixelHistogram
from stemcodecs.simulate import simulate_scan
from tests.format_decoder import decode


def disk(mean: float, scan: tuple[int, ...] = (9, 17), side: tuple[int, int] = (12, 11)) -> np.ndarray:
    """Counts under a bright-field disk; neighbours share charge, the dose varies, the last column is always 0."""
    rng = np.random.default_rng(5)
    y, x = np.indices(side)
    rate = mean * np.where((y - 5) ** 2 + (x - 5) ** 2 < 12, 4.0, 0.3)
    rate[:, -1] = 0
    counts = rng.poisson(rate * rng.gamma(20, 1 / 20, scan)[..., None, None])
    return counts + np.roll(counts, 1, axis=-1) * (rate > 0)


def with_outliers(counts: np.ndarray, value: float) -> np.ndarray:
    out = counts.copy()
    out.reshape(-1)[::2999] = value
    return out


SCANS = {
    "sparse": disk(0.05).astype("u1"),
    "counts": disk(2).astype("u2"),
    "bright": disk(300).astype("u2"),
    "patches": with_outliers(disk(1).astype("u2"), 60000),
    "gaps": disk(3).astype("i4") - 1,
    "low bits": disk(30000).astype("u4"),
    "exceptions": with_outliers(disk(1).astype("i8"), -(2**40)),
    "scaled floats": with_outliers((disk(3) * np.float32(0.37)).astype("f4"), np.nan),
    "stack": disk(3, scan=(130,)).astype(">u2"),
    "line detector": disk(1).astype("u1").reshape(-1, 12 * 11),
    "structured": simulate_scan("grains", (8, 9), (12, 12), mean_counts=2.0).counts,
}


@pytest.fixture(autouse=True)
def no_generic_coding(monkeypatch):
    """Small chunks would be stored by the generic coder where that is smaller."""
    monkeypatch.setattr("stemcodecs.entropy.chunk.encode.SMALL", 0)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["pixel", "neighbour", "scan"])
@pytest.mark.parametrize("name", SCANS)
def test_independent_decoder_reads_every_mode(name, mode):
    scan = SCANS[name]
    data = PixelHistogram(mode=mode).encode_chunk(scan)
    assert data[5] == 1, "not coded as counts"
    decoded = decode(data)
    assert decoded.dtype == scan.dtype.newbyteorder("<")
    np.testing.assert_array_equal(decoded, scan)


def test_independent_decoder_reads_what_is_stored():
    scan = np.random.default_rng(0).normal(size=(3, 5, 7))
    data = PixelHistogram().encode_chunk(scan)
    assert data[5] == 0
    np.testing.assert_array_equal(decode(data), scan)


def test_every_kind_of_bytes_begins_differently():
    """Four bytes tell which codec, or which model, some bytes belong to."""
    magics = {}
    for found in pkgutil.walk_packages(stemcodecs.__path__, "stemcodecs."):
        for name, value in vars(importlib.import_module(found.name)).items():
            if name.strip("_").endswith("MAGIC"):
                magics.setdefault(bytes(value), set()).add(found.name)
    assert len(magics) >= 6
    assert [places for places in magics.values() if len(places) > 1] == []
