"""Fixed-width packing: exact, of the stated size, and never a wrong value."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from stemcodecs.codecs.bit_pack import BitPack, NumcodecsBitPack, packed_size
from stemcodecs.errors import (
    ConfigurationError,
    CorruptChunkError,
    FormatVersionError,
    UnsupportedDtypeError,
    ValueRangeError,
)


@pytest.mark.slow
@settings(deadline=None)  # the first call compiles
@given(data=st.data(), bits=st.integers(1, 32), signed=st.booleans())
def test_round_trip(data: st.DataObject, bits: int, signed: bool) -> None:
    width = 8 if bits <= 8 else 16 if bits <= 16 else 32
    largest = (1 << min(bits, width - signed)) - 1
    dtype = f"int{width}" if signed else f"uint{width}"
    shapes = array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=7)
    values = data.draw(arrays(dtype, shapes, elements=st.integers(0, largest)))
    codec = BitPack(bits=bits)
    encoded = codec.encode_chunk(values)
    assert len(encoded) == 9 + 8 * values.ndim + packed_size(values.size, bits) + 4
    decoded = codec.decode_chunk(encoded)
    assert decoded.dtype == values.dtype
    assert decoded.shape == values.shape
    assert np.array_equal(decoded, values)


def test_the_stream_is_what_is_documented() -> None:
    values = np.array([1, 0x1FF, 0, 0x155], dtype=np.uint16)
    stream = BitPack(bits=9).encode_chunk(values)[9 + 8 : -4]
    number = sum(int(v) << 9 * i for i, v in enumerate(values))
    assert stream == number.to_bytes(5, "little")


def test_bytes_never_change() -> None:
    values = np.arange(0, 512, 73, dtype=np.uint16).reshape(2, 4)
    golden = "53436270017502090202000000000000000400000000000000009248da46b2adedff842b372d"
    assert BitPack(bits=9).encode_chunk(values).hex() == golden
    assert np.array_equal(BitPack(bits=9).decode_chunk(bytes.fromhex(golden)), values)


@pytest.mark.parametrize(("value", "bits"), [(256, 8), (512, 9), (-1, 9), (1 << 15, 15)])
def test_values_that_do_not_fit_are_refused(value: int, bits: int) -> None:
    with pytest.raises(ValueRangeError, match=f"value {value} does not fit {bits} bits"):
        BitPack(bits=bits).encode_chunk(np.array([0, value, 3], dtype=np.int32))


@pytest.mark.parametrize("bits", [0, 33, -1, 8.0, True, "8", None])
def test_unusable_bits(bits: Any) -> None:
    with pytest.raises(ConfigurationError, match="bits"):
        BitPack(bits=bits)


def test_other_dtypes_are_refused() -> None:
    for dtype in ("float32", "int64", "bool"):
        with pytest.raises(UnsupportedDtypeError, match="pack"):
            BitPack(bits=4).encode_chunk(np.zeros(3, dtype))
    with pytest.raises(ConfigurationError, match="9 bits are more than uint8"):
        BitPack(bits=9).encode_chunk(np.zeros(3, np.uint8))


def test_every_truncation_and_every_changed_byte() -> None:
    codec = BitPack(bits=5)
    data = codec.encode_chunk(np.arange(21, dtype=np.uint8).reshape(3, 7))
    for n in range(len(data)):
        with pytest.raises((CorruptChunkError, FormatVersionError)):
            codec.decode_chunk(data[:n])
        for flip in (1, 0x80, 0xFF):
            broken = bytearray(data)
            broken[n] ^= flip
            with pytest.raises((CorruptChunkError, FormatVersionError)):
                codec.decode_chunk(bytes(broken))
    with pytest.raises(CorruptChunkError, match="for 6 bits"):
        BitPack(bits=6).decode_chunk(data)


def test_in_zarr(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 1 << 9, (10, 8, 8)).astype(np.uint16)
    array = zarr.create_array(
        tmp_path / "a",
        shape=values.shape,
        chunks=(4, 8, 8),
        shards=(8, 8, 8),
        dtype="uint16",
        fill_value=0,
        serializer=BitPack(bits=9),
        compressors=None,
    )
    array[:] = values
    assert np.array_equal(zarr.open_array(tmp_path / "a")[:], values)
    with pytest.raises(ConfigurationError, match="lacks bits"):
        BitPack.from_dict({"name": "stemcodecs.bit_pack", "configuration": {}})


@pytest.mark.parametrize("dtype", ["|u1", "<u2", ">u2", ">i4"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_in_zarr_format_2(dtype: str, order: Any, tmp_path: Path) -> None:
    """Format 2 takes decoded values as they lie in memory: their order and byte order must be the array's."""
    values = np.random.default_rng(1).integers(0, 1 << 8, (6, 5, 4)).astype(dtype)
    array = zarr.create_array(
        tmp_path / "a",
        shape=values.shape,
        chunks=(4, 5, 4),
        dtype=dtype,
        zarr_format=2,
        order=order,
        filters=None,
        compressors=NumcodecsBitPack(8),
    )
    array[:] = values
    assert np.array_equal(zarr.open_array(tmp_path / "a")[:], values)
