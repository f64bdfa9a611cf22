"""Floats that are few, whatever they are: places in a list, and as small as the counts behind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import zarr

from stemcodecs.codecs import Learned, PixelHistogram
from stemcodecs.counts.words import words_of_values
from stemcodecs.entropy.chunk import header as header_module
from stemcodecs.entropy.chunk.header import read_header
from stemcodecs.entropy.values import listed_floats
from stemcodecs.entropy.values.calibration import ValueTable
from stemcodecs.entropy.values.listed_floats import listed_plane
from stemcodecs.errors import CorruptChunkError, FormatVersionError
from tests.strategies import same_bits

Array = np.ndarray[Any, Any]
FUNCTIONS: dict[str, Callable[[Array], Array]] = {
    "log1p f4": lambda c: np.log1p(c).astype("f4"),
    "root f2": lambda c: np.sqrt(c).astype("f2"),
    "Anscombe f8": lambda c: 2 * np.sqrt(c + 0.375),
    "cosine f8": lambda c: np.cos(c * 0.7),
}


def counts(shape: tuple[int, ...] = (256, 24, 24), mean: float = 3.0) -> Array:
    return np.random.default_rng(0).poisson(mean, shape).astype(np.uint16)


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("codec", [PixelHistogram(), Learned(steps=100)], ids=["histograms", "network"])
def test_functions_of_counts_take_what_the_counts_take(name: str, codec: Any) -> None:
    values = FUNCTIONS[name](counts())
    data = codec.encode_chunk(values)
    assert same_bits(codec.decode_chunk(data), values)
    assert len(data) < 1.01 * len(PixelHistogram().encode_chunk(counts())) + 200


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_whatever_is_not_finite_is_in_the_list(dtype: str) -> None:
    values = np.sqrt(counts()).astype(dtype)
    payload = np.array([-1, 1], f"i{values.dtype.itemsize}").view(dtype)
    values[:, 3, 3], values[:, 4, 4], values[5, 6, 7], values[7, 5, 5] = np.nan, -np.inf, payload[0], payload[1]
    values[9] *= -1
    data = PixelHistogram().encode_chunk(values)
    assert data[4] == 7
    assert same_bits(PixelHistogram().decode_chunk(data), values)
    header = read_header(data)
    assert isinstance(header.calibration, ValueTable)
    assert words_of_values(header.numbers, header.calibration, header.dtype) == (
        f"one of {header.calibration.values.size} values"
    )


def test_values_that_a_sample_does_not_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listed_floats, "_SAMPLE", 8)
    monkeypatch.setattr(listed_floats, "_AT_ONCE", 1000)
    values = np.sqrt(np.random.default_rng(1).integers(0, 300, (40, 100))) * np.array([-1.0, 1.0]).repeat(50)
    plane = listed_plane(values)
    assert plane is not None
    assert plane.exceptions_at.size == 0
    assert np.array_equal(np.unique(values), plane.calibration.values.view("f8")[plane.counts].reshape(values.shape)[
        np.unravel_index(np.unique(values, return_index=True)[1], values.shape)
    ])  # fmt: skip


def test_more_values_than_codes_are_no_list(monkeypatch: pytest.MonkeyPatch) -> None:
    assert listed_plane(np.random.default_rng(0).normal(size=(64, 256))) is None
    monkeypatch.setattr(listed_floats, "PLANE_TOP", 100)
    monkeypatch.setattr(listed_floats, "_SAMPLE", 8)
    assert listed_plane(np.sqrt(np.arange(100.0)).reshape(10, 10).repeat(3, axis=0)) is not None
    assert listed_plane(np.sqrt(np.arange(121.0)).reshape(11, 11).repeat(3, axis=0)) is None


def test_one_pattern_is_read_alone(tmp_path: Path) -> None:
    values = np.log1p(counts((8, 32, 24, 24))).astype("f4")
    z = zarr.create_array(
        tmp_path / "a", shape=values.shape, chunks=values.shape, dtype="f4", serializer=PixelHistogram(),
        compressors=None,
    )  # fmt: skip
    z[...] = values
    assert same_bits(np.asarray(zarr.open_array(tmp_path / "a", mode="r")[3, 5]), values[3, 5])


def test_older_readers_and_damaged_lists() -> None:
    data = PixelHistogram().encode_chunk(np.log1p(counts()).astype("f4"))
    with mock.patch.object(header_module, "VERSION", 6), pytest.raises(FormatVersionError, match="upgrade"):
        read_header(data)
    for at in range(16, read_header(data).length, 7):
        with pytest.raises(CorruptChunkError):
            PixelHistogram().decode_chunk(data[:at] + bytes([data[at] ^ 16]) + data[at + 1 :])
