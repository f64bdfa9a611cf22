"""Small chunks of every kind, mode and coding method, for damage."""

from __future__ import annotations

from functools import cache
from typing import Any
from unittest import mock

import numpy as np

from stemcodecs.entropy.chunk import encode
from stemcodecs.entropy.fit import grouped_counts as rows
from stemcodecs.entropy.fit.fit_model import FitOptions
from tests.strategies import simulated_scan

Array = np.ndarray[Any, Any]


def _arrays() -> dict[str, tuple[str, Array]]:
    """Name, mode and array of every specimen."""
    sparse = np.random.default_rng(1).poisson(0.05, (70, 5, 5)).astype(np.uint8)
    bright = simulated_scan((5, 14, 5, 6), 9.0, seed=2)
    outlier = bright.astype(np.int32)
    outlier.reshape(-1)[[3, 1500]] = 2**30, -7
    random = np.random.default_rng(4)
    wide = (random.poisson(3000, (66, 3, 4)) * 5000 + random.integers(0, 5000, (66, 3, 4))).astype(np.int64)
    scaled = (bright[:3] * 0.1).astype(np.float32)
    scaled[0, 0, 0, 0] = np.nan
    marked = bright.astype(np.uint32)
    marked[..., 2, :], marked[..., 3, 3] = 2**32 - 1, 2**32 - 2
    # In a group that the fit does not see.
    patched = simulated_scan((300, 3, 4), 9.0, seed=3).astype(np.uint16)
    patched[100, 1, 1] = 60000
    few = simulated_scan((5, 14, 5, 6), 4.0, seed=5)
    gain, monitor = random.normal(1, 0.1, (5, 6)), random.normal(1, 0.1, (5, 14, 1, 1))
    return {
        "reversed": ("pixel", (-few).astype(np.int16)),
        "pixel_gain": ("pixel", np.rint(few * gain * 99).astype(np.int32) + random.integers(0, 50, (5, 14, 1, 1))),
        "float_gain": ("neighbour", few * gain),
        "float_scale": ("pixel", few.astype(np.float32) / monitor.astype(np.float32)),
        **_calibrated_further(),
        "sparse": ("pixel", sparse),
        "pixel": ("pixel", bright.astype(np.uint16)),
        "neighbour": ("neighbour", bright.astype(np.uint16)),
        "scan": ("scan", bright.astype(np.uint16)),
        "auto": ("auto", bright[:2].astype(">i4")),
        "exceptions": ("neighbour", outlier),
        "marks": ("neighbour", marked),
        "patches": ("pixel", patched),
        "low_bits": ("pixel", wide),
        "scaled": ("scan", scaled),
        "constant": ("auto", np.full((70, 4, 4), 9, np.uint16)),
        "line": ("scan", np.asfortranarray(bright.astype(np.uint8)[0, :, :2, 0])),
        "one_pixel": ("neighbour", bright.astype(np.uint16)[:3, :, :, :1]),
        "stored": ("auto", random.normal(size=(3, 4, 5)).astype(np.float32)),
        "stored_empty": ("auto", np.zeros((3, 0, 5), np.uint16)),
    }


def _calibrated_further() -> dict[str, tuple[str, Array]]:
    """Arrays of format version 4: reversed, rows and columns, zeros with a sign, corrections in last digits; and of
    version 7: a list.
    """
    random = np.random.default_rng(12)
    counts = simulated_scan((5, 14, 5, 6), 3.0, seed=8)
    gain, dark = random.normal(1, 0.05, (5, 6)), random.normal(30, 1, (5, 6)).astype(np.float32)
    turned = -np.rint(17.3 * gain * counts).astype(np.int32)
    turned[..., 1, 2] = 2**31 - 1
    rows_of = (np.rint(17.3 * gain * counts) + random.integers(0, 90, (5, 1))).astype(np.uint16)
    signed = np.where((counts == 0) & (random.random(counts.shape) < 0.3), -0.0, counts) * gain
    single = gain.astype(np.float32)
    adu = np.rint(4 * counts + 30 + random.standard_normal(counts.shape)).astype(np.float32)
    return {
        "reversed_gain": ("pixel", turned),
        "row_offset": ("neighbour", rows_of),
        "signed_zeros": ("pixel", signed),
        "corrected": ("pixel", adu * single - dark * single),
        "list": ("neighbour", np.log1p(counts).astype(np.float32)),
    }


@cache
def specimens() -> dict[str, tuple[Array, bytes]]:
    """Array and chunk by name."""
    with mock.patch.object(encode, "SMALL", 0), mock.patch.object(rows, "_SAMPLED_VALUES", 1):
        return {
            name: (array, encode.encode_array(array, FitOptions(mode=mode)))
            for name, (mode, array) in _arrays().items()
        }
