"""Encode the groups of a chunk by a network that is given."""

from __future__ import annotations

from typing import Any

import numpy as np

from stemcodecs.entropy.chunk.encoded_group import (
    EncodedGroup,
    exceptions_by_group,
    low_bits,
    patch_bytes,
)
from stemcodecs.entropy.chunk.header import COUNTS, Header, write_header
from stemcodecs.entropy.fit.grouped_counts import GroupedCounts
from stemcodecs.entropy.kernels.kernel_arguments import Patches, Stream
from stemcodecs.entropy.kernels.rans import LANES
from stemcodecs.entropy.kernels.scratch import SLACK, lent_output
from stemcodecs.entropy.kernels.threads import run_all
from stemcodecs.entropy.values.plane import Plane
from stemcodecs.learned.unrolled_network import Unrolled

__all__ = ["EncodedGroups", "encode_groups", "write_chunk"]

Array = np.ndarray[Any, Any]

BLOCKS = 1
"""Blocks of states that a chunk takes in turn. More save no time, next to that of the network, and each takes 34 bytes
of every group."""
_LARGE_CHAIN = 1 << 27
"""Bytes of the rows and residuals of a chain from which on chains are coded one at a time."""


class EncodedGroups:
    """Groups of a chunk in order, and in how many blocks their states were."""

    def __init__(self, groups: list[EncodedGroup], blocks: int) -> None:
        self.groups, self.blocks = groups, blocks

    @property
    def nbytes(self) -> int:
        """Bytes of all groups."""
        return sum(len(g.payload) for g in self.groups)

    @property
    def patches(self) -> int:
        """Bytes of the counts that the windows of the network missed."""
        return sum(g.sizes[2] for g in self.groups)


def encode_groups(counts: GroupedCounts, unrolled: Unrolled, plane: Plane, blocks: int = BLOCKS) -> EncodedGroups:
    """Encode all groups; chains are independent, and share the threads.

    counts : rows without a margin, with the doses that the network was fitted to.
    """
    layout = counts.layout
    exceptions = exceptions_by_group(plane, layout)
    n = layout.n_pixels

    def encode_chain(chain: int, steps: list[int]) -> list[EncodedGroup]:
        state = unrolled.chain(layout, layout.chain_length)
        entries, low = np.empty(n * LANES, np.uint32), np.empty(n * LANES, np.uint32)
        out = []
        with counts.chain(chain) as rows:
            for step in steps:
                positions = layout.chains[chain, step]
                # The worst case is two words a value; untouched pages cost nothing.
                with lent_output(n * LANES) as (words, patch_at, patch_value):
                    stream = Stream(words=words, start=SLACK, end=words.size - SLACK, blocks=blocks)
                    patches = Patches(patch_at, patch_value)
                    pos, found = state.encode(rows, step, positions, counts.doses, entries, low, stream, patches)
                    rare = patch_bytes(patch_at[:found], patch_value[:found])
                    coded = words[pos : stream.end].astype("<u2").view(np.uint8).data
                rest = exceptions.get((chain, step), b"")
                out.append(EncodedGroup.of(coded, low_bits(plane, positions, n), rare, rest))
        return out

    steps_of: dict[int, list[int]] = {}
    for chain, step in counts.groups():
        steps_of.setdefault(chain, []).append(step)
    if 4 * n * LANES * layout.chain_length > _LARGE_CHAIN and layout.chain_length > 1:
        return EncodedGroups([g for chain, steps in steps_of.items() for g in encode_chain(chain, steps)], blocks)
    return EncodedGroups([g for chain in run_all(encode_chain, steps_of.items()) for g in chain], blocks)


def write_chunk(
    array: Array, flags: int, plane: Plane, counts: GroupedCounts, encoded: EncodedGroups, model: bytes, *, shared: bool
) -> bytes:
    """Header and groups, in the form of a pixel_histogram chunk; ``model`` is the network, or its sha256."""
    header = Header(
        kind=COUNTS, dtype=array.dtype, shape=array.shape, flags=flags, numbers=plane.numbers,
        calibration=plane.calibration, tile=counts.layout.tile, blocks=encoded.blocks, shared=shared, model=model,
        doses=counts.doses.astype(np.int64), selections=np.zeros(0, np.uint8),
    )  # fmt: skip
    groups = encoded.groups
    head = write_header(header, np.array([g.sizes for g in groups], np.int64), np.array([g.crc for g in groups]))
    return b"".join([head, *(g.payload for g in groups)])
