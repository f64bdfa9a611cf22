"""Huang et al. (2021, doi:10.1107/S1600577520013326): counts of 14 bits in 511, 255 or 191 levels on the detector.

The paper's detector sends 9 or 8 bits instead of 14, in levels about √N apart, with "negligible effect on the
reconstructed image". The judge is its own: squared error within the support (SMSE) of a simulated cell, and half-bit
resolution by the Fourier ring correlation (FRC) of two measurements.

    python detector_levels.py [--data FOLDER] [--rows 14 --bits 8 11 14 --method gradient] [--out FIGURE.png]

FOLDER adds the real Siemens star. Needs matplotlib, and torch unless ``--method epie`` is given.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from stemcodecs.codecs import PixelHistogram, PoissonHistogram
from stemcodecs.metrics import smse
from stemcodecs_pipelines import PtychographyProblem, judge
from stemcodecs_pipelines.ptychography.judge import Verdict
from stemcodecs_pipelines.ptychography.simulated_scan import simulate_ptychography

Array = np.ndarray[Any, Any]
Found = dict[int, tuple[float, Verdict]]
SIZE = 0.45  # radius of the cell over half of the field
SENT = {0: 14, 511: 9, 255: 8, 191: 8}  # bits of a count on its way from the detector; 0 is no encoding
WHY = """As in the paper, 511 and 255 levels lose no resolution. 191 levels do at low fluence: 1, 2 and 3 counts are one
level, so that dark pixels come out up to twice as bright. The paper's cell and zone plate are others: the comparison
carries over, the numbers do not. What the paper does not have: behind an entropy coder far fewer bits are stored."""


def cell(shape: tuple[int, int]) -> Array:
    """A disc with sixty soft spots, of up to about 1.5 rad."""
    y, x = (np.mgrid[: shape[0], : shape[1]] / (0.5 * np.array(shape)[:, None, None]) - 1) / SIZE
    phase = 0.4 / (1 + np.exp((np.hypot(x, y) - 1) * SIZE * shape[0] / 2))
    for u, v, size, depth in np.random.default_rng(3).uniform((-0.6, -0.6, 0.03, 0.1), (0.6, 0.6, 0.1, 0.5), (60, 4)):
        phase += depth * np.exp(-((x - u) ** 2 + (y - v) ** 2) / size**2)
    return np.exp((-1j - 0.05) * phase)


def encoded(counts: Array, levels: int) -> tuple[Array, float]:
    """What comes back, and bits a pixel when it is stored."""
    codec = PoissonHistogram(preset=f"huang-{levels}") if levels else PixelHistogram()
    data = codec.encode_chunk(counts)
    return codec.decode_chunk(data), 8 * len(data) / counts.size


def compare(title: str, patterns: list[Array], frame: PtychographyProblem, inside: Any, **how: Any) -> Found:
    """Print a table of one measurement, or two; give SMSE and verdict by levels."""
    unit, name = (1e9, "nm") if frame.pixel_size else (1.0, "pixels")
    print(f"\n{title}: largest count {patterns[0].max()}, mean {patterns[0].mean():.2f}")
    print(f"{'levels':>10}{'bits sent':>11}{'bits stored':>13}{'SMSE':>10}  resolution, {name}")
    found: Found = {}
    for levels in SENT:
        sent, bits = zip(*(encoded(counts, levels) for counts in patterns), strict=True)
        again = (patterns[1], sent[1]) if len(patterns) == 2 else None
        judged = judge(patterns[0], sent[0], frame, again=again, **how)
        error = smse(judged.stored.image, judged.reference, judged.support if inside is None else inside)
        found[levels], period = (error, judged.stored), unit * judged.stored.resolution
        print(f"{levels or 'all':>10}{SENT[levels]:11}{bits[0]:13.3f}{error:10.2e}{period:12.2f}", flush=True)
    return found


def draw(tables: dict[int, Found], inside: Array, out: Path) -> None:
    """The cell at the highest fluence; errors over the fluence, correlations at the lowest, and the levels."""
    figure = Figure(figsize=(10.5, 6), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=(1, 1.2))
    errors, correlations, steps = below.subplots(1, 3)
    part, counts = (slice(*(np.flatnonzero(inside.any(axis=1))[[0, -1]] + (-8, 8))),) * 2, np.arange(400, dtype="u2")
    steps.fill_between(counts, -np.sqrt(counts), np.sqrt(counts), color="0.9", label="shot noise, ±√N")
    for i, (axis, levels) in enumerate(zip(above.subplots(1, 4), SENT, strict=True)):
        name = f"{levels} levels" if levels else "no encoding"
        axis.imshow(np.angle(tables[max(tables)][levels][1].image)[part], cmap="gray", vmin=-1.4, vmax=0.1)
        axis.set(title=f"{name}, {SENT[levels]} bits", xticks=[], yticks=[])
        errors.loglog([2**bits for bits in tables], [found[levels][0] for found in tables.values()], "o-", ms=4)
        frc = tables[min(tables)][levels][1].frc
        correlations.plot(1e-6 * frc.frequencies[1:], frc.correlation[1:], lw=1.2, label=name)
        steps.plot(counts, encoded(counts[None, None], levels)[0][0, 0] - 1.0 * counts, f"C{i}", lw=0.8, label=name)
    half = correlations.plot(1e-6 * frc.frequencies[1:], frc.half_bit[1:], "k--", lw=1, label="half bit")
    errors.set_xticks([2**bits for bits in tables], [f"{2**bits:,}" for bits in tables])
    errors.minorticks_off()
    errors.set(xlabel="largest count of the scan", ylabel="SMSE within the cell")
    correlations.set(xlabel="spatial frequency, 1/µm", ylabel=f"FRC of two measurements, {min(tables)} bits")
    steps.set(xlabel="counts N", ylabel="decoded − N")
    correlations.legend(handles=half, fontsize=7, loc="upper right")
    steps.legend(fontsize=7, loc="lower left")
    figure.savefig(out, dpi=160)


def main() -> None:
    """Print the tables, and draw them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with the real scan")
    parser.add_argument("--rows", type=int, default=14, help="rows and columns of the simulated scan")
    parser.add_argument("--bits", type=int, nargs="+", default=[8, 11, 14], help="of the largest count of the scan")
    parser.add_argument("--method", default="gradient", choices=("gradient", "epie"))
    parser.add_argument("--out", type=Path, default=Path("detector_levels.png"))
    given = parser.parse_args()
    how, tables = {"method": given.method, "iterations": 20}, {}
    optics = {"semi_angle": 2e-3, "defocus": 6e-5, "pixel_size": 10e-9, "wavelength": 1.4e-10}
    frame, truth, rate = simulate_ptychography(cell, rows=given.rows, side=48, step=5.0, **optics)
    inside = np.hypot(*np.mgrid[-1 : 1 : truth.shape[0] * 1j, -1 : 1 : truth.shape[1] * 1j]) < SIZE
    for bits in given.bits:
        draws = [np.random.default_rng(seed).poisson((2**bits - 1) / rate.max() * rate) for seed in (1, 2)]
        twice = [counts.clip(0, 16383).astype(np.uint16) for counts in draws]  # the detector saturates there
        tables[bits] = compare(f"simulated cell, {bits} bits", twice, frame, inside, truth=truth, **how)
    for star in given.data.glob("aps_siemens_xptycho_516x128x128_u16.npy") if given.data else ():
        known = np.load(star.with_name("aps_siemens_scan_probe.npz"))
        problem = PtychographyProblem.of(np.load(star), known["scan"], known["probe"].reshape(128, 128))
        compare("Siemens star, against its object without encoding", [np.load(star)], problem, None, **how)
    draw(tables, inside, given.out)
    print(f"\n{WHY}\nwrote {given.out}")


if __name__ == "__main__":
    main()
