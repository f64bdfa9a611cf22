"""What each pattern has of its own beside a calibration of all of them: a scale of floats, an offset of integers."""

from __future__ import annotations

from typing import Any

import numpy as np

from stemcodecs.entropy.values.calibration import Calibration, FloatCalibration, IntegerCalibration
from stemcodecs.entropy.values.pattern_offsets import with_offsets
from stemcodecs.entropy.values.pattern_scales import with_scales

__all__ = ["signed", "with_parameters"]

Array = np.ndarray[Any, Any]


def with_parameters(values: Array, calibration: Calibration) -> Calibration:
    """The calibration with what the patterns of native values[k, n_pixels] tell, each from its own values alone."""
    if isinstance(calibration, FloatCalibration):
        return with_scales(values, calibration)
    if isinstance(calibration, IntegerCalibration):
        return with_offsets(signed(values), calibration)
    return calibration


def signed(values: Array) -> Array:
    """Integers that fit in 64 bits with a sign: calibrations are modulo 2**64."""
    return values.view(np.int64) if values.dtype == np.uint64 else values
