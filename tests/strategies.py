"""Hypothesis strategies and simulated scans that the tests of the entropy coder and its codec draw from."""

from __future__ import annotations

import math
import os
from typing import Any

import numpy as np
from hypothesis import strategies as st

Array = np.ndarray[Any, Any]

INTEGERS = ("u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8")
FLOATS = ("f2", "f4", "f8")
DTYPES = ("?", *INTEGERS, *FLOATS)
GAINS = (1.0, 0.25, 3.0, 0.1, 1 / 3, 0.7071067811865476, 12.5, 1e-3, 1234.5)
MODES = ("pixel", "neighbour", "scan", "auto")
CAMPAIGN_SHARE = 1 if os.environ.get("STEMCODECS_CAMPAIGN") == "full" else 10
"""A run of campaigns takes one in so many of its stated examples, all of them before a release."""


def simulated_scan(shape: tuple[int, ...], mean: float, seed: int = 0) -> Array:
    """Poisson counts, int64 of ``shape``: a disk, moving fringes and a fluctuating dose, for contexts to predict."""
    random = np.random.default_rng(seed)
    *scan, height, width = (1,) * (3 - len(shape)) + tuple(shape)
    positions = math.prod(scan)
    y, x = np.mgrid[:height, :width]
    disk = 0.02 + np.exp(-(((y - height / 2) / (height / 3 + 1)) ** 2 + ((x - width / 2) / (width / 3 + 1)) ** 2))
    dose = random.gamma(2.0, 0.5, (positions, 1, 1))
    phase = np.linspace(0, 3, max(positions, 1))[:positions, None, None]
    rate = mean * dose * disk * (1 + 0.8 * np.sin(x / 2 + phase))
    return random.poisson(rate).reshape(shape)


def same_bits(a: Array, b: Array) -> bool:
    """Whether two arrays have the same dtype, byte order, shape and bits, NaN payloads and signs of zero included."""
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


@st.composite
def shapes(draw: st.DrawFn, *, least: int = 0, most: int = 5) -> tuple[int, ...]:
    """0-D to 5-D shapes of up to a few thousand values: scans of more than a group, and detectors of one pixel."""
    ndim = draw(st.integers(least, most))
    detector = draw(st.tuples(st.integers(0, 9), st.integers(1, 9)))
    if ndim == 0:
        return ()
    if ndim == 1:
        return (draw(st.integers(0, 300)),)
    if ndim == 2:
        return (draw(st.integers(0, 140)), detector[1])
    positions = draw(st.integers(0, 140))
    if ndim == 3:
        return (positions, *detector)
    columns = draw(st.integers(1, 17))
    if ndim == 4:
        return (positions // columns, columns, *detector)
    return (draw(st.integers(1, 3)), draw(st.integers(1, 4)), columns, *detector)


def _clipped(counts: Array, dtype: np.dtype[Any]) -> Array:
    if dtype.kind == "b":
        return counts > 0
    if dtype.kind == "f":
        return counts.astype(dtype)
    limits = np.iinfo(dtype)
    return np.clip(counts, limits.min, limits.max).astype(dtype)


def _sprinkle(counts: Array, values: list[int], share: float, random: np.random.Generator) -> None:
    """Overwrite a share of the values (one at least) with some of ``values``."""
    flat = counts.reshape(-1)
    if flat.size:
        at = random.integers(0, flat.size, max(1, int(share * flat.size)))
        flat[at] = random.choice(np.array(values, counts.dtype), at.size)


@st.composite
def scans(draw: st.DrawFn, *, dtypes: tuple[str, ...] = DTYPES, least_dimensions: int = 0) -> Array:
    """Arrays as detectors write them, of any dtype, memory layout and byte order.

    Counts of a mean from 0 to tens of thousands, with, by choice, gaps of -1, dead, hot, constant and saturated pixels,
    outliers over the whole range of the dtype, values wider than 16 bits, gains of floats, NaN and infinities.
    """
    dtype = np.dtype(draw(st.sampled_from(dtypes)))
    shape = draw(shapes(least=least_dimensions))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    mean = draw(st.sampled_from([0.0, 0.05, 1.0, 4.0, 60.0, 900.0, 30000.0]))
    structured = draw(st.booleans())
    counts = simulated_scan(shape, mean, int(random.integers(2**31))) if structured else random.poisson(mean, shape)
    counts = np.array(counts, np.int64).reshape(shape)
    defects = draw(
        st.sets(st.sampled_from(["gap", "dead", "constant", "hot", "saturated", "outliers", "marks"]), max_size=3)
    )
    limits = np.iinfo(dtype if dtype.kind in "iu" else np.int16)
    top = min(int(limits.max), 2**63 - 1)
    if counts.ndim and counts.size:
        pixel = (..., int(random.integers(counts.shape[-1])))
        if "gap" in defects:
            counts[pixel] = -1
        if "dead" in defects:
            counts[..., 0] = 0
        if "constant" in defects:
            counts[..., -1] = int(random.integers(0, min(top, 65535)))
        if "hot" in defects:
            counts[pixel] = random.integers(0, min(top, 2**40), counts[pixel].shape)
        if "marks" in defects:
            counts[pixel] = top - int(random.integers(2))
        if "saturated" in defects:
            _sprinkle(counts, [top], 0.02, random)
        if "outliers" in defects:
            _sprinkle(counts, [int(limits.min), top, top - 1, 255, 256, -2], 0.0005, random)
    if dtype.itemsize >= 4 and draw(st.booleans()):
        counts = counts * draw(st.sampled_from([1, 7, 4096])) + draw(st.sampled_from([0, -5000, 100_000]))
        if draw(st.booleans()):
            counts = counts + random.integers(0, 2 ** draw(st.integers(1, 30)), shape)
    with np.errstate(over="ignore", invalid="ignore"):
        array = _clipped(counts, dtype)
        if dtype.kind == "f" and array.size:
            kind = draw(st.sampled_from(["scaled", "real", "bits"]))
            if kind == "scaled":
                array = (array.astype(np.float64) * draw(st.sampled_from(GAINS))).astype(dtype)
                if draw(st.booleans()) and array.ndim:
                    array[..., 0] = np.nan
                if draw(st.booleans()):
                    array.reshape(-1)[:: max(1, array.size // 2)] = draw(
                        st.sampled_from([np.nan, -0.0, np.inf, -np.inf])
                    )
            elif kind == "real":
                array = random.normal(size=shape).astype(dtype)
            else:
                array = np.frombuffer(random.bytes(array.nbytes), dtype).reshape(shape).copy()
    array = np.asarray(array, dtype).reshape(shape)
    if draw(st.booleans()):
        array = np.asfortranarray(array)
    if draw(st.booleans()):
        array = array.astype(array.dtype.newbyteorder(">"))
    return array
