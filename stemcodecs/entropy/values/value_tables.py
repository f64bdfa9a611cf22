"""Propose the values that occur, all pixels alike, as a list in the order of their counts."""

from __future__ import annotations

from typing import Any

import numpy as np

from stemcodecs.entropy.values.calibration import ValueTable
from stemcodecs.entropy.values.calibration_kernels import mark_codes, mark_present
from stemcodecs.entropy.values.number_map import MAX_EXCEPTIONS, PLANE_TOP

__all__ = ["FAR", "propose_table"]

Array = np.ndarray[Any, Any]

FAR = 1 << 62
"""Differences beyond it may not be integers of 64 bits."""
_WINDOW = 1 << 22
"""Places of a table of values: bounds what looking them up takes."""
_FREQUENT = 8


def propose_table(
    flat: Array, distinct: Array, times: Array, *, hidden: bool, backwards: bool
) -> tuple[ValueTable | None, bool]:
    """A table, if one may help, and whether it shows that all pixels have the same spacing.

    Parameters
    ----------
    flat : integers[n]
        All values.
    distinct, times : int64[k]
        Values of a sample of the pixels that are alive, sorted, and how often each occurs.
    hidden : bool
        Whether there is no other way to have counts.
    backwards : bool
        Whether more counts are lower values.
    """
    share = np.cumsum(times) / times.sum()
    low, high = (int(distinct[np.searchsorted(share, at)]) for at in (0.005, 0.995))
    bulk = (distinct >= low) & (distinct <= high)
    ours, weight = distinct[bulk], times[bulk]
    if ours.size < 2:
        ours, weight = distinct, times
        low, high = int(ours[0]), int(ours[-1])
    if int(ours[-1]) - int(ours[0]) >= FAR:
        return None, False
    step = int(np.gcd.reduce(np.diff(ours)))
    frequent = (weight[1:] >= _FREQUENT) & (weight[:-1] >= _FREQUENT)
    apart = float((np.diff(ours)[frequent] > 1).mean()) if frequent.any() else 0.0
    gaps = step > 1 or apart > 0.1
    middle = int(distinct[np.searchsorted(share, 0.5)])
    shifted = (
        low > 0.3 * middle if low > 0 else share[max(int(np.searchsorted(distinct, 0)) - 1, 0)] > 0.005 and low < 0
    )
    if not (gaps or backwards or shifted or hidden):
        return None, False
    # Dead pixels, up to 2 % of them, are not where counts begin.
    low, high = (int(distinct[np.searchsorted(share, at)]) for at in (0.02, 0.98))
    table = _table(flat, low, high, step, gaps=gaps, backwards=backwards)
    return table, table is not None and (step > 1 or apart > 0.95)


def _table(flat: Array, low: int, high: int, step: int, *, gaps: bool, backwards: bool) -> ValueTable | None:
    """The values that occur, those of the bulk first, from the end at which counts are near zero."""
    if flat.dtype.itemsize <= 2:
        seen = np.zeros(1 << 8 * flat.dtype.itemsize, np.uint8)
        mark_codes(flat.view(f"u{flat.dtype.itemsize}"), seen)
        occurring = np.sort(np.flatnonzero(seen).astype(f"u{flat.dtype.itemsize}").view(flat.dtype).astype(np.int64))
        first, step = int(occurring[0]), max(1, int(np.gcd.reduce(np.diff(occurring))))
        places = (occurring - first) // step
    else:
        first, last = int(flat.min()), int(flat.max())
        if (last - first) // step >= _WINDOW:
            room = max(high - low, step)
            first, last = max(first, low - room // step * step), min(last, high + 3 * room)
        # In step with the bulk, which outliers need not be.
        first = low - (low - first) // step * step
        n = (last - first) // step + 1
        if n > _WINDOW or last >= 2**63 or first < -(2**63):
            return None
        present = np.zeros(n, np.uint8)
        if mark_present(flat, first, step, present) > MAX_EXCEPTIONS * flat.size:
            return None
        places = np.flatnonzero(present)
    if not gaps and places.size and int(places[-1] - places[0]) < 4 * places.size:
        # Without holes the list takes nothing.
        places = np.arange(places[0], places[-1] + 1)
    # As many values as there are would be a list of the array, not of its counts.
    if not 2 <= places.size <= min(PLANE_TOP, flat.size // 8):
        return None
    if backwards:
        places = places[::-1]
    # Values far before the bulk, of dead pixels say, would make a pedestal: they come behind the others.
    begin = int(np.argmax(places <= (high - first) // step if backwards else places >= (low - first) // step))
    far = max((high - low) // step // 2, 4 * int(np.median(np.abs(np.diff(places)))))
    while begin > 0 and abs(int(places[begin] - places[begin - 1])) <= far:
        begin -= 1
    places = np.concatenate([places[begin:], places[:begin]])
    return ValueTable(values=first + step * places.astype(np.int64))
