"""A chunk's counts as rows of 64 lanes, with the sums that every model starts from."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from stemcodecs.entropy.kernels.kernel_arguments import GroupRows, mixture_of
from stemcodecs.entropy.kernels.pixel_methods import step_masks
from stemcodecs.entropy.kernels.rans import LANES
from stemcodecs.entropy.kernels.scratch import give_rows, take_rows
from stemcodecs.entropy.kernels.threads import get_threads, run_all
from stemcodecs.entropy.kernels.transpose import gather_rows, plane_statistics
from stemcodecs.entropy.model.group_layout import GroupLayout
from stemcodecs.entropy.model.histogram_model import HistogramModel

__all__ = ["MOST_SAMPLED", "GroupedCounts", "PixelStatistics"]

Array = np.ndarray[Any, Any]
DOSE_ONE = 1 << 12
_SAMPLED_VALUES = 6_000_000
"""Values that a model is fitted to: more would cost time, and hardly change it."""
MOST_SAMPLED = 64
"""Groups that it is fitted to, at most."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PixelStatistics:
    """What a pixel is by itself over ``n`` scan positions: sum, least and largest count (int64, uint16, uint16)."""

    n: int
    total: Array
    low: Array
    high: Array


class GroupedCounts:
    """A chunk's counts by groups, each pixel a row of 64 lanes.

    Rows are made when they are asked for: a whole chunk of them would take as much memory as the chunk, and reading it
    a second time is faster than writing and reading its rows.

    Parameters
    ----------
    plane : uint8 or uint16[n_positions, n_pixels]
        Counts, C-contiguous.
    layout : GroupLayout
        Which position is which lane.
    margin : int
        Rows of zeros before the first group of every chain, for contexts that reach back.

    Attributes
    ----------
    pixels : PixelStatistics
        Sums and ranges of the pixels over the chunk.
    position_sum : int64[n_positions]
        Sum over the detector.
    """

    def __init__(self, plane: Array, layout: GroupLayout, margin: int) -> None:
        self.layout = layout
        self.margin = margin
        self._plane = plane
        self._kept: dict[int, Array] = {}
        self._lock = threading.Lock()
        self._loading: dict[int, threading.Lock] = {}
        n = layout.n_pixels
        total, low, high = np.zeros(n, np.int64), np.full(n, 65535, np.uint16), np.zeros(n, np.uint16)

        def statistics(first: int, last: int) -> Array:
            sums = np.zeros(layout.n_positions, np.int64)
            plane_statistics(plane, first, last, total, low, high, sums)
            return sums

        parts = run_all(statistics, self._parts())
        self.position_sum: Array = np.sum(parts, axis=0) if parts else np.zeros(layout.n_positions, np.int64)
        self.pixels = PixelStatistics(n=layout.n_positions, total=total, low=low, high=high)
        self.doses = self._doses(float(self.position_sum.mean()) if layout.n_positions else 0.0)

    def _doses(self, reference: float) -> Array:
        # A pattern without counts has dose 0; where no pattern has any, all are alike.
        relative = self.position_sum / reference if reference > 0 else np.ones(self.layout.n_positions)
        return np.clip(np.rint(relative * DOSE_ONE), 0, 65535).astype(np.int32)

    def set_reference(self, mean_frame_sum: float) -> None:
        """Take the doses relative to a scan's mean frame sum instead of the chunk's."""
        self.doses = self._doses(mean_frame_sum)

    def origin(self, step: int) -> int:
        """First row of a step of a chain."""
        return self.margin + step * self.layout.n_pixels

    def load_chain(self, chain: int, rows: Array) -> Array:
        """Rows of a whole chain, the margin in front, into uint16[>= margin + chain_length * n_pixels, 64]."""
        # Lent rows hold what others left; contexts of the first pixels look into the margin.
        rows[: self.margin] = 0
        for step in range(self.layout.chain_length):
            gather_rows(self._plane, self.layout.chains[chain, step], rows, self.origin(step), 0, self.layout.n_pixels)
        return rows

    def keep(self, groups: list[tuple[int, int]]) -> None:
        """Load groups that :meth:`group` will be asked for, on all threads; of chains of one group only."""
        if self.layout.chain_length > 1:
            return
        kept = {chain: take_rows(self.origin(1)) for chain, _ in groups[: self.n_sampled]}

        def load(chain: int, first: int, last: int) -> None:
            kept[chain][: self.margin] = 0
            gather_rows(self._plane, self.layout.chains[chain, 0], kept[chain], self.margin, first, last)

        run_all(load, [(chain, *part) for chain in kept for part in self._parts()])
        self._kept |= kept

    def _parts(self) -> list[tuple[int, int]]:
        """Ranges of pixels, one for every thread."""
        # By pixels, not by positions: each thread then writes its own part of the sums.
        cuts = np.linspace(0, self.layout.n_pixels, get_threads() + 1).astype(int).tolist()
        return [(a, b) for a, b in itertools.pairwise(cuts) if b > a]

    def group(self, chain: int, step: int) -> tuple[Array, int]:
        """Rows of a group's chain and the group's first row in them; the chains asked for last are kept."""
        with self._lock:
            loading = self._loading.setdefault(chain, threading.Lock())
        with loading:  # Threads that ask for the same chain must not all load it: it may be twice the chunk.
            rows = self._kept.get(chain)
            if rows is None:
                rows = self.load_chain(chain, take_rows(self.origin(self.layout.chain_length)))
                with self._lock:
                    # No more than the sample: with long chains the rows of all would take as much as the chunk.
                    while len(self._kept) >= self.n_sampled:
                        self._kept.pop(next(iter(self._kept)))
                    self._kept[chain] = rows
        return rows, self.origin(step)

    def group_rows(
        self, chain: int, step: int, model: HistogramModel, selection: Array | None = None, rows: Array | None = None
    ) -> GroupRows:
        """A group as the kernels take it: the context is the model's, ``selection`` (bool[64]) its second weight set.

        ``rows`` are those of the chain, where they are at hand; else :meth:`group` has them.
        """
        active = self.active(chain, step)
        selection = np.zeros(LANES, bool) if selection is None else selection
        return GroupRows(
            rows=self.group(chain, step)[0] if rows is None else rows,
            origin=self.origin(step),
            active=np.uint64(active),
            step_masks=step_masks(active),
            neighbours=model.row_offsets(self.layout, step),
            dose=self.dose(chain, step),
            selection=selection,
            mixture=mixture_of(selection),
        )

    def holds(self, chain: int) -> bool:
        """Whether the rows of a chain are kept."""
        return chain in self._kept

    @contextmanager
    def chain(self, chain: int) -> Iterator[Array]:
        """Rows of a chain, for the last time that they are asked for."""
        rows = self._kept.pop(chain, None)
        if rows is None:
            rows = self.load_chain(chain, take_rows(self.origin(self.layout.chain_length)))
        try:
            yield rows
        finally:
            give_rows(rows)

    def forget(self) -> None:
        """Let go of the rows that :meth:`group` kept; none may be in use."""
        for rows in self._kept.values():
            give_rows(rows)
        self._kept.clear()

    @property
    def n_sampled(self) -> int:
        """Groups that a model is fitted to."""
        return int(np.clip(_SAMPLED_VALUES // (self.layout.n_pixels * LANES), 3, MOST_SAMPLED))

    def lanes(self, chain: int, step: int) -> Array:
        """0xFFFF for lanes that hold a position, else 0: uint16[64]."""
        return np.where(self.layout.chains[chain, step] >= 0, 0xFFFF, 0).astype(np.uint16)

    def active(self, chain: int, step: int) -> int:
        """Bit mask of the lanes that hold a position."""
        return active_lanes(self.layout.chains[chain, step])

    def dose(self, chain: int, step: int) -> Array:
        """Dose of every lane, 4096 for the mean frame: int32[64]; 0 for lanes without a position."""
        return doses_of_lanes(self.doses, self.layout.chains[chain, step])

    def groups(self) -> list[tuple[int, int]]:
        """(chain, step) of every group that holds a position."""
        held = (self.layout.chains >= 0).any(axis=2)
        return [(int(c), int(s)) for c, s in np.argwhere(held)]

    def sample(self, first_step: int = 0) -> list[tuple[int, int]]:
        """Groups spread over the chunk, none of them among the first ``first_step`` of a chain."""
        groups = [g for g in self.groups() if g[1] >= first_step]
        n = self.n_sampled
        if len(groups) <= n:
            return groups
        # Evenly, not at random: the specimen and the dose change along the scan.
        picked = np.unique(np.linspace(0, len(groups) - 1, n).round().astype(int))
        return [groups[i] for i in picked]


def active_lanes(positions: Array) -> int:
    """Bit mask of the lanes whose position is not -1."""
    return int(np.packbits(positions >= 0, bitorder="little").view("<u8")[0])


def doses_of_lanes(doses: Array, positions: Array) -> Array:
    """Dose of every lane: int32[64], 0 for lanes without a position."""
    return np.where(positions >= 0, doses[np.maximum(positions, 0)], 0).astype(np.int32)
