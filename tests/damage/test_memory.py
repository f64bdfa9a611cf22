"""Nothing is allocated from a number in the bytes before it is held against what it must fit: the declared shape, the
file, or the bytes themselves.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import struct
import tracemalloc
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from zarr.core.buffer import cpu
from zarr.storage import LocalStore, StorePath

from stemcodecs.codecs.bit_pack import BitPack, NumcodecsBitPack
from stemcodecs.codecs.pca import NumcodecsPca, Pca
from stemcodecs.codecs.pixel_histogram import NumcodecsPixelHistogram, PixelHistogram
from stemcodecs.codecs.poisson_histogram import NumcodecsPoissonHistogram, PoissonHistogram
from stemcodecs.entropy.chunk.decode import decode_array
from stemcodecs.entropy.chunk.encode import encode_array
from stemcodecs.entropy.chunk.header import COUNTS, Header, checksum, read_header, write_header
from stemcodecs.entropy.model.histogram_model import HistogramModel
from stemcodecs.entropy.model.model_bytes import write_histogram_model
from stemcodecs.errors import ConfigurationError, CorruptChunkError
from stemcodecs.lowrank import LowRankModel, exact_basis
from stemcodecs.lowrank.pca_chunk import LOW_RANK, WHOLE, Head, join_coefficients
from tests.damage.specimens import Chunk, all_specimens, array_spec, bits
from tests.entropy.chunk_surgery import assemble, group_bytes, sizes_of

Array = np.ndarray[Any, Any]
MIB = 1 << 20
pytestmark = pytest.mark.usefixtures("_warm")


@pytest.fixture(scope="module")
def _warm() -> None:
    """Kernels and tables that stay in memory."""
    for specimen in all_specimens().values():
        specimen.whole(specimen.data)


@contextmanager
def at_most(nbytes: int) -> Iterator[None]:
    """No more than this is allocated inside."""
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak <= nbytes, f"{peak / MIB:.1f} MiB"


@contextmanager
def refused(nbytes: int = 2 * MIB, match: str = "corrupt chunk") -> Iterator[None]:
    """A corrupt chunk, found out with little memory."""
    with at_most(nbytes), pytest.raises(CorruptChunkError, match=match):
        yield


def read3(codec: Any, data: bytes, values: Array) -> Array:
    found = codec._decode_sync(cpu.Buffer.from_bytes(data), array_spec(values.shape, values.dtype))
    return np.asarray(found.as_numpy_array())


def read_part(codec: Any, chunk: Any, values: Array, *selection: slice) -> Array:
    spec = array_spec(values.shape, values.dtype)
    found = asyncio.run(codec._decode_partial_single(chunk, selection, spec))
    return np.asarray(found.as_numpy_array())


def file_of(data: bytes, folder: Path) -> StorePath:
    (folder / "chunk").write_bytes(data)
    return StorePath(LocalStore(folder), "chunk")


def blank(shape: tuple[int, ...], dtype: str = "<u2") -> bytes:
    """A whole and valid chunk of zeros of any size: groups without a byte, and a checksum for each."""
    shell = Header(
        kind=COUNTS, dtype=np.dtype(dtype), shape=shape, doses=np.zeros(0, np.int64), selections=np.zeros(0, np.uint8)
    )
    detector = shell.layout.detector
    pixels = detector[0] * detector[1]
    model = HistogramModel(
        detector=detector, level_scale=1, levels=np.full(pixels, -1), constants=np.zeros(pixels, np.int64),
        classes=(), neighbours=(), frequencies=np.zeros((0, 256), np.int32),
    )  # fmt: skip
    groups = -(-shell.layout.n_positions // 64)
    header = replace(shell, model=write_histogram_model(model))
    return write_header(header, np.zeros((groups, 4), np.int64), np.zeros(groups, np.uint32))


# --- PCA: the chunk inside a chunk

COUNTS_16 = np.random.default_rng(0).poisson(3, (64, 8, 8)).astype(np.uint16)
MODEL = LowRankModel.from_basis(exact_basis(COUNTS_16, rank=2))


def pca_chunk(kind: int, content: bytes, shape: tuple[int, ...] = COUNTS_16.shape) -> bytes:
    head = Head(dtype=np.dtype("<u2"), shape=shape, kind=kind, flags=0)
    return head.write(MODEL.digest, content)


@pytest.mark.parametrize("residual", ["none", "lossless"])
def test_coefficients_of_another_shape_are_not_decoded(residual: Any) -> None:
    """A chunk of 4.7 kB for an array of 8 kB made 448 MB be allocated."""
    inner = blank((3_000_000, 1, 2), "<u4")
    data = pca_chunk(LOW_RANK, struct.pack("<Q", len(inner)) + inner)
    codec = Pca.from_model(MODEL, residual=residual)
    with refused(8 * len(data), match="expects the shape"):
        read3(codec, data, COUNTS_16)
    with refused(8 * len(data)):
        read_part(codec, Chunk(data), COUNTS_16, slice(0, 1), slice(None), slice(None))
    with refused(8 * len(data)):
        NumcodecsPca(**codec.configuration()).decode(data)


def test_whole_chunks_of_another_shape_are_not_decoded() -> None:
    data = pca_chunk(WHOLE, blank((64_000, 8, 64), "<u2"))
    codec = Pca.from_model(MODEL, residual="lossless")
    with refused(match="expects the shape"):
        read3(codec, data, COUNTS_16)
    with refused(match="expects the shape"):
        NumcodecsPca(**codec.configuration()).decode(data)


def test_escapes_are_held_against_their_directory() -> None:
    codec = Pca.from_model(MODEL, residual="lossless")
    data = codec.encode_chunk(COUNTS_16)
    at = 8 + data[6] + 8 * data[7] + 8
    (size,) = struct.unpack_from("<Q", data, at)
    rest = data[at + 8 + size : -4]
    largest, tables, packed, escaped = struct.unpack_from("<IIII", rest)
    bomb = zlib.compress(bytes(8 * COUNTS_16.size * 8))
    forged = struct.pack("<IIII", largest, tables, packed, len(bomb)) + rest[16 : 16 + packed] + bomb
    content = data[at : at + 8 + size] + forged + rest[16 + packed + escaped :]
    with refused(match="wrong size"):
        read3(codec, pca_chunk(LOW_RANK, content), COUNTS_16)


def test_without_coefficients_a_chunk_is_not_any_size() -> None:
    """A model of rank 0 has none, which earn room for patterns elsewhere."""
    nothing = np.zeros((0, 64), np.int32)
    flat = replace(MODEL, weights=nothing, exponents=np.zeros(0, np.uint8))
    head = Head(dtype=np.dtype("<u2"), shape=(2**32, 8, 8), kind=LOW_RANK, flags=0)
    data = head.write(flat.digest, join_coefficients(np.zeros((0, 0), np.int64)))
    with refused(match="too few"):
        NumcodecsPca(**Pca.from_model(flat).configuration()).decode(data)


@pytest.mark.slow
def test_models_do_not_inflate_without_bound() -> None:
    raw = bytes(256 * MIB)
    packed = zlib.compress(raw)
    uri = "data:application/zlib;base64," + base64.b64encode(packed).decode()
    # The stream grows by parts, which are then joined.
    with at_most(2 * (64 * MIB + 64 * len(packed)) + MIB), pytest.raises(ConfigurationError, match="damaged"):
        LowRankModel.load(uri, hashlib.sha256(raw).hexdigest())


# --- Partial reads: what a header says that it still has to read


def with_sizes(data: bytes, column: int, size: int) -> bytes:
    header = read_header(data)
    sizes = sizes_of(header)
    sizes[-1, column] = size
    return assemble(header, sizes, group_bytes(data, header))


@pytest.mark.parametrize("column", range(4))
@pytest.mark.parametrize("size", [2**17, 2**31 - 2])
@pytest.mark.parametrize("place", ["memory", "file"])
def test_groups_larger_than_the_chunk_are_not_read(column: int, size: int, place: str, tmp_path: Path) -> None:
    """A partial read asked a file for 12 GB, which makes room for them, because the group table said so."""
    values = np.random.default_rng(1).poisson(3, (130, 8, 8)).astype(np.uint16)
    data = with_sizes(encode_array(values), column, size)
    chunk = file_of(data, tmp_path) if place == "file" else Chunk(data)
    with refused():
        read_part(PixelHistogram(), chunk, values, slice(129, 130), slice(None), slice(None))
    head = PoissonHistogram().encode_chunk(values)
    start = 24 + struct.unpack_from("<I", head, 16)[0]
    data = head[:start] + with_sizes(head[start:], column, size)
    chunk = file_of(data, tmp_path) if place == "file" else Chunk(data)
    with refused():
        read_part(PoissonHistogram(), chunk, values, slice(129, 130), slice(None), slice(None))


@pytest.mark.parametrize("place", ["memory", "file"])
def test_headers_larger_than_the_chunk_are_not_read(place: str, tmp_path: Path) -> None:
    values = np.random.default_rng(1).poisson(3, (130, 8, 8)).astype(np.uint16)
    data = bytearray(encode_array(values))
    struct.pack_into("<I", data, 12, 1 << 30)
    chunk = file_of(bytes(data), tmp_path) if place == "file" else Chunk(bytes(data))
    with refused(match="longer than any"):
        read_part(PixelHistogram(), chunk, values, slice(0, 1), slice(None), slice(None))
    data = bytearray(PoissonHistogram().encode_chunk(values))
    struct.pack_into("<I", data, 16, 2**32 - 1)
    chunk = file_of(bytes(data), tmp_path) if place == "file" else Chunk(bytes(data))
    with refused(match="table"):
        read_part(PoissonHistogram(), chunk, values, slice(0, 1), slice(None), slice(None))


def test_selections_may_leave_out_the_last_axes() -> None:
    values = np.random.default_rng(1).poisson(3, (5, 26, 3, 4)).astype(np.uint16)
    chunk = Chunk(encode_array(values))
    selection = (slice(1, 2), slice(0, 3), slice(1, 3))
    np.testing.assert_array_equal(read_part(PixelHistogram(), chunk, values, *selection), values[selection])


# --- Fields that ask for more than the array needs


def test_low_bits_are_for_wide_integers() -> None:
    """Planes of them beside an array of 16 bits would be as large as the array."""
    specimen = all_specimens()["pixel_histogram pixel"]
    header = read_header(specimen.data)
    changed = replace(header, dtype=np.dtype("<i2"), numbers=replace(header.numbers, low_bits=15))
    with pytest.raises(CorruptChunkError, match="number map"):
        decode_array(assemble(changed, sizes_of(header), group_bytes(specimen.data, header)))


def test_tiles_leave_enough_lanes() -> None:
    """One lane that walks through all 64 positions would take the rows of 64, of each of 64 steps."""
    values = np.zeros((8, 8, 64, 64), np.uint8)
    data = blank(values.shape, "|u1")
    header = replace(read_header(data), tile=(8, 8))
    forged = write_header(header, np.zeros((64, 4), np.int64), np.zeros(64, np.uint32))
    with refused(match="tile"):
        read3(PixelHistogram(), forged, values)


def test_patches_are_earned() -> None:
    values = np.zeros((1, 512, 512), np.uint8)
    header = read_header(blank(values.shape, "|u1"))
    count = 2 * 512 * 512 * 64
    varint = bytes([count & 127 | 128, count >> 7 & 127 | 128, count >> 14 & 127 | 128, count >> 21])
    patches = varint + b"\x02" + bytes(2)
    data = assemble(header, np.array([[0, 0, len(patches), 0]]), [patches])
    # Rows of 64 lanes, and the model unrolled, are what decoding takes in any case: 128 and 256 bytes a pixel.
    with refused(400 * values.size, match="section can hold"):
        read3(PixelHistogram(), data, values)


def test_levels_of_another_dtype_are_not_laid_out() -> None:
    """A bound that a saturation of 255 makes cheap takes millions of levels for 32 bits."""
    values = np.zeros((4, 8, 8), np.uint8)
    codec = PoissonHistogram(r="1/1024")
    data = bytearray(codec.encode_chunk(values))
    data[6] = 4
    data[20:24] = struct.pack("<I", zlib.crc32(data[:20]))
    with refused(match="expects uint8"):
        read3(codec, bytes(data), values)
    with refused(match="expects uint8"):
        read_part(codec, Chunk(bytes(data)), values, slice(0, 1), slice(None), slice(None))


def test_float8_is_no_dtype() -> None:
    values = np.zeros((4, 8, 8), np.uint8)
    data = bytearray(PoissonHistogram().encode_chunk(values))
    data[5:6] = b"f"
    data[20:24] = struct.pack("<I", zlib.crc32(data[:20]))
    with pytest.raises(CorruptChunkError):
        PoissonHistogram().decode_chunk(bytes(data))


def test_packed_values_of_another_shape_are_not_unpacked() -> None:
    many = BitPack(bits=1).encode_chunk(np.zeros(64 * MIB, np.uint8))
    with refused(match="expects"):
        read3(BitPack(bits=1), many, np.zeros(64, np.uint8))
    with refused(match="expects"):
        NumcodecsBitPack(bits=1).decode(many, np.empty(64, np.uint8))


@pytest.mark.parametrize("shape", [(0, 2**63), (2**63, 0), (0, 2**40, 2**40)])
def test_empty_shapes_have_limits(shape: tuple[int, ...]) -> None:
    body = struct.pack("<4sBcBBB", b"SCbp", 1, b"u", 1, 3, len(shape)) + struct.pack(f"<{len(shape)}Q", *shape)
    with pytest.raises(CorruptChunkError):
        BitPack(bits=3).decode_chunk(body + struct.pack("<I", zlib.crc32(body)))
    with pytest.raises(CorruptChunkError):
        NumcodecsPca(**Pca.from_model(MODEL).configuration()).decode(pca_chunk(LOW_RANK, bytes(8), shape))


@pytest.mark.parametrize("name", ["<,:", "0y", "4F ", "<u3", "<f1", ">u2", "O", "\xff", ""])
def test_only_names_of_dtypes_are_read(name: str) -> None:
    """NumPy takes a name for an expression, and raises what that raises."""
    text = name.encode("latin-1")
    body = b"SCPC" + bytes([1, LOW_RANK, len(text), 3]) + text + struct.pack("<3Q", *COUNTS_16.shape)
    body += bytes.fromhex(MODEL.digest)[:8] + bytes(8)
    data = body + struct.pack("<I", zlib.crc32(body))
    with pytest.raises(CorruptChunkError, match="dtype"):
        read3(Pca.from_model(MODEL), data, COUNTS_16)


# --- numcodecs: no declared shape

Decode = Callable[[bytes, Any], Any]


def poisson_around(data: bytes) -> bytes:
    start = 24
    head = PoissonHistogram().encode_chunk(np.zeros((2, 3, 4), np.uint16))[:start]
    head = head[:7] + b"\x04" + head[8:20]
    return head + struct.pack("<I", zlib.crc32(head)) + data


FACES: dict[str, Callable[[bytes, Any], Any]] = {
    "pixel_histogram": lambda data, out: NumcodecsPixelHistogram().decode(data, out),
    "poisson_histogram": lambda data, out: NumcodecsPoissonHistogram().decode(poisson_around(data), out),
}


@pytest.mark.parametrize("face", FACES)
def test_a_few_kilobytes_are_not_many_gigabytes(face: str) -> None:
    """The chunk is valid in every bit; nobody can want it."""
    data = blank((64_000, 1024, 1024))
    assert len(data) < 8000
    with refused(4 * MIB, match="too few"):
        FACES[face](data, None)


@pytest.mark.parametrize("face", FACES)
def test_what_out_holds_decides(face: str) -> None:
    data = blank((640, 64, 64))
    with refused(match="expects"):
        FACES[face](data, np.empty((64, 64, 64), np.uint16))
    out = np.ones((640, 64, 64), np.uint16)
    FACES[face](data, out)
    assert not out.any()


@pytest.mark.parametrize("face", FACES)
def test_dense_chunks_are_decoded_group_by_group_first(face: str) -> None:
    """128 MB are claimed, and the last group is not what its checksum says."""
    header = read_header(blank((4096, 128, 128)))
    groups = len(header.groups)
    data = write_header(header, np.zeros((groups, 4), np.int64), np.arange(groups) == groups - 1)
    with refused(24 * MIB, match="group 63"):
        FACES[face](data, None)


@pytest.mark.slow
def test_dense_stored_chunks_are_decompressed_piece_by_piece_first() -> None:
    array = np.tile(np.random.default_rng(0).normal(size=64), 9 << 15).reshape(9, 1024, 2048)
    data = bytearray(encode_array(array))
    header = read_header(bytes(data))
    assert header.kind != COUNTS
    data[-1] ^= 255
    forged = write_header(header, np.zeros((0, 4), np.int64), np.array([checksum(bytes(data[header.length :]))]))
    # A piece of 64 MiB at a time.
    with refused(80 * MIB):
        NumcodecsPixelHistogram().decode(forged + bytes(data[header.length :]))


@pytest.mark.slow
def test_a_blank_scan_is_read_by_both_faces() -> None:
    """4096×256×256 zeros in less than 8 kB."""
    zeros = np.zeros((4096, 256, 256), np.uint8)
    three, two = PixelHistogram(), NumcodecsPixelHistogram()
    data = two.encode(zeros)
    assert len(data) < 8000
    assert not read3(three, data, zeros).any()
    assert not two.decode(data).any()


def test_what_could_not_be_read_again_is_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    from stemcodecs.entropy.chunk import undeclared

    monkeypatch.setattr(undeclared, "MOST_BYTES", 1 << 16)
    zeros = np.zeros((640, 64, 64), np.uint16)
    with pytest.raises(ConfigurationError, match="smaller"):
        NumcodecsPixelHistogram().encode(zeros)
    with pytest.raises(CorruptChunkError, match="too few"):
        NumcodecsPixelHistogram().decode(encode_array(zeros))


def test_specimens_take_twice_their_values_and_no_more_than_stated() -> None:
    from tests.damage.worker import OVERHEAD

    for specimen in all_specimens().values():
        with at_most(2 * specimen.values.nbytes + OVERHEAD):
            assert bits(specimen.whole(specimen.data)) == bits(specimen.values)


@pytest.fixture(autouse=True)
def _quiet_zarr() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", zarr.errors.ZarrUserWarning)
        yield
