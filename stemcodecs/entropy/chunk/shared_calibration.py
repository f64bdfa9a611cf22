"""The calibration that a shared model carries for all chunks of an array: its bytes, and what a chunk makes of it."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np

from stemcodecs.entropy.chunk.calibration_bytes import FLOATS, read_calibration, write_calibration
from stemcodecs.entropy.model.group_layout import GroupLayout
from stemcodecs.entropy.model.model_bytes import Reader, Writer
from stemcodecs.entropy.model.shared_model import SharedModel
from stemcodecs.entropy.values.calibration import Calibration, FloatCalibration, IntegerCalibration, SharedCalibration
from stemcodecs.entropy.values.number_map import MAX_SPECIALS, PLANE_TOP, NumberMap
from stemcodecs.errors import CorruptChunkError

__all__ = ["behind_bytes", "calibration_of", "of_scan", "shared_calibration"]


def of_scan(calibration: Calibration) -> bool:
    """Whether a calibration has no parameters of patterns, so that it may be one of a whole scan.

    What only chunks of version 4 hold is not of a scan either: shared models have no such calibrations.
    """
    if isinstance(calibration, FloatCalibration):
        of_chunks = calibration.signed_zeros or calibration.corrections is not None
        return calibration.scale is None and not of_chunks
    if isinstance(calibration, IntegerCalibration):
        return calibration.shift is None and not calibration.reversed and not calibration.base
    return True


def behind_bytes(numbers: NumberMap, calibration: Calibration, detector: tuple[int, int]) -> bytes:
    """Serialise how the values of a whole scan become counts, see ``FORMAT.md``, 1.11."""
    w = Writer()
    w.varint(numbers.negatives)
    w.section(np.array(numbers.specials, "<u8").tobytes())
    w.section(write_calibration(calibration, GroupLayout.of_shape((1, *detector))))
    return w.getvalue()


def shared_calibration(
    shared: SharedModel, dtype: np.dtype[Any], of_chunk: SharedCalibration
) -> tuple[NumberMap, Calibration]:
    """How a shared model, and what a chunk has of its own, say that values of a dtype become counts.

    Raises
    ------
    CorruptChunkError
        If the model says nothing, or not of values of this dtype, or of a chunk with scales where it has none.
    """
    if not shared.behind:
        raise CorruptChunkError("its values come from counts by a map that the array's metadata do not have")
    numbers, calibration = calibration_of(shared)
    if shared.scaled and not isinstance(calibration, FloatCalibration):
        raise CorruptChunkError("a shared model with scales of what is no float")
    if isinstance(calibration, FloatCalibration) != (dtype.kind == "f"):
        raise CorruptChunkError("its values are not of the kind that the map of the shared model gives")
    if shared.scaled != (of_chunk.scale is not None):
        raise CorruptChunkError("it and the shared model do not agree whether its patterns have scales")
    if of_chunk.scale is not None:
        assert isinstance(calibration, FloatCalibration)
        calibration = replace(calibration, scale=of_chunk.scale)
    return numbers, calibration


def calibration_of(shared: SharedModel) -> tuple[NumberMap, Calibration]:
    """How a shared model that has a map says that values become counts; parsed once.

    Raises
    ------
    CorruptChunkError
        If its bytes make no sense.
    """
    return _parsed(shared.behind, shared.detector)


@lru_cache(maxsize=4)
def _parsed(behind: bytes, detector: tuple[int, int]) -> tuple[NumberMap, Calibration]:
    r = Reader(memoryview(behind))
    negatives, specials = r.varint(), r.section()
    if negatives > PLANE_TOP // 2 or len(specials) % 8 or len(specials) > 8 * MAX_SPECIALS:
        raise CorruptChunkError("impossible negatives or marks of a shared model")
    section = r.section()
    # It begins with its kind, which says what numbers it is of.
    kind = np.dtype(np.float64 if bytes(section[:1]) == bytes([FLOATS]) else np.int64)
    calibration = read_calibration(section, (1, *detector), kind)
    r.end()
    if not of_scan(calibration):
        raise CorruptChunkError("the calibration of a shared model has parameters of patterns")
    marks = tuple(int(s) for s in np.frombuffer(specials, "<u8"))
    return NumberMap(negatives=negatives, specials=marks), calibration
