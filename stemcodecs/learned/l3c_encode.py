"""Encode an array by a given network of architecture ``l3c``, or by histograms where it has nothing to say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from stemcodecs.entropy.chunk.encode import encode_array
from stemcodecs.entropy.chunk.encoded_group import (
    EncodedGroup,
    blocks_for,
    exceptions_by_group,
    low_bits,
    patch_bytes,
)
from stemcodecs.entropy.chunk.header import BIG_ENDIAN, COLUMN_MAJOR, COUNTS, NUMBER_BYTES, Header, write_header
from stemcodecs.entropy.fit.grouped_counts import GroupedCounts, active_lanes
from stemcodecs.entropy.fit.tile import typical_bits
from stemcodecs.entropy.kernels.kernel_arguments import Patches, Stream
from stemcodecs.entropy.kernels.rans import LANES
from stemcodecs.entropy.kernels.scratch import SLACK, lent_output
from stemcodecs.entropy.kernels.threads import run_all
from stemcodecs.entropy.model.group_layout import GroupLayout
from stemcodecs.entropy.model.shared_model import SharedModel
from stemcodecs.entropy.values.plane import Plane, to_plane
from stemcodecs.errors import ConfigurationError
from stemcodecs.learned.l3c_groups import encode_l3c_group
from stemcodecs.learned.l3c_unrolled import UnrolledL3c, unrolled_l3c
from stemcodecs.learned.prefix import HISTOGRAMS, NETWORK, with_prefix

__all__ = ["L3cGroups", "encode_l3c", "encode_plane", "write_l3c_chunk"]

Array = np.ndarray[Any, Any]

_PATCHES_OF_ANOTHER_NETWORK = 20
"""Where patches are more than a twentieth of the bytes, the network was trained on other data."""


@dataclass(frozen=True, kw_only=True)
class L3cGroups:
    """Encoded groups of a chunk, in order.

    Attributes
    ----------
    groups : list
        What the header and the body are made of.
    blocks : int
        Blocks of states.
    fits : bool
        Whether the format can hold the groups.
    """

    groups: list[EncodedGroup]
    blocks: int
    fits: bool

    @property
    def nbytes(self) -> int:
        """Bytes of all groups."""
        return sum(len(group.payload) for group in self.groups)

    @property
    def patches(self) -> int:
        """Bytes of the values that lay outside their windows."""
        return sum(group.sizes[2] for group in self.groups)


def encode_l3c(array: Array, shared: SharedModel) -> bytes:
    """Encode any real numeric array, losslessly.

    Parameters
    ----------
    array : ndarray
        Booleans, integers or floats of any width; the last two axes are the detector.
    shared : SharedModel
        Network that the codec's configuration carries.

    Returns
    -------
    bytes
        A chunk, see ``FORMAT.md``; one of histograms where the values are no counts, or none like those that the
        network was trained on.

    Raises
    ------
    ConfigurationError
        If the network is of another detector.
    """
    flags = COLUMN_MAJOR * bool(array.flags.f_contiguous and not array.flags.c_contiguous)
    flags |= BIG_ENDIAN * (array.dtype.str[0] == ">")
    native = np.ascontiguousarray(array, array.dtype.newbyteorder("=")).reshape(array.shape)
    plane = to_plane(native) if native.size else None
    if plane is None:
        return with_prefix(HISTOGRAMS, encode_array(array))
    layout = GroupLayout.of_shape(native.shape)
    if shared.detector != layout.detector:
        raise ConfigurationError(
            f"the shared network is of a detector of {shared.detector} pixels, the chunk has {layout.detector}: "
            "chunks must span the whole detector"
        )
    encoded = encode_plane(plane, layout, unrolled_l3c(shared.model, shared.detector))
    if not encoded.fits or encoded.patches * _PATCHES_OF_ANOTHER_NETWORK > encoded.nbytes:
        return with_prefix(HISTOGRAMS, encode_array(array))
    return write_l3c_chunk(native, flags, plane, encoded, shared.digest, shared=True)


def encode_plane(plane: Plane, layout: GroupLayout, unrolled: UnrolledL3c) -> L3cGroups:
    """Encode the groups of a chunk, which share the threads."""
    n = layout.n_pixels
    counts = GroupedCounts(plane.counts.reshape(layout.n_positions, n), layout, 0)
    blocks = _blocks(unrolled)
    exceptions = exceptions_by_group(plane, layout)

    def encode_one(chain: int) -> EncodedGroup:
        positions = layout.chains[chain, 0]
        with counts.chain(chain) as rows, lent_output(unrolled.items * LANES) as (words, patch_at, patch_value):
            stream = Stream(words=words, start=SLACK, end=words.size - SLACK, blocks=blocks)
            given = Patches(patch_at, patch_value)
            start, found = encode_l3c_group(unrolled, rows, active_lanes(positions), stream, given)
            rare = patch_bytes(patch_at[:found], patch_value[:found])
            coded = words[start : stream.end].astype("<u2").view(np.uint8).data
        return EncodedGroup.of(coded, low_bits(plane, positions, n), rare, exceptions.get((chain, 0), b""))

    # Latents come on top of the counts: for data unlike those of the training they may take more than a group may have.
    groups = run_all(encode_one, [(chain,) for chain, _ in counts.groups()])
    fits = all(g.sizes[0] <= 4 * n * LANES and g.sizes[2] <= 2 * NUMBER_BYTES * n * LANES for g in groups)
    return L3cGroups(groups=groups, blocks=blocks, fits=fits)


def write_l3c_chunk(array: Array, flags: int, plane: Plane, encoded: L3cGroups, model: bytes, *, shared: bool) -> bytes:
    """Prefix, header and groups; ``model`` is the network, or its sha256."""
    nothing = np.zeros(0, np.int64)
    header = Header(
        kind=COUNTS, dtype=array.dtype, shape=array.shape, flags=flags, numbers=plane.numbers,
        calibration=plane.calibration, blocks=encoded.blocks, shared=shared, model=model, doses=nothing,
        selections=nothing,
    )  # fmt: skip
    groups = encoded.groups
    head = write_header(header, np.array([g.sizes for g in groups], np.int64), np.array([g.crc for g in groups]))
    return with_prefix(NETWORK, b"".join([head, *(g.payload for g in groups)]))


def _blocks(unrolled: UnrolledL3c) -> int:
    model = unrolled.model
    levels = model.levels[model.levels >= 0]
    means = ((levels * levels * model.level_scale) >> 16) / 2.0**16
    return blocks_for(typical_bits(means).sum())
