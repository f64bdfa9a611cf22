"""What coding a group consists of, whatever network predicts it: words and patches of the 64 lanes of one value."""

from __future__ import annotations

from numba import int64, uint16, uint64

from stemcodecs.compiled import kernel
from stemcodecs.entropy.kernels.rans import BLOCK, LANES
from stemcodecs.learned.rans15_steps import LOWEST_STATE, decode_counts, encode_counts

__all__ = [
    "BAD_PATCH",
    "OVERRUN",
    "decode_value",
    "empty_lanes",
    "encode_value",
    "is_at_end",
    "lanes_in_use",
    "note_patches",
    "put_patches",
    "quarter_mask",
    "quarters_in_use",
]

OVERRUN, BAD_PATCH = 1, 2


@kernel(forceinline=True)
def quarter_mask(active, quarter):
    return int64((active >> uint64(16 * quarter)) & uint64(0xFFFF))


@kernel(forceinline=True)
def quarters_in_use(active):
    """Bit mask of the quarters that hold an active lane: the others need not be predicted."""
    found = int64(0)
    for quarter in range(4):
        if quarter_mask(active, quarter) != 0:
            found |= int64(1) << quarter
    return found


@kernel
def lanes_in_use(active, blocks):
    """Bit mask of the states that any quarter works on."""
    lanes = uint64(0)
    for quarter in range(4):
        lanes |= uint64(quarter_mask(active, quarter)) << uint64(BLOCK * (quarter & (blocks - 1)))
    return lanes


@kernel(forceinline=True)
def note_patches(missed, values, at, k, patches, found):
    """Values of the lanes in a bit mask become patches of value k; returns how many patches there are."""
    if missed != 0:
        for j in range(LANES):
            if (missed >> uint64(j)) & uint64(1):
                patches.at[found], patches.values[found] = k * LANES + j, values[at + j]
                found += 1
    return found


@kernel(forceinline=True)
def put_patches(patches, patch, k, values, at):
    """Put the patches of value k, from ``patch`` on, in their places; returns the next one, -1 if one lies before k."""
    while patch < patches.at.shape[0] and patches.at[patch] < (k + 1) * LANES:
        j = patches.at[patch] - k * LANES
        if j < 0:
            return int64(-1)
        values[at + j] = patches.values[patch]
        patch += 1
    return patch


@kernel(forceinline=True)
def empty_lanes(active, values, at):
    """Lanes that hold no position are 0."""
    if active != ~uint64(0):
        for j in range(LANES):
            if not (active >> uint64(j)) & uint64(1):
                values[at + j] = uint16(0)


@kernel(forceinline=True)
def encode_value(path, states, entries, low, k, active, stream, pos):
    """Words of value k, in front of those at ``pos``; returns where they begin."""
    for quarter in range(3, -1, -1):
        mask = quarter_mask(active, quarter)
        if mask != 0:
            block = int64(BLOCK * (quarter & (stream.blocks - 1)))
            at = int64(k * LANES + 16 * quarter)
            pos = encode_counts(path, states, block, entries, low, at, mask, stream.words, pos)
    return pos


@kernel(forceinline=True)
def decode_value(path, states, widths, mixture, sigmoid, threshold, active, stream, pos, values, at):
    """A value of all lanes from its words; returns where the next ones begin.

    widths : the OR of the widths of all lanes. The words are at most 4 x 2 x 16: the slack behind the stream covers
    them.
    """
    steps = int64(3)
    while (int64(16) << (steps - 3)) <= widths:
        steps += 1
    for quarter in range(4):
        mask = quarter_mask(active, quarter)
        if mask != 0:
            block = int64(BLOCK * (quarter & (stream.blocks - 1)))
            pos = decode_counts(
                path, states, block, mixture, sigmoid, threshold, int64(quarter), steps, mask, stream.words, pos,
                values, at,
            )  # fmt: skip
    return pos


@kernel
def is_at_end(states, stream, patches, patch, pos):
    """Whether all words and patches were used, and the states are as an encoder begins."""
    at_end = patch == patches.at.shape[0] and pos == stream.end
    for i in range(LANES):
        at_end &= states[i] == LOWEST_STATE
    return at_end
