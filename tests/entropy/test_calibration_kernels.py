"""Fast loops between values and counts give what the plain ones give, whatever the values are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from stemcodecs.entropy.values import row_blocks
from stemcodecs.entropy.values.calibration import FloatCalibration, IntegerCalibration, ValueTable
from stemcodecs.entropy.values.calibration_kernels import integer_counts
from stemcodecs.entropy.values.float_calibration import express_floats
from stemcodecs.entropy.values.gain_kernels import gain_intervals
from stemcodecs.entropy.values.integer_calibration import express_integers
from stemcodecs.entropy.values.joint_kernels import FACTORS, common_factor
from stemcodecs.entropy.values.narrow_kernels import narrow_counts
from stemcodecs.entropy.values.number_map import PLANE_TOP, NumberMap

Array = np.ndarray[Any, Any]
N_POSITIONS, N_PIXELS = 40, 700


@pytest.mark.parametrize("dtype", ["i1", "u1", "i2", "u2"])
@pytest.mark.parametrize(("gain", "fraction"), [(None, 0), (1.0, 4), (1.4, 8), (17.3, 7), (90.0, 12)])
@pytest.mark.parametrize("negatives", [0, 40])
def test_narrow_counts_are_those_of_wide_ones(dtype: str, gain: float | None, fraction: int, negatives: int) -> None:
    """With marks, values that no count gives, and values all over the dtype."""
    random = np.random.default_rng(fraction)
    limits = np.iinfo(dtype)
    values = random.integers(limits.min, limits.max + 1, (N_POSITIONS, N_PIXELS)).astype(dtype)
    values[::2] = random.poisson(3, (N_POSITIONS // 2, N_PIXELS)).astype(dtype)
    gains = np.full(N_PIXELS, 1 << fraction)
    if gain is not None:
        gains = np.maximum(np.rint(random.normal(gain, 0.1 * gain, N_PIXELS) * 2**fraction), 1 << fraction)
    offset = random.integers(-50 << fraction, 50 << fraction, N_PIXELS)
    shift = random.integers(-30, 30, N_POSITIONS)
    bits = values.view(f"u{values.dtype.itemsize}")
    specials = bits[0, :3].copy()
    top = PLANE_TOP - negatives
    results = []
    for kernel, kind in ((integer_counts, np.int64), (narrow_counts, np.int32)):
        counts, wrong = np.empty(values.shape, np.uint16), np.full(values.size, -1)
        given = np.zeros(0, kind) if gain is None and kernel is narrow_counts else gains.astype(kind)
        n = kernel(
            values, bits, top, specials, given, offset.astype(kind), fraction, shift.astype(kind), counts, wrong
        )  # fmt: skip
        results.append((int(n), counts, wrong))
    (n, counts, wrong), (n_fast, counts_fast, wrong_fast) = results
    assert 0 < n == n_fast
    np.testing.assert_array_equal(wrong, wrong_fast)
    np.testing.assert_array_equal(counts, counts_fast)


@pytest.mark.parametrize("dtype", ["i1", "u1", "i2", "u2"])
@pytest.mark.parametrize("step", [1, -1, 2, 3, -6, 16, 17])
def test_evenly_spaced_values_are_ranked_as_others(dtype: str, step: int) -> None:
    entries = (30 if step < 0 else -20 if dtype[0] == "i" else 5) + step * np.arange(6)
    random = np.random.default_rng(0)
    values = entries[random.integers(0, 6, (60, 50))].astype(dtype)
    values[3, 7], values[9, 0], values[59, 49] = 100, 101, 99
    plane = express_integers(values, NumberMap(), ValueTable(values=entries))
    # An entry more, out of step, makes the table one of any values.
    other = express_integers(values, NumberMap(), ValueTable(values=np.append(entries, 120)))
    assert plane is not None
    assert other is not None
    np.testing.assert_array_equal(plane.counts, other.counts)
    np.testing.assert_array_equal(plane.exceptions_at, other.exceptions_at)
    assert plane.exceptions_at.size == 3


def test_narrow_values_take_the_narrow_loop_and_wide_gains_do_not() -> None:
    """The choice between loops never changes a count."""
    random = np.random.default_rng(1)
    counts = random.poisson(2, (50, 40))
    for fraction in (0, 12, 16):
        gain = np.rint(random.normal(9, 1, 40) * 2**fraction).astype(np.int64)
        values = ((gain * counts + ((1 << fraction) >> 1)) >> fraction).astype(np.uint16)
        plane = express_integers(values, NumberMap(), IntegerCalibration(fraction=fraction, gain=gain))
        assert plane is not None
        assert plane.exceptions_at.size == 0
        np.testing.assert_array_equal(plane.counts.reshape(counts.shape), counts)


@pytest.mark.parametrize("dtype", ["u2", "i4"])
def test_values_beyond_a_byte_of_places_are_exceptions(dtype: str) -> None:
    """A table of few values has counts of 8 bits; the 256th place after its first is not its first."""
    random = np.random.default_rng(5)
    for entries in (7 + 3 * np.arange(40), 7 + np.arange(40) ** 2):
        places = random.integers(0, 40, (30, 50))
        values = entries[places].astype(dtype)
        values[2, 3], values[7, 9], values[29, 49] = 7 + 3 * 256, 7 + 3 * 257, 7 + 3 * 301
        plane = express_integers(values, NumberMap(), ValueTable(values=entries))
        assert plane is not None
        assert plane.counts.dtype == np.uint8
        np.testing.assert_array_equal(plane.exceptions_at, [2 * 50 + 3, 7 * 50 + 9, 29 * 50 + 49])
        keep = np.delete(np.arange(values.size), plane.exceptions_at)
        np.testing.assert_array_equal(plane.counts[keep], places.ravel()[keep])


@pytest.mark.parametrize("dtype", ["u2", "i4"])
@pytest.mark.parametrize("highest", [254, 255, 256, 70000])
@pytest.mark.parametrize("gained", [False, True])
def test_counts_of_bytes_are_taken_only_where_all_fit(dtype: str, highest: int, gained: bool) -> None:
    random = np.random.default_rng(6)
    counts = random.poisson(3, (30, 50))
    counts[11, 13] = highest if dtype == "i4" else min(highest, 9000)
    gain = random.integers(3, 7, 50) if gained else np.ones(50, int)
    shift = random.integers(0, 40, 30)
    values = (counts * gain + shift[:, None]).astype(dtype)
    calibration = IntegerCalibration(gain=gain if gained else None, offset=np.zeros(50, int), shift=shift)
    plane = express_integers(values, NumberMap(), calibration)
    assert plane is not None
    assert plane.exceptions_at.size == int(counts.max() >= PLANE_TOP)
    assert highest < 256 or plane.counts.dtype == np.uint16
    keep = np.delete(np.arange(values.size), plane.exceptions_at)
    np.testing.assert_array_equal(plane.counts[keep], counts.ravel()[keep])


def test_floats_that_are_no_number_are_no_counts() -> None:
    """NaN, infinity and a negative zero come back by marks or as exceptions, never from arithmetic."""
    gain = np.float32(1.3)
    counts = np.random.default_rng(2).poisson(2, (30, 600))
    values = counts.astype(np.float32) * gain
    strange = [np.nan, -np.nan, np.inf, -np.inf, -0.0, -1.3, 1e30]
    values[5, 100 : 100 + len(strange)] = strange
    calibration = FloatCalibration(gain=np.full(600, float(gain)))
    plane = express_floats(values, NumberMap(), calibration)
    assert plane is not None
    np.testing.assert_array_equal(plane.exceptions_at, 5 * 600 + 100 + np.arange(len(strange)))
    keep = np.ones(values.size, bool)
    keep[plane.exceptions_at] = False
    np.testing.assert_array_equal(plane.counts[keep], counts.ravel()[keep])


@pytest.mark.parametrize("look", [np.float32, np.float64])
def test_gains_are_narrowed_alike_in_both_precisions(look: Any) -> None:
    random = np.random.default_rng(3)
    gain = random.normal(17.3, 1, N_PIXELS)
    values = np.rint(gain * random.poisson(4, (400, N_PIXELS))).astype(np.uint16)
    low, high = gain * 0.6, gain * 1.4
    zeros, shift = np.zeros(N_PIXELS, np.int64), np.zeros(400, np.int64)
    gain_intervals(values, shift, 0, 1000, zeros, gain, low, high, np.zeros(0, look))
    distinct = values.astype(np.float64)
    whole = np.maximum(np.rint(distinct / gain), 1)
    lit = values > 0
    np.testing.assert_allclose(low, np.where(lit, (distinct - 0.5) / whole, 0).max(axis=0), rtol=1e-15)
    np.testing.assert_allclose(high, np.where(lit, (distinct + 0.5) / whole, np.inf).min(axis=0), rtol=1e-15)


def test_the_common_factor_is_found_whatever_it_is() -> None:
    random = np.random.default_rng(4)
    for _ in range(3):
        floats = random.uniform(1, 2, 48).astype(np.float32).astype(np.float64)
        hidden = random.uniform(1, 2)
        known = 2 * np.frexp(floats * hidden)[0]
        factor = common_factor(known, np.full(48, 0.2), 2, 0, FACTORS)[0]
        scaled = known * factor
        scaled *= np.where(scaled < 1, 2, np.where(scaled < 2, 1, 0.5))
        np.testing.assert_array_equal(np.rint(scaled * 2**23), floats * 2**23)


@pytest.mark.parametrize("gained", [False, True])
def test_blocks_of_patterns_give_what_one_call_gives(gained: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """To the bit, values without a count at the seams among them: threads must not change a chunk."""
    random = np.random.default_rng(4)
    counts = random.poisson(3.0, (37, 50))
    gain = random.normal(1, 0.1, 50).astype("f4").astype("f8")
    values = (counts * gain).astype("f4") if gained else (16 * counts + 3).astype("u2")
    strange = random.random(values.shape) < 0.01
    strange[::5, :3], strange[10] = True, True
    values[strange] = 0.77 if gained else 40000
    integers = IntegerCalibration(gain=np.full(50, 16), offset=np.full(50, 3))

    def plane() -> Any:
        if gained:
            return express_floats(values, NumberMap(), FloatCalibration(gain=gain), most=0.5)
        return express_integers(values, NumberMap(), integers, most=0.5)

    whole = plane()
    assert np.array_equal(np.sort(whole.exceptions_at), np.flatnonzero(strange))
    monkeypatch.setattr(row_blocks, "_VALUES", 5 * 50)
    parts = plane()
    for name in ("counts", "exceptions_at", "exceptions"):
        assert np.array_equal(getattr(whole, name), getattr(parts, name))
