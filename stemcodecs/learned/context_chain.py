"""Chains of patterns as the kernels of architecture ``context`` take them."""

from __future__ import annotations

from typing import Any

import numpy as np

from stemcodecs.entropy.fit.grouped_counts import active_lanes, doses_of_lanes
from stemcodecs.entropy.kernels.kernel_arguments import Patches, Stream
from stemcodecs.entropy.kernels.rans import LANES
from stemcodecs.entropy.model.group_layout import GroupLayout
from stemcodecs.learned.context_model import ContextModel, ResidualRows
from stemcodecs.learned.dose import dose_roots
from stemcodecs.learned.group_kernels import (
    Lanes,
    Network,
    decode_network_group,
    encode_network_group,
    feature_rows_of_lanes,
)
from stemcodecs.learned.path import network_path
from stemcodecs.learned.scan_means import mean_rows, mean_terms

__all__ = ["ContextChain"]

Array = np.ndarray[Any, Any]


class ContextChain:
    """Codes the groups of a chain of patterns, step by step, and keeps their residuals."""

    def __init__(self, model: ContextModel, network: Network, layout: GroupLayout, steps: int) -> None:
        self._frame = ResidualRows(model, layout, steps)
        self._residuals = np.zeros((self._frame.rows, LANES), np.int16)
        self._model, self._network, self._layout = model, network, layout
        # Of the steps that were coded: means are of those.
        self._positions = np.full((steps, LANES), -1, np.int64)

    def _lanes(self, rows: Array, step: int, positions: Array, doses: Array) -> Lanes:
        active = active_lanes(positions)
        dose = dose_roots(doses_of_lanes(doses, positions))
        feature_rows_of_lanes(self._residuals, self._frame.zero, dose, self._model.chained and step > 0)
        self._positions[step] = positions
        if self._model.means and step:
            self._fill_means(step)
        at, moves = self._frame.features(step)
        return Lanes(
            rows=rows,
            origin=step * self._layout.n_pixels,
            active=np.uint64(active),
            dose=dose,
            residuals=self._residuals,
            first_residual=self._frame.origin(step),
            stride=self._frame.stride,
            feature_rows=at,
            feature_moves=moves,
        )

    def _fill_means(self, step: int) -> None:
        height, width = self._layout.detector
        found = mean_terms(self._positions, step, self._layout.scan[1], self._model.means)
        for k, terms in enumerate(found):
            first = self._frame.origin(0) + terms.steps * self._frame.size
            mean_rows(
                self._residuals.reshape(-1), first, terms.shifts, terms.shares.reshape(-1), height, width,
                self._frame.stride, self._frame.origin_of_mean(k),
            )  # fmt: skip

    def encode(
        self, rows: Array, step: int, positions: Array, doses: Array, entries: Array, low: Array, stream: Stream,
        patches: Patches,
    ) -> tuple[int, int]:  # fmt: skip
        """A step's group, of rows without a margin; the steps before it must have been coded.

        Returns where its words begin in the stream, and the number of patches.
        """
        lanes = self._lanes(rows, step, positions, doses)
        pos, found = encode_network_group(network_path(), self._network, lanes, entries, low, stream, patches)
        return int(pos), int(found)

    def decode(self, rows: Array, step: int, positions: Array, doses: Array, stream: Stream, patches: Patches) -> int:
        """A step's group into its rows; the steps before it must have been decoded. 0 if it came out whole."""
        lanes = self._lanes(rows, step, positions, doses)
        return int(decode_network_group(network_path(), self._network, lanes, stream, patches))
