"""A model unrolled for decoding, kept between chunks that share it."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from stemcodecs.entropy.model import HistogramModel
from stemcodecs.entropy.model_bytes import read_model
from stemcodecs.entropy.tables import build_decode_tables

__all__ = ["Decoder", "decoder_of"]


class Decoder:
    """A model ready to decode: one entry per pixel, and the lookup tables."""

    def __init__(self, model: HistogramModel) -> None:
        self.model = model
        self.program = model.program()
        starts = model.decode_starts()
        self.tables = np.empty(starts[-1], np.uint32)
        build_decode_tables(model.frequencies, starts, self.tables)
        self.margin = model.margin()


@lru_cache(maxsize=16)
def decoder_of(model: bytes, detector: tuple[int, int]) -> Decoder:
    """Decoder of a serialised model, kept for the next chunk or read that has the same."""
    return Decoder(read_model(model, detector))
