"""TCS-DL (Patterns 2, 100292, 2021, doi:10.1016/j.patter.2021.100292): one measurement for B frames against JPEG.

The paper stores B = 10, 20, 30 frames as one sum behind random masks, estimates the frames by a network, and compares
them with JPEG images of 1/B of the raw bytes, against denoised frames.

    python movies_against_jpeg.py [--data FOLDER] [--clips 1 --side 192 --motion slow] [--out FIGURE.png]

Movies are simulated, so that the frames without noise are known; no network was trained on their seeds. FOLDER adds
real patterns along the lines of the rotavirus scan. Needs matplotlib, and onnxruntime for the networks.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from stemcodecs.metrics import ssim
from stemcodecs.simulate import simulate_movie
from stemcodecs_pipelines.temporal.comparison import coders, psnr

Array = np.ndarray[Any, Any]
Judge = Callable[[Array], tuple[float, float]]
HELD_OUT, STEPS = 1 << 29, {10: 8, 20: 12, 30: 20}  # of the sums, below their noise, by B
LEFT_OUT = ("JPEG-XL", "bins, gap-tv", "random, gap-tv")
PAPER = {("fibres", 10): (35.41, 32.38), ("nanoparticles", 30): (25.91, 23.98)}
SCAN, GAIN = "rotavirus_4dstem_scan56x56_det128_u8.npy", 9
WHY = """As in the paper, one measurement for B frames is above JPEG, which spends its bytes on noise. Decibels differ:
frames are noisier here, the truth is known, where the paper denoises (BM3D), and networks learned on simulations. What
the paper leaves out: the temporal mean alone beats JPEG where little moves; bins need no network."""


def simulated(kind: str, ratio: int, side: int, motion: str, seed: int) -> tuple[Array, Judge]:
    """Frames, and what tells PSNR in dB and SSIM against those without noise."""
    movie = simulate_movie(kind, (ratio, side, side), motion, seed=HELD_OUT + seed)

    def judge(frames: Array) -> tuple[float, float]:
        alike = [ssim(f, c, movie.white) for f, c in zip(frames[::3], movie.clean[::3], strict=True)]
        return psnr(frames, movie.clean, movie.white), float(np.mean(alike))

    return movie.frames, judge


def real(lines: Array) -> tuple[Array, Judge]:
    """One half of the electrons of nine lines of the scan, side by side, and what judges by the other half.

    Both are Poisson counts of one rate and know nothing of each other: the squared distance to the second half is that
    to the rate, which nobody knows, and the variance of the second half, which is its mean.
    """
    counts = np.block([[lines[3 * row + column] for column in range(3)] for row in range(3)])
    first = np.random.default_rng(0).binomial(counts, 0.5)
    second = counts - first

    def judge(frames: Array) -> tuple[float, float]:
        error = np.square(frames / GAIN - second).mean() - second.mean()
        return float(-10 * np.log10(error / (255 / GAIN) ** 2)), np.nan

    return np.minimum(first * GAIN, 255).astype(np.uint8), judge


def draw(tables: dict[tuple[str, int], dict[str, Array]], shown: dict[str, Array], out: Path) -> None:
    """Nanoparticles at B = 30, and the paper's Figure 5: PSNR and SSIM over B."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 5.6), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=(1, 1.2))
    for axis, (name, frame) in zip(above.subplots(1, len(shown)), shown.items(), strict=True):
        axis.imshow(frame, cmap="gray", vmin=0, vmax=255)
        axis.set_title(name, fontsize=9)
        axis.set_axis_off()
    panels = [(kind, i) for i in (1, 2) for kind, b in tables if b == 10 and np.isfinite(tables[kind, b]["JPEG"][i])]
    for axis, (kind, i) in zip(below.subplots(1, len(panels)), panels, strict=True):
        for name in dict.fromkeys(name for found in tables.values() for name in found if name != "noisy"):
            points = [(b, found[name][i]) for (k, b), found in tables.items() if k == kind and name in found]
            axis.plot(*(np.transpose(points) if points else ((), ())), "o-", label=name, ms=4, lw=1.2)
        axis.set(title=f"{kind}: {'PSNR, dB' if i == 1 else 'SSIM'}", xlabel="B", xticks=[*STEPS])
    below.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=7, fontsize=8, frameon=False)
    figure.savefig(out, dpi=160)


def main() -> None:
    """Print the tables, and draw them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with the real scan")
    parser.add_argument("--clips", type=int, default=1, help="movies of each kind and B")
    parser.add_argument("--side", type=int, default=192, help="rows and columns of a frame")
    parser.add_argument("--motion", default="slow", help="slow, mixed or fast")
    parser.add_argument("--out", type=Path, default=Path("movies_against_jpeg.png"))
    given = parser.parse_args()
    scan = np.load(given.data / SCAN) if given.data and (given.data / SCAN).exists() else None
    tables: dict[tuple[str, int], dict[str, Array]] = {}
    for kind in ("fibres", "nanoparticles", *(() if scan is None else ("rotavirus",))):
        for ratio in STEPS:
            rows: dict[str, list[tuple[float, ...]]] = {}
            for seed in range(given.clips if kind != "rotavirus" else 1):
                if kind == "rotavirus":
                    frames, judge = real(scan[3:56:6, :ratio])
                else:
                    frames, judge = simulated(kind, ratio, given.side, given.motion, seed)
                ways = coders(ratio, STEPS[ratio])
                copies = {name: code(frames) for name, code in ways.items() if name not in LEFT_OUT}
                for name, (size, found) in {"noisy": (frames.size, frames), **copies}.items():
                    rows.setdefault(name, []).append((size / frames.size, *judge(found)))
            tables[kind, ratio] = {name: np.mean(found, axis=0) for name, found in rows.items()}
            print(f"\n{kind}, B = {ratio}\n{'':24}of raw bytes   PSNR, dB    SSIM")
            for name, (share, decibels, alike) in tables[kind, ratio].items():
                print(f"{name:24}{f'1/{1 / share:.0f}':>12}{decibels:11.2f}{alike:8.3f}")
            for paper in [PAPER[kind, ratio]] if (kind, ratio) in PAPER else ():
                print("the paper: TCS-DL {:.2f} dB, JPEG {:.2f} dB".format(*paper))
            if (kind, ratio) == ("nanoparticles", 30):
                shown = {"noisy": frames[15], **{name: found[15] for name, (_, found) in copies.items()}}
    draw(tables, shown, given.out)
    print(f"\n{WHY}\nwrote {given.out}")


if __name__ == "__main__":
    main()
