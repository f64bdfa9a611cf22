"""The calibration that a shared model carries for all chunks of an array: its bytes, and what a chunk makes of it."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np

from stemcodecs.entropy.chunk.calibration_bytes import (
    FLOATS,
    MAX_SHARED_CORRECTIONS,
    needs_extension,
    read_calibration,
    write_calibration,
)
from stemcodecs.entropy.model.group_layout import GroupLayout
from stemcodecs.entropy.model.model_bytes import Reader, Writer
from stemcodecs.entropy.model.shared_model import SharedModel
from stemcodecs.entropy.values.calibration import (
    Calibration,
    FloatCalibration,
    IntegerCalibration,
    SharedCalibration,
    ValueTable,
)
from stemcodecs.entropy.values.number_map import MAX_SPECIALS, PLANE_TOP, NumberMap
from stemcodecs.errors import CorruptChunkError

__all__ = ["behind_bytes", "calibration_of", "is_extended", "of_scan", "shared_calibration"]


def of_scan(calibration: Calibration) -> bool:
    """Whether a calibration has no parameters of patterns, so that it may be one of a whole scan."""
    if isinstance(calibration, FloatCalibration):
        return calibration.scale is None
    return isinstance(calibration, ValueTable) or calibration.shift is None


def is_extended(calibration: Calibration, detector: tuple[int, int], *, scaled: bool) -> bool:
    """Whether shared models of version 2 and 3 cannot say a calibration, or 4 and 5 say it in clearly fewer bytes."""
    if scaled and isinstance(calibration, IntegerCalibration):
        return True
    return needs_extension(calibration, GroupLayout.of_shape((1, *detector)))


def behind_bytes(
    numbers: NumberMap, calibration: Calibration, detector: tuple[int, int], *, extended: bool = False
) -> bytes:
    """Serialise how the values of a whole scan become counts, see ``FORMAT.md``, 1.11.

    extended : whether it is for a shared model of version 4 or 5, see :func:`is_extended`.
    """
    w = Writer()
    w.varint(numbers.negatives)
    w.section(np.array(numbers.specials, "<u8").tobytes())
    w.section(write_calibration(calibration, GroupLayout.of_shape((1, *detector)), extended=extended))
    return w.getvalue()


def shared_calibration(
    shared: SharedModel, dtype: np.dtype[Any], of_chunk: SharedCalibration
) -> tuple[NumberMap, Calibration]:
    """How a shared model, and what a chunk has of its own, say that values of a dtype become counts.

    Raises
    ------
    CorruptChunkError
        If the model says nothing, or not of values of this dtype, or of a chunk with scales or offsets of patterns
        where it has none.
    """
    if not shared.behind:
        raise CorruptChunkError("its values come from counts by a map that the array's metadata do not have")
    numbers, calibration = calibration_of(shared)
    if shared.scaled and isinstance(calibration, ValueTable):
        raise CorruptChunkError("a shared model with parameters of patterns beside a table of values")
    if isinstance(calibration, FloatCalibration) != (dtype.kind == "f"):
        raise CorruptChunkError("its values are not of the kind that the map of the shared model gives")
    # Of an integer dtype the header has offsets only, of floats scales only.
    if shared.scaled != (of_chunk.scale is not None or of_chunk.shift is not None):
        raise CorruptChunkError("it and the shared model do not agree whether its patterns have scales or offsets")
    if isinstance(calibration, FloatCalibration) and of_chunk.scale is not None:
        calibration = replace(calibration, scale=of_chunk.scale)
    elif isinstance(calibration, IntegerCalibration) and of_chunk.shift is not None:
        calibration = replace(calibration, shift=of_chunk.shift)
    return numbers, calibration


def calibration_of(shared: SharedModel) -> tuple[NumberMap, Calibration]:
    """How a shared model that has a map says that values become counts; parsed once.

    Raises
    ------
    CorruptChunkError
        If its bytes make no sense.
    """
    return _parsed(shared.behind, shared.detector, shared.extended)


@lru_cache(maxsize=4)
def _parsed(behind: bytes, detector: tuple[int, int], extended: bool) -> tuple[NumberMap, Calibration]:
    r = Reader(memoryview(behind))
    negatives, specials = r.varint(), r.section()
    if negatives > PLANE_TOP // 2 or len(specials) % 8 or len(specials) > 8 * MAX_SPECIALS:
        raise CorruptChunkError("impossible negatives or marks of a shared model")
    section = r.section()
    # It begins with its kind, which says what numbers it is of.
    kind = np.dtype(np.float64 if bytes(section[:1]) == bytes([FLOATS]) else np.int64)
    most = MAX_SHARED_CORRECTIONS * math.prod(detector)
    calibration = read_calibration(section, (1, *detector), kind, extended=extended, most_corrections=most)
    r.end()
    if not of_scan(calibration):
        raise CorruptChunkError("the calibration of a shared model has parameters of patterns")
    marks = tuple(int(s) for s in np.frombuffer(specials, "<u8"))
    return NumberMap(negatives=negatives, specials=marks), calibration
