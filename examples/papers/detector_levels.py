"""Huang et al. (2021, doi:10.1107/S1600577520013326): counts of 14 bits in 511, 255 or 191 levels on the detector.

The paper's detector sends 9 or 8 bits a pixel instead of 14: levels that are about √N apart. Ptychography of a
simulated cell, measured twice, is judged by the squared error within the support (SMSE) and by the half-bit resolution
of the Fourier ring correlation (FRC) between both measurements: "negligible effect on the reconstructed image".

    python detector_levels.py [--data FOLDER] [--rows 14 --bits 8 11 14 --method gradient] [--out FIGURE.png]

FOLDER adds the real Siemens star. Needs matplotlib, and torch unless ``--method epie`` is given.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from stemcodecs.codecs import PixelHistogram, PoissonHistogram
from stemcodecs.metrics import smse
from stemcodecs_pipelines import PtychographyProblem, judge
from stemcodecs_pipelines.ptychography.forward import diffraction_patterns
from stemcodecs_pipelines.ptychography.geometry import raster_positions
from stemcodecs_pipelines.ptychography.judge import Verdict
from stemcodecs_pipelines.ptychography.probe import aperture_probe

Array = np.ndarray[Any, Any]
Found = dict[int, tuple[float, Verdict]]
SENT = {0: 14, 511: 9, 255: 8, 191: 8}
"""Bits of a count on the way from the detector, by levels; 0 for no encoding."""
WHY = """As in the paper, no resolution is lost. Differences of some percent of the SMSE, in either direction, are what one
noise instance says. The paper's cell and zone plate are others, so that only the comparison carries over, not the
numbers. What the paper does not have: the levels behind an entropy coder take far fewer bits than those sent."""


def simulate(rows: int) -> tuple[PtychographyProblem, Array, Array, Array]:
    """A scan without patterns, the cell, its support, and the expected patterns (largest value 1)."""
    optics = {"pixel_size": 10e-9, "wavelength": 1.4e-10}
    positions = raster_positions((rows, rows), (5.0, 5.0)) + np.random.default_rng(0).uniform(-1, 1, (rows**2, 2))
    probe = aperture_probe(48, semi_angle=2e-3, defocus=6e-5, **optics)
    frame = PtychographyProblem.of(np.zeros((rows**2, 48, 48), np.uint16), positions, probe, **optics)
    y, x = np.mgrid[: frame.object_shape[0], : frame.object_shape[1]] - np.array(frame.object_shape)[:, None, None] / 2
    inside = np.hypot(x, y) < (radius := 2.6 * rows)
    phase = 0.4 * inside
    for u, v, size, depth in np.random.default_rng(3).uniform((-1, -1, 0.03, 0.1), (1, 1, 0.16, 0.5), (60, 4)):
        phase += depth * (np.hypot(x - 0.6 * u * radius, y - 0.6 * v * radius) < size * radius)
    square = sum(k**2 for k in np.meshgrid(*(np.fft.fftfreq(n) for n in phase.shape), indexing="ij"))
    soft = np.fft.ifft2(np.fft.fft2(phase) * np.exp(-2 * (1.2 * np.pi) ** 2 * square)).real
    cell = np.exp((-1j - 0.05) * soft)
    rate = diffraction_patterns(cell, probe, frame.positions)
    return frame, cell, inside, rate / rate.max()


def encoded(counts: Array, levels: int) -> tuple[Array, float]:
    """What comes back, and bits a pixel when it is stored."""
    codec = PoissonHistogram(preset=f"huang-{levels}") if levels else PixelHistogram()
    data = codec.encode_chunk(counts)
    return codec.decode_chunk(data), 8 * len(data) / counts.size


def compare(title: str, patterns: list[Array], frame: PtychographyProblem, inside: Array | None, **how: Any) -> Found:
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
        found[levels] = error, judged.stored
        resolution = unit * judged.stored.resolution
        print(f"{levels or 'all':>10}{SENT[levels]:11}{bits[0]:13.3f}{error:10.2e}{resolution:12.2f}", flush=True)
    return found


def draw(tables: dict[int, Found], inside: Array, out: Path) -> None:
    """The cell at the highest fluence; errors over the fluence, correlations at the lowest, and the levels."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.5, 6), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=(1, 1.2))
    errors, correlations, steps = below.subplots(1, 3)
    first, last = tables[min(tables)], tables[max(tables)]
    rows = np.flatnonzero(inside.any(axis=1))
    part = (slice(rows[0] - 8, rows[-1] + 8),) * 2
    counts = np.arange(400, dtype=np.uint16)
    steps.fill_between(counts, -np.sqrt(counts), np.sqrt(counts), color="0.9", label="shot noise, ±√N")
    for i, (axis, levels) in enumerate(zip(above.subplots(1, 4), SENT, strict=True)):
        name = f"{levels} levels" if levels else "no encoding"
        axis.imshow(np.angle(last[levels][1].image)[part], cmap="gray", vmin=-1.4, vmax=0.1)
        axis.set_title(f"{name}, {SENT[levels]} bits", fontsize=9)
        axis.set_axis_off()
        errors.loglog([2**bits for bits in tables], [found[levels][0] for found in tables.values()], "o-", ms=4)
        frc = first[levels][1].frc
        correlations.plot(1e-6 * frc.frequencies[1:], frc.correlation[1:], lw=1.2)
        steps.plot(counts, encoded(counts[None, None], levels)[0][0, 0] - 1.0 * counts, f"C{i}", lw=0.8, label=name)
    correlations.plot(1e-6 * frc.frequencies[1:], frc.half_bit[1:], "k--", lw=1, label="half bit")
    errors.set(xlabel="largest count of the scan", ylabel="SMSE within the cell")
    correlations.set(xlabel="spatial frequency, 1/µm", ylabel="FRC of two measurements", title=f"{min(tables)} bits")
    steps.set(xlabel="counts N", ylabel="decoded − N")
    correlations.legend()
    steps.legend(fontsize=7, loc="lower left")
    figure.savefig(out, dpi=160)


def main() -> None:
    """Print the tables, and draw them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with the real scan")
    parser.add_argument("--rows", type=int, default=14, help="rows and columns of the simulated scan")
    parser.add_argument("--bits", type=int, nargs="+", default=[8, 11, 14], help="of the largest count of the scan")
    parser.add_argument("--method", default="gradient", choices=("gradient", "epie"))
    parser.add_argument("--iterations", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path("detector_levels.png"))
    given = parser.parse_args()
    how, tables = {"method": given.method, "iterations": given.iterations}, {}
    frame, cell, inside, rate = simulate(given.rows)
    for bits in given.bits:
        rates = (2**bits - 1) * rate
        twice = [np.random.default_rng(seed).poisson(rates).clip(0, 16383).astype(np.uint16) for seed in (1, 2)]
        tables[bits] = compare(f"simulated cell, {bits} bits", twice, frame, inside, truth=cell, **how)
    star = given.data / "aps_siemens_xptycho_516x128x128_u16.npy" if given.data else None
    if star and star.exists():
        known = np.load(star.with_name("aps_siemens_scan_probe.npz"))
        problem = PtychographyProblem.of(np.load(star), known["scan"], known["probe"].reshape(128, 128))
        compare("Siemens star, against its object without encoding", [np.load(star)], problem, None, **how)
    print(f"\n{WHY}")
    draw(tables, inside, given.out)
    print(f"wrote {given.out}")


if __name__ == "__main__":
    main()
