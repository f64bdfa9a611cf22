"""Hinkle et al., "Lossless Image Compression for 4D-STEM Datasets": pixel-local histograms against gzip, PNG, networks.

Its Figure 1: arithmetic coding with a histogram for every detector pixel takes 3.70 bits a pixel, "an 8.6x compression
ratio"; gzip and PNG take at least twice as much; L3C (F. Mentzer et al., CVPR 2019, doi:10.1109/CVPR.2019.01088), a
learned coder of images, shows "lackluster performance": a convolution does not know where on the detector it is.

    python lossless_histograms.py [--data FOLDER] [--scan 32 --detector 64 --steps 2000 --l3c] [--out FIGURE.png]

Simulates a crystal at the dose at which such histograms take 3.7 bits; FOLDER adds its real scans, --l3c trains an L3C.
"""

from __future__ import annotations

import argparse
import gzip
import io
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from stemcodecs.codecs import Learned, PixelHistogram
from stemcodecs.errors import StemcodecsError
from stemcodecs.simulate import simulate_scan
from stemcodecs_pipelines import compress

Array = np.ndarray[Any, Any]
REAL = ("rotavirus_4dstem_*.npy", "aps_siemens_*.npy")
GZIP, PNG, HISTOGRAMS, BOUND = "gzip of float32", "PNG of counts", "pixel-local histograms", "Shannon bound"
WHY = """The paper: 3.70 bits, 8.6 times smaller. 32 / 3.70 = 8.6: the ratio counts from the float32 that Nion Swift
writes; counts in 16 bits are half as large to begin with. gzip of float32 takes twice the bits, as there; of
counts, and PNG, which takes integers only, 1.7 times. Bits follow from the dose: that of the simulated scan fits."""


def png(pattern: Array) -> bytes:
    """A grey image."""
    Image.fromarray(pattern).save(file := io.BytesIO(), "PNG")
    return file.getvalue()


def l3c(counts: Array) -> dict[str, int]:
    """Bytes by an L3C that is trained on the scan, where this stemcodecs has it and torch is installed."""
    with tempfile.TemporaryDirectory() as folder:
        np.save(f"{folder}/scan.npy", counts)
        try:
            return {"L3C": compress(f"{folder}/scan.npy", f"{folder}/l3c.zarr", method="learned:arch=l3c").stored_bytes}
        except StemcodecsError as error:
            print(f"L3C is not there: {error}")
            return {}


def sizes(counts: Array, steps: int, with_l3c: bool) -> dict[str, float]:
    """Bits a pixel by method; those of stemcodecs are decoded and compared."""
    patterns = counts.reshape(-1, *counts.shape[-2:])
    found = {
        GZIP: sum(len(gzip.compress(p.astype(np.float32).tobytes(), 9)) for p in patterns),
        "gzip of counts": sum(len(gzip.compress(p.tobytes(), 9)) for p in patterns),
        PNG: sum(len(png(p)) for p in patterns),
    }
    codecs = {HISTOGRAMS: PixelHistogram(mode="pixel"), "stemcodecs, default": PixelHistogram()}
    for name, codec in (codecs | {"stemcodecs, learned": Learned(steps=steps)}).items():
        data = codec.encode_chunk(counts)
        np.testing.assert_array_equal(codec.decode_chunk(data), counts)
        found[name] = len(data)
    found |= l3c(counts) if with_l3c else {}
    return {name: 8 * size / counts.size for name, size in found.items()}


def draw(tables: dict[str, dict[str, float]], out: Path) -> None:
    """One panel a scan, as in the paper's Figure 1."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.4 * len(tables) + 1.6, 3.1), layout="constrained")
    for i, (title, bits) in enumerate(tables.items()):
        axis = figure.add_subplot(1, len(tables), i + 1)
        names = [name for name in bits if name != BOUND]
        colors = ["0.65" if name == PNG or "gzip" in name else "C0" for name in names]
        axis.barh(names, [bits[name] for name in names], color=colors, height=0.72)
        for y, name in enumerate(names):
            axis.text(bits[name], y, f" {bits[name]:.2f}  ({32 / bits[name]:.1f}×)", va="center", fontsize=8)
        axis.invert_yaxis()
        axis.set(xlim=(0, 1.4 * max(bits.values())), xlabel="bits a pixel (× smaller than float32)")
        axis.set_title(f"{title} (dotted: {BOUND})" if BOUND in bits else title, fontsize=9)
        axis.tick_params(labelsize=8, labelleft=i == 0)
        axis.spines[["top", "right"]].set_visible(False)
        axis.axvline(bits.get(BOUND, 0), color="black", lw=0.8, ls=":")
    figure.savefig(out, dpi=160)


def main() -> None:
    """Print the tables, and draw them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with the real scans")
    parser.add_argument("--scan", type=int, default=32, help="rows and columns of the simulated scan")
    parser.add_argument("--detector", type=int, default=64, help="rows and columns of its detector")
    parser.add_argument("--steps", type=int, default=2000, help="to fit the learned model")
    parser.add_argument("--out", type=Path, default=Path("lossless_histograms.png"))
    parser.add_argument("--l3c", action="store_true", help="train an L3C too: minutes, and torch")
    given = parser.parse_args()
    simulation = simulate_scan("lattice", (given.scan,) * 2, (given.detector,) * 2, mean_counts=18.0, seed=1)
    files = [path for name in REAL for path in sorted(given.data.glob(name))] if given.data else []
    scans = {"simulated crystal": (simulated := simulation.counts), **{path.stem: np.load(path) for path in files}}
    tables = {}
    for title, counts in scans.items():
        tables[title] = bits = sizes(counts, given.steps, given.l3c)
        print(f"\n{title}: {' × '.join(map(str, counts.shape))} of {counts.dtype}, mean {counts.mean():.2f}")
        print(f"{'':24}bits a pixel  × smaller than float32  than {counts.dtype}")
        bits |= {BOUND: simulation.shannon_bound()} if counts is simulated else {}
        for name, found in bits.items():
            print(f"{name:24}{found:12.3f}{32 / found:23.2f}{8 * counts.itemsize / found:13.2f}")
        print(f"over histograms: {GZIP} {bits[GZIP] / bits[HISTOGRAMS]:.2f}, {PNG} {bits[PNG] / bits[HISTOGRAMS]:.2f}")
    draw(tables, given.out)
    print(f"\n{WHY}\nwrote {given.out}")


if __name__ == "__main__":
    main()
