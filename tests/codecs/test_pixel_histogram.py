"""The codec ``stemcodecs.pixel_histogram``: configuration, random access, fill values, damage, fresh processes."""

from __future__ import annotations

import asyncio
import json
import pickle
import subprocess
import sys
import warnings
from array import array as python_array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import pytest
import zarr
from zarr.abc.store import ByteRequest, RangeByteRequest
from zarr.buffer import cpu, default_buffer_prototype
from zarr.storage import MemoryStore, WrapperStore

from stemcodecs.codecs import NumcodecsPixelHistogram, PixelHistogram, partial_decode
from stemcodecs.entropy.chunk.header import COUNTS, VERSION, read_header
from stemcodecs.entropy.fit.scan_statistics import ScanStatistics
from stemcodecs.errors import (
    ConfigurationError,
    CorruptChunkError,
    FormatVersionError,
    UnsupportedDtypeError,
)
from tests.strategies import DTYPES, MODES, same_bits, simulated_scan

Array = np.ndarray[Any, Any]
NAME = "stemcodecs.pixel_histogram"


@pytest.fixture(autouse=True)
def _quiet_zarr() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", zarr.errors.ZarrUserWarning)
        yield


def scan(*shape: int, mean: float = 4.0) -> Array:
    return simulated_scan(shape, mean).astype(np.uint16)


def create(
    store: Any, array: Array, chunks: tuple[int, ...], codec: PixelHistogram | None = None, **kwargs: Any
) -> Any:
    z = zarr.create_array(
        store, shape=array.shape, chunks=chunks, dtype=array.dtype, compressors=None,
        serializer=codec or PixelHistogram(), **kwargs,
    )  # fmt: skip
    z[...] = array
    return z


def shared_codec(array: Array) -> PixelHistogram:
    patterns = array.reshape(-1, *array.shape[-2:])
    model = ScanStatistics.block(patterns, np.arange(len(patterns))).finalize()
    return PixelHistogram(**model.configuration())


# Configuration.


@pytest.mark.parametrize("mode", MODES)
def test_metadata_round_trip(mode: str) -> None:
    codec = PixelHistogram(mode=mode)
    again = PixelHistogram.from_dict(json.loads(json.dumps(codec.to_dict())))
    assert again == codec
    assert again.to_dict() == codec.to_dict() == {"name": NAME, "configuration": {"mode": mode}}


def test_configuration_may_be_left_out() -> None:
    assert PixelHistogram.from_dict({"name": NAME}) == PixelHistogram()


def test_shared_model_travels_in_the_metadata() -> None:
    array = scan(8, 8, 6, 7)
    codec = shared_codec(array)
    store = MemoryStore()
    create(store, array, (2, 8, 6, 7), codec)
    opened = zarr.open_array(store, mode="r")
    assert np.array_equal(opened[...], array)
    assert np.array_equal(opened[5, 3], array[5, 3])
    again = opened.metadata.codecs[0]
    assert isinstance(again, PixelHistogram)
    assert again.to_dict() == codec.to_dict()


@pytest.mark.parametrize("codec", [PixelHistogram(mode="scan"), NumcodecsPixelHistogram(mode="scan")])
def test_pickling(codec: Any) -> None:
    array = scan(5, 6, 7)
    again = pickle.loads(pickle.dumps(codec))
    assert again == codec
    assert again.mode == "scan"
    assert np.array_equal(again.decode_chunk(codec.encode_chunk(array)), array)


def test_pickling_with_a_shared_model() -> None:
    array = scan(70, 6, 7)
    codec = shared_codec(array)
    again = pickle.loads(pickle.dumps(codec))
    assert again.encode_chunk(array) == codec.encode_chunk(array)


@pytest.mark.parametrize("face", [PixelHistogram, NumcodecsPixelHistogram])
@pytest.mark.parametrize(
    "configuration",
    [
        {"mode": "fastest"},
        {"mode": 3},
        {"mode": None},
        {"model": "data:application/octet-stream;base64,AAAA"},
        {"model_sha256": "0" * 64},
        {"model": 1, "model_sha256": 2},
    ],
)
def test_impossible_configuration_is_refused(face: Any, configuration: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        face(**configuration)


def test_unknown_keys_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"unknown configuration level.*upgrade"):
        PixelHistogram.from_dict({"name": NAME, "configuration": {"mode": "auto", "level": 9}})
    with pytest.raises(ConfigurationError, match=r"unknown configuration level.*upgrade"):
        numcodecs.get_codec({"id": NAME, "mode": "auto", "level": 9})


@pytest.mark.parametrize("model", ["no base64!", "data:application/octet-stream;base64,AAAA"])
def test_altered_model_is_refused(model: str) -> None:
    codec = PixelHistogram(model=model, model_sha256="0" * 64)
    with pytest.raises(ConfigurationError, match="altered"):
        codec.encode_chunk(scan(3, 4, 4))


def test_another_shared_model_is_refused() -> None:
    first, second = scan(70, 6, 7), scan(70, 6, 7, mean=20.0)
    data = shared_codec(first).encode_chunk(first)
    assert read_header(data).shared
    for codec in (shared_codec(second), PixelHistogram()):
        with pytest.raises(CorruptChunkError, match="shared model"):
            codec.decode_chunk(data)


def test_shared_model_of_another_detector_is_refused() -> None:
    codec = shared_codec(scan(70, 6, 7))
    with pytest.raises(ConfigurationError, match="whole detector"):
        codec.encode_chunk(scan(70, 7, 6))


@pytest.mark.parametrize("mean", [4.0, 400.0])
def test_shared_model_is_lossless_on_data_that_it_does_not_know(mean: float) -> None:
    """Dead pixels that count, and counts beyond all histograms: patched, or coded with a model of the chunk's own."""
    known = scan(70, 6, 7)
    known[:, 2, 2] = 0
    other = scan(70, 6, 7, mean=mean)
    other[11, 2, 2], other[12, 0, 0] = 60000, 65535
    codec = shared_codec(known)
    assert same_bits(codec.decode_chunk(codec.encode_chunk(other)), other)


@pytest.mark.parametrize("dtype", ["c8", "c16", "M8[s]", "U3"])
def test_other_dtypes_are_refused(dtype: str) -> None:
    array = np.zeros((2, 3, 4), dtype)
    for codec in (PixelHistogram(), NumcodecsPixelHistogram()):
        with pytest.raises(UnsupportedDtypeError, match="real numbers"):
            codec.encode_chunk(array)


def test_complex_array_is_refused_when_it_is_created() -> None:
    with pytest.raises(UnsupportedDtypeError, match="real and imaginary"):
        zarr.create_array(MemoryStore(), shape=(4, 4), dtype="c8", serializer=PixelHistogram(), compressors=None)


# Random access.


class OpenStore(MemoryStore):
    """A store in memory whose objects a test may look at and replace."""

    def __init__(self, store_dict: dict[str, Any] | None = None, *, read_only: bool = False) -> None:
        self.objects = {} if store_dict is None else store_dict
        super().__init__(self.objects, read_only=read_only)


class CountingStore(WrapperStore[OpenStore]):
    """Counts the bytes that are read of every chunk."""

    reads: list[tuple[str, int]]

    def __init__(self, store: OpenStore) -> None:
        super().__init__(store)
        self.objects = store.objects
        self.reads = []

    async def get(self, key: str, prototype: Any, byte_range: ByteRequest | None = None) -> Any:
        got = await super().get(key, prototype, byte_range)
        if got is not None and not key.endswith("zarr.json"):
            self.reads.append((key, len(got)))
        return got

    def get_sync(self, key: str, **options: Any) -> Any:
        got = super().get_sync(key, **options)
        if got is not None and not key.endswith("zarr.json"):
            self.reads.append((key, len(got)))
        return got

    async def get_partial_values(self, prototype: Any, key_ranges: Any) -> Any:
        return [await self.get(key, prototype, byte_range) for key, byte_range in key_ranges]

    @property
    def n_bytes(self) -> int:
        return sum(n for _, n in self.reads)


def counted(
    array: Array, chunks: tuple[int, ...], mode: str, monkeypatch: pytest.MonkeyPatch
) -> tuple[Any, CountingStore]:
    """An array whose chunks are larger than what is read of each at first."""
    monkeypatch.setattr(partial_decode, "_FIRST_READ", 256)
    store = OpenStore()
    create(store, array, chunks, PixelHistogram(mode=mode))
    counting = CountingStore(store)
    return zarr.open_array(counting, mode="r+"), counting


@pytest.mark.usefixtures("pipeline")
def test_one_pattern_reads_its_group_and_the_header(monkeypatch: pytest.MonkeyPatch) -> None:
    array = scan(16, 64, 12, 12)
    z, store = counted(array, (16, 64, 12, 12), "neighbour", monkeypatch)
    key = "c/0/0/0/0"
    chunk = store.objects[key].to_bytes()
    header = read_header(chunk)
    assert header.kind == COUNTS
    assert len(header.groups) == 16
    for y in (0, 7, 15):
        store.reads.clear()
        assert np.array_equal(z[y, 33], array[y, 33])
        assert {k for k, _ in store.reads} == {key}
        assert store.n_bytes == header.length + header.groups[y].size
        assert store.n_bytes < len(chunk) / 4


@pytest.mark.usefixtures("pipeline")
def test_chained_pattern_reads_one_chain_up_to_its_step(monkeypatch: pytest.MonkeyPatch) -> None:
    array = scan(64, 64, 6, 6)
    z, store = counted(array, (64, 64, 6, 6), "scan", monkeypatch)
    header = read_header(store.objects["c/0/0/0/0"].to_bytes())
    assert header.tile == (4, 4)
    assert np.array_equal(z[0, 0], array[0, 0])
    assert store.n_bytes == header.length + header.groups[0].size
    store.reads.clear()
    # Step 6 of the tile in row 8, column 3 of tiles: tile 131, lane 3 of chain 2.
    assert np.array_equal(z[33, 14], array[33, 14])
    assert store.n_bytes == header.length + sum(g.size for g in header.groups[32:39])


@pytest.mark.usefixtures("pipeline")
def test_most_of_a_chunk_is_read_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    array = scan(8, 64, 6, 6)
    z, store = counted(array, (8, 64, 6, 6), "pixel", monkeypatch)
    assert np.array_equal(z[1:], array[1:])
    whole = len(store.objects["c/0/0/0/0"])
    assert store.reads[-1] == ("c/0/0/0/0", whole)


@pytest.mark.usefixtures("pipeline")
def test_one_pattern_from_a_shard_reads_its_group(monkeypatch: pytest.MonkeyPatch) -> None:
    """Zarr fetches an inner chunk of a shard whole; other inner chunks are not touched."""
    array = scan(16, 64, 8, 8)
    store = OpenStore()
    create(store, array, (2, 64, 8, 8), shards=(16, 64, 8, 8))
    counting = CountingStore(store)
    z = zarr.open_array(counting, mode="r+")
    assert np.array_equal(z[9, 9], array[9, 9])
    assert counting.n_bytes < len(store.objects["c/0/0/0/0"]) / 4


@pytest.mark.usefixtures("pipeline")
@pytest.mark.parametrize("first_read", [16, 1 << 16])
def test_files_are_read_as_other_stores_are(first_read: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A chunk in a folder: parts of it, most of it, a missing one, a damaged and a shortened one."""
    monkeypatch.setattr(partial_decode, "_FIRST_READ_OF_FILE", first_read)
    array = scan(24, 64, 8, 8)
    array[16:] = 0
    z = create(tmp_path / "a.zarr", array, (8, 64, 8, 8), PixelHistogram(mode="neighbour"), fill_value=0)
    files = sorted(path for path in (tmp_path / "a.zarr" / "c").rglob("*") if path.is_file())
    assert len(files) == 2
    for selection in (np.s_[3, 5], np.s_[1:8], np.s_[7:17:3, ::7, 2], np.s_[20, 3], np.s_[...]):
        assert np.array_equal(z[selection], array[selection])
    assert np.array_equal(z.oindex[[1, 9, 22], [0, 63]], array[np.ix_([1, 9, 22], [0, 63])])
    data = files[0].read_bytes()
    header = read_header(data)
    at = header.groups[-1].offset
    files[0].write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    assert np.array_equal(z[0, 0], array[0, 0])
    with pytest.raises(CorruptChunkError, match="checksum"):
        z[7, 63]
    for length in (0, 10, header.length - 1, at + 1):
        files[0].write_bytes(data[:length])
        with pytest.raises(CorruptChunkError):
            z[7, 63]


@pytest.mark.usefixtures("pipeline")
@pytest.mark.parametrize("mode", MODES)
def test_damaged_group_spoils_only_its_own_patterns(mode: str) -> None:
    array = scan(8, 64, 8, 8)
    store = OpenStore()
    z = create(store, array, (8, 64, 8, 8), PixelHistogram(mode=mode))
    data = bytearray(store.objects["c/0/0/0/0"].to_bytes())
    header = read_header(bytes(data))
    data[header.groups[-1].offset] ^= 1
    store.objects["c/0/0/0/0"] = cpu.Buffer.from_bytes(bytes(data))
    assert np.array_equal(z[0, 0], array[0, 0])
    with pytest.raises(CorruptChunkError, match="checksum"):
        z[7, 63]
    with pytest.raises(CorruptChunkError, match="checksum"):
        z[...]


# Chunks that are not there, and chunks that are something else.


@pytest.mark.usefixtures("pipeline")
@pytest.mark.parametrize("fill", [0, 7])
def test_fill_value_chunks_are_not_written(fill: int) -> None:
    array = np.full((6, 8, 5, 5), fill, np.uint16)
    array[4:, :, 2, 2] = 9
    store = OpenStore()
    z = create(store, array, (2, 8, 5, 5), fill_value=fill)
    assert sorted(k for k in store.objects if k.startswith("c/")) == ["c/2/0/0/0"]
    assert np.array_equal(z[...], array)
    assert np.array_equal(z[0, 0], array[0, 0])
    assert np.array_equal(z.oindex[[1, 5], [0, 7]], array[np.ix_([1, 5], [0, 7])])


def replace_chunk(store: OpenStore, key: str, data: bytes) -> None:
    store.objects[key] = cpu.Buffer.from_bytes(data)


@pytest.mark.usefixtures("pipeline")
@pytest.mark.parametrize("selection", [..., (0, 0)], ids=["whole", "part"])
def test_chunk_of_another_shape_or_dtype_is_refused(selection: Any) -> None:
    array = scan(4, 16, 6, 6)
    store = OpenStore()
    z = create(store, array, (4, 16, 6, 6))
    for other in (array.astype(np.int16), array[:2], array.reshape(64, 6, 6), array.reshape(4, 16, 9, 4)):
        replace_chunk(store, "c/0/0/0/0", PixelHistogram().encode_chunk(np.ascontiguousarray(other)))
        with pytest.raises(CorruptChunkError, match="the array expects"):
            z[selection]


@pytest.mark.usefixtures("pipeline")
@pytest.mark.parametrize("selection", [..., (0, 0)], ids=["whole", "part"])
@pytest.mark.parametrize("size", [0, 3, 15, 100, -1])
def test_truncated_chunk_is_refused(selection: Any, size: int) -> None:
    array = scan(4, 16, 6, 6)
    store = OpenStore()
    z = create(store, array, (4, 16, 6, 6))
    data = store.objects["c/0/0/0/0"].to_bytes()
    replace_chunk(store, "c/0/0/0/0", data[:size])
    with pytest.raises(CorruptChunkError):
        z[selection]


@pytest.mark.usefixtures("pipeline")
@pytest.mark.parametrize("selection", [..., (0, 0)], ids=["whole", "part"])
def test_chunk_of_a_newer_format_is_refused(selection: Any) -> None:
    array = scan(4, 16, 6, 6)
    store = OpenStore()
    z = create(store, array, (4, 16, 6, 6))
    data = bytearray(store.objects["c/0/0/0/0"].to_bytes())
    data[4] = VERSION + 1
    replace_chunk(store, "c/0/0/0/0", bytes(data))
    with pytest.raises(FormatVersionError, match="upgrade"):
        z[selection]


# A process that knows nothing of us.


@pytest.mark.slow
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_fresh_process_opens_without_an_import(tmp_path: Path, zarr_format: int) -> None:
    array = scan(4, 20, 6, 6)
    path = tmp_path / "scan.zarr"
    coding: dict[str, Any] = {"serializer": PixelHistogram(), "compressors": None}
    if zarr_format == 2:
        coding = {"compressors": NumcodecsPixelHistogram(), "filters": None}
    z = zarr.create_array(
        path, shape=array.shape, chunks=(4, 20, 6, 6), dtype=array.dtype, zarr_format=zarr_format, **coding
    )
    z[...] = array
    np.save(tmp_path / "expected.npy", array)
    program = (
        "import sys, numpy, zarr\n"
        "z = zarr.open(sys.argv[1] + '/scan.zarr', mode='r')\n"
        "expected = numpy.load(sys.argv[1] + '/expected.npy')\n"
        "assert numpy.array_equal(z[...], expected) and numpy.array_equal(z[2, 3], expected[2, 3])\n"
        "print('same')\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program, str(tmp_path)],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.stdout == "same\n", done.stderr


# Numcodecs.


def as_python_array(data: bytes) -> Any:
    return python_array("B", data)


def as_numpy_array(data: bytes) -> Array:
    return np.frombuffer(data, np.uint8)


BUFFERS: tuple[Any, ...] = (bytes, bytearray, memoryview, as_python_array, as_numpy_array)


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("order", ["C", "F"])
def test_numcodecs_takes_any_buffer(mode: str, dtype: str, order: Any) -> None:
    """As the checks that numcodecs has for its own codecs: any buffer to encode and decode, new memory or ``out``."""
    codec = NumcodecsPixelHistogram(mode=mode)
    values = np.asarray(simulated_scan((5, 6, 7), 2.0).astype(dtype), order=order)
    data = codec.encode(values)
    for buffer in BUFFERS:
        assert same_bits(codec.decode(buffer(data)), values)
        raw = values.tobytes(order="A")
        assert codec.decode(codec.encode(buffer(raw))).tobytes() == raw
    out = np.empty_like(values)
    assert codec.decode(data, out=out) is out
    assert same_bits(out, values)
    into = bytearray(values.nbytes)
    codec.decode(data, out=into)
    assert into == values.tobytes(order="A")


def test_numcodecs_config() -> None:
    codec = NumcodecsPixelHistogram(mode="scan")
    config = json.loads(json.dumps(codec.get_config()))
    assert config == {"id": NAME, "mode": "scan"}
    assert numcodecs.get_codec(config) == codec
    assert isinstance(numcodecs.get_codec({"id": NAME}), NumcodecsPixelHistogram)
    assert repr(codec) == "NumcodecsPixelHistogram(mode='scan', model=None, model_sha256=None)"


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_an_array_without_dimensions(zarr_format: int) -> None:
    coding: dict[str, Any] = {"serializer": PixelHistogram(), "compressors": None}
    if zarr_format == 2:
        coding = {"compressors": NumcodecsPixelHistogram(), "filters": None}
    z = zarr.create_array(MemoryStore(), shape=(), chunks=(), dtype="u2", zarr_format=zarr_format, **coding)
    z[...] = 77
    assert z[()] == 77


def test_single_values_out_of_several_chunks() -> None:
    array = scan(7, 50, 6, 6)
    z = create(MemoryStore(), array, (4, 30, 6, 6))
    for at in [(0, 0, 0, 0), (6, 49, 5, 5), (3, 30, 2, 1)]:
        assert z[at] == array[at]


def test_both_faces_write_the_same_bytes() -> None:
    array = scan(70, 6, 6)
    data = NumcodecsPixelHistogram(mode="neighbour").encode(array)
    assert data == PixelHistogram(mode="neighbour").encode_chunk(array)
    assert np.array_equal(NumcodecsPixelHistogram().decode(data), array)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["<u2", ">u2", ">f4", "|b1"])
def test_format_2_keeps_order_and_byte_order(order: str, dtype: str) -> None:
    array = scan(5, 9, 6, 7).astype(dtype)
    z = zarr.create_array(
        MemoryStore(), shape=array.shape, chunks=(2, 9, 6, 7), dtype=array.dtype, zarr_format=2, order=order,
        compressors=NumcodecsPixelHistogram(), filters=None,
    )  # fmt: skip
    z[...] = array
    assert np.array_equal(z[...], array)


def test_range_requests_are_what_the_counting_store_counts() -> None:
    """The store above sees partial reads as such: the tests of random access would pass on whole reads else."""
    store = CountingStore(OpenStore())

    async def read() -> None:
        await store.set("c/0", cpu.Buffer.from_bytes(bytes(100)))
        await store.get("c/0", default_buffer_prototype(), RangeByteRequest(10, 30))

    asyncio.run(read())
    assert store.reads == [("c/0", 20)]
