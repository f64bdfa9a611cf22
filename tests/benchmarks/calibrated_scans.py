"""Counts as cameras and their software hand them out: scaled, shifted, reversed, corrected, normalised."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["CalibratedScan", "calibrated_scans"]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, kw_only=True)
class CalibratedScan:
    """One row of the table.

    Attributes
    ----------
    name : str
        In words of the microscope.
    values : ndarray
        What is stored.
    behind : ndarray
        The integers behind it, as uint16.
    allowed : float
        Bits per pixel above those of ``behind`` that calibration maps and rounding may take.
    """

    name: str
    values: Array
    behind: Array
    allowed: float


def calibrated_scans(
    positions: int = 1024, side: int = 128, seed: int = 0, spread: float = 0.05
) -> list[CalibratedScan]:
    """A disk of mean 4 on 0.1, in all its disguises; ``spread`` is that of the gains of pixels."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side] - side // 2
    rate = np.where(y**2 + x**2 < (side * 30 // 128) ** 2, 4.0, 0.1)
    c = random.poisson(rate, (positions, side, side))
    gain = random.normal(1, spread, (side, side)).astype("f4")
    dark = random.normal(100, 1, (side, side)).astype("f4")
    pedestal, of_row = random.integers(0, 30, (side, side)), random.integers(0, 30, (side, 1))
    of_pattern = random.integers(0, 30, (positions, 1, 1))
    monitor = random.normal(1, 0.05, (positions, 1, 1)).astype("f4")
    adu = np.rint(40 * c + 100 + 5 * random.standard_normal(c.shape)).astype("u2")
    single, counts = c.astype("f4"), c.astype("u2")
    one = 0.01 * 0.92
    a_map = 32 / positions
    rows = {
        "12 bits in the upper of 16": (counts << 4, one),
        "counts times 17": (counts * 17, one),
        "17.3 ADU a count, pedestal 100": ((np.rint(17.3 * c) + 100).astype("u2"), one),
        "151.3 ADU a count, int32": (np.rint(151.3 * c).astype("i4"), one),
        "inverted, 65535 - c": ((65535 - c).astype("u2"), one),
        "inverted, 255 - c, uint8": ((255 - c).astype("u1"), one),
        "negative, int16": ((-c).astype("i2"), one),
        "negative, int8": ((-c).astype("i1"), one),
        "pedestal 30000": (counts + np.uint16(30000), one),
        "pedestal -30000, int16": ((c - 30000).astype("i2"), one),
        "counts times a million, int64": (c * 10**6, one),
        "ADU by gain of each pixel, rounded": (np.rint(17.3 * gain * c).astype("u2"), one + a_map),
        "dark reference of each pixel added": ((c + pedestal).astype("u2"), one + a_map),
        "offset of each detector row": ((c + of_row).astype("u2"), one + a_map / 4),
        "offset of each pattern": ((c + of_pattern).astype("u2"), one),
        "counts x gain of pixel, float32": (single * gain, 0.051),
        "counts x gain of pixel, float64": (c * gain.astype("f8"), 0.051),
        "counts / sum of pattern, float32": (single / c.sum((1, 2), keepdims=True).astype("f4"), 0.061),
        "counts x gain / monitor, float32": (single * gain / monitor, 0.131),
        "ADU x gain of pixel, float32": (adu.astype("f4") * gain, 0.131),
        "(ADU - dark) x gain, float32": ((adu.astype("f4") - dark) * gain, 0.281),
    }
    return [
        CalibratedScan(
            name=name, values=values, behind=adu if "ADU x" in name or "(ADU" in name else counts, allowed=allowed
        )
        for name, (values, allowed) in rows.items()
    ]
