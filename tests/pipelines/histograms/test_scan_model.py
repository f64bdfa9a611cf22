"""One model for a whole scan: the same whatever the chunks, and small chunks lose next to nothing."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import replace

import numpy as np
import pytest
import zarr
from typer.testing import CliRunner

from stemcodecs.codecs import PixelHistogram
from stemcodecs.entropy.chunk.find_shared import find_shared
from stemcodecs.entropy.chunk.header import read_header
from stemcodecs.entropy.chunk.shared_calibration import behind_bytes
from stemcodecs.entropy.fit.scan_statistics import ScanSample, ScanStatistics
from stemcodecs.entropy.model import shared_model
from stemcodecs.entropy.model.shared_model import SharedModel
from stemcodecs.errors import ConfigurationError, CorruptChunkError
from stemcodecs.readers import open_scan
from stemcodecs.simulate import simulate_scan
from stemcodecs_pipelines.cli import app
from stemcodecs_pipelines.histograms.scan_histograms import HistogramStatistics, histograms
from stemcodecs_pipelines.store.compress import compress
from tests.benchmarks.calibrated_scans import calibrated_scans
from tests.disguised_scans import DISGUISES as FURTHER_VALUES
from tests.disguised_scans import Parts


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


# Kinds that chunks of version 4 have, and those whose patterns have offsets: bits a pixel for map and parameters.
FURTHER = {
    "gain, rounded, reversed": (14, "0 less counts times a gain per pixel"),
    "2^40 + c": (0, "counts; offset 1099511627776 ADU"),
    "2^40 - c - row": (1, "less counts"),
    "- row - column, reversed": (1, "less counts"),
    "+ pattern": (0, "an offset of each pattern"),
    "1000 - c - pixel - pattern": (9, "an offset of each pattern"),
    "gain, rounded + pattern": (14, "an offset of each pattern"),
    "zeros of both signs x gain": (26, "zeros of both signs"),
    "dose f2": (0, "a dose of each pattern"),
    "(ADU - dark) / gain": (200, "corrected in last digits"),
}


@pytest.mark.parametrize(
    "name", [name if k % 3 == 0 else pytest.param(name, marks=pytest.mark.campaign) for k, name in enumerate(FURTHER)]
)
def test_further_disguises_have_one_map_and_one_model(name, tmp_path):
    """Chunks of one group are within 2 % of those of their counts, and what the map takes is paid once."""
    random = np.random.default_rng(4)
    y, x = np.mgrid[:32, :32] - 16
    counts = random.poisson(np.where(y**2 + x**2 < 90, 4.0, 0.1), (384, 32, 32))
    parts = Parts(counts, random)
    values = FURTHER_VALUES[name](parts)
    signed = np.where(parts.minus, 1, counts + (counts > 0))
    behind = parts.adu if "ADU" in name else signed if "signs" in name else counts
    sizes = {}
    for kind, array in (("behind", behind.astype("u2")), ("disguised", values)):
        np.save(tmp_path / f"{kind}.npy", array.reshape(16, 24, 32, 32))
        with open_scan(tmp_path / f"{kind}.npy") as source:
            codec = histograms(source, counts=False, workers=1).codec()
        chunks = [codec.encode_chunk(array[k : k + 64]) for k in range(0, 384, 64)]
        sizes[kind] = sum(map(len, chunks)), len(codec.shared().data)
        if kind == "disguised":
            assert all(read_header(data).shared for data in chunks)
            for k, data in zip(range(0, 384, 64), chunks, strict=True):
                assert codec.decode_chunk(data).tobytes() == values[k : k + 64].tobytes()
    # A scale or an offset of each pattern takes three bytes. A dark reference leaves open how many whole ADU it has, so
    # that pixels of one rate are up to two of them apart, of a noise of three.
    beside = 1.03 if "dark" in name else 1.02
    assert sizes["disguised"][0] < beside * sizes["behind"][0] + 3.2 * len(values)
    digits, words = FURTHER[name]
    # A list of 65536 evenly spaced values takes 116 bytes, and its length four.
    assert sizes["disguised"][1] < sizes["behind"][1] + digits * 32 * 32 / 8 + 121
    store = tmp_path / "out.zarr"
    with open_scan(tmp_path / "disguised.npy") as source:
        compress(source, store, method="pixel_histogram:model=scan", chunk=(8, 8, 32, 32))
    stored = zarr.open_array(store / "data")
    assert stored[...].tobytes() == values.tobytes()
    assert stored[3, 5].tobytes() == values.reshape(16, 24, 32, 32)[3, 5].tobytes()
    assert words in zarr.open_group(store).attrs["stemcodecs"]["values"]


def test_the_map_of_offsets_does_not_depend_on_blocks():
    """A pattern tells its offset alone, and patterns of another kind are left out wherever the scan is cut."""
    random = np.random.default_rng(6)
    counts = random.poisson(np.where(np.arange(400).reshape(20, 20) % 7 == 0, 4.0, 0.2), (200, 20, 20))
    values = (counts + random.integers(0, 30, (200, 1, 1))).astype("i4")
    values[120:130] = random.integers(-(2**31), 2**31, (10, 20, 20))
    numbers, calibration, scaled = find_shared(values[:64])
    assert scaled
    behind = behind_bytes(numbers, calibration, (20, 20), extended=True)
    sample = replace(
        ScanSample.of(200, (20, 20)),
        numbers=numbers,
        calibration=calibration,
        behind=behind,
        scaled=True,
        extended=True,
    )
    statistics = HistogramStatistics(detector=(20, 20), sample=sample)
    whole = statistics.finalize(statistics.block(values, np.arange(200)))
    parts = [statistics.block(values[c], np.arange(200)[c]) for c in (slice(0, 125), slice(125, 200))]
    merged = statistics.finalize(statistics.merge(parts[1], parts[0]))
    assert whole.strange == merged.strange == 10
    assert merged.shared.data == whole.shared.data
    # These chunks are stored all the same.
    codec = whole.codec()
    assert codec.decode_chunk(codec.encode_chunk(values[64:128])).tobytes() == values[64:128].tobytes()


def test_a_scan_without_a_common_model_is_stored_and_said_so(tmp_path):
    """Never refused: every chunk then has a map and a model of its own, or none."""
    random = np.random.default_rng(7)
    noise = random.normal(3, 1, (6, 16, 16, 16)).astype("f4")
    np.save(tmp_path / "scan.npy", noise)
    result = CliRunner().invoke(
        app,
        ["compress", str(tmp_path / "scan.npy"), str(tmp_path / "a.zarr"), "--method", "pixel_histogram:model=scan"],
    )
    assert result.exit_code == 0, result.output
    assert sum("every chunk finds its own" in line for line in result.output.splitlines()) == 1
    assert zarr.open_array(tmp_path / "a.zarr" / "data")[...].tobytes() == noise.tobytes()


def test_a_part_of_a_scan_that_is_unlike_the_rest_is_said(tmp_path):
    random = np.random.default_rng(8)
    gain = random.normal(1, 0.05, (16, 16)).astype("f4")
    values = np.rint(17.3 * random.poisson(3.0, (32, 32, 16, 16)) * gain).astype("i4")
    values[5, 3:5] = random.integers(-3000, 3000, (2, 16, 16))
    np.save(tmp_path / "scan.npy", values)
    result = CliRunner().invoke(
        app,
        ["compress", str(tmp_path / "scan.npy"), str(tmp_path / "a.zarr"), "--method", "pixel_histogram:model=scan"],
    )
    assert result.exit_code == 0, result.output
    assert "2 of 1024 patterns are unlike the others" in result.output
    assert zarr.open_array(tmp_path / "a.zarr" / "data")[...].tobytes() == values.tobytes()


def test_older_readers_say_what_to_do(monkeypatch):
    """Shared models that they do not know are refused by their version."""
    shared = SharedModel(detector=(4, 4), mean_frame_sum=1.0, model=b"", behind=bytes(50), extended=True, scaled=True)
    assert shared.data[4] == 5
    monkeypatch.setattr(shared_model, "_VERSION", 3)
    with pytest.raises(ConfigurationError, match="upgrade"):
        PixelHistogram(**shared.configuration()).shared()


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
