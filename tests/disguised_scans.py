"""Kinds of scans that are counts in disguise, as cameras and their software hand them out: more than a table has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

__all__ = ["DISGUISES", "Parts", "with_defects"]

Array = np.ndarray[Any, Any]


class Parts:
    """What disguises are made of.

    Parameters
    ----------
    counts : int64[positions, det_y, det_x]
        What is behind them.
    random : numpy.random.Generator
        Of gains, offsets and noise.
    """

    def __init__(self, counts: Array, random: np.random.Generator) -> None:
        positions, height, width = counts.shape
        self.c, self.random = counts, random
        self.f4, self.f8 = counts.astype("f4"), counts.astype("f8")
        self.wide_gain = random.normal(1, 0.05, (height, width))
        self.gain = self.wide_gain.astype("f4")
        self.signs = np.where(random.random((height, width)) < 0.5, -1, 1)
        self.pixel = random.integers(0, 30, (height, width))
        self.row, self.column = random.integers(0, 30, (height, 1)), random.integers(0, 30, (width,))
        self.pattern = random.integers(0, 30, (positions, 1, 1))
        self.dose = np.maximum(counts.sum((1, 2), keepdims=True), 1)
        self.monitor = random.normal(1, 0.05, (positions, 1, 1)).astype("f4")
        self.adu = np.rint(20 * counts + 100 + 3 * random.standard_normal(counts.shape))
        self.dark = random.normal(100, 1, (height, width)).astype("f4")
        self.wide_dark = random.normal(100, 1, (height, width))
        self.minus = (counts == 0) & (random.random(counts.shape) < 0.3)
        self.rounded = np.rint(17.3 * self.wide_gain * counts).astype("i8")


DISGUISES: dict[str, Callable[[Parts], Array]] = {
    "plain u2": lambda p: p.c.astype("u2"),
    "plain i8": lambda p: p.c.astype("i8"),
    "plain u8": lambda p: p.c.astype("u8"),
    "plain f4": lambda p: p.f4,
    "plain f2": lambda p: p.c.astype("f2"),
    "shifted left by 4": lambda p: (p.c << 4).astype("u2"),
    "x 17": lambda p: (17 * p.c).astype("u2"),
    "x 17.3 + 100": lambda p: (np.rint(17.3 * p.c) + 100).astype("u2"),
    "x 151.3": lambda p: np.rint(151.3 * p.c).astype("i4"),
    "65535 - c": lambda p: (65535 - p.c).astype("u2"),
    "255 - c": lambda p: (255 - p.c).astype("u1"),
    "-c i2": lambda p: (-p.c).astype("i2"),
    "-c i1": lambda p: (-p.c).astype("i1"),
    "c + 30000": lambda p: (p.c + 30000).astype("u2"),
    "c - 30000": lambda p: (p.c - 30000).astype("i2"),
    "c - 31900 i2": lambda p: (p.c - 31900).astype("i2"),
    "c x 1e6 i8": lambda p: p.c * 10**6,
    "-c x 1e6 + 2^50": lambda p: 2**50 - 10**6 * p.c,
    "2^40 + c": lambda p: (2**40 + p.c).astype("u8"),
    "gain, rounded": lambda p: p.rounded.astype("u2"),
    "gain, rounded, reversed": lambda p: (-p.rounded).astype("i4"),
    "gain, rounded, far off": lambda p: p.rounded + 2**41,
    "gain, rounded + row": lambda p: (p.rounded + p.row).astype("u2"),
    "gain, rounded + pixel": lambda p: (p.rounded + p.pixel).astype("i2"),
    "gain, rounded + pattern": lambda p: (p.rounded + p.pattern).astype("u2"),
    "+ pixel": lambda p: (p.c + p.pixel).astype("u2"),
    "+ pixel u1": lambda p: (p.c + p.pixel).astype("u1"),
    "+ row": lambda p: (p.c + p.row).astype("u2"),
    "+ column": lambda p: (p.c + p.column).astype("u1"),
    "- row - column, reversed": lambda p: (200 - p.c - p.row - p.column).astype("i2"),
    "1000 - c + pixel": lambda p: (1000 - p.c + p.pixel).astype("u2"),
    "255 - c - pixel u1": lambda p: (255 - p.c - p.pixel).astype("u1"),
    "2^40 - c - row": lambda p: (2**40 - p.c - p.row).astype("u8"),
    "2^40 + c + pixel": lambda p: 2**40 + p.c + p.pixel,
    "+ pattern": lambda p: (p.c + p.pattern).astype("u2"),
    "+ pattern i4": lambda p: (p.c + 1000 * p.pattern).astype("i4"),
    "+ pattern f x 17": lambda p: (17 * p.c + p.pattern).astype("u2"),
    "-c - pattern i8": lambda p: -p.c - 50 * p.pattern,
    "+ pixel + pattern": lambda p: (p.c + p.pixel + p.pattern).astype("u2"),
    "1000 - c - pixel - pattern": lambda p: (1000 - p.c - p.pixel - p.pattern).astype("i4"),
    "gain f4": lambda p: p.f4 * p.gain,
    "gain f8": lambda p: p.f8 * p.wide_gain,
    "gain f2": lambda p: p.c.astype("f2") * p.gain.astype("f2"),
    "gain of single, f2": lambda p: (p.f4 * p.gain).astype("f2"),
    "gain of double, f4": lambda p: (p.f8 * p.wide_gain).astype("f4"),
    "divided by gain": lambda p: p.f4 / p.gain,
    "negative gain": lambda p: -p.f4 * p.gain,
    "gain of both signs": lambda p: p.f4 * (p.gain * p.signs).astype("f4"),
    "x 0.37": lambda p: p.f4 * np.float32(0.37),
    "dose f4": lambda p: p.f4 / p.dose.astype("f4"),
    "dose f8": lambda p: p.f8 / p.dose,
    "dose f2": lambda p: (p.f4 / p.dose.astype("f4") * np.float32(64)).astype("f2"),
    "monitor": lambda p: p.f4 * p.monitor,
    "gain / monitor f4": lambda p: p.f4 * p.gain / p.monitor,
    "gain / monitor f8": lambda p: p.f8 * p.gain / p.monitor.astype("f8"),
    "gain / monitor, all double": lambda p: p.f8 * p.wide_gain / (p.monitor.astype("f8") * np.pi),
    "gain / dose f4": lambda p: p.f4 * p.gain / p.dose.astype("f4"),
    "ADU x gain": lambda p: p.adu.astype("f4") * p.gain,
    "(ADU - dark) x gain": lambda p: (p.adu.astype("f4") - p.dark) * p.gain,
    "(ADU - dark) x gain of double": lambda p: ((p.adu - p.dark) * p.gain.astype("f8")).astype("f4"),
    "(ADU - dark) x gain f8": lambda p: (p.adu - p.wide_dark) * p.wide_gain,
    "(ADU - dark) / gain": lambda p: (p.adu.astype("f4") - p.dark) / p.gain,
    "ADU x gain - dark x gain": lambda p: p.adu.astype("f4") * p.gain - p.dark * p.gain,
    "fused": lambda p: (p.adu * p.gain - (p.dark * p.gain)).astype("f4"),
    "zeros of both signs": lambda p: np.where(p.minus, -p.f4, p.f4),
    "zeros of both signs x gain": lambda p: np.where(p.minus, -p.f4, p.f4) * p.gain,
    "zeros of both signs f2": lambda p: np.where(p.minus, -p.f4, p.f4).astype("f2"),
    "zeros of both signs / dose": lambda p: np.where(p.minus, -p.f4, p.f4) / p.dose.astype("f4"),
}


def with_defects(values: Array, random: np.random.Generator) -> Array:
    """A copy with 1 % of the pixels dead, two hot ones, and a few values anywhere."""
    floats = values.dtype.kind == "f"
    top = np.finfo(values.dtype).max if floats else np.iinfo(values.dtype).max
    flat = values.reshape(len(values), -1).copy()
    chosen = random.permutation(flat.shape[1])[: flat.shape[1] // 100 + 2]
    flat[:, chosen[2:]] = np.nan if floats and random.random() < 0.5 else 0
    flat[:, chosen[:2]] = min(65_000, top)
    places = random.integers(0, flat.size, 3)
    flat.reshape(-1)[places] = [np.nan, -0.0, np.inf] if floats else [top, np.iinfo(values.dtype).min, 1]
    return flat.reshape(values.shape)
