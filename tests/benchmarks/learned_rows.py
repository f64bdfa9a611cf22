"""Rows of ``bench_lossless --learned``: what a network takes, next to histograms, to the bound, and to what it must."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from stemcodecs.codecs import Learned, PixelHistogram
from stemcodecs_pipelines.compare.lossless_peers import BLOSC

Array = np.ndarray[Any, Any]

REPEATS = 5


@dataclass(frozen=True, kw_only=True)
class LearnedRow:
    """One scan.

    Attributes
    ----------
    name : str
    counts : ndarray
    limit : float
        Bits a pixel at most, all included.
    auto : int
        Bytes that pixel_histogram takes.
    bound : float or None
        Shannon bound in bits a pixel, where it is known.
    """

    name: str
    counts: Array
    limit: float
    auto: int
    bound: float | None


LIMITS: dict[str, Callable[[float, float | None], float]] = {
    "Siemens star": lambda auto, bound: 2.217,
    "Siemens star, dark part": lambda auto, bound: 8 * 207_500 / 825_600,
    "rotavirus 24": lambda auto, bound: 1.031,
    "rotavirus 56": lambda auto, bound: 2.756,
    "PETRA int32": lambda auto, bound: 0.98 * auto,
    "ptycho 3000": lambda auto, bound: 0.985 * auto,
    "grains 1": lambda auto, bound: 1.022 * (bound or math.inf),
    "lattice 1": lambda auto, bound: 1.012 * (bound or math.inf),
    "flat 0.05": lambda auto, bound: 1.003 * auto,
    "flat 1": lambda auto, bound: 1.003 * auto,
    "flat 21": lambda auto, bound: 1.003 * auto,
}
"""Bits a pixel at most, from those of ``auto`` and of the bound."""


def rows(scans: Iterator[Any]) -> Iterator[LearnedRow]:
    """The scans of the other tables that have a limit, and the dark part of the star."""
    for scan in scans:
        parts = {scan.name: scan.counts}
        if scan.name == "Siemens star":
            parts["Siemens star, dark part"] = np.ascontiguousarray(scan.counts[:, 46:86, 0:40])
        for name, counts in parts.items():
            auto = len(PixelHistogram().encode_chunk(counts))
            limit = LIMITS[name](8 * auto / counts.size, scan.bound)
            yield LearnedRow(name=name, counts=counts, limit=limit, auto=auto, bound=scan.bound)


def coded(row: LearnedRow, steps: int) -> tuple[list[str], bool]:
    """Cells of a row, and whether it takes as little as it must: one chunk with a network of its own."""
    start = time.process_time()
    data = Learned(steps=steps).encode_chunk(row.counts)
    fitting = time.process_time() - start
    codec = Learned(steps=steps)
    decoded = codec.decode_chunk(data)
    if decoded.dtype != row.counts.dtype or decoded.tobytes() != row.counts.tobytes():
        raise SystemExit("a value was not restored")
    encode, decode, speeds = _speeds(row.counts, data)
    bits = 8 * len(data) / row.counts.size
    bound = "" if row.bound is None else f"{bits / row.bound:.4f}"
    saved = f"{100 * (1 - len(data) / row.auto):+.2f} %"
    cells = [
        f"{bits:.4f}",
        f"{row.limit:.4f}",
        saved,
        bound,
        f"{fitting:.1f}",
        f"{encode:.0f}",
        f"{decode:.0f}",
        *speeds,
    ]
    good = bits <= row.limit
    return [*cells, "ok" if good else "short"], good


def _speeds(counts: Array, data: bytes) -> tuple[float, float, list[str]]:
    """MB/s of uint16 of the groups alone, whose network is given, and their ratios to Blosc in the same minute."""
    from stemcodecs.entropy.chunk.header import COUNTS, read_header
    from stemcodecs.entropy.model.shared_model import SharedModel
    from stemcodecs.learned.encode import _by_shared
    from stemcodecs.learned.prefix import LENGTH, NETWORK, read_prefix

    header = read_header(data[LENGTH:])
    if read_prefix(data) != NETWORK or header.kind != COUNTS or header.tile != (1, 1):
        return math.nan, math.nan, ["", ""]
    from stemcodecs.entropy.values.plane import to_plane

    plane = to_plane(counts)
    assert plane is not None
    layout = header.layout
    mean = float(plane.counts.reshape(layout.n_positions, -1).sum(axis=1, dtype=np.int64).mean())
    shared = SharedModel(detector=layout.detector, mean_frame_sum=mean, model=header.model)
    codec, words = Learned(**shared.configuration()), plane.counts.astype(np.uint16).reshape(counts.shape)
    blosc = BLOSC.encode(words)
    best = [math.inf] * 4
    for _ in range(REPEATS):
        work = (
            lambda: _by_shared(counts, plane, 0, shared),
            lambda: codec.decode_chunk(data),
            lambda: BLOSC.encode(words),
            lambda: BLOSC.decode(blosc, words),
        )
        times = []
        for one in work:
            start = time.process_time()
            one()
            times.append(time.process_time() - start)
        best = [min(a, b) for a, b in zip(best, times, strict=True)]
    encode, decode = words.nbytes / 1e6 / best[0], words.nbytes / 1e6 / best[1]
    return encode, decode, [f"{best[2] / best[0]:.3f}", f"{best[3] / best[1]:.3f}"]
