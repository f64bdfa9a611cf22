"""Movies at the same size: temporal compressive sensing against image codecs, the temporal mean and bins.

Prints for each class of simulated movies (held-out seeds) and each B: bytes as a fraction of the raw frames, PSNR and
SSIM against the frames without noise, and the processor's seconds for a clip, coded and decoded. JPEG follows the
protocol of TCS-DL (doi:10.1016/j.patter.2021.100292): every image in 1/B of its raw size. JPEG-XL gets the clip as one
tall image in as many bytes as all these images may take; both also behind a filter, at the strength that suits the
movie best. Sizes are real bytes. The temporal mean shows how little it takes where little moves: a decoder below it is
no use. Where bm3d is installed, also against denoised frames as in the paper; with STEMCODECS_DATA, also a real scan.

    python -m tests.benchmarks.bench_temporal --check
    python -m tests.benchmarks.bench_temporal --check --speed
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from stemcodecs.codecs import Tcs
from stemcodecs.simulate import Movie, simulate_movie
from stemcodecs.temporal.weights import NETWORKS, shipped_for
from stemcodecs_pipelines.temporal.comparison import Coder, coders, denoised_by_bm3d, filtered, psnr

Array = np.ndarray[Any, Any]
HELD_OUT = 1 << 29
"""Seeds of the movies: no network was trained or validated on them."""
STEP = {10: 8, 20: 12, 30: 20}
"""Of the sums, by B: below their noise."""
CASES = (("mixed", 10), ("fast", 10), ("slow", 10), ("mixed", 20), ("slow", 30))
FILTERED = ("JPEG", "JPEG-XL", "temporal mean")
"""Shown behind a filter too: what networks do for measurements, a filter does for these."""


@dataclass(frozen=True)
class Score:
    """Means over the clips."""

    share: float
    psnr: float
    ssim: float
    filtered: float
    seconds: float


def score(coder: Coder, movies: list[Movie], filtering: bool) -> Score:
    """Of one method on all movies."""
    from skimage.metrics import structural_similarity

    rows = []
    for movie in movies:
        begun = time.process_time()
        size, found = coder(movie.frames)
        seconds = time.process_time() - begun
        behind = psnr(filtered(found, movie.clean), movie.clean) if filtering else np.nan
        alike = [
            structural_similarity(found[t].astype(float), movie.clean[t].astype(float), data_range=255)
            for t in range(0, len(found), 3)
        ]
        rows.append((size / movie.frames.size, psnr(found, movie.clean), np.mean(alike), behind, seconds))
    return Score(*(float(x) for x in np.mean(rows, axis=0)))


def table(motion: str, frames: int, clips: int, side: int) -> dict[str, Score]:
    """Print and return the scores of a class."""
    movies = [simulate_movie("any", (frames, side, side), motion, seed=HELD_OUT + i) for i in range(clips)]
    noisy = np.mean([psnr(m.frames, m.clean) for m in movies])
    print(f"\n{motion}, B = {frames}, {clips} movies of {side}², noisy frames {noisy:.2f} dB")
    print(f"{'':20}{'of raw':>9}{'PSNR':>8}{'SSIM':>8}{'filtered':>9}{'CPU s':>8}")
    found = {}
    for name, coder in coders(frames, STEP[frames]).items():
        found[name] = s = score(coder, movies, name in FILTERED)
        behind = f"{s.filtered:9.2f}" if name in FILTERED else " " * 9
        print(f"{name:20}{s.share:9.4f}{s.psnr:8.2f}{s.ssim:8.3f}{behind}{s.seconds:8.2f}", flush=True)
    return found


def denoised_table(clips: int) -> None:
    """Quality against frames that BM3D denoised, as the paper has it: references and results are both estimates."""
    print("\nAgainst frames denoised by BM3D, slow, B = 10: PSNR in dB (of the frames without noise)")
    movies = [simulate_movie("any", (10, 128, 128), "slow", seed=HELD_OUT + i) for i in range(clips)]
    references = [denoised_by_bm3d(movie.frames) for movie in movies]
    print(
        f"{'BM3D itself':20}{'':8}{np.mean([psnr(r, m.clean) for r, m in zip(references, movies, strict=True)]):8.2f}"
    )
    for name, coder in coders(10, STEP[10]).items():
        found = [coder(movie.frames)[1] for movie in movies]
        against = [(psnr(f, r), psnr(f, m.clean)) for f, r, m in zip(found, references, movies, strict=True)]
        print(f"{name:20}{np.mean(against, axis=0)[0]:8.2f}{np.mean(against, axis=0)[1]:8.2f}", flush=True)


def scan_table(folder: Path) -> None:
    """A 4D-STEM scan of a rotavirus as movies along its fast axis, where the shadow of the specimen moves.

    No frames without noise exist, but electrons were counted: each goes to one of two halves by chance, one is coded,
    and the other, whose noise is independent, tells how far the frames lie from the rate. (Some electrons are counted
    by two neighbouring pixels: that flatters whatever smooths.)
    """
    rows = np.load(folder / "rotavirus_4dstem_scan56x56_det128_u8.npy", mmap_mode="r")[::20, :50]
    counts = np.ascontiguousarray(rows).reshape(-1, 10, 128, 128)
    half = np.random.default_rng(0).binomial(counts, 0.5).astype(np.uint8)
    other = (counts - half).astype(np.float64)
    brightest = int(half.max())
    gain = 255 // brightest
    print(f"\nRotavirus, rows of the scan as movies, B = 10, {len(half)} movies of 10 frames, half of the electrons")
    print(f"{'':20}{'of raw':>9}{'PSNR':>8}")
    for name, coder in {"as they are": lambda frames: (frames.size, frames), **coders(10, STEP[10])}.items():
        found = [coder(movie * np.uint8(gain)) for movie in half]
        share = sum(size for size, _ in found) / half.size
        squares = [np.square(f / gain - o).mean() for (_, f), o in zip(found, other, strict=True)]
        apart = max(float(np.mean(squares)) - float(other.mean()), 1e-9)
        print(f"{name:20}{share:9.4f}{10 * np.log10(brightest**2 / apart):8.2f}", flush=True)


def least(run: Callable[[], Any], clock: Callable[[], float], seconds: float) -> float:
    """Seconds of the fastest of many calls: a machine that others use too is slower at times, never faster."""
    run()
    found: list[float] = []
    begun = time.perf_counter()
    while len(found) < 3 or time.perf_counter() - begun < seconds:
        start = clock()
        run()
        found.append(clock() - start)
    return min(found)


def speeds() -> dict[str, float]:
    """MB/s of raw frames summed and encoded, and frames of 512² decoded.

    By the clock of the processor, which counts the seconds of this process, not those that it waited; networks also by
    that of the wall, on all processors.
    """
    from stemcodecs.entropy.kernels.threads import set_threads

    processors = set_threads(1)
    frames = simulate_movie("any", (10, 512, 512), seed=HELD_OUT).frames
    out: dict[str, float] = {}
    mb = frames.nbytes / 1e6
    bins = Tcs(measurement="bins", time_bins=4, space_bins=2, step=STEP[10], decoder="interpolate")
    for name, codec in (("masks", Tcs(step=STEP[10])), ("bins", bins)):
        sum_seconds = least(lambda c=codec: c.measure(frames), time.process_time, 1)
        out[f"{name}: sum, MB/s a core"] = mb / sum_seconds
        out[f"{name}: whole encoding, MB/s a core"] = mb / least(
            lambda c=codec: c.encode_chunk(frames), time.process_time, 5
        )
        one, four = codec.encode_chunk(frames), codec.encode_chunk(np.tile(frames, (4, 1, 1)))
        for decoder in (codec.decoder, "network", "birnat"):
            weights = shipped_for(codec.sampling, NETWORKS[decoder]) if decoder in NETWORKS else None
            if decoder in NETWORKS and (weights is None or not find_spec("onnxruntime")):
                continue
            reader = replace(codec, decoder=decoder, weights=weights)
            if decoder == "birnat":
                begun = time.process_time()
                reader.decode_chunk(one)
                out[f"{name}: {decoder}, frames of 512² a core"] = 10 / (time.process_time() - begun)
                continue
            each = least(lambda c=reader, d=one: c.decode_chunk(d), time.process_time, 2) / 10
            out[f"{name}: {decoder}, frames of 512² a core"] = 1 / each
            if decoder == "network":
                set_threads(processors)
                each = least(lambda c=reader, d=four: c.decode_chunk(d), time.perf_counter, 12) / 40
                out[f"{name}: network, frames of 512² a second, {processors} processors"] = 1 / each
                set_threads(1)
    print()
    for name, value in out.items():
        print(f"{name:55}{value:10.1f}")
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
        mean, smooth = scores["temporal mean"], scores["tiled, gap-tv"]
        networks = {name: s for name, s in scores.items() if name.endswith("network")}
        if motion == "slow" and frames == 30:
            bins = scores["bins, interpolate"]
            hold(f"{where}: bins are above the temporal mean", bins.psnr > mean.psnr and bins.ssim > mean.ssim)
        if "JPEG" in scores:
            bar = scores["JPEG"].psnr
            hold(f"{where}: bins are 3 dB above JPEG", scores["bins, interpolate"].psnr >= bar + 3)
            hold(f"{where}: bins take no more than JPEG", scores["bins, interpolate"].share <= 1 / frames)
            if frames == 20:
                hold(f"{where}: GAP-TV behind masks is 2.5 dB above JPEG", smooth.psnr >= bar + 2.5)
            for name, s in networks.items():
                ahead = 5 if frames == 30 else 7 if name.startswith("bins") else 4.5
                hold(f"{where}: {name} is {ahead} dB above JPEG", s.psnr >= bar + ahead)
        for name, s in networks.items():
            if frames == 10:
                hold(f"{where}: {name} is 2 dB above GAP-TV", s.psnr >= smooth.psnr + 2)
            above = s.psnr > mean.psnr and s.ssim > mean.ssim
            hold(f"{where}: {name} is above the temporal mean", above)
            hold(f"{where}: {name} takes 1/B of the raw size at most", s.share <= 1 / frames)
        if "tiled, birnat" in scores and (motion, frames) == ("mixed", 10):
            hold(f"{where}: BIRNAT is 1 dB above GAP-TV", scores["tiled, birnat"].psnr >= smooth.psnr + 1)
    for name in ("masks", "bins"):
        at_once = [rate for what, rate in rates.items() if what.startswith(f"{name}: network, frames of 512² a second")]
        if at_once:
            hold(f"{name}: the network gives 25 frames of 512² a second", at_once[0] >= 25)
    for name in ("masks", "bins"):
        hold(f"{name}: the whole encoding at 500 MB/s a core", rates[f"{name}: whole encoding, MB/s a core"] >= 500)
    hold("masks are summed at 500 MB/s a core", rates["masks: sum, MB/s a core"] >= 500)
    hold("bins are summed at 500 MB/s a core", rates["bins: sum, MB/s a core"] >= 500)
    return out


def main() -> None:
    """Print all tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="end with an error where a promise is broken")
    parser.add_argument("--clips", type=int, default=24, help="movies of each class")
    parser.add_argument("--side", type=int, default=128, help="rows and columns")
    parser.add_argument("--speed", action="store_true", help="speeds only, on a machine that does nothing else")
    arguments = parser.parse_args()
    found = {}
    if not arguments.speed:
        found = {case: table(*case, arguments.clips, arguments.side) for case in CASES}
        if find_spec("bm3d"):
            denoised_table(min(arguments.clips, 3))
        if "STEMCODECS_DATA" in os.environ:
            scan_table(Path(os.environ["STEMCODECS_DATA"]))
    rates = speeds()
    if arguments.check and check(found, rates):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
