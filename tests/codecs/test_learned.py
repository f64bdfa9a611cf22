"""``stemcodecs.learned`` under Zarr: both formats, shards, single patterns, shared networks, and what is refused."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import pytest
import zarr
from zarr.storage import LocalStore

from stemcodecs.codecs import Learned, NumcodecsLearned
from stemcodecs.entropy.chunk.header import read_header
from stemcodecs.errors import ConfigurationError, CorruptChunkError, FormatVersionError
from stemcodecs.learned.encode import fit_patterns
from stemcodecs.learned.fit import NetworkOptions
from stemcodecs.learned.prefix import LENGTH, NETWORK, read_prefix
from tests.learned.random_networks import random_chunk
from tests.strategies import same_bits

Array = np.ndarray[Any, Any]


def correlated(*scan: int, seed: int = 0) -> Array:
    """Patterns of speckles on a detector that shares charge: a network learns them in a moment."""
    random = np.random.default_rng(seed)
    rate = random.gamma(1.0, 1.0, (*scan, 12, 12)).repeat(2, axis=-2).repeat(2, axis=-1)
    return random.poisson(4 * rate).astype(np.uint16)


@pytest.fixture(scope="module")
def array() -> Array:
    return correlated(20, 40)


@pytest.fixture(scope="module")
def shared(array: Array) -> dict[str, str]:
    """Configuration of a codec with a network of the whole scan."""
    found = fit_patterns(array.reshape(-1, 24, 24), NetworkOptions(steps=300), array.size)
    assert found is not None
    return found[0].configuration()


def write(folder: Path, array: Array, chunks: tuple[int, ...], codec: Learned, **how: Any) -> zarr.Array:
    z = zarr.create_array(
        folder, shape=array.shape, chunks=chunks, dtype=array.dtype, serializer=codec, compressors=None, **how
    )
    z[...] = array
    return zarr.open_array(folder, mode="r")


SELECTIONS = [np.s_[3, 5], np.s_[:, 39], np.s_[7:9, 3:5, 2], np.s_[..., 23], np.s_[12, 1:30:7, ::3, 5:7], np.s_[...]]


def test_parts_of_a_scan_with_a_shared_network(tmp_path: Path, array: Array, shared: dict[str, str]) -> None:
    z = write(tmp_path / "a", array, (20, 40, 24, 24), Learned(**shared))
    assert read_prefix((tmp_path / "a/c/0/0/0/0").read_bytes()) == NETWORK
    for selection in SELECTIONS:
        assert same_bits(np.asarray(z[selection]), array[selection])


def test_shards(tmp_path: Path, array: Array, shared: dict[str, str]) -> None:
    z = write(tmp_path / "a", array, (4, 20, 24, 24), Learned(**shared), shards=(20, 40, 24, 24))
    for selection in SELECTIONS:
        assert same_bits(np.asarray(z[selection]), array[selection])


def test_one_pattern_reads_one_group(
    tmp_path: Path, array: Array, shared: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "a", array, (20, 40, 24, 24), Learned(**shared))
    size = (tmp_path / "a/c/0/0/0/0").stat().st_size
    read = 0

    def counted(key: str, got: Any) -> Any:
        nonlocal read
        read += len(got) if got is not None and "c/" in key else 0
        return got

    class CountingStore(LocalStore):
        async def get(self, key: str, *args: Any, **options: Any) -> Any:
            return counted(key, await super().get(key, *args, **options))

        # What Zarr's fused codec pipeline calls, where Zarr has one.
        def get_sync(self, key: str, *args: Any, **options: Any) -> Any:
            return counted(key, super().get_sync(key, *args, **options))

    z = zarr.open_array(CountingStore(tmp_path / "a"), mode="r")
    # Without the shortcut for local files, all reads pass the store.
    monkeypatch.setattr("stemcodecs.codecs.partial_decode._local_file", lambda getter: None)
    assert same_bits(np.asarray(z[11, 17]), array[11, 17])
    assert 0 < read < 65536 + size / 5


def test_zarr_format_2(tmp_path: Path, array: Array, shared: dict[str, str]) -> None:
    numcodecs.register_codec(NumcodecsLearned)
    z = zarr.create_array(
        tmp_path / "a", shape=array.shape, chunks=(10, 40, 24, 24), dtype=">u2", zarr_format=2, filters=None,
        compressors=NumcodecsLearned(**shared), order="F",
    )  # fmt: skip
    z[...] = array
    assert np.array_equal(np.asarray(zarr.open_array(tmp_path / "a", mode="r")[...]), array)


def test_a_network_of_other_data_is_not_used(array: Array, shared: dict[str, str]) -> None:
    """A chunk that the shared network fits badly takes histograms of its own."""
    codec = Learned(**shared)
    bright = np.random.default_rng(1).poisson(np.linspace(1, 60000, 576).reshape(24, 24), (70, 24, 24))
    other = bright.clip(0, 65535).astype(np.uint16)
    data = codec.encode_chunk(other)
    assert read_prefix(data) != NETWORK
    assert same_bits(codec.decode_chunk(data), other)


def test_a_chunk_needs_its_own_network(array: Array, shared: dict[str, str]) -> None:
    data = Learned(**shared).encode_chunk(array)
    assert read_header(data[LENGTH:]).shared
    found = fit_patterns(correlated(99, seed=5), NetworkOptions(steps=2), array.size)
    assert found is not None
    for codec in (Learned(), Learned(**found[0].configuration())):
        with pytest.raises(CorruptChunkError, match="another shared model"):
            codec.decode_chunk(data)


def test_chunks_span_the_detector(array: Array, shared: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError, match="chunks must span the whole detector"):
        Learned(**shared).encode_chunk(array[..., :12])


def test_an_edited_network_is_refused(array: Array, shared: dict[str, str]) -> None:
    edited = shared | {"model": shared["model"][:-8] + "AAAAAAAA"}
    with pytest.raises(ConfigurationError, match="does not match its digest"):
        Learned(**edited).decode_chunk(Learned(**shared).encode_chunk(array))


def test_newer_versions_and_other_bytes_are_refused(array: Array) -> None:
    data = random_chunk(array[:2], 1)
    assert data is not None
    codec = Learned()
    for at, value, error, message in (
        (4, 2, FormatVersionError, "version 2, this stemcodecs reads up to 1"),
        (0, 0, CorruptChunkError, "mark of a learned chunk"),
        (5, 0, CorruptChunkError, "checksum of the first bytes"),
        (5, 9, CorruptChunkError, "unknown version or kind"),
    ):
        other = bytearray(data)
        other[at] = value
        with pytest.raises(error, match=message):
            codec.decode_chunk(bytes(other))
    for length in (0, 5, LENGTH, LENGTH + 5, 200, len(data) - 1):
        with pytest.raises(CorruptChunkError):
            codec.decode_chunk(data[:length])
    with pytest.raises(CorruptChunkError):
        codec.decode_chunk(data + b"\0")


def test_a_kind_that_was_changed_on_purpose_is_refused(array: Array) -> None:
    """A network that claims to be histograms, with the checksum of the prefix right."""
    data = random_chunk(array[:2], 1)
    assert data is not None
    head = data[:5] + b"\0" + data[6:8]
    with pytest.raises(CorruptChunkError):
        Learned().decode_chunk(head + struct.pack("<I", zlib.crc32(head)) + data[LENGTH:])
