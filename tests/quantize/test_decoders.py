"""Centroids: within the bound for any scan, the same from any chunking, and nearly unbiased."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stemcodecs.errors import ConfigurationError, CorruptChunkError
from stemcodecs.quantize import PoissonQuantizer
from stemcodecs.quantize.decoders import (
    pack_offsets,
    read_offsets,
    unpack_offsets,
    write_offsets,
)
from stemcodecs.quantize.guarantee import Deviation

PRESETS = [
    {"r": 0.5},
    {"r": 0.7},
    {"r": 1, "exact_below": 1},
    {"preset": "huang-511"},
    {"preset": "huang-255"},
    {"preset": "huang-191"},
]


@pytest.mark.slow
@pytest.mark.parametrize("arguments", PRESETS, ids=str)
@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
@settings(max_examples=15, deadline=None)  # the first call compiles
@given(seed=st.integers(0, 2**32), mean=st.floats(0.01, 3000))
def test_centroids_of_any_scan(arguments: dict, dtype: type, seed: int, mean: float) -> None:
    rng = np.random.default_rng(seed)
    scan = rng.poisson(rng.gamma(1, mean, 500)).clip(0, 60000).astype(dtype)
    first = PoissonQuantizer(decoder="centroid", **arguments)
    cut = int(rng.integers(0, 500))
    table = first.table(dtype)
    sums = table.level_sums(scan[:cut]).merge(table.level_sums(scan[cut:]))
    whole = table.level_sums(scan[::-1])
    assert np.array_equal(sums.counts, whole.counts)
    assert np.array_equal(sums.sums, whole.sums)
    learned = first.with_centroids(sums, dtype)
    assert learned.levels(dtype) is first.levels(dtype)
    codes = learned.table(dtype).encode(scan, np.dtype(np.uint32))
    decoded = learned.table(dtype).decode(codes)
    assert Deviation.of(scan, decoded, learned).violations == 0
    # What was decoded has itself as its centroids: quantising twice changes nothing.
    again = first.with_centroids(learned.table(dtype).level_sums(decoded), dtype)
    assert again == learned


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.float32])
def test_bias_at_low_dose(dtype: type) -> None:
    scan = np.random.default_rng(3).poisson(0.5, 1_000_000).astype(dtype)
    first = PoissonQuantizer(r=0.5, decoder="centroid")
    quantizer = first.with_centroids(first.table(dtype).level_sums(scan), dtype)
    table = quantizer.table(dtype)
    decoded = table.decode(table.encode(scan, np.dtype(np.uint32)))
    deviation = Deviation.of(scan, decoded, quantizer)
    assert deviation.violations == 0
    assert abs(deviation.bias) <= 0.002


@pytest.mark.parametrize(
    ("preset", "mean"), [("huang-511", 8), ("huang-511", 40), ("huang-511", 300), ("huang-255", 40), ("huang-255", 300)]
)
def test_centroids_keep_the_sum(preset: str, mean: float) -> None:
    scan = np.random.default_rng(4).poisson(mean, 100_000).astype(np.uint16)
    middle = PoissonQuantizer(preset=preset)
    biases = []
    for quantizer in (middle, middle.with_centroids(middle.table(np.uint16).level_sums(scan), np.uint16)):
        table = quantizer.table(np.uint16)
        decoded = table.decode(table.encode(scan, np.dtype(np.uint16)))
        biases.append(abs(Deviation.of(scan, decoded, quantizer).bias))
    assert biases[1] <= max(biases[0], 1e-4)
    assert biases[1] < 0.002


@pytest.mark.slow
@given(data=st.data())
@settings(deadline=None)
def test_offset_bytes(data: st.DataObject) -> None:
    levels = PoissonQuantizer(preset="huang-255").levels(np.uint16)
    lowest = (levels.smallest - levels.midpoints).tolist()
    highest = (levels.largest - levels.midpoints).tolist()
    offsets = [data.draw(st.integers(a, b)) for a, b in zip(lowest, highest, strict=True)]
    array = np.array(offsets, dtype=np.int64)
    assert np.array_equal(read_offsets(write_offsets(array), levels), array)
    assert np.array_equal(unpack_offsets(pack_offsets(array), levels), array)
    array[-1] = highest[-1] + 1
    with pytest.raises(CorruptChunkError, match="bound"):
        read_offsets(write_offsets(array), levels)


def test_broken_tables() -> None:
    levels = PoissonQuantizer(preset="huang-255").levels(np.uint16)
    for data in (b"\x80", b"\xff" * 9, b"\x02" * 600):
        with pytest.raises(CorruptChunkError):
            read_offsets(data, levels)
    text = pack_offsets(np.zeros(levels.count, dtype=np.int64))
    assert not unpack_offsets(text, levels).any()
    for broken in (text[:-4], "A" + text[1:-1] + "B", "not base64!", ""):
        with pytest.raises(ConfigurationError, match="centroids"):
            unpack_offsets(broken, levels)
