"""Rows of ``bench_lossless --l3c``: what an L3C-mini takes, told where it is or not, next to what else there is."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from stemcodecs.codecs import Learned, PixelHistogram
from stemcodecs.entropy.model.shared_model import SharedModel
from stemcodecs.entropy.values.plane import to_plane
from stemcodecs.learned.l3c_model import L3cModel
from stemcodecs.learned.l3c_model_bytes import write_l3c
from stemcodecs_pipelines.compare.lossless_peers import PEERS
from stemcodecs_pipelines.compare.peer_coders import size_of

Array = np.ndarray[Any, Any]

SCANS = ("Siemens star", "rotavirus 24", "grains 1")
OTHERS = ("gzip -6", "PNG", "JPEG-XL effort 7")


def trained(patterns: Array, seconds: float, *, location: bool) -> L3cModel:
    """A network of the size that ``compress`` trains."""
    from stemcodecs_pipelines.learned.l3c_training import TrainingOptions, train_l3c

    plane = to_plane(patterns)
    assert plane is not None
    return train_l3c(plane.counts.reshape(patterns.shape), TrainingOptions(seconds=seconds, location=location))[0]


def l3c_cells(patterns: Array, model: L3cModel) -> list[str]:
    """Bits a pixel with the network, those of the network, MB/s of uint16 to encode and decode; values are compared."""
    network = write_l3c(model)
    codec = Learned(**SharedModel(detector=model.detector, mean_frame_sum=0.0, model=network).configuration())
    codec.encode_chunk(patterns[:1])
    encoding, data = _timed(lambda: codec.encode_chunk(patterns))
    decoding, decoded = _timed(lambda: codec.decode_chunk(data))
    if decoded.dtype != patterns.dtype or decoded.tobytes() != patterns.tobytes():
        raise SystemExit("a value was not restored")
    bits = [8 * n / patterns.size for n in (len(data) + len(network), len(network))]
    return [*(f"{b:.4f}" for b in bits), *(f"{2e-6 * patterns.size / s:.1f}" for s in (encoding, decoding))]


def other_rows(counts: Array) -> Iterator[tuple[str, float]]:
    """What else there is, by name: bits a pixel, models included."""
    patterns = counts.reshape(-1, *counts.shape[-2:])
    for mode in ("pixel", "auto"):
        yield f"pixel_histogram, {mode}", 8 * len(PixelHistogram(mode=mode).encode_chunk(counts)) / counts.size
    yield "learned, context", 8 * len(Learned().encode_chunk(counts)) / counts.size
    for peer in PEERS:
        if peer.name in OTHERS and peer.installed:
            given = peer.accepts(patterns)
            coder = None if given is None else peer.best(given)
            if coder is not None:
                yield peer.name, 8 * size_of(coder.encode(given)) / counts.size


def _timed(work: Any) -> tuple[float, Any]:
    start = time.process_time()
    result = work()
    return time.process_time() - start, result
