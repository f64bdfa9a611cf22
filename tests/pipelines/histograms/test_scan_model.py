"""One model for a whole scan: the same whatever the chunks, and small chunks lose next to nothing."""

from __future__ import annotations

import base64
import hashlib

import numpy as np
import pytest
import zarr

from stemcodecs.codecs import PixelHistogram
from stemcodecs.entropy.fit.scan_statistics import ScanSample, ScanStatistics
from stemcodecs.entropy.model.shared_model import SharedModel
from stemcodecs.errors import ConfigurationError, CorruptChunkError
from stemcodecs.readers import open_scan
from stemcodecs.simulate import simulate_scan
from stemcodecs_pipelines.histograms.scan_histograms import HistogramStatistics, histograms
from stemcodecs_pipelines.store.compress import compress
from tests.benchmarks.calibrated_scans import calibrated_scans


@pytest.fixture(scope="module")
def counts():
    return np.asarray(simulate_scan("grains", (16, 24), (32, 32), mean_counts=2.0, seed=3, dtype="u2").counts)


@pytest.fixture
def source(counts, tmp_path):
    path = tmp_path / "scan.npy"
    np.save(path, counts)
    return path


@pytest.mark.slow
def test_any_blocks_in_any_order_give_the_same_model(counts):
    patterns = counts.reshape(-1, 32, 32)
    positions = np.arange(len(patterns))
    sample = ScanSample.of(len(patterns), (32, 32)).read(patterns[::50])
    statistics = HistogramStatistics(detector=(32, 32), sample=sample)
    whole = statistics.finalize(statistics.block(patterns, positions))
    cuts = [slice(200, 384), slice(0, 7), slice(7, 200)]
    parts = [statistics.block(patterns[c], positions[c]) for c in cuts]
    merged = statistics.finalize(statistics.merge(parts[0], statistics.merge(parts[1], parts[2])))
    assert merged.shared.data == whole.shared.data


def test_model_of_a_source_does_not_depend_on_workers(source):
    with open_scan(source) as scan:
        assert histograms(scan, workers=1).shared.data == histograms(scan, workers=2).shared.data


@pytest.mark.slow
def test_small_chunks_with_a_shared_model_are_as_small_as_one_chunk(tmp_path):
    # Enough of them, that the shared model, which counts as stored bytes, weighs little.
    counts = simulate_scan("grains", (32, 40), (32, 32), mean_counts=2.0, seed=3, dtype="u2").counts
    source = tmp_path / "scan.npy"
    np.save(source, counts)
    sizes = {}
    for name, method, chunk in (
        ("one", "pixel_histogram:mode=neighbour", (32, 40, 32, 32)),
        ("shared", "pixel_histogram:mode=neighbour,model=scan", (8, 8, 32, 32)),
        ("own", "pixel_histogram:mode=neighbour", (8, 8, 32, 32)),
    ):
        with open_scan(source) as scan:
            sizes[name] = compress(scan, tmp_path / f"{name}.zarr", method=method, chunk=chunk).stored_bytes
    # Chunks of 128 kB, and the model, which is a hundredth of it all; the benchmark has chunks of real size.
    assert sizes["shared"] < 1.02 * sizes["one"]
    assert sizes["shared"] < 0.98 * sizes["own"]
    codec = zarr.open_array(tmp_path / "shared.zarr" / "data").metadata.codecs[0]
    assert isinstance(codec, PixelHistogram)
    assert codec.shared() is not None
    np.testing.assert_array_equal(zarr.open_array(tmp_path / "shared.zarr" / "data")[...], counts)


def test_a_model_of_other_data_still_restores_every_value(counts):
    statistics = HistogramStatistics(detector=(32, 32))
    model = statistics.finalize(statistics.block(np.zeros((64, 32, 32), np.uint16), np.arange(64)))
    codec = PixelHistogram(**model.configuration())
    np.testing.assert_array_equal(codec.decode_chunk(codec.encode_chunk(counts)), counts)


def test_what_is_not_counts_is_refused_with_a_way_out():
    with pytest.raises(ConfigurationError, match="without a shared model"):
        HistogramStatistics(detector=(32, 32)).block(np.full((2, 4, 4), 0.1234567) ** np.arange(1, 5), np.arange(2))


def test_an_altered_model_is_refused(counts):
    statistics = HistogramStatistics(detector=(32, 32))
    configuration = statistics.finalize(statistics.block(counts[0], np.arange(24))).configuration()
    wrong = dict(configuration, model_sha256="0" * 64)
    with pytest.raises(ConfigurationError, match="does not match its digest"):
        PixelHistogram(**wrong).encode_chunk(counts)
    with pytest.raises(ConfigurationError, match="go together"):
        PixelHistogram(model=configuration["model"])


def test_statistics_of_different_units_are_not_merged():
    counts = np.arange(2 * 64).reshape(2, 8, 8)
    a = ScanStatistics.block(counts * np.float32(0.5), np.arange(2))
    b = ScanStatistics.block(counts * np.float32(0.25), np.arange(2, 4))
    with pytest.raises(ConfigurationError, match="one ScanSample"):
        a.merge(b)


DISGUISES = {
    "12 bits in the upper of 16": "counts times 16",
    "negative, int16": "0 less counts",
    "ADU by gain of each pixel, rounded": "a gain per pixel",
    "dark reference of each pixel added": "an offset per pixel",
    "counts x gain of pixel, float32": "counts times a gain per pixel",
    "(ADU - dark) x gain, float32": "a dark reference per pixel",
    "counts / sum of pattern, float32": "counts divided by a dose of each pattern",
    "counts x gain / monitor, float32": "divided by a dose of each pattern",
}


@pytest.mark.parametrize("name", DISGUISES)
def test_counts_in_disguise_have_one_map_and_one_model(name, tmp_path):
    scan = next(s for s in calibrated_scans(384, 32, 3) if s.name == name)
    values, behind = scan.values.reshape(16, 24, 32, 32), scan.behind.reshape(16, 24, 32, 32)
    sizes = {}
    for kind, array in (("behind", behind), ("disguised", values)):
        np.save(tmp_path / f"{kind}.npy", array)
        with open_scan(tmp_path / f"{kind}.npy") as source:
            store = tmp_path / f"{kind}.zarr"
            sizes[kind] = compress(
                source, store, method="pixel_histogram:model=scan", chunk=(8, 8, 32, 32)
            ).stored_bytes
    # In base64, a map takes a third more than its bytes, once for all chunks.
    allowed = scan.allowed if values.dtype.kind != "f" else 48 / 384
    assert 8 * sizes["disguised"] < 8 * sizes["behind"] * 1.01 + (4 / 3 * allowed + 0.02) * values.size
    stored = zarr.open_array(tmp_path / "disguised.zarr" / "data")
    assert stored[...].tobytes() == values.tobytes()
    assert stored[3, 5].tobytes() == values[3, 5].tobytes()
    assert DISGUISES[name] in zarr.open_group(tmp_path / "disguised.zarr").attrs["stemcodecs"]["values"]


def test_a_map_of_a_scan_does_not_depend_on_workers(tmp_path):
    scan = next(s for s in calibrated_scans(192, 32, 3) if s.name == "counts x gain of pixel, float32")
    np.save(tmp_path / "scan.npy", scan.values.reshape(12, 16, 32, 32))
    with open_scan(tmp_path / "scan.npy") as source:
        one, two = (histograms(source, counts=False, workers=n).shared for n in (1, 2))
    assert one.behind
    assert one.data == two.data


def test_values_that_the_map_of_a_scan_does_not_give_are_restored(tmp_path):
    """Another dtype, other gains, NaN everywhere: a chunk then finds a map of its own, or none."""
    scan = next(s for s in calibrated_scans(192, 32, 3) if s.name == "counts x gain of pixel, float32")
    np.save(tmp_path / "scan.npy", scan.values.reshape(12, 16, 32, 32))
    with open_scan(tmp_path / "scan.npy") as source:
        codec = histograms(source, counts=False).codec()
    for other in (
        scan.values * np.float32(1.7),
        scan.behind,
        scan.values.astype("f8"),
        scan.values * np.float32(np.nan),
    ):
        assert codec.decode_chunk(codec.encode_chunk(other)).tobytes() == other.tobytes()
    data = codec.encode_chunk(scan.values)
    with pytest.raises(CorruptChunkError):
        PixelHistogram().decode_chunk(data)


@pytest.mark.parametrize("cut", [0, 2, 40])
def test_a_model_whose_map_is_cut_off_is_refused(cut):
    shared = SharedModel(detector=(4, 4), mean_frame_sum=1.0, model=b"", behind=bytes(50))
    data = shared.data[: 21 + cut]
    text = "data:application/octet-stream;base64," + base64.b64encode(data).decode()
    with pytest.raises(ConfigurationError, match="cut off"):
        PixelHistogram(model=text, model_sha256=hashlib.sha256(data).hexdigest()).shared()
