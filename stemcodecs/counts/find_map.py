"""Find the one map that leads from the values of a scan to the counts behind them, on a sample of its patterns."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from stemcodecs.counts.counts_map import CountsMap
from stemcodecs.counts.photon_transfer import PhotonTransfer, TransferSums, unit_offset
from stemcodecs.entropy.values.calibration import FloatCalibration, IntegerCalibration, ValueTable, whole_integers
from stemcodecs.entropy.values.float_calibration import express_floats, propose_floats
from stemcodecs.entropy.values.gain_kernels import gain_intervals, integer_gains
from stemcodecs.entropy.values.integer_calibration import propose_integers
from stemcodecs.entropy.values.lattice_kernels import FOUND, lattice_gains
from stemcodecs.entropy.values.pattern_offsets import above_stuck
from stemcodecs.entropy.values.plane import to_plane
from stemcodecs.errors import ConfigurationError

__all__ = ["FoundMap", "find_map", "unlit_pixels", "whole_numbers", "with_gains_of"]

Array = np.ndarray[Any, Any]

_ENOUGH = 0.9
"""Share of the values other than marks that a map must give."""
_CERTAIN = 0.25
"""Largest error of an offset, in counts, with which a whole number is certain."""
_UNIT_GAIN = 0.1
_LIT = 4
_RARE = 0.02
_LARGEST = 1 << 30
_OFTEN = 4
_BELOW, _ABOVE = 4, 8
"""Times the spread of nearly all values within which counts are: others are events, whose differences are no noise."""
_APART = 32
"""Times the usual distance of two values of a list beyond which it goes on with those of hot pixels."""


@dataclass(frozen=True, kw_only=True)
class FoundMap:
    """What a sample says.

    Attributes
    ----------
    map : CountsMap or None
        None: the values are counts as they are, or nothing is known behind them.
    plain : bool
        The values are whole numbers, which the quantiser takes as they are.
    problem : str
        Where there is no map although one is needed: why.
    dark : int
        About the whole number of dark pixels.
    """

    map: CountsMap | None = None
    plain: bool = False
    problem: str = ""
    dark: int = 0


def find_map(sample: Array, positions: Array, scan: tuple[int, ...]) -> FoundMap:
    """The counts behind some patterns of a scan.

    Parameters
    ----------
    sample : ndarray, (patterns, det_y, det_x)
        Native integers or floats; runs of neighbouring patterns.
    positions : int64[patterns]
        Their flat positions in the scan, increasing.
    scan : tuple of int
        Shape of the scan.
    """
    detector = (int(sample.shape[-2]), int(sample.shape[-1]))
    values = np.ascontiguousarray(sample).reshape(len(sample), -1)
    if sample.dtype.kind == "f":
        found = _of_floats(sample, values, detector)
    else:
        found = _of_integers(sample, values, detector, positions, scan)
    if not found.plain and found.map is None:
        return found
    # As int64 they would take eight times the memory.
    as_they_are = found.map is None and values.dtype.kind in "iu"
    return replace(found, dark=_dark(values if as_they_are else whole_numbers(values, found.map)))


def unlit_pixels(sample: Array, found: CountsMap) -> Array:
    """Pixels whose gain a sample (patterns, det_y, det_x) hardly tells, for it has little but 0 there: int64."""
    c = found.calibration
    if not isinstance(c, FloatCalibration) or c.gain is None or c.dark is not None or (c.gain == c.gain[0]).all():
        return np.zeros(0, np.int64)
    if found.scaled:
        # Without the scales of their patterns its values tell nothing.
        return np.zeros(0, np.int64)
    # A single value may be two counts as well as one.
    return np.flatnonzero(np.count_nonzero(sample.reshape(len(sample), -1), axis=0) < _LIT)


def with_gains_of(found: CountsMap, pixels: Array, columns: Array) -> CountsMap:
    """The map with the gains of some pixels from more values[k, pixels] of them, as far as these tell."""
    c = found.calibration
    assert isinstance(c, FloatCalibration)
    assert c.gain is not None
    gains, status = np.empty(pixels.size), np.empty(pixels.size, np.int64)
    with np.errstate(invalid="ignore"):
        lattice_gains(np.ascontiguousarray(columns.T, np.float64), c.single, c.gain_divides, gains, status)
    gain = c.gain.copy()
    gain[pixels[status == FOUND]] = gains[status == FOUND]
    return replace(found, calibration=replace(c, gain=gain))


def whole_numbers(values: Array, behind: CountsMap | None) -> Array:
    """Counts behind native values[k, pixels], or these themselves; the largest of int32 where there are none."""
    mark = np.iinfo(np.int32).max
    if behind is not None:
        counts, unknown = behind.counts(values)
        counts[unknown] = mark
        return counts
    if values.dtype.kind == "f":
        with np.errstate(invalid="ignore"):
            known = (np.floor(values) == values) & (np.abs(values) < mark)
        return np.where(known, values, 0).astype(np.int64) + np.where(known, 0, mark)
    top = np.iinfo(values.dtype).max
    marked = values == top if values.dtype.itemsize > 1 else np.zeros(values.shape, bool)
    return np.where(marked | (values > mark), mark, values.astype(np.int64))


def _dark(counts: Array) -> int:
    """About the whole number of dark pixels; the largest of a dtype of 16 bits or more, and of int32, is a mark."""
    top = np.iinfo(counts.dtype).max if counts.dtype.itemsize > 1 else np.iinfo(np.int32).max
    mark = min(top, np.iinfo(np.int32).max)
    known = counts if counts.dtype.itemsize == 1 else counts[counts < mark]
    return int(np.quantile(known, 0.02, method="lower")) if known.size else 0


def _far(counts: Array) -> Array:
    """Whole numbers far from nearly all others."""
    known = counts[counts < np.iinfo(np.int32).max]
    if not known.size:
        return np.zeros(counts.shape, bool)
    low, high = (int(q) for q in np.quantile(known, (0.03, 0.995), method="nearest"))
    spread = high - low + 4
    return np.asarray((counts < low - _BELOW * spread) | (counts > high + _ABOVE * spread))


def _of_floats(sample: Array, values: Array, detector: tuple[int, int]) -> FoundMap:
    n_pixels = values.shape[1]
    nothing = np.zeros(n_pixels, np.int64)
    plane = to_plane(np.ascontiguousarray(sample))
    if plane is not None:
        numbers = plane.numbers
        if numbers.gain == 1 and values.dtype.itemsize > 2:
            return FoundMap(plain=True)
        gain = None if numbers.gain == 1 else np.full(n_pixels, float(numbers.gain))
        calibration = FloatCalibration(gain=gain, gain_divides=numbers.divide, single=False)
        return _proved(values, CountsMap(detector=detector, calibration=calibration, zero=nothing))
    with np.errstate(all="ignore"):
        proposal = propose_floats(values)
    if proposal is None:
        doses = _of_doses(values, detector)
        problem = "the values are no whole numbers, and no gain of their pixels makes them counts"
        return FoundMap(problem=problem) if doses is None else doses
    calibration = proposal[1]
    if calibration.corrections is not None:
        # What the sample lacks in last digits beside a formula; counts that it does not have stay exact.
        with np.errstate(all="ignore"):
            corrected = express_floats(values, *proposal)
        if corrected is None or not isinstance(corrected.calibration, FloatCalibration):
            return FoundMap(problem="no formula gives the values of its pixels, and they have too many different ones")
        calibration = corrected.calibration
    if calibration.scale is not None:
        made = CountsMap(detector=detector, calibration=replace(calibration, scale=None), zero=nothing, scaled=True)
        return _proved(values, _without_dead(values, made))
    # Rounded up, so that no value is taken for more counts than it is.
    zero = nothing if calibration.dark is None else np.ceil(calibration.dark).astype(np.int64)
    return _proved(values, _without_stuck(values, CountsMap(detector=detector, calibration=calibration, zero=zero)))


def _of_doses(values: Array, detector: tuple[int, int]) -> FoundMap | None:
    """A map of patterns that only have a scale each, which hot pixels do not hide."""
    if values.dtype.itemsize == 2:
        return None
    nothing, single = np.zeros(values.shape[1], np.int64), values.dtype.itemsize == 4
    for divides in (True, False):
        calibration = FloatCalibration(scale_divides=divides, single=single)
        made = CountsMap(detector=detector, calibration=calibration, zero=nothing, scaled=True)
        found = _proved(values, _without_dead(values, made))
        if found.map is not None:
            return found
    return None


def _without_stuck(values: Array, found: CountsMap) -> CountsMap:
    """The map with other gains for pixels that never change, so that it does not give their value."""
    c = found.calibration
    assert isinstance(c, FloatCalibration)
    bits = values.view(f"u{values.dtype.itemsize}")
    stuck = (bits == bits[:1]).all(axis=0) & (values[0] != 0)
    if c.gain is None or not stuck.any() or stuck.all():
        return found
    # The gain of the pixel before costs the map nothing.
    before = np.maximum.accumulate(np.where(stuck, 0, np.arange(stuck.size)))
    before[before == 0] = int(np.argmin(stuck))
    gain, zero, dark = c.gain[before], found.zero[before], c.dark if c.dark is None else c.dark[before]
    for _ in range(3):
        found = replace(found, calibration=replace(c, gain=gain, dark=dark), zero=zero)
        given = stuck & ~found.counts(values[:1])[1][0]
        if not given.any():
            break
        gain = np.where(given, (gain * (1 + 2.0**-10)).astype(np.float32), gain)
    return found


def _without_dead(values: Array, found: CountsMap) -> CountsMap:
    """The map with a gain of 0 for pixels that never change, so that they tell no scale, and have no counts."""
    c = found.calibration
    assert isinstance(c, FloatCalibration)
    bits = values.view(f"u{values.dtype.itemsize}")
    stuck = (bits == bits[:1]).all(axis=0) & (values[0] != 0)
    if not stuck.any():
        return found
    gain = np.where(stuck, 0.0, 1.0 if c.gain is None else c.gain)
    return replace(found, calibration=replace(c, gain=gain, gain_divides=c.gain_divides and c.gain is not None))


def _without_doubtful(values: Array, found: CountsMap, unknown: Array) -> CountsMap:
    """The map of scaled patterns, with a gain of 0 for pixels whose own gain may be that of two counts."""
    c = found.calibration
    assert isinstance(c, FloatCalibration)
    if c.gain is None or not (lit := c.gain > 0).any() or (c.gain[lit] == c.gain[lit][0]).all():
        return found
    here = found.scales(values)
    assert here is not None
    times = np.count_nonzero(values[here > 0], axis=0)
    doubtful = (times < _LIT) | (np.count_nonzero(unknown[here > 0], axis=0) > 0.1 * times)
    return replace(found, calibration=replace(c, gain=np.where(doubtful, 0.0, c.gain)))


def _proved(values: Array, found: CountsMap) -> FoundMap:
    """The map, if it gives most values of pixels that have more than one."""
    unknown = found.counts(values)[1]
    bits = values.view(f"u{values.dtype.itemsize}")
    alive = (bits != bits[:1]).any(axis=0)
    c = found.calibration
    if isinstance(c, FloatCalibration) and c.gain is not None and c.dark is None and not found.scaled:
        # A gain that came from two counts does not give one.
        few = np.count_nonzero(unknown, axis=0) <= 0.1 * np.count_nonzero(values, axis=0)
        pixels = np.flatnonzero(alive & ~few)
        if pixels.size:
            found = with_gains_of(found, pixels, values[:, pixels])
            unknown[:, pixels] = found.counts(values)[1][:, pixels]
    if found.scaled:
        found = _without_doubtful(values, found, unknown)
        unknown = found.counts(values)[1]
        lit = (values != 0) & alive
        if np.count_nonzero(unknown & lit) > (1 - _ENOUGH) * np.count_nonzero(lit):
            return FoundMap(problem="its patterns have too few counts each to tell the dose that they were divided by")
    # Zeros of the other sign stay exact, as marks do.
    share = float((unknown & (values != 0))[:, alive].mean()) if alive.any() else 0.0
    if share > 1 - _ENOUGH:
        return FoundMap(problem=f"the gains that were found leave {100 * share:.0f} % of the values without counts")
    return FoundMap(map=found)


def _of_integers(
    sample: Array, values: Array, detector: tuple[int, int], positions: Array, scan: tuple[int, ...]
) -> FoundMap:
    signed = values.view(np.int64) if values.dtype == np.uint64 else values
    plane = to_plane(np.ascontiguousarray(sample))
    marks = () if plane is None else plane.numbers.specials
    keep = ~np.isin(signed.astype(np.int64), np.array(marks, np.uint64).view(np.int64)) if marks else None
    below = signed < 0 if keep is None else (signed < 0) & keep
    varying = (signed != signed[:1]).any(axis=0)
    # Gaps and rare marks of -1 are no sign of a pedestal: what lies below zero counts is kept exactly.
    negative = bool(varying.any()) and float(below[:, varying].mean()) > _RARE
    candidates: list[CountsMap] = []
    shifted = negative
    for _, calibration in propose_integers(signed, None if plane is None else plane.numbers, detector):
        if isinstance(calibration, ValueTable):
            made = _of_table(_frequent(calibration.values, signed), detector)
            pedestal = negative or int(calibration.values[0]) > 0
            if made is not None:
                candidates.append(made if pedestal or made.reversed else made.beginning_at(0))
            shifted |= pedestal
        else:
            made = _of_pixels(calibration, signed, detector)
            shifted |= calibration.gain is None
            candidates += [] if made is None else [made]
    # 64 bits, which the quantiser does not take as they are.
    wide = values.dtype.itemsize > 4
    whole = CountsMap(detector=detector, calibration=IntegerCalibration(), zero=np.zeros(values.shape[1], np.int64))
    unplaced: CountsMap | None = None
    for candidate in [*candidates[::-1], *([whole] if wide or negative else [])]:
        unknown = candidate.counts(signed)[1]
        if float((unknown if keep is None else unknown[keep]).mean()) > 1 - _ENOUGH:
            continue
        if not candidate.scaled and _begins_at_zero(candidate, negative, shifted):
            return FoundMap(plain=True) if candidate.changes_nothing and not wide else FoundMap(map=candidate)
        # Offsets that are none of a detector leave noise which is not that of counts.
        placed = _placed(candidate, signed, positions, scan)
        if placed is not None:
            placed = placed.within(values.dtype)
            return FoundMap(plain=True) if placed.changes_nothing and not wide else FoundMap(map=placed)
        if unplaced is None and not candidate.scaled:
            unplaced = candidate
    if not wide:
        # A pedestal that cannot be told from counts: as the user says, and up to 32 bits the values as they are.
        return FoundMap(plain=True)
    if unplaced is None:
        return FoundMap(problem=f"its {values.dtype} values are no counts that fit 31 bits")
    return FoundMap(map=unplaced, problem=_NO_ZERO)


_NO_ZERO = "the value at zero counts is not known: say it with offset=, or let gain=auto measure it"


def _frequent(table: Array, values: Array) -> Array:
    """Entries of a table without those that hardly occur: a single event between two counts hides their distance."""
    distinct, times = np.unique(values, return_counts=True)
    often = distinct[times >= _OFTEN]
    kept = np.isin(table, often)
    if int(kept.sum()) < 2:
        return table
    bulk = _bulk(table[kept])
    if bulk.size < 2:
        return table
    step = max(1, int(np.gcd.reduce(np.diff(bulk))))
    if step > 1 or np.median(np.abs(np.diff(bulk))) == 1:
        # What lies between them at their distance is a rare count. Multiples that were rounded have no such distance.
        inside = (table >= bulk.min()) & (table <= bulk.max())
        kept |= inside & ((table - bulk[0]) % step == 0)
    return table[kept]


def _bulk(table: Array) -> Array:
    """The beginning of a list of values, without those of hot pixels: they lie on the same side, but far from it."""
    gaps = np.abs(np.diff(table))
    far = gaps > _APART * int(np.median(gaps)) if gaps.size else np.zeros(0, bool)
    return table[: int(np.argmax(far)) + 1] if far.any() else table


def _of_table(values: Array, detector: tuple[int, int]) -> CountsMap | None:
    """A map that gives a list of values, if they are evenly spaced or multiples that were rounded."""
    n_pixels = detector[0] * detector[1]
    if values.size < 2:
        return None
    down = bool(values[1] < values[0])
    # Values of outliers follow those of the bulk.
    steps = np.diff(values)
    end = int(np.argmax(steps > 0 if down else steps < 0)) if ((steps > 0) if down else (steps < 0)).any() else 0
    core = _bulk(values[: end + 1] if end else values)
    if core.size < 2:
        return None
    core = core[::-1] if down else core
    step = int(np.gcd.reduce(np.diff(core)))
    if step > 1 or not (np.diff(core) > 1).any():
        base = int(values[0]) if max(abs(int(values[0])), abs(int(core[-1]))) // step >= _LARGEST else 0
        residue = (int(core[0]) - base) % step
        calibration = IntegerCalibration(
            gain=np.full(n_pixels, step, np.int64), offset=np.full(n_pixels, residue, np.int64), base=base
        )
        zero = (int(values[0]) - base - residue) // step
        # Maps are of numbers of 32 bits.
        if max(step, abs(zero)) >= _LARGEST:
            return None
        return CountsMap(
            detector=detector, calibration=calibration, zero=np.full(n_pixels, zero, np.int64), reversed=down
        )
    if down:
        return None
    return _of_rounded(core, detector)


def _of_rounded(core: Array, detector: tuple[int, int]) -> CountsMap | None:
    """Multiples of one gain, rounded: as the values of a single pixel."""
    zero, gain = core[:1].copy(), np.zeros(1)
    integer_gains(core[None], zero, 0.0, gain)
    if not gain[0] > 1:
        return None
    low, high = gain * 0.5, gain * 1.5
    column = np.ascontiguousarray(core[:, None])
    nothing = np.zeros(core.size, np.int64)
    gain_intervals(column, nothing, int(core[0]), int(core[-1]), zero, gain, low, high, np.zeros(0))
    for fraction in range(17):
        whole = np.ceil(low[0] * 2.0**fraction)
        if whole < high[0] * 2.0**fraction:
            n_pixels = detector[0] * detector[1]
            offset = (int(zero[0]) << fraction) + ((1 << fraction) >> 1)
            calibration = IntegerCalibration(
                fraction=fraction, gain=np.full(n_pixels, int(whole)), offset=np.full(n_pixels, offset)
            )
            return CountsMap(detector=detector, calibration=calibration, zero=np.zeros(n_pixels, np.int64))
    return None


def _of_pixels(calibration: IntegerCalibration, values: Array, detector: tuple[int, int]) -> CountsMap | None:
    """The map with gains and offsets of pixels, and offsets of patterns if there are any."""
    n_pixels = values.shape[1]
    c = calibration if calibration.shift is None else above_stuck(values, calibration)
    made = CountsMap(detector=detector, calibration=replace(c, shift=None), zero=np.zeros(n_pixels, np.int64))
    if c.reversed:
        gain, offset = whole_integers(c, n_pixels)
        base = c.base
        # The complement of unsigned integers that have no base is that of a number with a sign, and 2**width more.
        if values.dtype.kind == "u" and not base:
            base = 2 ** (8 * values.dtype.itemsize)
        upwards = IntegerCalibration(fraction=c.fraction, gain=gain, offset=-1 - offset, base=base)
        made = replace(made, calibration=upwards, reversed=True)
    if c.shift is None:
        return made
    shifts = replace(made, scaled=True).scales(values)
    assert shifts is not None
    # Doses look like offsets of patterns where no pixel is dark.
    return None if (shifts == shifts[0]).all() else replace(made, scaled=True)


def _begins_at_zero(found: CountsMap, negative: bool, shifted: bool) -> bool:
    """Whether the value 0 is that of zero counts in all pixels, and nothing lies below."""
    zero = found.values(np.zeros((1, found.zero.size), np.int32), np.dtype(np.int64))
    return bool((zero == 0).all()) and not negative and not found.reversed and not (shifted and found.changes_nothing)


def _placed(found: CountsMap, values: Array, positions: Array, scan: tuple[int, ...]) -> CountsMap | None:
    """The map with its zero where the noise vanishes, if that tells a whole number; None if it does not."""
    counts = whole_numbers(values, found)
    dark = _dark(counts)
    # The noise of stuck pixels vanishes, wherever their value is.
    stuck = (counts == counts[:1]).all(axis=0) & (np.abs(counts[0].astype(np.int64) - dark) > 1)
    counts[:, stuck] = np.iinfo(np.int32).max
    counts[_far(counts)] = np.iinfo(np.int32).max
    sums = TransferSums.of(counts, positions, scan, dark)
    try:
        noise = PhotonTransfer.fit(sums)
    except ConfigurationError:
        return None
    if abs(noise.gain - 1) > max(_UNIT_GAIN, 3 * min(noise.gain_error, _UNIT_GAIN)):
        return None
    # Counts: the slope is one, and only the offset is asked.
    offset, error = unit_offset(sums)
    if error > _CERTAIN or abs(offset - round(offset)) > max(0.3, 3 * error):
        return None
    shift = round(offset)
    return replace(found, zero=found.zero - shift if found.reversed else found.zero + shift)
