"""A model unrolled for decoding, kept between chunks that share it."""

from __future__ import annotations

import numpy as np

from stemcodecs.entropy.kernels.coding_tables import build_decode_tables
from stemcodecs.entropy.model.histogram_model import HistogramModel
from stemcodecs.entropy.model.model_bytes import read_histogram_model
from stemcodecs.last_used import LastUsed

__all__ = ["Decoder", "decoder_of"]

KEPT_BYTES = 32 << 20
"""What may be kept. Unrolling takes milliseconds, and chunks with models of their own are rarely decoded twice."""
_kept: LastUsed[tuple[bytes, tuple[int, int]], Decoder] = LastUsed(KEPT_BYTES)


class Decoder:
    """A model ready to decode: one entry per pixel, and the lookup tables."""

    def __init__(self, model: HistogramModel) -> None:
        self.model = model
        self.program = model.program()
        starts = model.decode_starts()
        self.tables = np.empty(starts[-1], np.uint32)
        build_decode_tables(model.frequencies, starts, self.tables)
        self.margin = model.margin()
        self.n_sets = model.n_sets
        pixels = model.levels.nbytes + model.constants.nbytes + model.frequencies.nbytes
        self.nbytes = pixels + sum(array.nbytes for array in self.program) + self.tables.nbytes


def decoder_of(model: bytes, detector: tuple[int, int]) -> Decoder:
    """Decoder of a serialised model; the last ones are kept for the next read."""
    key = (model, detector)
    decoder = _kept.get(key)
    if decoder is None:
        decoder = Decoder(read_histogram_model(model, detector))
        decoder = _kept.put(key, decoder, decoder.nbytes)
    return decoder
