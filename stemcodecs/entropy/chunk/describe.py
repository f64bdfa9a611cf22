"""What the coder learned about a chunk: modes, classes, histograms, and where the bits go."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from stemcodecs.entropy.chunk.choose_calibration import plane_behind
from stemcodecs.entropy.chunk.decode import decode_parsed, model_of
from stemcodecs.entropy.chunk.header import COUNTS, read_header
from stemcodecs.entropy.chunk.shared_calibration import shared_calibration
from stemcodecs.entropy.fit.grouped_counts import GroupedCounts
from stemcodecs.entropy.fit.symbols import bits_per_pixel_map
from stemcodecs.entropy.kernels.pixel_methods import CONTEXT, PACKED2, PACKED4, STATIC
from stemcodecs.entropy.model.histogram_model import HistogramModel
from stemcodecs.entropy.model.shared_model import SharedModel
from stemcodecs.entropy.values.calibration import SharedCalibration
from stemcodecs.entropy.values.plane import to_plane

__all__ = ["ChunkDetail", "ClassDetail", "describe"]

Array = np.ndarray[Any, Any]

_METHODS = {PACKED4: "packed, 4 counts a symbol", PACKED2: "packed, 2 counts a symbol", STATIC: "static"}


@dataclass(frozen=True, kw_only=True)
class ClassDetail:
    """Pixels that are coded alike.

    Attributes
    ----------
    method : str
        How they are coded.
    pixels : int
        How many there are.
    lowest_mean, highest_mean : float
        Mean counts that the class spans.
    histograms : int
        Histograms of the class.
    bits : float
        Mean bits a count takes in it.
    """

    method: str
    pixels: int
    lowest_mean: float
    highest_mean: float
    histograms: int
    bits: float


@dataclass(frozen=True, kw_only=True, eq=False)
class ChunkDetail:
    """A chunk, opened up.

    Attributes
    ----------
    mode : str
        ``stored``, ``pixel``, ``neighbour`` or ``scan``.
    shape : tuple of int
        Of the chunk.
    size, header, model, patches : int
        Bytes of the chunk, of its header, of its model (0 if shared), of values outside their histograms.
    shared : bool
        Whether the model is in the array's configuration.
    groups, positions_to_read_one : int
        Groups of the chunk, and the most groups that are decoded to read one pattern.
    neighbours : tuple of (int, int, int)
        Context: (reference, dy, dx); reference 0 is the pattern itself.
    constant_pixels : int
        Pixels that take no bits.
    classes : tuple of ClassDetail
        By increasing mean.
    bits : float64[det_y, det_x]
        Mean bits of every pixel.
    """

    mode: str
    shape: tuple[int, ...]
    size: int
    header: int
    model: int = 0
    patches: int = 0
    shared: bool = False
    groups: int = 0
    positions_to_read_one: int = 0
    neighbours: tuple[tuple[int, int, int], ...] = ()
    constant_pixels: int = 0
    classes: tuple[ClassDetail, ...] = ()
    bits: Array | None = None


def describe(data: bytes, shared: SharedModel | None = None) -> ChunkDetail:
    """Decode a chunk and say what its model is and what every pixel takes.

    Raises
    ------
    CorruptChunkError, FormatVersionError
        As for decoding it.
    """
    header = read_header(data)
    array = decode_parsed(header, memoryview(data), shared)
    if header.kind != COUNTS:
        return ChunkDetail(mode="stored", shape=header.shape, size=len(data), header=header.length)
    array = np.ascontiguousarray(array, array.dtype.newbyteorder("="))
    known = header.calibration
    if isinstance(known, SharedCalibration):
        assert shared is not None
        known = shared_calibration(shared, header.dtype, known)[1]
    plane = to_plane(array) if known is None else plane_behind(array, header.numbers, known)
    assert plane is not None
    model = model_of(header, shared)
    layout = header.layout
    patterns = plane.counts.reshape(layout.n_positions, layout.n_pixels)
    counts = GroupedCounts(patterns, layout, max(model.margin(), 1))
    if header.doses.size:
        counts.doses = header.doses.astype(np.int32)
    selections = {}
    if header.selections.size:
        unpacked = np.unpackbits(header.selections, axis=1, bitorder="little").astype(bool)
        selections = dict(zip(counts.groups(), unpacked, strict=True))
    bits = bits_per_pixel_map(counts, model, selections)
    mode = "pixel"
    if model.neighbours:
        mode = "scan" if layout.chain_length > 1 else "neighbour"
    return ChunkDetail(
        mode=mode, shape=header.shape, size=len(data), header=header.length,
        model=0 if header.shared else len(header.model), patches=sum(g.patches for g in header.groups),
        shared=header.shared, groups=len(header.groups), positions_to_read_one=layout.chain_length,
        neighbours=model.neighbours, constant_pixels=int((model.levels < 0).sum()),
        classes=_classes(model, bits), bits=bits,
    )  # fmt: skip


def _classes(model: HistogramModel, bits: Array) -> tuple[ClassDetail, ...]:
    of = model.class_of_pixels()
    means = model.means() / 2.0**16
    out = []
    for i, c in enumerate(model.classes):
        here = of == i
        if not here.any():
            continue
        method = _METHODS.get(c.method, "context, residuals" if c.residual else "context")
        if (c.method == CONTEXT and c.shift) or (c.method == STATIC and c.shift):
            method += f", {c.shift} raw low bits"
        out.append(
            ClassDetail(
                method=method, pixels=int(here.sum()), lowest_mean=float(means[here].min()),
                highest_mean=float(means[here].max()), histograms=c.n_tables, bits=float(bits.ravel()[here].mean()),
            )
        )  # fmt: skip
    return tuple(out)
