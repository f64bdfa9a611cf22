"""Every value has a code of its own level, an exact escape, or a clear refusal."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from stemcodecs.errors import (
    ConfigurationError,
    CorruptChunkError,
    UnsupportedDtypeError,
    ValueRangeError,
)
from stemcodecs.quantize import PoissonQuantizer
from stemcodecs.quantize.guarantee import Deviation

INTEGERS = ("uint8", "int8", "uint16", "int16", "uint32", "int32")
FLOATS = ("float32", "float64")


def unsigned(dtype: str) -> np.dtype[Any]:
    return np.dtype(f"u{np.dtype(dtype).itemsize}")


def round_trips(quantizer: PoissonQuantizer, values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Decode both ways of coding, which must agree, and code what was decoded again."""
    table = quantizer.table(values.dtype)
    codes = table.encode(values, np.dtype(np.uint32))
    decoded = table.decode(codes)
    compact, n_levels = table.encode_compact(values)
    assert np.array_equal(table.decode(compact, n_levels), decoded, equal_nan=values.dtype.kind == "f")
    again, n_again = table.encode_compact(decoded)
    assert n_again == n_levels
    assert again.dtype == compact.dtype
    assert np.array_equal(again, compact)
    deviation = Deviation.of(values, decoded, quantizer)
    assert deviation.violations == 0
    return decoded


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16"])
@pytest.mark.parametrize(
    "quantizer",
    [
        PoissonQuantizer(),
        PoissonQuantizer(r=1, saturation=100),
        PoissonQuantizer(offset=20, gain=2.5),
        PoissonQuantizer(preset="huang-191"),
    ],
    ids=["half", "one", "gain", "huang"],
)
def test_codes_of_a_whole_dtype(dtype: str, quantizer: PoissonQuantizer) -> None:
    info = np.iinfo(dtype)
    values = np.arange(info.min, info.max + 1).astype(dtype)
    table = quantizer.table(dtype)
    codes = table.encode(values, unsigned(dtype)).astype(np.int64)
    decoded = round_trips(quantizer, values)
    top = quantizer.offset + table.levels.top
    outside = (values < quantizer.offset) | (values > top)
    assert np.array_equal(decoded[outside], values[outside])
    # One code for each escape, none of them a level's.
    assert np.unique(codes[outside]).size == np.count_nonzero(outside)
    assert codes[outside].min(initial=1 << 16) >= table.levels.count
    assert codes.max() < table.n_codes


@pytest.mark.slow
@settings(deadline=None)  # the first call compiles
@given(data=st.data(), dtype=st.sampled_from(INTEGERS))
def test_any_integers(data: st.DataObject, dtype: str) -> None:
    values = data.draw(arrays(dtype, st.integers(0, 60)))
    quantizer = PoissonQuantizer(r=data.draw(st.sampled_from([0.25, 0.5, 1, 2])))
    round_trips(quantizer, values)


@pytest.mark.slow
@settings(deadline=None)  # the first call compiles
@given(data=st.data(), dtype=st.sampled_from(FLOATS))
def test_any_whole_floats(data: st.DataObject, dtype: str) -> None:
    limit = 1 << 24 if dtype == "float32" else 1 << 31
    special = st.sampled_from([np.nan, -np.nan, np.inf, -np.inf])
    numbers = st.lists(st.one_of(st.integers(-limit, limit).map(float), special), max_size=40)
    values = np.array(data.draw(numbers), dtype=dtype)
    decoded = round_trips(PoissonQuantizer(), values)
    exact = ~(values >= 0) | np.isinf(values)
    bits = unsigned(dtype)
    assert np.array_equal(decoded[exact].view(bits), values[exact].view(bits))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("value", [0.5, 1e-20, 3.0000002, -0.25, 1e30, -1e30])
def test_floats_that_are_no_counts_are_refused(dtype: str, value: float) -> None:
    values = np.array([1, 2, value, 3], dtype=dtype)
    if np.floor(values[2]) == values[2] and abs(values[2]) < 10:
        pytest.skip("whole in this precision")
    for offset in (0, -5):
        table = PoissonQuantizer(offset=offset).table(dtype)
        with pytest.raises(ValueRangeError, match="no whole number"):
            table.encode_compact(values)
        with pytest.raises(ValueRangeError, match="no whole number"):
            table.encode(values, np.dtype(np.uint32))


def test_unknown_nan_payload_is_refused() -> None:
    values = np.array([0x7FC00001], dtype=np.uint32).view(np.float32)
    with pytest.raises(ValueRangeError, match="nan"):
        PoissonQuantizer().table(np.float32).encode_compact(values)


def test_marks_have_small_codes() -> None:
    counts = np.array([[3, 0, -1], [7, np.iinfo(np.int32).max, -2]], dtype=np.int32)
    codes, n_levels = PoissonQuantizer().table(np.int32).encode_compact(counts)
    assert codes.dtype == np.uint8
    assert codes.max() < n_levels + 3


def test_narrow_codes_are_never_clamped() -> None:
    table = PoissonQuantizer(preset="huang-255", saturation=1 << 14).table(np.uint16)
    assert table.code_dtype() == np.uint8
    marked = np.array([5, 65535, 16383], dtype=np.uint16)
    assert table.decode(table.encode(marked, np.dtype(np.uint8)))[1] == 65535
    with pytest.raises(ValueRangeError, match=r"16384.*raise saturation"):
        table.encode(np.array([16384], dtype=np.uint16), np.dtype(np.uint8))


def test_code_dtype() -> None:
    assert PoissonQuantizer(r=1, saturation=1 << 16).table(np.uint16).code_dtype() == np.uint8
    assert PoissonQuantizer(r=1).table(np.uint16).code_dtype() == np.uint16  # 65535 is kept exactly
    assert PoissonQuantizer().table(np.uint16).code_dtype("uint16") == np.uint16
    with pytest.raises(ConfigurationError, match="do not fit uint8"):
        PoissonQuantizer().table(np.uint16).code_dtype("uint8")
    with pytest.raises(ConfigurationError, match="wider"):
        PoissonQuantizer().table(np.uint8).code_dtype("uint16")
    with pytest.raises(ConfigurationError, match="choose uint8"):
        PoissonQuantizer().table(np.uint8).code_dtype("int8")


@pytest.mark.parametrize("dtype", ["int64", "uint64", "float16", "complex64", "bool", "datetime64[s]"])
def test_other_dtypes_are_refused(dtype: str) -> None:
    with pytest.raises(UnsupportedDtypeError, match="integers of 8, 16 or 32 bits"):
        PoissonQuantizer().table(dtype)


def test_values_of_another_dtype_are_refused() -> None:
    with pytest.raises(UnsupportedDtypeError, match="convert"):
        PoissonQuantizer().table(np.uint8).encode(np.array([300]), np.dtype(np.uint8))


def test_big_endian() -> None:
    values = np.arange(300, dtype=">u2")
    table = PoissonQuantizer().table(values.dtype)
    native = values.astype(np.uint16)
    assert np.array_equal(table.encode(values, np.dtype("u2")), table.encode(native, np.dtype("u2")))


@pytest.mark.parametrize("dtype", ["uint8", "int32", "float32"])
def test_codes_without_a_value_are_corrupt(dtype: str) -> None:
    table = PoissonQuantizer().table(dtype)
    largest = np.iinfo(np.uint32).max
    if table.n_codes <= largest:
        with pytest.raises(CorruptChunkError, match="no value"):
            table.decode(np.array([0, table.n_codes], dtype=np.uint32))
    with pytest.raises(CorruptChunkError, match="no value"):
        table.decode(np.array([0], dtype=np.uint8), n_levels=table.levels.count + 1)


def test_large_escapes_need_no_large_table() -> None:
    values = np.array([5, 1 << 31, 7, (1 << 32) - 5], dtype=np.uint32)
    round_trips(PoissonQuantizer(saturation=1000), values)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"preset": "best"}, "unknown preset"),
        ({"decoder": "mean"}, "unknown decoder"),
        ({"r": 0}, "must be positive"),
        ({"r": -1}, "must be positive"),
        ({"r": "half"}, "not a number"),
        ({"r": float("nan")}, "not a number"),
        ({"gain": "1/0"}, "not a number"),
        ({"offset": 0.5}, "whole number"),
        ({"saturation": True}, "whole number"),
        ({"exact_below": 0}, "at least 1"),
        ({"preset": "huang-255", "r": 0.5}, "fixes its bound"),
        ({"centroids": "AAAA"}, "decoder"),
    ],
)
def test_unusable_configuration(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        PoissonQuantizer(**arguments)


@pytest.mark.parametrize("arguments", [{"offset": 300}, {"saturation": 257}, {"saturation": 0}])
def test_configuration_that_does_not_fit_the_dtype(arguments: dict[str, int]) -> None:
    with pytest.raises(ConfigurationError, match="do not fit uint8"):
        PoissonQuantizer(**arguments).table(np.uint8)


def test_configuration_round_trip() -> None:
    quantizer = PoissonQuantizer(r="1/3", gain=np.float64(2.5), offset=np.int64(3), saturation=4000)
    assert PoissonQuantizer.from_dict(quantizer.to_dict()) == quantizer
    assert quantizer.to_dict() == {
        "preset": "optimal",
        "r": "1/3",
        "gain": 2.5,
        "offset": 3,
        "saturation": 4000,
    }
    assert PoissonQuantizer().to_dict() == {"preset": "optimal", "r": 0.5}
    assert "1/3 σ" in quantizer.guarantee()
    assert "√(1/8) σ" in PoissonQuantizer(preset="huang-511").guarantee()


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [*INTEGERS, *FLOATS])
@pytest.mark.parametrize("size", [(1 << 18) - 1, (1 << 18) + 1])
@pytest.mark.parametrize("largest", [7, 120])
def test_large_blocks_decode_like_small_ones(dtype: str, size: int, largest: int) -> None:
    """Two codes at once, an odd one at the end, and values in the place of the codes change nothing."""
    values = np.random.default_rng(size).integers(0, largest, size, endpoint=True).astype(dtype)
    table = PoissonQuantizer(r="1/9").table(values.dtype)
    codes, n_levels = table.encode_compact(values)
    before = codes.copy()
    expected = np.concatenate([table.decode(part, n_levels) for part in np.array_split(codes, 7)])
    fresh = table.decode(codes, n_levels)
    assert fresh.dtype == values.dtype
    assert np.array_equal(fresh, expected)
    assert np.array_equal(codes, before)
    assert np.array_equal(table.decode(codes, n_levels, overwrite=True), expected)
    before.flags.writeable = False
    assert np.array_equal(table.decode(before, n_levels, overwrite=True), expected)
