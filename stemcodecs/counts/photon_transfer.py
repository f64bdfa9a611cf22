"""Gain and offset of a detector from the noise of a scan: the variance of counts is their mean.

Photon transfer (Janesick, *Photon Transfer*, SPIE 2007, doi:10.1117/3.725073): in units of ADU the variance of Poisson
counts is gain · (mean − offset), a straight line whose slope is the gain. A scan has no two patterns alike, so the
variance is taken from fourth differences of neighbouring patterns, a − 4b + 6c − 4d + e, in which the specimen cancels
where it is smooth, and pixels are sorted by the sum of the two patterns beside these, whose noise is independent of
theirs. Where the specimen is sharper the variance comes out too large: so the line is fitted in parts of the scan, and
their median is taken; second differences, in which more of it is left, tell how much that may be, which is part of the
error.

Read noise σ adds σ² to every variance, which cannot be told from an offset that is lower by σ²/gain: the offset here is
where the total variance vanishes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from math import hypot, sqrt
from typing import Any, Self

import numpy as np

from stemcodecs.errors import ConfigurationError

__all__ = ["RUN", "SUMS_BYTES", "PhotonTransfer", "TransferSums", "unit_offset"]

Array = np.ndarray[Any, Any]

PARTS = 64
"""Parts of the scan that are fitted by themselves."""
_PER_OCTAVE = 4
_BINS = 2 * 40 * _PER_OCTAVE
RUN = 7
"""Neighbouring patterns in a row: the five of a fourth difference and one on either side."""
_STEP = 3
"""From one run to the next, where the row goes on."""
_FOURTH = np.array([1, -4, 6, -4, 1])
_NOISE_OF_FOURTH, _NOISE_OF_SECOND = 70, 6
"""What the differences make of the variance of a value: the sum of their squared factors."""
SUMS_BYTES = 4 * 8 * PARTS * _BINS
"""What sums take in memory."""
_LARGEST = 1 << 24
"""Values beyond it are marks."""
_LEAST_VALUES = 256
"""Values of a bin of a part that tell its variance to a tenth."""
_STRAIGHT = 0.15
_AGREE = 0.2
"""Largest deviation of the variance from a straight line, and of the parts from each other."""
_COMMON = 0.1
"""Largest share of the variance that all pixels of a pattern may have in common."""
_ROWS = 1 << 20


@dataclass(frozen=True, kw_only=True, eq=False)
class TransferSums:
    """Sums over pixels of neighbouring patterns, by part of the scan and by brightness; all whole numbers.

    Attributes
    ----------
    times, mean, squares, second : int64[PARTS, bins]
        How many fourth differences, the sum of their five values above ``base``, the sum of their squares, and that of
        the squares of the second differences in their middle.
    common : int64[PARTS]
        Squares of the mean difference of a pattern, times its pixels: of noise they are one square, of a dose all.
    base : int
        About the value of dark pixels, from which brightness counts: a pedestal would hide it.
    """

    times: Array
    mean: Array
    squares: Array
    second: Array
    common: Array
    base: int

    @classmethod
    def of(cls, values: Array, positions: Array, scan: tuple[int, ...], base: int) -> Self:
        """Of whole numbers[k, pixels] at increasing flat positions of a scan of this shape.

        The largest of int32 stands where there are none.
        """
        sums = tuple(np.zeros((PARTS, _BINS), np.int64) for _ in range(4))
        common = np.zeros(PARTS, np.int64)
        total, row = math.prod(scan), scan[-1]
        # A run that went on in the next row would cross the whole scan.
        first, last = positions[: max(0, len(positions) - RUN + 1)], positions[RUN - 1 :]
        before = -RUN
        for i in np.flatnonzero((last - first == RUN - 1) & (first // row == last // row)):
            if i < before + _STEP:
                continue
            before = int(i)
            part = int(positions[i]) * PARTS // total
            for start in range(0, values.shape[1], _ROWS):
                run = values[i : i + RUN, start : start + _ROWS].astype(np.int64)
                common[part] += _add(run - base, [s[part] for s in sums])
        return cls(times=sums[0], mean=sums[1], squares=sums[2], second=sums[3], common=common, base=base)

    def merge(self, other: TransferSums) -> TransferSums:
        """Of both."""
        return TransferSums(
            times=self.times + other.times,
            mean=self.mean + other.mean,
            squares=self.squares + other.squares,
            second=self.second + other.second,
            common=self.common + other.common,
            base=self.base,
        )


def _add(run: Array, sums: list[Array]) -> int:
    """Add a run of patterns; what it adds to ``common`` is returned."""
    run = run[:, (np.abs(run) < _LARGEST).all(axis=0)]
    beside = run[0] + run[-1]
    magnitude = (np.log2(np.abs(beside).astype(np.float64) + 1) * _PER_OCTAVE).astype(np.int64)
    bins = np.where(beside < 0, _BINS // 2 - 1 - magnitude, _BINS // 2 + magnitude)
    five = run[1:-1]
    fourth = np.tensordot(_FOURTH, five, 1)
    second = five[1] - 2 * five[2] + five[3]
    for into, what in zip(sums, (None, five.sum(axis=0), fourth**2, second**2), strict=True):
        # Whole numbers below 2**53 stay whole in double precision.
        weights = None if what is None else what.astype(np.float64)
        into += np.bincount(bins, weights, minlength=_BINS)[:_BINS].astype(np.int64)
    return int(fourth.sum()) ** 2 // max(1, fourth.size)


@dataclass(frozen=True, kw_only=True)
class PhotonTransfer:
    """What the noise of a scan says.

    Attributes
    ----------
    gain, gain_error : float
        ADU per count, and its standard error.
    offset, offset_error : float
        ADU at which the variance vanishes, and its standard error.
    """

    gain: float
    gain_error: float
    offset: float
    offset_error: float

    def __str__(self) -> str:
        return (
            f"gain {_rounded(self.gain, self.gain_error)} ADU per count, "
            f"offset {_rounded(self.offset, self.offset_error)} ADU"
        )

    @classmethod
    def fit(cls, sums: TransferSums) -> Self:
        """A straight line through the variances.

        Raises
        ------
        ConfigurationError
            The variance is no straight line of the mean: these are no Poisson counts.
        """
        bins = _points(sums.times.sum(axis=0), sums.mean.sum(axis=0), sums.squares.sum(axis=0), _NOISE_OF_FOURTH)
        refused = "give gain= and offset= in ADU, or store the scan losslessly"
        if len(bins[0]) < 2:
            raise ConfigurationError(
                "photon transfer needs pixels of different brightness in at least seven neighbouring patterns, which "
                f"this scan does not have; {refused}"
            )
        lines, rough = _lines(sums, sums.squares, _NOISE_OF_FOURTH), _lines(sums, sums.second, _NOISE_OF_SECOND)
        whole = _line(*bins)
        if whole is None or not lines or not rough:
            raise ConfigurationError(
                f"the noise of the scan tells no gain: it is not that of Poisson counts; {refused}"
            )
        if int(sums.common.sum()) > _COMMON * int(sums.squares.sum()):
            raise ConfigurationError(
                "photon transfer finds no gain: the dose of neighbouring patterns differs by more than their noise; "
                f"{refused}"
            )
        gains, offsets = np.array(lines)[:, 0], np.array(lines)[:, 1]
        gain, offset = float(np.median(gains)), float(np.median(offsets))
        if len(lines) >= 8:
            # Of a median, from the median deviation: parts with sharp structure do not count.
            wide = 1.2533 * 1.4826 / sqrt(len(lines))
            errors = [wide * float(np.median(np.abs(x - m))) for x, m in ((gains, gain), (offsets, offset))]
        else:
            errors = [whole[2], whole[3]]
        # What of the specimen is left in second differences is more than in fourth ones.
        left = np.median(np.array(rough)[:, :2], axis=0) - (gain, offset)
        errors = [hypot(error, float(more) / 2) for error, more in zip(errors, left, strict=True)]
        found = cls(gain=gain, gain_error=errors[0], offset=offset, offset_error=errors[1])
        times, mean, variance = bins
        expected = gain * (mean - offset)
        # Where the mean is near the offset, read noise and rounding are most of the variance.
        bright = (mean - offset) > max(4 * errors[1], 0.02 * float(np.average(mean - offset, weights=times)))
        apart = np.abs(variance / np.where(bright, expected, 1) - 1)[bright]
        spread = float(np.average(apart, weights=times[bright])) if bright.any() else np.inf
        if gain <= 3 * errors[0] or spread > _STRAIGHT or abs(whole[0] / gain - 1) > _AGREE:
            raise ConfigurationError(
                "photon transfer finds no gain: the variance of neighbouring patterns is no straight line of their "
                f"mean (deviation {100 * min(spread, 9.99):.0f} %), so these are no Poisson counts; {refused}"
            )
        return replace(found, offset=offset + sums.base)


def _lines(sums: TransferSums, squares: Array, noise: int) -> list[tuple[float, float, float, float]]:
    """A line for each part of the scan; of fewer, larger parts where these hold too little."""
    lines: list[tuple[float, float, float, float]] = []
    for parts in (PARTS, PARTS // 4, 1):
        times, mean, square = (a.reshape(parts, -1, a.shape[1]).sum(axis=1) for a in (sums.times, sums.mean, squares))
        points = [_points(*rows, noise) for rows in zip(times, mean, square, strict=True)]
        found = [_line(*some) for some in points if len(some[0]) >= 2]
        lines = [line for line in found if line is not None]
        if 2 * len(lines) >= parts:
            break
    return lines


def _points(times: Array, mean: Array, squares: Array, noise: int) -> tuple[Array, Array, Array]:
    """Number, mean and variance of the bins that hold enough."""
    enough = times >= _LEAST_VALUES
    n = times[enough].astype(np.float64)
    return n, mean[enough] / (len(_FOURTH) * n), squares[enough] / (noise * n)


def _line(times: Array, mean: Array, variance: Array) -> tuple[float, float, float, float] | None:
    """Gain, offset and their errors; None where there is no rising line."""
    expected = np.maximum(variance, 1e-12)
    result = None
    for _ in range(4):
        # A squared difference of n normal values has a relative error of √(2/n), of the line and not of its own luck.
        weight = times / (2 * np.maximum(expected, 1e-3 * float(expected.max())) ** 2)
        total = weight.sum()
        centre = (weight * mean).sum() / total
        spread = (weight * (mean - centre) ** 2).sum()
        if not spread > 0:
            return None
        height = (weight * variance).sum() / total
        gain = (weight * (mean - centre) * variance).sum() / spread
        if not gain > 0:
            return None
        offset = centre - height / gain
        gain_error = 1 / sqrt(spread)
        offset_error = sqrt(1 / total + ((offset - centre) * gain_error) ** 2) / gain
        result = float(gain), float(offset), gain_error, offset_error
        expected = np.maximum(gain * (mean - offset), 1e-12)
    return result


def unit_offset(sums: TransferSums) -> tuple[float, float]:
    """Offset of values whose gain is known to be one, and its standard error: mean less variance.

    Dim pixels tell most.
    """
    tables = sums.times.sum(axis=0), sums.mean.sum(axis=0), sums.squares.sum(axis=0)
    n, mean, variance = _points(*tables, _NOISE_OF_FOURTH)
    expected = np.maximum(variance, 0.05)
    weight = n / (2 * expected**2 + expected)
    total = float(weight.sum())
    if not total > 0:
        return float(sums.base), float("inf")
    return sums.base + float((weight * (mean - variance)).sum()) / total, 1 / sqrt(total)


def _rounded(value: float, error: float) -> str:
    """A value with as many digits as its error is worth."""
    if not error > 0:
        return f"{value:.6g}"
    digits = max(0, 1 - int(np.floor(np.log10(error))))
    return f"{value:.{digits}f} ± {error:.{digits}f}"
