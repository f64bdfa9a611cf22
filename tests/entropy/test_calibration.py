"""Counts in disguise: restored bit by bit, and as small as the counts themselves."""

from __future__ import annotations

import struct
from dataclasses import replace
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stemcodecs.codecs.pixel_histogram import PixelHistogram
from stemcodecs.entropy.chunk import encode
from stemcodecs.entropy.chunk import header as header_module
from stemcodecs.entropy.chunk.decode import decode_array, decode_positions
from stemcodecs.entropy.chunk.describe import describe
from stemcodecs.entropy.chunk.encode import encode_array
from stemcodecs.entropy.chunk.find_shared import find_shared
from stemcodecs.entropy.chunk.header import COUNTS, DTYPES, PREFIX, STORED, read_header
from stemcodecs.entropy.chunk.shared_calibration import behind_bytes
from stemcodecs.entropy.fit.scan_statistics import ScanSample, ScanStatistics
from stemcodecs.entropy.values.calibration import Corrections, FloatCalibration, IntegerCalibration, ValueTable
from stemcodecs.entropy.values.number_map import NumberMap
from stemcodecs.errors import CorruptChunkError, FormatVersionError
from tests import format_decoder
from tests.benchmarks.calibrated_scans import calibrated_scans
from tests.entropy.chunk_surgery import assemble, group_bytes, reseal, sizes_of
from tests.strategies import same_bits

Array = np.ndarray[Any, Any]
pytestmark = pytest.mark.usefixtures("_one_thread")

POSITIONS, SIDE = 192, 32
SCANS = {
    seed: {s.name: s for s in calibrated_scans(POSITIONS, SIDE, seed, spread)} for seed, spread in ((3, 0.05), (4, 0.2))
}


def bits(array: Array) -> float:
    return 8 * len(encode_array(array)) / array.size


@pytest.mark.parametrize("seed", SCANS)
@pytest.mark.parametrize("name", SCANS[3])
def test_size_is_that_of_the_counts_behind(name: str, seed: int) -> None:
    scan = SCANS[seed][name]
    data = encode_array(scan.values)
    assert same_bits(decode_array(data), scan.values)
    # Gains in single precision take 24 bits at most, and so do dark references.
    maps = 48 / POSITIONS if name.startswith("(ADU") else 26 / POSITIONS
    allowed = max(scan.allowed, maps) if scan.values.dtype.kind == "f" else scan.allowed
    assert 8 * len(data) / scan.values.size < bits(scan.behind) * 1.01 + allowed + 0.02


def with_defects(values: Array, seed: int, dead: Any, hot: Any) -> Array:
    """1 % of the pixels dead, two hot."""
    random = np.random.default_rng(seed)
    n = values[0].size
    chosen = random.permutation(n)[: n // 100 + 2]
    flat = values.reshape(len(values), n).copy()
    flat[:, chosen[2:]] = dead
    flat[:, chosen[:2]] = hot
    return flat.reshape(values.shape)


@pytest.mark.parametrize(
    "name", ["17.3 ADU a count, pedestal 100", "ADU by gain of each pixel, rounded", "inverted, 65535 - c"]
)
def test_dead_and_hot_pixels_cost_themselves_only(name: str) -> None:
    scan = SCANS[3][name]
    values = with_defects(scan.values, 1, 0, 65000)
    data = encode_array(values)
    assert same_bits(decode_array(data), values)
    assert 8 * len(data) / values.size < bits(scan.values) * 1.02 + 0.02


@pytest.mark.parametrize("dead", [0.0, -0.0, np.nan, np.inf])
@pytest.mark.parametrize(
    "name", ["counts x gain of pixel, float32", "(ADU - dark) x gain, float32", "counts / sum of pattern, float32"]
)
def test_dead_pixels_of_floats_are_marks(name: str, dead: float) -> None:
    scan = SCANS[3][name]
    values = with_defects(scan.values, 2, np.float32(dead), scan.values.max())
    data = encode_array(values)
    assert same_bits(decode_array(data), values)
    assert 8 * len(data) / values.size < bits(scan.values) * 1.02 + 0.03


INTEGERS = ("i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8")


@settings(deadline=None, max_examples=40)
@given(
    dtype=st.sampled_from(INTEGERS),
    gain=st.sampled_from([1, 2, 17, 17.3, 151.3, 10**6]),
    sign=st.sampled_from([1, -1]),
    offset=st.integers(-(2**40), 2**40),
    of_pixel=st.sampled_from(["", "gain", "offset", "both"]),
    of_pattern=st.booleans(),
    defects=st.booleans(),
    mean=st.sampled_from([0.1, 3.0, 20.0]),
    seed=st.integers(0, 99),
)
def test_integers_are_restored(
    dtype: str,
    gain: float,
    sign: int,
    offset: int,
    of_pixel: str,
    of_pattern: bool,
    defects: bool,
    mean: float,
    seed: int,
) -> None:
    """Whatever the map, and also where it overflows the dtype and wraps around."""
    random = np.random.default_rng(seed)
    counts = random.poisson(mean, (70, 6, 7))
    gains = gain * (random.normal(1, 0.1, (6, 7)) if of_pixel in ("gain", "both") else 1.0)
    values = np.rint(gains * counts).astype(np.int64) * sign + offset
    if of_pixel in ("offset", "both"):
        values += random.integers(0, 50, (6, 7))
    if of_pattern:
        values += random.integers(0, 50, (70, 1, 1))
    if defects:
        values = with_defects(values, seed, 0, 2**62)
    values = values.astype(dtype)
    assert same_bits(decode_array(encode_array(values)), values)


def test_intervals_of_gains_that_only_touch_are_no_error() -> None:
    """Multiples of 17.3 that run backwards and around the end of 8 bits, with an offset of each pattern."""
    random = np.random.default_rng(0)
    values = np.rint(-17.3 * random.poisson(0.1, (70, 6, 7))).astype(np.int64) - 94
    values += random.integers(0, 50, (70, 1, 1))
    assert same_bits(decode_array(encode_array(values.astype("i1"))), values.astype("i1"))


@settings(deadline=None, max_examples=40)
@given(
    dtype=st.sampled_from(["f2", "f4", "f8"]),
    gain=st.sampled_from(["", "pixel", "negative"]),
    dark=st.booleans(),
    scale=st.sampled_from(["", "times", "divided", "dose"]),
    dead=st.sampled_from([None, 0.0, -0.0, np.nan, np.inf, -np.inf]),
    mean=st.sampled_from([0.1, 3.0, 20.0]),
    seed=st.integers(0, 99),
)
def test_floats_are_restored(
    dtype: str, gain: str, dark: bool, scale: str, dead: float | None, mean: float, seed: int
) -> None:
    random = np.random.default_rng(seed)
    values = random.poisson(mean, (70, 8, 9)).astype(dtype)
    if dark:
        values = values - random.normal(10, 1, (8, 9)).astype(dtype)
    if gain:
        values = values * random.normal(-1 if gain == "negative" else 1, 0.1, (8, 9)).astype(dtype)
    if scale:
        by = np.maximum(values.sum((1, 2), keepdims=True), 1) if scale == "dose" else random.normal(1, 0.1, (70, 1, 1))
        values = values / by.astype(dtype) if scale != "times" else values * by.astype(dtype)
    if dead is not None:
        values = with_defects(values, seed, dead, 1e4)
    values[3, 2, 1] = -0.0
    assert values.dtype == dtype
    assert same_bits(decode_array(encode_array(values)), values)


CALIBRATED = {
    "table": ("negative, int16", ValueTable),
    "pixels": ("ADU by gain of each pixel, rounded", IntegerCalibration),
    "patterns": ("offset of each pattern", IntegerCalibration),
    "gain": ("counts x gain of pixel, float64", FloatCalibration),
    "joint": ("counts x gain / monitor, float32", FloatCalibration),
}


@pytest.mark.parametrize("kind", CALIBRATED)
def test_a_pattern_takes_its_part_of_the_maps(kind: str) -> None:
    name, expected = CALIBRATED[kind]
    values = SCANS[3][name].values
    data = encode_array(values)
    header = read_header(data)
    assert isinstance(header.calibration, expected)
    some = np.array([0, 5, 64, 191])
    patterns = decode_positions(header, lambda start, stop: data[start:stop], some)
    assert same_bits(patterns.reshape(-1, SIDE, SIDE), values[some])


def test_partial_reads_through_zarr() -> None:
    values = SCANS[3]["counts x gain / monitor, float32"].values.reshape(12, 16, SIDE, SIDE)
    codec = PixelHistogram()
    assert same_bits(codec.decode_chunk(codec.encode_chunk(values)), values)


@pytest.mark.parametrize("kind", CALIBRATED)
def test_a_calibrated_chunk_is_described(kind: str) -> None:
    values = SCANS[3][CALIBRATED[kind][0]].values
    detail = describe(encode_array(values))
    assert detail.mode != "stored"
    assert detail.bits is not None


def test_independent_decoder_reads_calibrations() -> None:
    for name, _ in CALIBRATED.values():
        values = np.ascontiguousarray(SCANS[3][name].values[:70, 10:20, 10:20])
        decoded = np.asarray(format_decoder.decode(encode_array(values)))
        assert same_bits(decoded.astype(values.dtype), values)


def test_plain_counts_keep_format_version_1() -> None:
    assert encode_array(SCANS[3]["counts times 17"].behind)[4] == 1


def test_a_chunk_is_never_larger_than_its_fallback() -> None:
    random = np.random.default_rng(0)
    line = random.poisson(300, 400_000).astype(np.uint16)
    data = encode_array(line)
    assert 8 * len(data) / line.size < 9
    repeated = np.tile(random.integers(0, 60000, (1, 64, 64)).astype(np.uint16), (100, 1, 1))
    data = encode_array(repeated)
    assert read_header(data).kind in (STORED, COUNTS)
    assert len(data) < 20_000


def hostile(kind: str) -> list[Any]:
    values = SCANS[3][CALIBRATED[kind][0]].values
    calibration = read_header(encode_array(values)).calibration
    if isinstance(calibration, ValueTable):
        return [ValueTable(values=np.arange(70_000, dtype=np.int64))]
    if isinstance(calibration, IntegerCalibration):
        out = [replace(calibration, fraction=25), replace(calibration, gain=np.zeros(SIDE * SIDE, np.int64))]
        return [*out, replace(calibration, offset=np.full(SIDE * SIDE, 2**31))]
    return [replace(calibration, gain=np.full(SIDE * SIDE, bad)) for bad in (np.nan, np.inf)]


@pytest.mark.parametrize("kind", CALIBRATED)
def test_impossible_calibrations_are_refused(kind: str) -> None:
    data = encode_array(SCANS[3][CALIBRATED[kind][0]].values)
    header = read_header(data)
    for calibration in hostile(kind):
        with pytest.raises(CorruptChunkError):
            decode_array(
                assemble(replace(header, calibration=calibration), sizes_of(header), group_bytes(data, header))
            )


@pytest.mark.parametrize("kind", CALIBRATED)
@pytest.mark.parametrize("shape", [(POSITIONS + 64, SIDE, SIDE), (2**40, SIDE, 1), (1, 1, 2**40)])
def test_calibrations_of_another_shape_are_refused(kind: str, shape: tuple[int, ...]) -> None:
    """Before anything of that size is allocated."""
    data = bytearray(encode_array(SCANS[3][CALIBRATED[kind][0]].values))
    data[PREFIX : PREFIX + 24] = struct.pack("<3Q", *shape)
    with pytest.raises(CorruptChunkError):
        read_header(reseal(bytes(data)))


@pytest.mark.parametrize("kind", CALIBRATED)
def test_calibrations_of_another_kind_of_number_are_refused(kind: str) -> None:
    data = bytearray(encode_array(SCANS[3][CALIBRATED[kind][0]].values))
    for other in ("|b1", "<u4" if read_header(bytes(data)).dtype.kind == "f" else "<f4"):
        data[6] = DTYPES.index(other)
        with pytest.raises(CorruptChunkError):
            read_header(reseal(bytes(data)))


MAPS: dict[str, Any] = {
    "scaled": lambda c, random: 17 * c,
    "rounded": lambda c, random: np.rint(17.3 * c) + 100,
    "reversed": lambda c, random: 30_000 - c,
    "offset of pixels": lambda c, random: c + random.integers(0, 40, c.shape[1:]),
    "offset of rows": lambda c, random: c + random.integers(0, 40, (c.shape[1], 1)),
    "gain of pixels": lambda c, random: np.rint(17.3 * random.normal(1, 0.04, c.shape[1:]) * c),
}


@pytest.mark.parametrize("positions", [64, 200])
@pytest.mark.parametrize("kind", MAPS)
def test_few_positions_with_dead_and_hot_pixels_pay_for_the_map_only(kind: str, positions: int) -> None:
    """The dtype changes nothing, and no map costs more than coding without one."""
    random = np.random.default_rng(positions)
    y, x = np.mgrid[:40, :40] - 20
    counts = random.poisson(np.where(y**2 + x**2 < 13**2, 4.0, 0.2), (positions, 40, 40))
    values = with_defects(MAPS[kind](counts, random), 1, 0, 9_999)
    with mock.patch.object(encode, "calibrated_plane", lambda array, plane, size: (plane, None)):
        plain = bits(with_defects(counts, 1, 0, 9_999).astype(np.uint16))
        without = bits(values.astype(np.uint16))
    a_map = 12 / positions if "pixels" in kind or "rows" in kind else 0.0
    for dtype in ("u2", "i4"):
        data = encode_array(values.astype(dtype))
        assert same_bits(decode_array(data), values.astype(dtype))
        assert 8 * len(data) / values.size < min(1.015 * plain + a_map, without)


def corrected_scan(kind: str) -> tuple[Array, Array]:
    """Values that cameras' software hands out in floats, and what is behind them."""
    random = np.random.default_rng(7)
    y, x = np.mgrid[:32, :32] - 16
    counts = random.poisson(np.where(y**2 + x**2 < 81, 4.0, 0.2), (256, 32, 32))
    adu = np.rint(20 * counts + 100 + 3 * random.standard_normal(counts.shape)).astype("f4")
    gain, dark = random.normal(1, 0.05, (32, 32)).astype("f4"), random.normal(100, 1, (32, 32)).astype("f4")
    dose = counts.sum((1, 2), keepdims=True).astype("f4")
    single, wide = counts.astype("f4"), adu.astype("f8")
    values: dict[str, tuple[Array, Array]] = {
        "half gain": (counts.astype("f2") * gain.astype("f2"), counts),
        "half of single": ((single * gain).astype("f2"), counts),
        "half dose": ((single / dose).astype("f2"), counts),
        "negative gain": (-single * gain, counts),
        "gains of both signs": (single * np.where(random.random((32, 32)) < 0.5, -gain, gain), counts),
        "divided by gain": (single / gain, counts),
        "double gain": ((counts * random.normal(1, 0.05, (32, 32))).astype("f4"), counts),
        "double dark": (((wide - dark) * gain.astype("f8")).astype("f4"), adu),
        "gain before dark": (adu * gain - dark * gain, adu),
        "fused": ((wide * gain - (dark * gain)).astype("f4"), adu),
        "dark divided by gain": ((adu - dark) / gain, adu),
        "dark of 64 bits": ((wide - random.normal(100, 1, (32, 32))) * gain, adu),
    }
    return values[kind]


@pytest.mark.parametrize(
    ("kind", "digits"),
    [
        ("half gain", 24), ("half of single", 24), ("half dose", 8), ("negative gain", 26), ("gains of both signs", 40),
        ("divided by gain", 40), ("double gain", 40), ("double dark", 90), ("gain before dark", 420), ("fused", 420),
        ("dark divided by gain", 420), ("dark of 64 bits", 700),
    ],
)  # fmt: skip
def test_orders_of_rounding(kind: str, digits: float) -> None:
    """The size of the counts, and so many bits a pixel for its gain, dark reference and corrections."""
    values, behind = corrected_scan(kind)
    data = encode_array(values)
    assert same_bits(decode_array(data), values)
    assert read_header(data).kind == COUNTS
    assert 8 * len(data) / values.size < bits(behind.astype(np.uint16)) * 1.015 + digits / len(values) + 0.01
    some = np.array([3, 100, 255])
    found = decode_positions(read_header(data), lambda start, stop: data[start:stop], some)
    assert same_bits(found.reshape(-1, 32, 32), values[some])


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
@pytest.mark.parametrize("kind", ["", "gain", "dose"])
@pytest.mark.parametrize("share", [0.03, 0.5])
def test_zeros_of_both_signs_cost_their_mask(dtype: str, kind: str, share: float) -> None:
    counts = SCANS[3]["counts times 17"].behind
    random = np.random.default_rng(5)
    minus = (counts == 0) & (random.random(counts.shape) < share)
    values = np.where(minus, -0.0, counts).astype(dtype)
    if kind == "gain":
        values *= random.normal(1, 0.05, (SIDE, SIDE)).astype(dtype)
    elif kind == "dose":
        values /= counts.sum((1, 2), keepdims=True).astype(dtype)
    data = encode_array(values)
    assert same_bits(decode_array(data), values)
    mask = -(share * np.log2(share) + (1 - share) * np.log2(1 - share)) * float((counts == 0).mean())
    a_map = {"": 0.0, "gain": 56.0 if dtype == "f8" else 26.0, "dose": 0.1}[kind] / POSITIONS
    assert 8 * len(data) / values.size < (bits(counts) + mask) * 1.02 + a_map + 0.02


def further() -> list[Any]:
    """Calibrations that format version 4 could say, but must not."""
    n = SIDE * SIDE
    nothing, ones = np.zeros(n, np.int64), np.ones(n, np.int64)
    corrections = [
        Corrections(first=nothing - 1, lengths=ones, steps=ones),
        Corrections(first=nothing, lengths=nothing - 1, steps=nothing[:0]),
        Corrections(first=nothing + 65535, lengths=ones + 1, steps=np.ones(2 * n, np.int64)),
        Corrections(first=nothing, lengths=ones, steps=ones[1:]),
        Corrections(first=nothing, lengths=ones * 3 * POSITIONS, steps=np.ones(3 * n * POSITIONS, np.int64)),
    ]
    return [FloatCalibration(gain=np.ones(n), corrections=c) for c in corrections]


def test_impossible_corrections_are_refused() -> None:
    data = encode_array(SCANS[3]["counts x gain of pixel, float32"].values)
    header = read_header(data)
    for calibration in further():
        with pytest.raises(CorruptChunkError):
            read_header(assemble(replace(header, calibration=calibration), sizes_of(header), group_bytes(data, header)))


def test_older_readers_say_what_to_do() -> None:
    """A chunk of version 4 is refused by its version, before anything of it is read."""
    values = (1000 - SCANS[3]["counts times 17"].behind - np.arange(SIDE)).astype(np.uint16)
    data = encode_array(values)
    assert data[4] == 4
    with mock.patch.object(header_module, "VERSION", 3), pytest.raises(FormatVersionError, match="upgrade"):
        decode_array(data)


def test_a_map_of_a_scan_is_not_changed_by_a_chunk() -> None:
    """Stuck pixels and zeros with a sign have no codes in what a chunk shares with others."""
    gained = SCANS[3]["counts x gain of pixel, float32"].values.copy()
    scaled = SCANS[3]["ADU by gain of each pixel, rounded"].values.copy()
    for values, stuck in ((gained, 0.123), (scaled, 60_001)):
        found = find_shared(values)
        assert found is not None
        numbers, calibration, _ = found
        behind = behind_bytes(numbers, calibration, (SIDE, SIDE))
        sample = ScanSample(positions=np.arange(POSITIONS), numbers=numbers, calibration=calibration, behind=behind)
        shared = ScanStatistics.block(values, np.arange(POSITIONS), sample).finalize("pixel")
        other = values.copy()
        other[:, 3, 4] = stuck
        if values.dtype.kind == "f":
            other[(other == 0) & (np.random.default_rng(1).random(other.shape) < 0.01)] = -0.0
        data = encode_array(other, shared=shared)
        assert data[4] == 3
        assert same_bits(decode_array(data, shared), other)
        detail = describe(data, shared)
        assert detail.mode != "stored"


def test_maps_that_have_no_code_are_not_tried() -> None:
    values = np.random.default_rng(0).poisson(3, (40, 4, 5)).astype(np.uint64)
    offset = np.zeros(20, np.int64)
    offset[3] = -(2**63)
    proposal = NumberMap(), IntegerCalibration(offset=offset)
    with mock.patch("stemcodecs.entropy.chunk.choose_calibration.propose_integers", return_value=[proposal]):
        data = encode_array(values)
    assert np.array_equal(decode_array(data), values)
