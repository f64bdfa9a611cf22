"""Encode an array by a network, one of its own or one that is shared, or by histograms where those are smaller."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from stemcodecs.entropy.chunk.choose_calibration import plane_behind
from stemcodecs.entropy.chunk.encode import encode_array
from stemcodecs.entropy.chunk.header import BIG_ENDIAN, COLUMN_MAJOR, COUNTS, Header, read_header
from stemcodecs.entropy.fit.grouped_counts import DOSE_ONE, GroupedCounts
from stemcodecs.entropy.fit.tile import choose_layout
from stemcodecs.entropy.model.group_layout import GroupLayout
from stemcodecs.entropy.model.shared_model import SharedModel
from stemcodecs.entropy.values.calibration import SharedCalibration
from stemcodecs.entropy.values.plane import Plane, to_plane
from stemcodecs.errors import ConfigurationError
from stemcodecs.learned.context_model_bytes import write_network
from stemcodecs.learned.encode_groups import encode_groups, write_chunk
from stemcodecs.learned.fit import NetworkOptions, chains_pay, fit_network
from stemcodecs.learned.fit_images import FEWEST_ROWS, fit_images, image_layouts, images_pay
from stemcodecs.learned.image_chain import UnrolledImages
from stemcodecs.learned.image_model import write_image_network
from stemcodecs.learned.prefix import HISTOGRAMS, NETWORK, with_prefix
from stemcodecs.learned.unrolled_network import UnrolledNetwork, unrolled_network

__all__ = ["LearnedOptions", "encode_learned", "fit_patterns"]

Array = np.ndarray[Any, Any]

FEWEST_OF_CHAINS = 1024
"""Positions from which on chains fill the lanes."""
SMALL = 1 << 16
"""Values below which a network costs more than it saves, so that none is fitted."""
_PATCHES_OF_ANOTHER_NETWORK = 20
"""Where patches are more than a twentieth of the bytes, a shared network was fitted to other data."""


@dataclass(frozen=True, kw_only=True)
class LearnedOptions:
    """How chunks without a shared network are encoded.

    Attributes
    ----------
    scan : str
        ``auto``: scan neighbours where they pay; ``none``: each group of 64 patterns stands alone.
    arch : str
        ``context``: for counts of patterns; ``images``: for movies and tilt series; ``auto``: what takes less.
    network : NetworkOptions
        How the network of a chunk is fitted.
    """

    scan: str = "auto"
    arch: str = "auto"
    network: NetworkOptions = field(default_factory=NetworkOptions)


def encode_learned(array: Array, options: LearnedOptions | None = None, shared: SharedModel | None = None) -> bytes:
    """Encode any real numeric array, losslessly.

    Parameters
    ----------
    array : ndarray
        Booleans, integers or floats of any width; the last two axes are the detector.
    options : LearnedOptions, optional
        For chunks with a network of their own.
    shared : SharedModel, optional
        Network to use instead of one fitted to the array.

    Returns
    -------
    bytes
        A chunk, see ``FORMAT.md``: never larger than the one of ``pixel_histogram`` by more than its prefix, where the
        network is the chunk's own.
    """
    options = options or LearnedOptions()
    flags = COLUMN_MAJOR * bool(array.flags.f_contiguous and not array.flags.c_contiguous)
    flags |= BIG_ENDIAN * (array.dtype.str[0] == ">")
    native = np.ascontiguousarray(array, array.dtype.newbyteorder("=")).reshape(array.shape)
    plane = to_plane(native)
    if plane is not None and native.size and shared is not None:
        by_network = _by_shared(native, plane, flags, shared)
        if by_network is not None:
            return with_prefix(NETWORK, by_network)
    by_histograms = encode_array(array)
    if shared is None and native.size >= SMALL:
        coded = _by_own(native, flags, read_header(by_histograms), len(by_histograms), options)
        smallest = min(coded, key=len, default=by_histograms)
        if len(smallest) < len(by_histograms):
            return with_prefix(NETWORK, smallest)
    return with_prefix(HISTOGRAMS, by_histograms)


def _by_own(array: Array, flags: int, found: Header, smallest: int, options: LearnedOptions) -> list[bytes]:
    """By networks fitted to the array; ``found`` is what histograms made of it, in ``smallest`` bytes."""
    known = found.calibration
    # A map of a shared model is one of histograms.
    assert not isinstance(known, SharedCalibration)
    plane = to_plane(array) if known is None else plane_behind(array, found.numbers, known)
    if plane is None:
        return []
    out = []
    layout = GroupLayout.of_shape(array.shape, found.tile if options.scan == "auto" else (1, 1))
    patterns = plane.counts.reshape(layout.n_positions, layout.n_pixels)
    # True images are often stored by the generic coder: then there is no use in a network for counts.
    if options.arch != "images" and found.kind == COUNTS:
        counts = GroupedCounts(patterns, layout, 0)
        # What histograms gain by scan neighbours may be too little for them, and enough for a network.
        if options.scan == "auto" and found.tile == (1, 1) and layout.n_positions >= FEWEST_OF_CHAINS:
            chained = choose_layout(patterns, layout, "scan")
            if chains_pay(counts, patterns, chained, options.network):
                layout = chained
                counts = GroupedCounts(patterns, layout, 0)
        if layout.chain_length > 1:
            _round_doses(counts)
        fit = fit_network(counts, patterns, layout, options.network)
        if fit is not None:
            encoded = encode_groups(counts, UnrolledNetwork(fit.model), plane)
            out.append(write_chunk(array, flags, plane, counts, encoded, write_network(fit.model), shared=False))
            smallest = min(smallest, len(out[0]))
    if options.arch == "context" or layout.detector[0] < FEWEST_ROWS:
        return out
    bits = 8 * smallest / array.size - plane.numbers.low_bits
    layouts = image_layouts(GroupLayout.of_shape(array.shape), chains=options.scan == "auto")
    if options.arch == "images" or images_pay(patterns, layouts, options.network, bits):
        of_images = fit_images(patterns, layouts, options.network)
        counts = GroupedCounts(patterns, of_images.layout, 0)
        encoded = encode_groups(counts, UnrolledImages(of_images.model), plane)
        model = write_image_network(of_images.model)
        out.append(write_chunk(array, flags, plane, counts, encoded, model, shared=False))
    return out


def _round_doses(counts: GroupedCounts) -> None:
    """Doses in steps that cost as many bits of the counts as they save of the doses.

    A dose that is off by a share e costs a pattern of n counts ``n * e**2 / (2 ln 2)`` bits; a step twice as wide saves
    one. Where scan neighbours tell the rate, most doses then are that of the mean pattern, and take nothing.
    """
    mean = max(float(counts.position_sum.mean()), 1.0)
    step = max(round(DOSE_ONE * math.sqrt(12 / mean)), 1)
    counts.doses = np.clip(DOSE_ONE + step * np.rint((counts.doses - DOSE_ONE) / step), 0, 65535).astype(np.int32)


def _by_shared(array: Array, plane: Plane, flags: int, shared: SharedModel) -> bytes | None:
    layout = GroupLayout.of_shape(array.shape)
    if shared.detector != layout.detector:
        raise ConfigurationError(
            f"the shared network is of a detector of {shared.detector} pixels, the chunk has {layout.detector}: "
            "chunks must span the whole detector"
        )
    patterns = plane.counts.reshape(layout.n_positions, layout.n_pixels)
    counts = GroupedCounts(patterns, layout, 0)
    # The doses of all chunks relative to one pattern: the network was fitted to those.
    counts.set_reference(shared.mean_frame_sum)
    unrolled = unrolled_network(shared.model, shared.detector)
    if unrolled.model.chained:
        raise ConfigurationError("the shared network looks at scan neighbours, which chunks do not share")
    encoded = encode_groups(counts, unrolled, plane)
    if encoded.patches * _PATCHES_OF_ANOTHER_NETWORK > encoded.nbytes:
        return None
    return write_chunk(array, flags, plane, counts, encoded, shared.digest, shared=True)


def fit_patterns(patterns: Array, options: NetworkOptions, values: int) -> tuple[SharedModel, float] | None:
    """A network for a whole scan from some of its patterns.

    Parameters
    ----------
    patterns : ndarray
        Of shape (n, det_y, det_x), spread over the scan.
    options : NetworkOptions
    values : int
        Values of the whole scan.

    Returns
    -------
    network, bits
        The network, and the bits that a value of these patterns is estimated to take; None if the patterns are all
        alike, or hold no counts.
    """
    native = np.ascontiguousarray(patterns, patterns.dtype.newbyteorder("="))
    plane = to_plane(native) if patterns.size else None
    if plane is None:
        return None
    layout = GroupLayout.of_shape(patterns.shape)
    counts = plane.counts.reshape(layout.n_positions, layout.n_pixels)
    grouped = GroupedCounts(counts, layout, 0)
    fit = fit_network(grouped, counts, layout, options, values)
    if fit is None:
        return None
    live = np.count_nonzero(fit.model.levels >= 0)
    shared = SharedModel(
        detector=layout.detector, mean_frame_sum=float(grouped.position_sum.mean()), model=write_network(fit.model)
    )
    return shared, fit.bits * live / layout.n_pixels + plane.numbers.low_bits
