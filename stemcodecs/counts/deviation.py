"""Hold decoded values against their originals by the counts behind both."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from stemcodecs.counts.counts_map import CountsMap
from stemcodecs.quantize.guarantee import Deviation
from stemcodecs.quantize.poisson_quantizer import PoissonQuantizer

__all__ = ["deviation_behind"]

Array = np.ndarray[Any, Any]


def deviation_behind(
    source: Array, decoded: Array, quantizer: PoissonQuantizer, behind: CountsMap, origin: tuple[int, ...]
) -> Deviation:
    """Compare a block with its decoded values, count by count; what the map does not give must be the same bit by bit.

    Parameters
    ----------
    source, decoded : ndarray, (…, det_y, det_x)
        Of the same shape and dtype.
    quantizer : PoissonQuantizer
        States the bound, of counts.
    behind : CountsMap
        How values become counts.
    origin : tuple of int
        Index of the block's first element in the scan.
    """
    n_pixels = behind.zero.size
    native = source.dtype.newbyteorder("=")
    total = Deviation(gain=float(quantizer.adu_per_count))
    a, b = (np.ascontiguousarray(v, native).reshape(-1, n_pixels) for v in (source, decoded))
    bits = f"u{native.itemsize}"
    rows = max(1, (1 << 22) // n_pixels)
    for first in range(0, len(a), rows):
        mine, other = a[first : first + rows], b[first : first + rows]
        # Scales are those of the source: what decoded values would tell is no witness.
        scales = behind.scales(mine)
        counts, unknown = behind.counts(mine, scales)
        decoded_counts, lost = behind.counts(other, scales)
        same = mine.view(bits) == other.view(bits)
        # A value without counts on either side is right only if nothing changed.
        broken = (unknown | lost) & ~same
        decoded_counts[unknown | lost] = counts[unknown | lost]
        found = Deviation.of(counts, decoded_counts, quantizer)
        indices = [int(np.ravel_multi_index(found.first_violation, counts.shape))] if found.first_violation else []
        indices += [int(np.argmax(broken))] if broken.any() else []
        index = None
        if indices:
            local = np.unravel_index(int(min(indices)) + first * n_pixels, source.shape)
            index = tuple(int(i) + o for i, o in zip(local, origin, strict=True))
        outside = int(np.count_nonzero(unknown & ((counts >= quantizer.offset) & (counts < _top(quantizer)))))
        total = total.merge(
            replace(
                found,
                exact=found.exact + outside,
                violations=found.violations + int(np.count_nonzero(broken)),
                first_violation=index,
            )
        )
    return total


def _top(quantizer: PoissonQuantizer) -> int:
    return quantizer.offset + quantizer.top(np.dtype(np.int32)) + 1
