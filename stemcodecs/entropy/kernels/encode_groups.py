"""Encode many groups of a chunk in one call: where groups are small, calls of one each would take as long as coding."""

from __future__ import annotations

import numpy as np
from numba import int64

from stemcodecs.compiled import kernel
from stemcodecs.entropy.kernels.encode_group import encode_group
from stemcodecs.entropy.kernels.kernel_arguments import GroupRows, Patches, Stream
from stemcodecs.entropy.kernels.rans import LANES
from stemcodecs.entropy.kernels.transpose import gather_rows

__all__ = ["encode_groups"]


@kernel
def encode_groups(simd, plane, chains, active, step_masks, program, tables, stream, patches, room, starts, patched):
    """Encode the groups of some chains of one group each, by a model without contexts, the last group first.

    plane : uint16[n_positions, n_pixels]; chains : int64[n, 64]; active : uint64[n] and step_masks : int64[n, 5, 4], as
    in :class:`GroupRows`; the others as of :func:`encode_group`, with room for all groups.

    The words of group g begin at ``starts[g]`` and end where those of the next begin, the last at ``stream.end``; of
    its patches there are ``patched[g]``, those of the last group first. Both int64[n], the result.
    """
    n_pixels = plane.shape[1]
    rows = np.empty((n_pixels, LANES), np.uint16)
    neighbours, dose, selection = np.empty(0, np.int64), np.zeros(LANES, np.int32), np.zeros(LANES, np.bool_)
    pos, found = int64(stream.end), int64(0)
    for g in range(chains.shape[0] - 1, -1, -1):
        gather_rows(plane, chains[g], rows, 0, 0, n_pixels)
        group = GroupRows(rows, 0, active[g], step_masks[g], neighbours, dose, selection, 0)
        # What is written goes below the words that are there.
        words = Stream(stream.words, stream.start, pos, stream.blocks)
        free = Patches(patches.at[found:], patches.values[found:])
        pos, n = encode_group(simd, group, program, tables, words, free, room)
        starts[g], patched[g] = pos, n
        found += n
