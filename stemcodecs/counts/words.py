"""What was found behind the values of a chunk or a scan, in the words of someone who sits at a microscope."""

from __future__ import annotations

from typing import Any

import numpy as np

from stemcodecs.counts.counts_map import CountsMap
from stemcodecs.entropy.values.calibration import Calibration, FloatCalibration, IntegerCalibration, ValueTable
from stemcodecs.entropy.values.corrected_floats import FARTHEST
from stemcodecs.entropy.values.number_map import NumberMap

__all__ = ["words_of_map", "words_of_values"]

Array = np.ndarray[Any, Any]

_ALIKE = 0.97
_BULK = (0.01, 0.99)


def words_of_map(found: CountsMap) -> str:
    """One line on the map of a scan."""
    c = found.calibration
    if isinstance(c, FloatCalibration):
        return _of_floats(c, scaled=found.scaled)
    at_zero = found.values(np.zeros((1, found.zero.size), np.int32), np.dtype(np.int64))[0]
    return _of_integers(c, at_zero, reversed_=found.reversed, shifted=found.scaled)


def words_of_values(numbers: NumberMap, calibration: Calibration | None, dtype: np.dtype[Any]) -> str | None:
    """One line on how the values of a chunk become counts; None where they are counts."""
    if isinstance(calibration, FloatCalibration):
        words = _of_floats(calibration, scaled=calibration.scale is not None)
    elif isinstance(calibration, IntegerCalibration):
        offset = np.zeros(1, np.int64) if calibration.offset is None else calibration.offset
        at_zero = offset >> calibration.fraction
        if calibration.reversed:
            # Around a base, values have a sign; so have those of 64 bits here.
            has_sign = dtype.kind == "i" or calibration.base != 0 or dtype.itemsize == 8
            at_zero = (-1 if has_sign else int(np.iinfo(dtype).max)) - at_zero
        at_zero = at_zero + calibration.base
        shifted = calibration.shift is not None
        words = _of_integers(calibration, at_zero, reversed_=calibration.reversed, shifted=shifted)
    elif isinstance(calibration, ValueTable) and calibration.width:
        words = f"one of {calibration.values.size} values"
    elif isinstance(calibration, ValueTable):
        words = _of_table(calibration.values)
    else:
        words = _of_numbers(numbers)
    marks = _marks(numbers, dtype)
    if marks:
        return f"{words or 'counts'}; {marks} marked"
    return words or None


def _of_numbers(numbers: NumberMap) -> str:
    if numbers.gain != 1:
        return f"counts {'divided by' if numbers.divide else 'times'} {numbers.gain:.7g}"
    return f"counts; offset {numbers.offset} ADU" if numbers.offset else ""


def _of_floats(c: FloatCalibration, *, scaled: bool) -> str:
    if c.corrections is not None and np.abs(c.corrections.steps).max(initial=0) >= FARTHEST:
        # Lines through the values of the pixels, which are no formula.
        return "a list of the values of each pixel"
    words = "counts" if c.dark is None else "(ADU less a dark reference per pixel)"
    if c.gain is not None:
        verb = "divided by" if c.gain_divides else "times"
        words += f" {verb} {_gain(c.gain)}"
    if scaled:
        words += f" {'divided by' if c.scale_divides else 'times'} a dose of each pattern"
    if c.corrections is not None:
        words += ", corrected in last digits"
    return f"{words}; zeros of both signs" if c.signed_zeros else words


def _of_integers(c: IntegerCalibration, at_zero: Array, *, reversed_: bool, shifted: bool) -> str:
    words = "counts"
    if c.gain is not None and (c.gain != 1 << c.fraction).any():
        words += f" times {_gain(c.gain / 2.0**c.fraction)}"
        if c.fraction:
            words += ", rounded"
    if shifted:
        words += "; an offset of each pattern"
    # Stuck pixels have offsets that say nothing.
    common = int(np.median(at_zero))
    if float((at_zero == common).mean()) > _ALIKE:
        if reversed_:
            return f"{common} less {words}"
        return f"{words}; offset {common} ADU" if common else words
    ends = (int(v) for v in np.quantile(at_zero, _BULK if shifted else (0, 1), method="nearest"))
    of_pixels = "an offset per pixel, {} to {} ADU".format(*ends)
    return f"{of_pixels}, less {words}" if reversed_ else f"{words}; {of_pixels}"


def _of_table(values: Array) -> str:
    steps = np.diff(values)
    down = bool(steps.size and np.median(steps) < 0)
    least = int(np.abs(steps).min()) if steps.size else 1
    scale = f" times {least}" if steps.size and (np.abs(steps) % least == 0).all() and least > 1 else ""
    if steps.size and not scale and np.median(np.abs(steps)) > 1:
        scale = f" times about {np.median(np.abs(steps)):.4g}"
    first = int(values[0])
    if down:
        return f"{first} less counts{scale}"
    return f"counts{scale}" + (f"; offset {first} ADU" if first else "")


def _gain(gain: Array) -> str:
    # Those of dead pixels are no gains.
    gain = gain[gain > 0] if (gain > 0).any() else gain
    if (gain == gain[0]).all():
        return f"{float(gain[0]):.7g}"
    low, high = (float(v) for v in np.quantile(gain, _BULK))
    return f"a gain per pixel ({low:.4g} to {high:.4g})"


def _marks(numbers: NumberMap, dtype: np.dtype[Any]) -> str:
    found = []
    for special in numbers.specials:
        bits = np.array([special % 2 ** (8 * dtype.itemsize)], f"u{dtype.itemsize}")
        found.append(str(bits.view(dtype)[0]))
    return ", ".join(found)
