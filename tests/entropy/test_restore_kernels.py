"""Fast loops from counts to values, and over the values of pixels, give what plain NumPy gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from stemcodecs.entropy.values.calibration import (
    Calibration,
    FloatCalibration,
    IntegerCalibration,
    Restoration,
    ValueTable,
    restore_calibrated,
)
from stemcodecs.entropy.values.gain_kernels import pixel_sums
from stemcodecs.entropy.values.lattice_kernels import distinct_values, least_magnitudes
from stemcodecs.entropy.values.median_kernels import lower_medians
from stemcodecs.entropy.values.narrow_kernels import columns_of, narrow_lows, narrow_sums
from stemcodecs.entropy.values.number_map import NumberMap

Array = np.ndarray[Any, Any]
N_POSITIONS, N_PIXELS = 7, 600
RANDOM = np.random.default_rng(0)
GAIN, OFFSET = RANDOM.integers(1, 900, N_PIXELS), RANDOM.integers(-5000, 5000, N_PIXELS)
SHIFT = RANDOM.integers(-2000, 2000, N_POSITIONS)


def codes(negatives: int, specials: int) -> Array:
    """Small counts, all that is negative, and every mark."""
    found = RANDOM.poisson(9, (N_POSITIONS, N_PIXELS)).astype(np.uint16)
    found[:, :negatives] = 65536 - negatives + np.arange(negatives)
    found[:, 100 : 100 + specials] = 65536 - negatives - 1 - np.arange(specials)
    return found


@pytest.mark.parametrize("dtype", ["i1", "u2", "i4", "u8"])
@pytest.mark.parametrize("negatives", [0, 5])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("fraction", [None, 0, 6])
def test_integers_are_those_of_the_formula(dtype: str, negatives: int, reverse: bool, fraction: int | None) -> None:
    """Modulo the width of the dtype; without gains where ``fraction`` is None."""
    specials = tuple(s % 2**64 for s in (-1, 100))
    counts, kind = codes(negatives, len(specials)), np.dtype(dtype)
    calibration = IntegerCalibration(
        fraction=fraction or 0, gain=None if fraction is None else GAIN, offset=OFFSET, shift=SHIFT, reversed=reverse,
        base=12345,
    )  # fmt: skip
    numbers = NumberMap(negatives=negatives, specials=specials)
    number = counts.astype(np.int64)
    number[number >= 65536 - negatives] -= 65536
    expected = ((number * (1 if fraction is None else GAIN) + OFFSET) >> (fraction or 0)) + SHIFT[:, None]
    expected = (~expected if reverse else expected) + 12345
    expected = expected.astype(f"u{kind.itemsize}").view(kind)
    for k, special in enumerate(specials):
        bits = np.array(special, np.uint64).astype(f"u{kind.itemsize}").view(kind)
        expected[counts == numbers.code(k)] = bits
    found = restore_calibrated(counts, numbers, calibration, kind, np.arange(N_POSITIONS))
    np.testing.assert_array_equal(found, expected)


def test_products_beyond_32_bits_are_exact() -> None:
    counts = RANDOM.integers(0, 60000, (N_POSITIONS, N_PIXELS)).astype(np.uint16)
    calibration = IntegerCalibration(fraction=20, gain=GAIN << 20, offset=OFFSET << 20)
    found = restore_calibrated(counts, NumberMap(), calibration, np.dtype("i4"), np.arange(N_POSITIONS))
    np.testing.assert_array_equal(found, counts.astype(np.int64) * GAIN + OFFSET)


@pytest.mark.parametrize(
    "calibration",
    [
        ValueTable(values=3 + 5 * np.arange(40)),
        ValueTable(values=np.arange(40) ** 2),
        IntegerCalibration(gain=GAIN),
        IntegerCalibration(shift=SHIFT),
        FloatCalibration(gain=GAIN / 7, scale=SHIFT / 3.0, scale_divides=True),
        FloatCalibration(gain=GAIN / 7, single=False, signed_zeros=True),
    ],
)
def test_rows_go_where_they_belong(calibration: Calibration) -> None:
    """Patterns that nobody asked for are left out, and those that were keep their own shift or scale."""
    counts = codes(0, 0)
    kind = np.dtype(np.float32 if isinstance(calibration, FloatCalibration) else np.int32)
    whole = restore_calibrated(counts, NumberMap(), calibration, kind, np.arange(N_POSITIONS))
    positions, rows = np.array([5, 2, -1, 6]), np.array([2, 0, -1, 1])
    out = np.full((3, N_PIXELS), 77, kind)
    Restoration(NumberMap(), calibration, kind, N_PIXELS).restore(counts[positions], positions, rows, out)
    np.testing.assert_array_equal(out.view(np.int32), whole[[2, 6, 5]].view(np.int32))


def test_half_precision_rows_go_where_they_belong() -> None:
    calibration = FloatCalibration(gain=GAIN / 900)
    counts = codes(0, 0)
    out = np.full((2, N_PIXELS), 77, np.float16)
    restoration = Restoration(NumberMap(), calibration, np.dtype(np.float16), N_PIXELS)
    restoration.restore(counts[:3], np.arange(3), np.array([1, -1, 0]), out)
    single = counts[:3].astype(np.float32) * (GAIN / 900).astype(np.float32)
    np.testing.assert_array_equal(out, single[[2, 0]].astype(np.float16))


def test_statistics_of_narrow_values_are_those_of_wide_ones() -> None:
    for n in (1, 3, 4, 301):
        values = RANDOM.integers(0, 3000, (n, N_PIXELS)).astype(np.uint16)
        shift = RANDOM.integers(-500, 500, n)
        low, total, times = np.full(N_PIXELS, 2**31 - 1), np.zeros(N_PIXELS, int), np.zeros(N_PIXELS, int)
        pixel_sums(values, shift, 100, 2500, 3, low, total, times)
        narrow = [a.astype(np.int32) for a in (np.full(N_PIXELS, 2**31 - 1), 0 * low, 0 * low)]
        bounds = np.int32(100), np.int32(2500)
        narrow_lows(values, shift.astype(np.int32), *bounds, narrow[0])
        narrow_sums(values, shift.astype(np.int32), *bounds, 3, *narrow[1:])
        for found, expected in zip(narrow, (low, total, times), strict=True):
            np.testing.assert_array_equal(found, expected)


def test_columns_are_patterns_turned_round() -> None:
    values, rows = RANDOM.integers(-90, 90, (20, 130)), np.array([3, 0, 19])
    out = np.empty((130, 3), np.int32)
    columns_of(values, rows, np.arange(20), out)
    np.testing.assert_array_equal(out, (values[rows] - rows[:, None]).T)


@pytest.mark.parametrize("n", [1, 2, 9, 64, 513])
@pytest.mark.parametrize("spread", [1, 300, 10**6, 2**62])
def test_lower_medians(n: int, spread: int) -> None:
    values = RANDOM.integers(-spread, spread, (40, n))
    values[0] = [*(-(2**63) for _ in range(n // 2)), *(2**63 - 1 for _ in range(n - n // 2))]
    out = np.empty(40, np.int64)
    lower_medians(values, out)
    np.testing.assert_array_equal(out, np.sort(values, axis=1)[:, (n - 1) // 2])


@pytest.mark.parametrize("most", [3, 60, 70, 2000])
def test_distinct_values_few_and_many(most: int) -> None:
    row = RANDOM.integers(-most, most, 1000) * 0.3
    row[::17] = [np.nan, np.inf, -np.inf, 0.0][most % 4]
    out = np.empty(row.size)
    for magnitudes in (False, True):
        n = distinct_values(row, out, magnitudes)
        finite = np.abs(row[np.isfinite(row)]) if magnitudes else row[np.isfinite(row)]
        np.testing.assert_array_equal(out[:n], np.unique(finite[finite != 0] if magnitudes else finite))


def test_least_magnitudes_leave_out_zeros_and_what_is_no_number() -> None:
    values = RANDOM.integers(-4, 5, (5, 300)).astype(np.float32)
    values[0, :9], values[1:, 9] = np.nan, 0
    values[0, 9] = -np.inf
    least = np.full(300, np.inf, np.float32)
    least_magnitudes(values, least)
    magnitudes = np.abs(values)
    magnitudes[~(magnitudes > 0)] = np.inf
    np.testing.assert_array_equal(least, magnitudes.min(axis=0))
