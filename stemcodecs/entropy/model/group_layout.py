"""Which scan positions of a chunk share a group, and in which order groups are decoded."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from stemcodecs.entropy.kernels.rans import LANES

__all__ = ["MAX_REFERENCES", "GroupLayout"]

MAX_REFERENCES = 4
"""Scan neighbours that a context may refer to."""


@dataclass(frozen=True, kw_only=True)
class GroupLayout:
    """Scan positions of a chunk as chains of groups.

    A chain is an independent unit: up to 64 lanes, each of which walks through one ``tile`` of the scan, one position
    a group. With a tile of one position a chain is one group of 64 consecutive positions.

    Attributes
    ----------
    scan : tuple of int
        Scan shape of the chunk, (positions,) or (scan_y, scan_x).
    detector : tuple of int
        (det_y, det_x).
    tile : tuple of int
        Scan positions (y, x) that one lane walks through, in raster order.
    """

    scan: tuple[int, int]
    detector: tuple[int, int]
    tile: tuple[int, int] = (1, 1)

    @classmethod
    def of_shape(cls, shape: tuple[int, ...], tile: tuple[int, int] = (1, 1)) -> GroupLayout:
        """Layout of an array: the last two axes are the detector, those before it the scan.

        A 2-D array is taken as positions x pixels of a line detector, a 1-D array as positions of one pixel.
        """
        if len(shape) >= 3:
            scan, detector = shape[:-2], shape[-2:]
        else:
            scan, detector = shape[:1], shape[1:]
        ny = math.prod(scan[:-1])
        nx = scan[-1] if scan else 1
        return cls(
            scan=(ny, nx),
            detector=(detector[0], detector[1]) if len(detector) == 2 else (1, math.prod(detector)),
            tile=tile,
        )

    @property
    def n_positions(self) -> int:
        """Number of scan positions."""
        return self.scan[0] * self.scan[1]

    @property
    def n_pixels(self) -> int:
        """Number of detector pixels."""
        return self.detector[0] * self.detector[1]

    @property
    def chain_length(self) -> int:
        """Groups that are decoded one after the other."""
        return self.tile[0] * self.tile[1]

    @cached_property
    def chains(self) -> np.ndarray[Any, Any]:
        """Position of every lane: int64[n_chains, chain_length, 64], -1 where a lane holds none."""
        ny, nx = self.scan
        ty, tx = self.tile
        # Tiles at the far edges may be incomplete: their lanes hold nothing at some steps, and still keep their place.
        rows, columns = -(-ny // ty), -(-nx // tx)
        n_chains = -(-rows * columns // LANES)
        out = np.full((n_chains, self.chain_length, LANES), -1, np.int64)
        y = np.arange(rows)[:, None] * ty
        x = np.arange(columns)[None, :] * tx
        # All lanes walk in step, so that the neighbours of every lane are in the same earlier group.
        for step in range(self.chain_length):
            dy, dx = divmod(step, tx)
            position = np.where((y + dy < ny) & (x + dx < nx), (y + dy) * nx + x + dx, -1)
            lanes = np.full(n_chains * LANES, -1, np.int64)
            lanes[: rows * columns] = position.ravel()
            out[:, step] = lanes.reshape(n_chains, LANES)
        return out

    @cached_property
    def references(self) -> np.ndarray[Any, Any]:
        """Groups back to the nearest scan neighbours already decoded: int64[chain_length, 4], nearest first.

        Where a step has fewer than four, the nearest is repeated; the first step of a chain has none, which is 0.
        """
        tx = self.tile[1]
        out = np.zeros((self.chain_length, MAX_REFERENCES), np.int64)
        for step in range(1, self.chain_length):
            y, x = divmod(step, tx)
            earlier = np.arange(step)
            distance = (earlier // tx - y) ** 2 + (earlier % tx - x) ** 2
            # Of equally near ones the later: a stable order on every machine.
            order = np.lexsort((-earlier, distance))[:MAX_REFERENCES]
            back = step - earlier[order]
            # A model may name the fourth neighbour everywhere: where there is none, it gets one that exists.
            out[step] = back[0]
            out[step, : back.size] = back
        return out

    def chains_of(self, positions: np.ndarray[Any, Any]) -> dict[int, int]:
        """Chains that hold any of the positions, each with the number of groups to decode from its start."""
        chain, step = self._places[:, positions]
        hit, index = np.unique(chain, return_inverse=True)
        steps = np.zeros(hit.size, np.int64)
        # A chain is decoded from its start: the latest step that is wanted decides how far.
        np.maximum.at(steps, index, step + 1)
        return dict(zip(hit.tolist(), steps.tolist(), strict=True))

    @cached_property
    def _places(self) -> np.ndarray[Any, Any]:
        """Chain and step of every position: int64[2, n_positions]."""
        out = np.empty((2, self.n_positions), np.int64)
        chain, step, lane = np.nonzero(self.chains >= 0)
        out[:, self.chains[chain, step, lane]] = chain, step
        return out
