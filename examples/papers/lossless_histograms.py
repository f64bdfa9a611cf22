"""Hinkle et al., "Lossless Image Compression for 4D-STEM Datasets": pixel-local histograms against gzip, PNG, networks.

Its Figure 1: arithmetic coding with a histogram for every detector pixel takes 3.70 bits a pixel, "an 8.6x compression
ratio"; gzip and PNG take at least twice as much; L3C (F. Mentzer et al., CVPR 2019, doi:10.1109/CVPR.2019.01088), a
learned coder of images, shows "lackluster performance", as a convolution does not know where on the detector it is.

    python lossless_histograms.py [--data FOLDER] [--scan 32 --detector 64 --steps 2000] [--out FIGURE.png]

Simulates a crystal at the dose at which such histograms take 3.7 bits; FOLDER adds the real scans that it holds.
Needs matplotlib, and with it Pillow for PNG. Every size but that of gzip and PNG is of bytes that are decoded and
compared.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from stemcodecs.codecs import Learned, PixelHistogram
from stemcodecs.simulate import simulate_scan
from stemcodecs_pipelines.compare.generic_sizes import gzip_size, png_size

REAL = {
    "rotavirus, 24 × 24": "rotavirus_4dstem_scan24x24_det256_u8.npy",
    "rotavirus, 56 × 56": "rotavirus_4dstem_scan56x56_det128_u8.npy",
    "Siemens star, X-rays": "aps_siemens_xptycho_516x128x128_u16.npy",
}
MEAN_COUNTS, PAPER_BITS = 18.0, 3.70
HISTOGRAMS = "pixel-local histograms"
GZIP, PNG, BOUND = "gzip of float32", "PNG", "Shannon bound"


def sizes(counts: np.ndarray[Any, Any], steps: int) -> dict[str, float]:
    """Bits a pixel by method."""
    patterns = counts.reshape(-1, *counts.shape[-2:])
    found: dict[str, int | None] = {
        GZIP: gzip_size(patterns.astype(np.float32)),
        "gzip of counts": gzip_size(patterns),
        PNG: png_size(patterns),
    }
    for name, codec in (
        (HISTOGRAMS, PixelHistogram(mode="pixel")),
        ("stemcodecs, default", PixelHistogram()),
        ("stemcodecs, learned", Learned(steps=steps)),
    ):
        data = codec.encode_chunk(counts)
        np.testing.assert_array_equal(codec.decode_chunk(data), counts)
        found[name] = len(data)
    return {name: 8 * size / counts.size for name, size in found.items() if size is not None}


def draw(tables: dict[str, dict[str, float]], out: Path) -> None:
    """One panel a scan, as in the paper's Figure 1."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.6 * len(tables) + 1.6, 3.1), layout="constrained")
    for i, (title, bits) in enumerate(tables.items()):
        axis = figure.add_subplot(1, len(tables), i + 1)
        names = [name for name in bits if name != BOUND]
        colors = ["tab:blue" if name == HISTOGRAMS or "stemcodecs" in name else "0.65" for name in names]
        axis.barh(names, [bits[name] for name in names], color=colors, height=0.72)
        for y, name in enumerate(names):
            axis.text(bits[name], y, f" {bits[name]:.2f}  ({32 / bits[name]:.1f}×)", va="center", fontsize=8)
        axis.invert_yaxis()
        axis.set_xlim(0, 1.45 * max(bits.values()))
        axis.set_title(title, fontsize=9)
        axis.set_xlabel("bits a pixel (× smaller than float32)", fontsize=8)
        axis.tick_params(labelsize=8, labelleft=i == 0)
        axis.spines[["top", "right"]].set_visible(False)
        if BOUND in bits:
            axis.axvline(bits[BOUND], color="black", lw=0.8, ls=":")
            axis.text(bits[BOUND], -0.55, "Shannon bound", fontsize=7, ha="center")
    figure.savefig(out, dpi=160)


def main() -> None:
    """Print the tables, and draw them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with the real scans")
    parser.add_argument("--scan", type=int, default=32, help="rows and columns of the simulated scan")
    parser.add_argument("--detector", type=int, default=64, help="rows and columns of its detector")
    parser.add_argument("--steps", type=int, default=2000, help="to fit the learned model")
    parser.add_argument("--out", type=Path, default=Path("lossless_histograms.png"))
    given = parser.parse_args()

    simulation = simulate_scan("lattice", (given.scan,) * 2, (given.detector,) * 2, mean_counts=MEAN_COUNTS, seed=1)
    scans = {f"simulated crystal, {MEAN_COUNTS:g} counts a pixel": simulation.counts}
    files = {name: given.data / file for name, file in REAL.items()} if given.data else {}
    scans |= {name: np.load(path) for name, path in files.items() if path.exists()}
    tables = {}
    for title, counts in scans.items():
        tables[title] = bits = sizes(counts, given.steps)
        print(f"\n{title}: {' × '.join(map(str, counts.shape))} of {counts.dtype}, mean {counts.mean():.2f}")
        print(f"{'':24}bits a pixel   × smaller than float32   than {counts.dtype}")
        if counts is scans[next(iter(scans))]:
            bits[BOUND] = simulation.shannon_bound()
        for name, found in bits.items():
            print(f"{name:24}{found:12.3f}{32 / found:25.2f}{8 * counts.itemsize / found:14.2f}")
        print(f"gzip over histograms {bits[GZIP] / bits[HISTOGRAMS]:.2f}, PNG {bits[PNG] / bits[HISTOGRAMS]:.2f}")
    print(
        f"\nThe paper: {PAPER_BITS} bits, 8.6 times smaller than 32 / 8.6 = 3.72 bits say: its ratio counts from the float32 that "
        "Nion Swift writes."
    )
    draw(tables, given.out)
    print(f"wrote {given.out}")


if __name__ == "__main__":
    main()
