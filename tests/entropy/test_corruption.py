"""Every byte of a chunk matters: one altered, missing or added is noticed, in every mode and kind."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest

from stemcodecs.entropy.chunk.decode import decode_array
from stemcodecs.entropy.chunk.encode import encode_array
from stemcodecs.entropy.chunk.header import COUNTS, PREFIX, VERSION, checksum, read_header
from stemcodecs.errors import CorruptChunkError, FormatVersionError, StemcodecsError
from tests.entropy.chunk_surgery import mutate, reseal
from tests.entropy.specimens import specimens
from tests.strategies import same_bits

Array = np.ndarray[Any, Any]
NAMES = tuple(specimens())
VERSION_BYTE = 4
pytestmark = pytest.mark.usefixtures("_one_thread")


@pytest.mark.parametrize("name", NAMES)
def test_specimens_are_whole(name: str) -> None:
    array, data = specimens()[name]
    assert same_bits(decode_array(data), array)
    assert reseal(data) == data
    assert (read_header(data).kind == COUNTS) == (not name.startswith("stored"))


def test_specimens_cover_the_format() -> None:
    headers = {name: read_header(data) for name, (_, data) in specimens().items()}
    groups = [g for h in headers.values() for g in h.groups]
    assert all(any(getattr(g, part) for g in groups) for part in ("words", "low", "patches", "exceptions"))
    assert headers["scan"].selections.size
    assert len(headers["marks"].numbers.specials) == 2
    assert headers["scan"].tile != (1, 1)
    assert headers["neighbour"].doses.size
    assert sum(h.flags for h in headers.values())


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("flip", [0x01, 0x80, 0xFF])
def test_every_altered_byte_is_noticed(name: str, flip: int) -> None:
    _, data = specimens()[name]
    for at in range(len(data)):
        damaged = bytearray(data)
        damaged[at] ^= flip
        expected: type[StemcodecsError] = CorruptChunkError
        if at == VERSION_BYTE and damaged[at] > VERSION:
            expected = FormatVersionError
        with pytest.raises(expected):
            decode_array(bytes(damaged))


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_truncation_is_noticed(name: str) -> None:
    _, data = specimens()[name]
    for length in range(len(data)):
        with pytest.raises(CorruptChunkError):
            decode_array(data[:length])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("tail", [b"\0", b"x", b"\0" * 64])
def test_appended_bytes_are_noticed(name: str, tail: bytes) -> None:
    _, data = specimens()[name]
    with pytest.raises(CorruptChunkError):
        decode_array(data + tail)
    with pytest.raises(CorruptChunkError):
        decode_array(reseal(data + tail))


@pytest.mark.parametrize("version", [VERSION + 1, 255])
def test_newer_format_is_refused_with_what_to_do(version: int) -> None:
    _, data = specimens()["pixel"]
    newer = bytearray(data)
    newer[VERSION_BYTE] = version
    with pytest.raises(FormatVersionError, match="upgrade stemcodecs"):
        decode_array(reseal(bytes(newer)))


@pytest.mark.parametrize("data", [b"", b"SCPH", b"not a chunk at all, but long enough", b"\0" * 100])
def test_other_bytes_are_no_chunk(data: bytes) -> None:
    with pytest.raises(CorruptChunkError):
        decode_array(data)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_damage_behind_valid_checksums_does_no_harm(name: str) -> None:
    """Damage that an attacker sealed may decode to other numbers, but of the declared shape, and to nothing worse."""
    _, data = specimens()[name]
    random = np.random.default_rng(len(data))
    refused = 0
    for _ in range(150):
        damaged = mutate(data, random)
        try:
            decoded = decode_array(damaged)
        except StemcodecsError:
            refused += 1
        else:
            assert decoded.shape == read_header(damaged).shape
    assert refused > 20


def with_shape(data: bytes, shape: tuple[int, ...]) -> bytes:
    header = read_header(data)
    at = PREFIX + 8 * len(header.shape)
    length = header.length + 8 * (len(shape) - len(header.shape))
    head = data[:PREFIX] + struct.pack(f"<{len(shape)}Q", *shape) + data[at : header.length - 4]
    head = head[:8] + bytes([len(shape)]) + head[9 : PREFIX - 4] + struct.pack("<I", length) + head[PREFIX:]
    return reseal(head + struct.pack("<I", checksum(head)) + data[header.length :])


@pytest.mark.parametrize("name", ["pixel", "scan", "stored", "constant", "stored_empty"])
@pytest.mark.parametrize(
    "shape",
    [
        (2**47,),
        (2**16, 2**16, 2**15),
        (1, 1, 2**40),
        (1, 2**40, 1),
        (2**40, 1, 1),
        (2**30, 100, 100),
        (2**63, 2, 2**63),
        (0, 2**62, 2**62),
        (2**64 - 1, 0, 0),
        (1,) * 40,
    ],
)
def test_huge_shapes_are_refused_before_anything_is_allocated(name: str, shape: tuple[int, ...]) -> None:
    _, data = specimens()[name]
    with pytest.raises(CorruptChunkError):
        decode_array(with_shape(data, shape))


def test_stored_bytes_that_are_too_few_are_noticed() -> None:
    """A frame that states less than the shape needs would leave the rest of the array unwritten."""
    array = np.random.default_rng(0).normal(size=(4, 5))
    small = encode_array(array[:2])
    whole = encode_array(array)
    forged = whole[: read_header(whole).length] + small[read_header(small).length :]
    with pytest.raises(CorruptChunkError, match="bytes instead of"):
        decode_array(reseal(forged))
