"""Encode what a prediction leaves of an image: values that are alike everywhere, by one histogram for all pixels.

It is done beside a camera: little is tried, and many groups are coded in one call.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from stemcodecs.entropy.chunk.encode import smaller_of_small, state_blocks
from stemcodecs.entropy.chunk.header import COUNTS, Header, checksum, write_header
from stemcodecs.entropy.fit.pooled import fit_pooled
from stemcodecs.entropy.kernels.coding_tables import STRIDE, build_encode_tables
from stemcodecs.entropy.kernels.cpu import simd_path
from stemcodecs.entropy.kernels.encode_group import encoder_room
from stemcodecs.entropy.kernels.encode_groups import encode_groups
from stemcodecs.entropy.kernels.kernel_arguments import EncodeTables, Patches, Program, Stream
from stemcodecs.entropy.kernels.pixel_methods import step_masks
from stemcodecs.entropy.kernels.rans import LANES
from stemcodecs.entropy.kernels.scratch import SLACK, lent_output
from stemcodecs.entropy.kernels.threads import get_threads, run_all
from stemcodecs.entropy.model.group_layout import GroupLayout
from stemcodecs.entropy.model.model_bytes import Writer, write_histogram_model
from stemcodecs.entropy.values.number_map import NumberMap

__all__ = ["encode_pooled"]

Array = np.ndarray[Any, Any]

GROUPS_AT_ONCE = 16
"""Groups that a thread codes in one call: of 512² pixels in blocks of 16², all."""


def encode_pooled(array: Array) -> bytes:
    """Bytes of a chunk of ``stemcodecs.pixel_histogram``, losslessly.

    Parameters
    ----------
    array : ndarray of uint16
        (…, y, x), C-contiguous, not empty: the values of all pixels have one distribution.
    """
    layout = _layout(array.shape)
    plane = array.reshape(layout.n_positions, layout.n_pixels)
    model, program = fit_pooled(plane, layout)
    tables = EncodeTables(entries=np.zeros(STRIDE, np.uint32), likeliest=np.empty(1, np.int64))
    build_encode_tables(model.frequencies, *tables)
    blocks = state_blocks(model)
    n = len(layout.chains)
    each = min(GROUPS_AT_ONCE, -(-n // get_threads()))
    parts = run_all(
        _encode_part, [(plane, layout, program, tables, blocks, k, min(n, k + each)) for k in range(0, n, each)]
    )
    nothing = np.zeros(0, np.int64)
    header = Header(
        kind=COUNTS, dtype=array.dtype, shape=array.shape, numbers=NumberMap(), blocks=blocks,
        model=write_histogram_model(model), doses=nothing, selections=nothing,
    )  # fmt: skip
    sizes, crcs = (np.concatenate([part[k] for part in parts]) for k in range(2))
    data = b"".join([write_header(header, sizes, crcs), *(part[2] for part in parts)])
    return smaller_of_small(array, data)


@lru_cache(maxsize=4)
def _layout(shape: tuple[int, ...]) -> GroupLayout:
    # The same for every measurement of a movie, with the chains that it keeps.
    return GroupLayout.of_shape(shape)


def _encode_part(
    plane: Array, layout: GroupLayout, program: Program, tables: EncodeTables, blocks: int, first: int, last: int
) -> tuple[Array, Array, bytes]:
    """Sizes, int64[n, 4], checksums and bytes of some groups."""
    n = last - first
    active, masks = np.full(n, 2**64 - 1, np.uint64), np.repeat(step_masks(2**64 - 1)[None], n, axis=0)
    left = layout.n_positions - LANES * (last - 1)
    if left < LANES:
        active[-1], masks[-1] = (1 << left) - 1, step_masks((1 << left) - 1)
    starts, patched = np.empty(n, np.int64), np.empty(n, np.int64)
    with lent_output(n * layout.n_pixels * LANES) as (words, patch_at, patch_value):
        stream = Stream(words=words, start=SLACK, end=words.size - SLACK, blocks=blocks)
        chains = layout.chains[first:last, 0]
        encode_groups(
            simd_path(), plane, np.ascontiguousarray(chains), active, masks, program, tables, stream,
            Patches(patch_at, patch_value), encoder_room(), starts, patched,
        )  # fmt: skip
        ends = np.append(starts[1:], stream.end)
        beyond = np.cumsum(patched[::-1])[::-1]
        parts: list[bytes] = []
        sizes, crcs = np.zeros((n, 4), np.int64), []
        for g in range(n):
            coded = words[starts[g] : ends[g]].astype("<u2", copy=False).tobytes()
            patches = b""
            if patched[g]:
                some = slice(beyond[g] - patched[g], beyond[g])
                patches = _patch_bytes(patch_at[some], patch_value[some])
            sizes[g, 0], sizes[g, 2] = len(coded), len(patches)
            crcs.append(checksum(coded + patches if patches else coded))
            parts += [coded, patches]
        return sizes, np.array(crcs), b"".join(parts)


def _patch_bytes(at: Array, values: Array) -> bytes:
    # The kernel codes backwards, and finds the last patch first.
    n = len(at)
    numbers, which = np.empty(2 * n, np.int64), np.repeat([0, 1], n)
    numbers[:n], numbers[n:] = at[::-1], values[::-1]
    numbers[1:n] -= at[:0:-1]
    w = Writer()
    w.numbers(numbers, which)
    return w.getvalue()
