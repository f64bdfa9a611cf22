"""Movies at the same size: temporal compressive sensing against image codecs, the temporal mean and bins.

Prints for each class of simulated movies (held-out seeds) and each B: bytes as a fraction of the raw frames, PSNR and
SSIM against the frames without noise, and frames decoded a second. JPEG follows the protocol of TCS-DL
(doi:10.1016/j.patter.2021.100292): every image in 1/B of its raw size. JPEG-XL gets the clip as one tall image in as
many bytes as all these images may take. Sizes are real bytes. The temporal mean shows how little it takes where little
moves: a decoder below it is no use.

    python -m tests.benchmarks.bench_temporal --check
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np

from stemcodecs.codecs import Tcs
from stemcodecs.simulate import Movie, simulate_movie
from stemcodecs.temporal.weights import shipped_for
from stemcodecs_pipelines.compare.jpeg_frames import best_within, jpeg_frames

Array = np.ndarray[Any, Any]
Coded = tuple[int, Array]
"""Bytes, and frames."""

HELD_OUT = 1 << 29
"""Seeds of the movies: no network was trained or validated on them."""
STEP = {10: 8, 20: 12, 30: 20}
"""Of the sums, by B: below their noise."""
CASES = (("mixed", 10), ("fast", 10), ("slow", 10), ("mixed", 20), ("slow", 30))
TIME_BINS = {10: 4, 20: 4, 30: 5}


def jpeg(movie: Movie, frames: int) -> Coded:
    """Every image in 1/B of its raw size, at the best quality that fits."""
    return jpeg_frames(movie.frames, movie.frames[0].size // frames)


def jpeg_xl(movie: Movie, frames: int) -> Coded:
    """All frames as one tall image."""
    import imagecodecs

    tall = movie.frames.reshape(-1, movie.frames.shape[-1])
    data = best_within(
        lambda q: imagecodecs.jpegxl_encode(tall, distance=-q, effort=5, numthreads=1),
        tall.size // frames,
        -25,
        -0.1,
        7,
    )
    return len(data), imagecodecs.jpegxl_decode(data).reshape(movie.frames.shape)


def temporal_mean(movie: Movie, frames: int) -> Coded:
    """One frame for B, in the bytes of a raw one."""
    mean = movie.frames.mean(axis=0)
    return mean.size, np.repeat(mean[None], len(movie.frames), axis=0)


def tcs(**options: Any) -> Callable[[Movie, int], Coded]:
    """Frames of this package's codec."""

    def code(movie: Movie, frames: int) -> Coded:
        codec = Tcs(frames=frames, step=STEP[frames], incoherent="measured", **options)
        data = codec.encode_chunk(movie.frames)
        return len(data), codec.decode_chunk(data)

    return code


def methods(frames: int) -> dict[str, Callable[[Movie, int], Coded]]:
    """Everything that is compared."""
    bins: dict[str, Any] = {"measurement": "bins", "time_bins": TIME_BINS[frames], "space_bins": 2}
    out: dict[str, Callable[[Movie, int], Coded]] = {}
    if find_spec("PIL"):
        out["JPEG"] = jpeg
    if find_spec("imagecodecs"):
        out["JPEG-XL"] = jpeg_xl
    out["temporal mean"] = temporal_mean
    out["bins, interpolate"] = tcs(**bins, decoder="interpolate")
    out["bins, gap-tv"] = tcs(**bins, decoder="gap-tv")
    out["tiled, gap-tv"] = tcs()
    out["random, gap-tv"] = tcs(measurement="random")
    weights = shipped_for("tiled", frames, 0)
    if weights and find_spec("onnxruntime"):
        out["tiled, network"] = tcs(decoder="network", weights=weights)
    return out


@dataclass(frozen=True)
class Score:
    """Means over the clips."""

    share: float
    psnr: float
    ssim: float
    seconds: float


def psnr(frames: Array, clean: Array) -> float:
    """Mean over the frames, in dB of 255."""
    squares = np.square((frames - clean) / 255.0).mean(axis=(1, 2))
    return float(-10 * np.log10(squares).mean())


def score(code: Callable[[Movie, int], Coded], movies: list[Movie], frames: int) -> Score:
    """Of one method on all movies."""
    from skimage.metrics import structural_similarity

    rows = []
    for movie in movies:
        begun = time.perf_counter()
        size, found = code(movie, frames)
        seconds = time.perf_counter() - begun
        alike = [
            structural_similarity(found[t].astype(float), movie.clean[t].astype(float), data_range=255)
            for t in range(0, len(found), 3)
        ]
        rows.append((size / movie.frames.size, psnr(found.astype(float), movie.clean), np.mean(alike), seconds))
    return Score(*(float(x) for x in np.mean(rows, axis=0)))


def table(motion: str, frames: int, clips: int, side: int) -> dict[str, Score]:
    """Print and return the scores of a class."""
    movies = [simulate_movie("any", (frames, side, side), motion, seed=HELD_OUT + i) for i in range(clips)]
    noisy = np.mean([psnr(m.frames.astype(float), m.clean) for m in movies])
    print(f"\n{motion}, B = {frames}, {clips} movies of {side}², noisy frames {noisy:.2f} dB")
    print(f"{'':20}{'of raw':>9}{'PSNR':>8}{'SSIM':>8}{'s/clip':>8}")
    found = {}
    for name, code in methods(frames).items():
        found[name] = s = score(code, movies, frames)
        print(f"{name:20}{s.share:9.4f}{s.psnr:8.2f}{s.ssim:8.3f}{s.seconds:8.2f}", flush=True)
    return found


def speeds() -> dict[str, float]:
    """MB/s of raw frames summed and encoded, and frames of 512² decoded a second."""
    from stemcodecs.entropy.kernels.threads import set_threads

    set_threads(1)
    frames = np.tile(simulate_movie("any", (10, 128, 128), seed=HELD_OUT).frames, (1, 4, 4))
    weights = shipped_for("tiled", 10, 0)
    out: dict[str, float] = {}

    def least(run: Callable[[], Any], clock: Callable[[], float], rounds: int) -> float:
        run()
        found = []
        for _ in range(rounds):
            begun = clock()
            run()
            found.append(clock() - begun)
        return min(found)

    for name, codec in (
        ("masks", Tcs(step=STEP[10])),
        ("bins", Tcs(measurement="bins", time_bins=4, space_bins=2, step=STEP[10], decoder="interpolate")),
    ):
        mb = frames.nbytes / 1e6
        out[f"{name}: sum, MB/s a core"] = mb / least(lambda c=codec: c.measure(frames), time.thread_time, 9)
        out[f"{name}: whole encoding, MB/s a core"] = mb / least(
            lambda c=codec: c.encode_chunk(frames), time.thread_time, 9
        )
        data = codec.encode_chunk(frames)
        out[f"{name}: {codec.decoder}, frames of 512²/s"] = 10 / least(
            lambda c=codec, d=data: c.decode_chunk(d), time.perf_counter, 2
        )
    if weights and find_spec("onnxruntime"):
        codec = Tcs(decoder="network", weights=weights)
        data = codec.encode_chunk(frames)
        out["network, frames of 512²/s"] = 10 / least(lambda: codec.decode_chunk(data), time.perf_counter, 5)
    print()
    for name, value in out.items():
        print(f"{name:40}{value:10.1f}")
    return out


def check(found: dict[tuple[str, int], dict[str, Score]], rates: dict[str, float]) -> list[str]:
    """What does not hold of what is promised."""
    out = []

    def hold(text: str, holds: bool) -> None:
        print(("ok      " if holds else "BROKEN  ") + text)
        if not holds:
            out.append(text)

    for (motion, frames), scores in found.items():
        where = f"{motion}, B = {frames}"
        mean, best = scores["temporal mean"], scores["bins, interpolate"]
        if motion == "slow" and frames == 30:
            hold(f"{where}: bins are above the temporal mean", best.psnr > mean.psnr and best.ssim > mean.ssim)
        if "JPEG" in scores:
            hold(f"{where}: bins are 3 dB above JPEG", best.psnr >= scores["JPEG"].psnr + 3)
            hold(f"{where}: no measurement takes more than JPEG", best.share <= 1 / frames)
        if "tiled, network" in scores:
            network = scores["tiled, network"]
            if "JPEG" in scores:
                ahead = 4.5 if frames == 10 else 5
                hold(f"{where}: the network is {ahead} dB above JPEG", network.psnr >= scores["JPEG"].psnr + ahead)
            if frames == 10:
                hold(f"{where}: the network is 2 dB above GAP-TV", network.psnr >= scores["tiled, gap-tv"].psnr + 2)
            above = network.psnr > mean.psnr and network.ssim > mean.ssim
            hold(f"{where}: the network is above the temporal mean", above)
            hold(f"{where}: in 1/B of the raw size", network.share <= 1 / frames)
    hold("masks are summed at 500 MB/s a core", rates["masks: sum, MB/s a core"] >= 500)
    hold("bins are summed at 500 MB/s a core", rates["bins: sum, MB/s a core"] >= 500)
    return out


def main() -> None:
    """Print all tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="end with an error where a promise is broken")
    parser.add_argument("--clips", type=int, default=24, help="movies of each class")
    parser.add_argument("--side", type=int, default=128, help="rows and columns")
    arguments = parser.parse_args()
    found = {case: table(*case, arguments.clips, arguments.side) for case in CASES}
    rates = speeds()
    if arguments.check and check(found, rates):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
