"""The filter and the fused codec: both faces, every place of Zarr, fresh processes, broken bytes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import pytest
import zarr
from zarr.codecs import BloscCodec, BytesCodec

from stemcodecs.codecs.bit_pack import BitPack, NumcodecsBitPack
from stemcodecs.codecs.pixel_histogram import NumcodecsPixelHistogram, PixelHistogram
from stemcodecs.codecs.poisson_histogram import NumcodecsPoissonHistogram, PoissonHistogram
from stemcodecs.codecs.poisson_quantize import NumcodecsPoissonQuantize, PoissonQuantize
from stemcodecs.errors import (
    ConfigurationError,
    CorruptChunkError,
    FormatVersionError,
    StemcodecsError,
    UnsupportedDtypeError,
    ValueRangeError,
)
from stemcodecs.quantize import PoissonQuantizer
from stemcodecs.quantize.guarantee import Deviation

DTYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64", ">u2", ">f4")
SHAPE, CHUNKS = (6, 7, 16, 12), (3, 4, 16, 12)


def counts(dtype: str, mean: float = 8) -> np.ndarray[Any, Any]:
    """A small scan with empty chunks, gap marks and padding at its edges."""
    scan = np.random.default_rng(5).poisson(mean, SHAPE).clip(0, 120).astype(dtype)
    scan[:3, :4] = 0
    if np.dtype(dtype).kind in "if":
        scan[4, 4, 2] = -1
    if np.dtype(dtype).kind in "iu":
        scan[5, 5, 0, 3] = np.iinfo(dtype).max
    else:
        scan[5, 5, 0, 3] = np.nan
    return scan


def filtered(serializer: Any, **options: Any) -> dict[str, Any]:
    return {"filters": [PoissonQuantize(**options)], "serializer": serializer, "compressors": None}


def assert_bound(source: np.ndarray[Any, Any], decoded: Any, quantizer: PoissonQuantizer) -> None:
    deviation = Deviation.of(source, np.asarray(decoded).astype(source.dtype), quantizer)
    assert deviation.violations == 0, deviation.summary()


PLACES: dict[str, Callable[[], dict[str, Any]]] = {
    "filter": lambda: filtered(PixelHistogram()),
    "filter, one sigma": lambda: filtered(PixelHistogram(), r=1),
    "filter, blosc": lambda: {**filtered(BytesCodec()), "compressors": [BloscCodec(cname="zstd")]},
    "fused": lambda: {"serializer": PoissonHistogram(), "compressors": None},
    "fused, centroid": lambda: {
        "serializer": PoissonHistogram(decoder="centroid", r=0.7),
        "compressors": None,
    },
}


def quantizer_of(place: dict[str, Any]) -> PoissonQuantizer:
    codec = place["filters"][0] if "filters" in place else place["serializer"]
    assert isinstance(codec, PoissonQuantizer)
    return codec


@pytest.mark.slow
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shards", [None, (6, 8, 16, 12)], ids=["chunks", "shards"])
def test_zarr_v3(place: str, dtype: str, shards: tuple[int, ...] | None, tmp_path: Path) -> None:
    scan = counts(dtype)
    if place == "filter, one sigma" and dtype in ("int16",):
        scan[scan < -1] = 0
    options = PLACES[place]()
    array = zarr.create_array(
        tmp_path / "a", shape=SHAPE, chunks=CHUNKS, shards=shards, dtype=dtype, fill_value=0, **options
    )
    array[:] = scan
    again = zarr.open_array(tmp_path / "a", mode="r+")
    assert_bound(scan, again[:], quantizer_of(options))
    assert_bound(scan[2:5, 3], again[2:5, 3], quantizer_of(options))
    # Writing what was read changes nothing in the store.
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    again[:] = again[:]
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


@pytest.mark.slow
@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_zarr_v2(fused: bool, order: Any, dtype: str, tmp_path: Path) -> None:
    scan = counts(dtype)
    if fused:
        options: dict[str, Any] = {"compressors": NumcodecsPoissonHistogram(r=0.7), "filters": None}
    else:
        options = {
            "filters": [NumcodecsPoissonQuantize(dtype=np.dtype(dtype).str, r=0.7)],
            "compressors": NumcodecsPixelHistogram() if order == "C" else numcodecs.Zstd(),
        }
    zarr.create_array(
        tmp_path / "a",
        shape=SHAPE,
        chunks=CHUNKS,
        dtype=dtype,
        order=order,
        fill_value=0,
        zarr_format=2,
        **options,
    )[:] = scan
    assert_bound(scan, zarr.open_array(tmp_path / "a")[:], PoissonQuantizer(r=0.7))


@pytest.mark.slow
@pytest.mark.parametrize("place", ["filter", "fused, centroid", "packed", "version 2"])
def test_fresh_process(place: str, tmp_path: Path) -> None:
    scan = counts("uint16")
    options: dict[str, Any]
    if place == "version 2":
        options = {
            "zarr_format": 2,
            "filters": [NumcodecsPoissonQuantize(dtype="<u2", preset="huang-255", saturation=1 << 14)],
            "compressors": NumcodecsBitPack(8),
        }
    elif place == "packed":
        options = filtered(BitPack(bits=9), preset="huang-511", saturation=1 << 14)
    else:
        options = PLACES[place]()
    array = zarr.create_array(tmp_path / "a", shape=SHAPE, chunks=CHUNKS, dtype="uint16", fill_value=0, **options)
    array[:] = scan
    code = (
        "import sys, zarr, numpy\n"
        "array = zarr.open(sys.argv[1], mode='r')\n"
        "assert not any(m == 'dask' for m in sys.modules)\n"
        "numpy.save(sys.argv[2], array[:])\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "a"), str(tmp_path / "out.npy")]
    subprocess.run(command, check=True, cwd=tmp_path)
    assert np.array_equal(np.load(tmp_path / "out.npy"), array[:])


def test_filter_and_fused_codec_decode_alike() -> None:
    scan = counts("int32", mean=50)
    table = PoissonQuantizer().table("int32")
    decoded = table.decode(table.encode(scan, np.dtype("u4")))
    codec = PoissonHistogram()
    assert np.array_equal(codec.decode_chunk(codec.encode_chunk(scan)), decoded)


@pytest.mark.parametrize("codec", [PoissonQuantize, PoissonHistogram])
def test_configuration(codec: Any) -> None:
    plain = codec(r="1/3", gain=4, offset=10, saturation=4000)
    metadata = plain.to_dict()
    assert codec.from_dict(metadata) == plain
    assert metadata["configuration"]["r"] == "1/3"
    name = metadata["name"]
    with pytest.raises(ConfigurationError, match="unknown configuration q"):
        codec.from_dict({"name": name, "configuration": {"q": 1}})


@pytest.mark.parametrize(
    "codec",
    [
        NumcodecsPoissonQuantize(dtype="<u2", r=0.25, offset=3),
        NumcodecsPoissonQuantize(dtype="|u1", code_dtype="uint8", preset="huang-191"),
        NumcodecsPoissonHistogram(r=1, decoder="centroid"),
        NumcodecsBitPack(9),
    ],
    ids=lambda codec: type(codec).__name__,
)
def test_numcodecs_configuration(codec: Any) -> None:
    again = numcodecs.get_codec(codec.get_config())
    assert again == codec
    values = np.arange(100, dtype=np.uint16 if codec.get_config().get("dtype") != "|u1" else np.uint8)
    assert bytes(again.encode(values)) == bytes(codec.encode(values))
    out = np.empty_like(values)
    codec.decode(codec.encode(values), out=out)
    assert np.array_equal(out, codec.decode(codec.encode(values)).reshape(-1).view(values.dtype))


def test_refused_when_the_array_is_created(tmp_path: Path) -> None:
    def create(dtype: str, **options: Any) -> None:
        zarr.create_array(tmp_path / "a", shape=(4, 4), chunks=(4, 4), dtype=dtype, **options)

    for options in (PLACES["filter"](), PLACES["fused"]()):
        with pytest.raises(UnsupportedDtypeError, match="integers of 8, 16 or 32 bits"):
            create("int64", **options)
    with pytest.raises(ConfigurationError, match="do not fit uint8"):
        create("uint8", serializer=PoissonHistogram(saturation=500), compressors=None)
    with pytest.raises(ConfigurationError, match="with_centroids"):
        create("uint8", **filtered(PixelHistogram(), decoder="centroid"))


def test_refused_values_leave_nothing_behind(tmp_path: Path) -> None:
    scan = np.full((4, 4), 2.5, dtype=np.float32)
    for name, options in (("a", PLACES["filter"]()), ("b", PLACES["fused"]())):
        array = zarr.create_array(tmp_path / name, shape=(4, 4), chunks=(4, 4), dtype="float32", **options)
        with pytest.raises(ValueRangeError, match=r"2\.5 is no whole number"):
            array[:] = scan
        assert not (tmp_path / name / "c").exists()


def test_centroids_of_a_first_pass(tmp_path: Path) -> None:
    scan = np.random.default_rng(0).poisson(3, (8, 16, 16)).astype(np.uint16)
    first = PoissonQuantize(preset="huang-255", decoder="centroid")
    sums = first.table(np.uint16).level_sums(scan)
    learned = first.with_centroids(sums, np.uint16)
    assert isinstance(learned, PoissonQuantize)
    options = {"filters": [learned], "serializer": PixelHistogram(), "compressors": None}
    array = zarr.create_array(
        tmp_path / "a", shape=scan.shape, chunks=(4, 16, 16), dtype="uint16", fill_value=0, **options
    )
    array[:] = scan
    assert_bound(scan, zarr.open_array(tmp_path / "a")[:], learned)
    # The bins do not depend on the table: the metadata may be updated after the chunks are written.
    middle = PoissonQuantize(preset="huang-255").table(np.uint16).encode(scan, np.dtype("u2"))
    assert np.array_equal(learned.table(np.uint16).encode(scan, np.dtype("u2")), middle)


def test_every_truncation_and_every_changed_byte() -> None:
    codec = PoissonHistogram(preset="huang-191", decoder="centroid")
    scan = np.random.default_rng(0).poisson(30, (3, 4, 5)).astype(np.uint16)
    data = codec.encode_chunk(scan)
    for n in range(len(data)):
        with pytest.raises((CorruptChunkError, FormatVersionError)):
            codec.decode_chunk(data[:n])
    # Behind the header the entropy coder's own checksum is at work, with tests of its own.
    head = len(data) - len(PixelHistogram().encode_chunk(codec.table("u2").encode_compact(scan)[0]))
    for position in range(head):
        broken = bytearray(data)
        broken[position] ^= 0x41
        with pytest.raises((CorruptChunkError, FormatVersionError)):
            codec.decode_chunk(bytes(broken))


def test_chunk_of_another_configuration_is_refused() -> None:
    data = PoissonHistogram(r=0.5).encode_chunk(counts("uint16"))
    for other in (PoissonHistogram(r=1), PoissonHistogram(offset=1), PoissonHistogram(saturation=900)):
        with pytest.raises(CorruptChunkError, match="another configuration"):
            other.decode_chunk(data)


def test_newer_version_is_named() -> None:
    data = bytearray(PoissonHistogram().encode_chunk(counts("uint8")))
    data[4] = 4
    with pytest.raises(FormatVersionError, match="upgrade"):
        PoissonHistogram().decode_chunk(bytes(data))


def test_unknown_mode_is_refused() -> None:
    for codec in (PoissonHistogram, NumcodecsPoissonHistogram):
        with pytest.raises(ConfigurationError, match="mode"):
            codec(mode="best")


def test_errors_are_ours() -> None:
    for error in (ValueRangeError, ConfigurationError, UnsupportedDtypeError):
        assert issubclass(error, StemcodecsError)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32", "float32"])
@pytest.mark.parametrize("shape", [(0, 4), (1,), (3, 5), (2, 3, 4, 5)])
def test_shapes(dtype: str, shape: tuple[int, ...]) -> None:
    scan = np.random.default_rng(0).poisson(4, shape).astype(dtype)
    codec = PoissonHistogram(decoder="centroid")
    decoded = codec.decode_chunk(codec.encode_chunk(scan))
    assert decoded.shape == shape
    assert decoded.dtype == scan.dtype
    assert_bound(scan, decoded, codec)


@pytest.mark.slow
@pytest.mark.parametrize("shards", [None, (6, 8, 16, 12)], ids=["chunks", "shards"])
@pytest.mark.parametrize("dtype", ["uint8", "int32", "float32"])
def test_parts_of_chunks(shards: tuple[int, ...] | None, dtype: str, tmp_path: Path) -> None:
    scan = counts(dtype, mean=40)
    array = zarr.create_array(
        tmp_path / "a",
        shape=SHAPE,
        chunks=CHUNKS,
        shards=shards,
        dtype=dtype,
        fill_value=0,
        serializer=PoissonHistogram(preset="huang-255", decoder="centroid"),
        compressors=None,
    )
    array[:] = scan
    whole = array[:]
    for selection in [(0, 0), (5, 6), (slice(2, 5), 3), (slice(None), slice(1, 7, 2), 5), (4, 4, slice(3), 7)]:
        assert np.array_equal(array[selection], whole[selection], equal_nan=np.dtype(dtype).kind == "f")


@pytest.mark.usefixtures("pipeline")
def test_one_pattern_reads_few_bytes(tmp_path: Path) -> None:
    scan = np.random.default_rng(1).poisson(5, (512, 32, 32)).astype(np.uint16)
    array = zarr.create_array(
        tmp_path / "a",
        shape=scan.shape,
        chunks=scan.shape,
        dtype="uint16",
        serializer=PoissonHistogram(),
        compressors=None,
    )
    array[:] = scan
    path = tmp_path / "a" / "c" / "0" / "0" / "0"
    data = bytearray(path.read_bytes())
    data[-3000:] = bytes(3000)
    path.write_bytes(data)
    # The last groups are destroyed; the first pattern does not need them.
    assert_bound(scan[3], zarr.open_array(tmp_path / "a")[3], PoissonQuantizer())
    with pytest.raises(CorruptChunkError):
        zarr.open_array(tmp_path / "a")[511]


# The meaning of every code, as stored scans rely on it: levels may never change.
DEFINITIONS: list[tuple[dict[str, Any], str, int]] = [
    ({}, "uint16", 0x281C25DA),
    ({"r": 1}, "uint8", 0x38EBD13C),
    ({"r": 1}, "uint32", 0xD2F8A593),
    ({"r": "1/3", "gain": 2.5, "offset": 7}, "int16", 0x305BE44F),
    ({"decoder": "centroid"}, "int32", 0x3FED70BE),
    ({"preset": "huang-511"}, "uint16", 0x85A83072),
    ({"preset": "huang-255"}, "uint16", 0x7C7ECCB5),
    ({"preset": "huang-191", "saturation": 16384}, "uint16", 0x36EE817C),
    ({"r": 0.25}, "float32", 0xA8719368),
]


@pytest.mark.parametrize(("configuration", "dtype", "definition"), DEFINITIONS)
def test_levels_never_change(configuration: dict[str, Any], dtype: str, definition: int) -> None:
    assert PoissonQuantizer(**configuration).table(dtype).definition == definition


@pytest.mark.parametrize("shape", [(1,), (3, 4, 5), (130, 8, 8)])
def test_decoding_leaves_the_chunk_as_it_is(shape: tuple[int, ...]) -> None:
    """Values may take the place of codes in memory, never of the bytes that were given."""
    codec = PoissonHistogram(r=0.5)
    counts = np.random.default_rng(2).integers(0, 256, shape).astype(np.uint8)
    data = bytearray(codec.encode_chunk(counts))
    before = bytes(data)
    decoded = codec.decode_chunk(memoryview(data))
    assert bytes(data) == before
    assert np.array_equal(codec.decode_chunk(before), decoded)
