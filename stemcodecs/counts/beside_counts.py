"""What a chunk keeps beside the counts behind its values: scales of patterns, and values that the map does not give.

The bytes are described in ``quantize/FORMAT.md``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from stemcodecs.counts.counts_map import CountsMap
from stemcodecs.counts.exact_values import ExactValues
from stemcodecs.entropy.chunk.calibration_bytes import read_floats, write_floats
from stemcodecs.entropy.model.model_bytes import Reader, Writer
from stemcodecs.entropy.values.calibration import IntegerCalibration
from stemcodecs.errors import CorruptChunkError

__all__ = ["BesideCounts"]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, kw_only=True, eq=False)
class BesideCounts:
    """All that with the counts of a chunk, and the map of the scan, gives its values again.

    Attributes
    ----------
    map : CountsMap
        Of the scan.
    scales : float64[k] or None
        Of the patterns, 0 where there is none, or their offsets, of integers; None where the map has none.
    exact : ExactValues
        Values that the map does not give.
    """

    map: CountsMap
    scales: Array | None
    exact: ExactValues

    @classmethod
    def split(cls, patterns: Array, behind: CountsMap) -> tuple[Array, Array, Self]:
        """Counts int32[k, pixels] of native patterns[k, pixels], where there are none, and what is kept beside them."""
        scales = behind.scales(patterns)
        counts, unknown = behind.counts(patterns, scales)
        return counts, unknown, cls(map=behind, scales=scales, exact=ExactValues.of(patterns, unknown))

    def values(self, counts: Array, dtype: np.dtype[Any], positions: Array | None = None) -> Array:
        """Values of a native dtype of counts[k, pixels], of these increasing positions of the chunk or of all."""
        values = self.map.values(counts, dtype, self.scales_at(positions))
        self.exact.insert(values, positions)
        return values

    def scales_at(self, positions: Array | None) -> Array | None:
        """Scales of some positions, or of all."""
        return self.scales if self.scales is None or positions is None else self.scales[positions]

    def to_bytes(self) -> bytes:
        """Serialise, but for the map."""
        w = Writer()
        if self.scales is not None:
            scales = Writer()
            write_floats(scales, self.scales, (1, self.scales.size))
            w.section(scales.getvalue())
        return w.getvalue() + self.exact.to_bytes()

    @classmethod
    def from_bytes(cls, data: bytes | memoryview, behind: CountsMap, shape: tuple[int, int], itemsize: int) -> Self:
        """Inverse of :meth:`to_bytes`, for values[positions, pixels] of this shape.

        Raises
        ------
        CorruptChunkError
            If the bytes are not of such values.
        """
        r = Reader(data)
        whole = isinstance(behind.calibration, IntegerCalibration)
        scales = _read_scales(r.section(), shape[0], whole=whole) if behind.scaled else None
        return cls(map=behind, scales=scales, exact=ExactValues.read(r, shape, itemsize))


def _read_scales(section: memoryview, n: int, *, whole: bool) -> Array:
    r = Reader(section)
    scales = read_floats(r, (1, n))
    r.end()
    if not whole and (scales < 0).any():
        raise CorruptChunkError("a scale of a pattern is negative")
    if whole and ((scales != np.rint(scales)) | (np.abs(scales) >= 1 << 31)).any():
        raise CorruptChunkError("an offset of a pattern is no integer of 32 bits")
    return scales
