"""Rows of ``bench_lossless --learned``: what a network takes, next to histograms, to the bound, and to what it must."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from stemcodecs.codecs import Learned, PixelHistogram
from stemcodecs.entropy.values.plane import to_plane
from stemcodecs.simulate import simulate_movie, simulate_scan, simulate_tilt_series
from tests.benchmarks.learned_speeds import REPEATS, chunk_speeds

Array = np.ndarray[Any, Any]

PATTERN_SHARE = 1 / 50
"""Of the time of a chunk of 4,096 positions, that one of its patterns may take."""


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


STACKS: dict[str, Callable[[], Array]] = {
    "HAADF tilt series": lambda: simulate_tilt_series((64, 128, 128), seed=1).images,
    "TEM movie, uint16": lambda: _movie(np.uint16),
    "TEM movie, uint8": lambda: _movie(np.uint8),
}
"""Image stacks, 64 images each: the limit is what JPEG-XL takes, of images one by one or of all in one."""


def _movie(dtype: Any) -> Array:
    return simulate_movie("grains", (64, 128, 128), "mixed", dose=200.0, dtype=dtype, seed=1).frames


def _jpeg_xl(stack: Array) -> int:
    """Bytes at effort 7: images one by one, or side by side in a square, what is less."""
    import imagecodecs

    plane = to_plane(stack)
    assert plane is not None
    side = math.isqrt(len(stack))
    images = plane.counts.reshape(side, side, *stack.shape[1:])
    tiled = np.ascontiguousarray(images.swapaxes(1, 2)).reshape(1, side * stack.shape[1], side * stack.shape[2])
    each = plane.counts.reshape(stack.shape)
    sizes = [
        sum(len(imagecodecs.jpegxl_encode(image, lossless=True, effort=7, numthreads=1)) for image in part)
        for part in (each, tiled)
    ]
    return min(sizes)


def stack_rows(only: str) -> Iterator[LearnedRow]:
    """The image stacks."""
    for name, make in STACKS.items():
        if only in name:
            stack = make()
            auto, limit = len(PixelHistogram().encode_chunk(stack)), 8 * _jpeg_xl(stack) / stack.size
            yield LearnedRow(name=name, counts=stack, limit=limit, auto=auto, bound=None)


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


def pattern_share() -> tuple[float, bool]:
    """CPU time of one pattern, as a share of that of its chunk of 4,096 positions, read through Zarr; and if it is
    small enough.
    """
    import tempfile

    import zarr

    from stemcodecs.learned.encode import fit_patterns
    from stemcodecs.learned.fit import NetworkOptions

    chunk = simulate_scan("unstructured", (64, 64), (64, 64), mean_counts=4.0, dtype=np.uint16).counts
    found = fit_patterns(chunk.reshape(-1, 64, 64)[::8], NetworkOptions(steps=50), chunk.size)
    assert found is not None
    with tempfile.TemporaryDirectory() as folder:
        store = zarr.create_array(
            folder, shape=chunk.shape, chunks=chunk.shape, dtype=chunk.dtype, compressors=None,
            serializer=Learned(**found[0].configuration()),
        )  # fmt: skip
        store[...] = chunk
        array: Any = zarr.open_array(folder, mode="r")
        random, times = np.random.default_rng(0), {"chunk": [], "pattern": []}
        for _ in range(REPEATS):
            for _ in range(10):
                y, x = (int(i) for i in random.integers(64, size=2))
                start = time.process_time()
                pattern = array[y, x]
                times["pattern"].append(time.process_time() - start)
                np.testing.assert_array_equal(pattern, chunk[y, x])
            start = time.process_time()
            array[...]
            times["chunk"].append(time.process_time() - start)
    share = float(np.median(times["pattern"]) / np.median(times["chunk"]))
    return share, share <= PATTERN_SHARE


def coded(row: LearnedRow, steps: int) -> tuple[list[str], bool]:
    """Cells of a row, and whether it takes as little as it must: one chunk with a network of its own."""
    start = time.process_time()
    data = Learned(steps=steps).encode_chunk(row.counts)
    fitting = time.process_time() - start
    codec = Learned(steps=steps)
    decoded = codec.decode_chunk(data)
    if decoded.dtype != row.counts.dtype or decoded.tobytes() != row.counts.tobytes():
        raise SystemExit("a value was not restored")
    found = chunk_speeds(row.counts, data)
    bits = 8 * len(data) / row.counts.size
    bound = "" if row.bound is None else f"{bits / row.bound:.4f}"
    saved = f"{100 * (1 - len(data) / row.auto):+.2f} %"
    speeds = [""] * 4 if found is None else found.cells()
    cells = [f"{bits:.4f}", f"{row.limit:.4f}", saved, bound, f"{fitting:.1f}", *speeds]
    good = bits <= row.limit
    return [*cells, "ok" if good else "short"], good
