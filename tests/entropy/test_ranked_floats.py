"""Floats that no formula gives, of pixels with few values: ranks in a list, exact whatever the values are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from stemcodecs.codecs import PixelHistogram
from stemcodecs.counts.words import words_of_values
from stemcodecs.entropy.chunk.header import COUNTS, STORED, read_header
from stemcodecs.entropy.values.ranked_floats import ranked_plane
from tests import format_decoder
from tests.strategies import same_bits

Array = np.ndarray[Any, Any]


def behind_curves(n: int, side: int, seed: int = 0) -> tuple[Array, Array]:
    """ADU, and what is left of them behind a dark reference and a quadratic response of each pixel."""
    random = np.random.default_rng(seed)
    adu = np.rint(30.0 * random.poisson(3.0, (n, side, side)) + random.normal(100, 2, (n, side, side)))
    dark, gain = random.normal(100, 2, (side, side)), random.normal(1, 0.05, (side, side))
    lit = (adu - dark).astype("f4")
    return adu.astype("u2"), (lit * gain.astype("f4") + np.float32(1e-5) * lit * lit).astype("f4")


def test_values_behind_curves_take_little_more_than_their_adu() -> None:
    adu, values = behind_curves(512, 24)
    data = PixelHistogram().encode_chunk(values)
    assert read_header(data).kind == COUNTS
    assert same_bits(PixelHistogram().decode_chunk(data), values)
    # Some 22 bits for each value that a pixel has.
    distinct = sum(np.unique(values[:, y, x]).size for y in range(24) for x in range(24))
    assert 8 * len(data) < 1.05 * 8 * len(PixelHistogram().encode_chunk(adu)) + 24 * distinct
    header = read_header(data)
    assert words_of_values(header.numbers, header.calibration, header.dtype) == "a list of the values of each pixel"


def test_the_format_page_is_enough_to_read_them() -> None:
    _, values = behind_curves(512, 8)
    values[:, 2, 3] = values[0, 2, 3]
    data = PixelHistogram().encode_chunk(values)
    assert read_header(data).kind == COUNTS
    assert same_bits(format_decoder.decode(data), values)


@pytest.mark.parametrize("seed", range(6))
def test_any_values_come_back(seed: int) -> None:
    """Dead pixels, infinities, NaN with any payload, both zeros, subnormals, the largest and the smallest."""
    random = np.random.default_rng(seed)
    strange = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-45, -1e-45, 3.4e38, -3.4e38], "f4")
    payloads = np.array([0x7FC00001, 0xFFFFFFFF, 0x7F800001, 0x80000001], "u4").view("f4")
    few = np.concatenate([strange, payloads, random.normal(0, 10.0 ** random.integers(-30, 30), 5).astype("f4")])
    lists = random.choice(few, (150, 6))
    lists[::3] = random.normal(0, 1, (50, 6)).astype("f4")
    values = lists[np.arange(150), random.integers(0, 6, (40, 150))].astype("f4")
    values[:, 5] = few[seed]
    plane = ranked_plane(values)
    assert plane is not None
    assert plane.exceptions_at.size == 0
    array = np.ascontiguousarray(values.reshape(40, 10, 15))
    data = PixelHistogram().encode_chunk(array)
    assert same_bits(PixelHistogram().decode_chunk(data), array)
    assert len(data) < array.nbytes // 2


def test_true_floats_are_no_ranks() -> None:
    values = np.random.default_rng(0).normal(size=(64, 16, 16)).astype("f4")
    assert ranked_plane(values.reshape(64, 256)) is None
    assert read_header(PixelHistogram().encode_chunk(values)).kind == STORED
