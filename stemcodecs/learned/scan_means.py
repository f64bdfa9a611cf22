"""Means of scan neighbours: what all positions around say together that a chain has decoded before, in any lane.

The lanes of a chain walk through their tiles in step, so that positions of other tiles are decoded too: of those to the
right and below, all that come earlier in the tile.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import int16, int32, int64, uint64

from stemcodecs.compiled import kernel
from stemcodecs.entropy.kernels.borrowed import borrowed
from stemcodecs.entropy.kernels.rans import LANES, aligned
from stemcodecs.entropy.model.group_layout import GroupLayout
from stemcodecs.learned.tables import tables

__all__ = ["MeanTerms", "mean_rows", "mean_terms", "means_of"]

Array = np.ndarray[Any, Any]

_SHARE_BITS = 14
"""Fraction bits of the shares that positions have in a mean: with residuals of 16 bits, sums fit 32."""
_MOST_OCTAVES = 31


class MeanTerms(NamedTuple):
    """What a mean is the sum of: residuals of a step, lanes shifted, times the share that they have in every lane.

    Attributes
    ----------
    steps : int64[n]
    shifts : int64[n]
        Lane i takes lane i + shift.
    shares : int32[n, 64]
    """

    steps: Array
    shifts: Array
    shares: Array


def mean_terms(positions: Array, step: int, scan_width: int, means: tuple[tuple[int, int], ...]) -> list[MeanTerms]:
    """Terms of every mean at a step of a chain.

    Parameters
    ----------
    positions : int64[n_steps, 64]
        Scan positions of the chain, at least of the steps up to this one; -1 where a lane holds none.
    step : int
    scan_width : int
        Positions in a row of the scan.
    means : tuple of (decay, reach)
        See :class:`stemcodecs.learned.context_model.ContextModel`.
    """
    before, here = positions[:step, None, :], positions[step][None, :, None]
    y, x = np.divmod(before, scan_width)
    own_y, own_x = np.divmod(here, scan_width)
    distance = (y - own_y) ** 2 + (x - own_x) ** 2
    held = (before >= 0) & (here >= 0)
    lanes, shifts = np.arange(LANES), np.arange(1 - LANES, LANES)
    other = lanes + shifts[:, None]
    exists = (other >= 0) & (other < LANES)
    out = []
    for decay, reach in means:
        octaves = np.minimum(distance, reach) * decay
        weights = (tables().mantissa[octaves & 63].astype(np.int64) << 3) >> np.minimum(octaves >> 6, _MOST_OCTAVES)
        weights[~held | (distance > reach)] = 0
        total = np.maximum(weights.sum(axis=(0, 2)), 1)
        shares = (weights << _SHARE_BITS) // total[:, None]
        shifted = np.where(exists, shares[:, lanes, np.clip(other, 0, LANES - 1)], 0)
        steps, which = np.nonzero(shifted.any(axis=2))
        out.append(MeanTerms(steps, shifts[which], shifted[steps, which].astype(np.int32)))
    return out


@kernel
def mean_rows(residuals, terms_at, shifts, shares, height, width, stride, to):
    """Fill the rows of a mean: of every pixel, the sum of residuals by their shares.

    residuals : int16, flat, 64 a row; terms_at : int64[n], row of the first pixel of the step that each term is of;
    shifts, shares : see :class:`MeanTerms`, shares flat; stride : rows between two rows of the detector; to : row of
    the mean's first pixel. There is a row before the first one that is read, and one behind the last.
    """
    total = aligned(LANES, np.int32)
    for y in range(height):
        for x in range(width):
            row = y * stride + x
            for j in range(LANES):
                total[j] = int32(1 << (_SHARE_BITS - 1))
            for term in range(terms_at.shape[0]):
                at = uint64((terms_at[term] + row) * LANES + shifts[term])
                share = uint64(term * LANES)
                # Unsigned, so that no index is asked whether it is negative, and the lanes go side by side.
                for j in range(LANES):
                    k = uint64(j)
                    total[k] = int32(total[k] + int32(shares[share + k] * int32(residuals[at + k])))
            for j in range(LANES):
                residuals[int64(to + row) * LANES + j] = int16(total[j] >> _SHARE_BITS)


@kernel
def _residual_rows(plane, roots, dose, root6, positions, residuals, first):
    """Residuals of the positions of a step as rows of 64 lanes; those of constant pixels stay 0."""
    plane, roots, root6, residuals = borrowed(plane), borrowed(roots), borrowed(root6), borrowed(residuals)
    for j in range(LANES):
        f = positions[j]
        for p in range(roots.shape[0]):
            if roots[p] >= 0:
                count, base = int64(0), int64(0)
                if f >= 0:
                    count, base = int64(plane[f, p]), (roots[p] * dose[f]) >> 12
                e = int64(root6[count]) - (base >> 4)
                residuals[(first + p) * LANES + j] = int16(min(max(e, int64(-32768)), int64(32767)))


def means_of(
    plane: Array, layout: GroupLayout, roots: Array, dose: Array, chosen: Array, means: tuple[tuple[int, int], ...]
) -> Array:
    """Means of scan neighbours at some positions, as the coder will see them: int16[n_chosen, n_means, n_pixels].

    Parameters
    ----------
    plane : uint8 or uint16[n_positions, n_pixels]
    layout : GroupLayout
        Of chains.
    roots, dose : int64[n_pixels], int64[n_positions]
        See :class:`stemcodecs.learned.training_kernels.TrainingData`.
    chosen : int64[n_chosen]
        Positions, in increasing order.
    means : tuple of (decay, reach)
    """
    n, (height, width) = layout.n_pixels, layout.detector
    out = np.zeros((chosen.size, len(means), n), np.int16)
    place = np.full(layout.n_positions, -1, np.int64)
    place[chosen] = np.arange(chosen.size)
    for positions in layout.chains:
        # A row before the first is read, and those of one mean lie behind the last step.
        rows = np.zeros((1 + (layout.chain_length + 1) * n + 1, LANES), np.int16)
        flat, mean_at = rows.reshape(-1), 1 + layout.chain_length * n
        for step, here in enumerate(positions):
            of_lane = np.where(here >= 0, place[here], -1)
            lanes = np.flatnonzero(of_lane >= 0)
            if step and lanes.size:
                for k, terms in enumerate(mean_terms(positions, step, layout.scan[1], means)):
                    first = 1 + terms.steps * n
                    mean_rows(flat, first, terms.shifts, terms.shares.reshape(-1), height, width, width, mean_at)
                    out[of_lane[lanes], k] = rows[mean_at : mean_at + n, lanes].T
            _residual_rows(plane, roots, dose, tables().root6, here, flat, 1 + step * n)
    return out
