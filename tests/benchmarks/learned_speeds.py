"""Speeds of ``bench_lossless --learned``: of the groups alone, on every instruction path, next to Blosc in one run."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from stemcodecs.codecs import Learned
from stemcodecs.entropy.chunk.header import COUNTS, read_header
from stemcodecs.entropy.model.shared_model import SharedModel
from stemcodecs.entropy.values.plane import Plane, to_plane
from stemcodecs.learned.encode import _by_shared, fit_patterns
from stemcodecs.learned.fit import NetworkOptions
from stemcodecs.learned.path import available
from stemcodecs.learned.prefix import LENGTH, NETWORK, read_prefix, with_prefix
from stemcodecs_pipelines.compare.lossless_peers import BLOSC

Array = np.ndarray[Any, Any]

REPEATS = 5
LIMITS = {"portable": (8, 8), "sse2": (15, 15), "avx2": (40, 35), "avx512": (55, 45)}
"""MB/s of uint16 that a core must encode and decode, where Blosc is as fast as below."""
BLOSC_SPEEDS = {"Siemens star": (96.0, 1140.0), "PETRA int32": (67.0, 1000.0)}
"""MB/s of Blosc (zstd-5, bitshuffle) on the core that the limits are of, a virtual one of Zen 4: elsewhere they hold as
ratios to it."""
STEPS = 200
"""Of the fit: how well a network was fitted makes no difference to its speed."""


@dataclass(frozen=True)
class Speeds:
    """MB/s of uint16 in CPU time, and the same of Blosc (zstd-5, bitshuffle) in the same minute."""

    encode: float
    decode: float
    blosc_encode: float
    blosc_decode: float

    def cells(self) -> list[str]:
        """Speeds, and their ratios to those of Blosc."""
        ratios = (self.encode / self.blosc_encode, self.decode / self.blosc_decode)
        return [f"{self.encode:.1f}", f"{self.decode:.1f}", *(f"{ratio:.4f}" for ratio in ratios)]


def chunk_speeds(counts: Array, data: bytes) -> Speeds | None:
    """Of a chunk with a network of its own; None where it has none, or chains of scan neighbours."""
    header = read_header(data[LENGTH:])
    if read_prefix(data) != NETWORK or header.kind != COUNTS or header.tile != (1, 1):
        return None
    plane = to_plane(counts)
    assert plane is not None
    frames = plane.counts.reshape(header.layout.n_positions, -1)
    mean = float(frames.sum(axis=1, dtype=np.int64).mean())
    return _speeds(counts, plane, SharedModel(detector=header.layout.detector, mean_frame_sum=mean, model=header.model))


def path_rows(scans: Iterator[Any]) -> Iterator[tuple[str, list[str], bool]]:
    """Name, cells, and whether it is as fast as it must be, of scans on every path of this processor."""
    for scan in scans:
        plane = to_plane(scan.counts)
        assert plane is not None
        found = fit_patterns(scan.patterns, NetworkOptions(steps=STEPS), scan.counts.size)
        assert found is not None
        for path in available():
            os.environ["STEMCODECS_SIMD"] = path
            try:
                speeds = _speeds(scan.counts, plane, found[0])
            finally:
                del os.environ["STEMCODECS_SIMD"]
            least = [limit / blosc for limit, blosc in zip(LIMITS[path], BLOSC_SPEEDS[scan.name], strict=True)]
            good = speeds.encode >= least[0] * speeds.blosc_encode and speeds.decode >= least[1] * speeds.blosc_decode
            cells = [*speeds.cells(), *(f"{ratio:.4f}" for ratio in least), "ok" if good else "short"]
            yield f"{scan.name}, {path}", cells, good


def _speeds(counts: Array, plane: Plane, shared: SharedModel) -> Speeds:
    """Of groups whose network is given: the smallest of a few times, each taken in turn with Blosc."""
    coded = _by_shared(counts, plane, 0, shared)
    assert coded is not None
    data, codec = with_prefix(NETWORK, coded), Learned(**shared.configuration())
    words = plane.counts.astype(np.uint16).reshape(counts.shape)
    blosc, best = BLOSC.encode(words), [math.inf] * 4
    for _ in range(REPEATS):
        work = (
            lambda: _by_shared(counts, plane, 0, shared),
            lambda: codec.decode_chunk(data),
            lambda: BLOSC.encode(words),
            lambda: BLOSC.decode(blosc, words),
        )
        for k, one in enumerate(work):
            start = time.process_time()
            one()
            best[k] = min(best[k], time.process_time() - start)
    return Speeds(*(words.nbytes / 1e6 / seconds for seconds in best))
