"""Huang et al., "Matrix factorization approaches to lossy compression of ptychography data": from 6:1 to 164:1.

An encoding matrix is learned by PCA (L. Loetgering et al. 2017, doi:10.1515/aot-2017-0053) before the experiment and
loaded on the detector, which then sends N/C numbers instead of the N counts of a pattern. What it is learned from:

- own scan: the scan itself, the best that PCA can do, known only afterwards;
- first scan: another specimen, measured under the same conditions, with its noise;
- mismatched: a simulated training object without noise, of too weak contrast;
- contrast-matched: the same object; its contrast times η scatters the fraction κ of the beam that the specimen does.

    python pca_ladder.py [--data FOLDER] [--rows 28 --side 64] [--out FIGURE.png]

FOLDER adds the real rotavirus scan, its even lines as the first scan of its odd lines. Takes minutes.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from stemcodecs.lowrank import DetectorEncoder, contrast_factor, fractional_scattering, probe_mask
from stemcodecs.metrics import align_objects, diffraction_mse, fourier_ring_correlation, half_bit_resolution, phase_mse
from stemcodecs_pipelines import PtychographyProblem, reconstruct
from stemcodecs_pipelines.ptychography.geometry import raster_positions
from stemcodecs_pipelines.ptychography.judge import faded
from stemcodecs_pipelines.ptychography.probe import probe_from_patterns
from stemcodecs_pipelines.ptychography.simulated_scan import SimulatedScan, rough_phase, simulate_ptychography

Array = np.ndarray[Any, Any]
Images = dict[tuple[str, int], Array]
RATIOS = (6, 10, 16, 55, 164)
DOSE, CONTRAST, WEAK = 2e5, 0.84, 0.25  # counts of a pattern; phase of the specimen and of the training object, rad
EPIE = {"iterations": 12, "object_step": 1.0}
SCAN = "rotavirus_4dstem_scan56x56_det128_u8.npy"
WHY = """As in the paper: what is learned from an object of another contrast costs most from 10:1 on; contrast matching
makes up for it, and is a little better than a noisy first scan. The own scan shows what PCA can do at all: 6:1 costs
nothing. Here both scans have one probe, which in the paper changed between them, so that 6:1 costs less here."""


def scan(contrast: float, seed: int, rows: int, side: int) -> SimulatedScan:
    """Fine and coarse structure of a thin phase object, under a defocused aperture."""
    return simulate_ptychography(
        lambda shape: np.exp(0.5j * contrast * (rough_phase(shape, 1.5, seed) + rough_phase(shape, 6.0, seed + 100))),
        **{"semi_angle": 2.24e-3, "defocus": 7e-5, "pixel_size": 10e-9, "wavelength": 1.4e-10},
        **{"rows": rows, "side": side, "step": 3.0, "seed": seed},
    )


def ladder(problem: PtychographyProblem, counts: Array, rate: Array, truth: Array, first: dict[str, Array]) -> Images:
    """Print errors, and give phases, by what the matrix is learned from and ratio."""
    inside, images = problem.covered(0.5), {}
    print(f"{len(counts)} patterns of {counts.shape[-1]}², {counts.mean():.1f} counts a pixel")
    print(f"{'learned from':24}   phase, rad²  period, pixels   counts²")
    for name, patterns in {"lossless": counts, "own scan": counts, **first}.items():
        encoder = DetectorEncoder.fit(patterns, ratio=RATIOS[0])
        for ratio in (1,) if name == "lossless" else RATIOS:
            sent = counts if ratio == 1 else (matrix := encoder.at(ratio=ratio)).decode(matrix.encode(counts))
            image = align_objects(reconstruct(problem.with_patterns(sent), "epie", **EPIE).object, truth, inside)
            period = half_bit_resolution(fourier_ring_correlation(*faded(image, truth, inside)))
            errors = phase_mse(image, truth, inside), period, diffraction_mse(sent, rate)
            print(f"{name:18}{f'{ratio}:1':>6}{'{:14.4f}{:14.2f}{:14.3f}'.format(*errors)}", flush=True)
            images[name, ratio] = np.angle(image)
    return images


def draw(images: Images, out: Path) -> None:
    """Phases: one row for what the matrix is learned from, one column a ratio."""
    names = [name for name in dict.fromkeys(name for name, _ in images) if name != "lossless"]
    figure = Figure(figsize=(1.5 * len(RATIOS) + 2, 1.55 * len(names)), layout="constrained")
    axes = figure.subplots(len(names), len(RATIOS) + 1, squeeze=False)
    for row, name in zip(axes, names, strict=True):
        row[0].set_ylabel(name, fontsize=9)
        for axis, ratio in zip(row, (1, *RATIOS), strict=True):
            image = images["lossless" if ratio == 1 else name, ratio]
            part = image[tuple(slice(n // 4, -(n // 4)) for n in image.shape)]
            axis.imshow(part - np.median(part), cmap="gray", vmin=-1.5, vmax=1.5)
            axis.set(xticks=[], yticks=[], title=f"{ratio}:1" if name == names[0] else "")
    figure.savefig(out, dpi=160)


def main() -> None:
    """Print the ladder, and draw it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with the real scan")
    parser.add_argument("--rows", type=int, default=28, help="rows and columns of the simulated scan")
    parser.add_argument("--side", type=int, default=64, help="rows and columns of its detector")
    parser.add_argument("--out", type=Path, default=Path("pca_ladder.png"))
    given = parser.parse_args()
    size = given.rows, given.side
    problem, truth, rate = scan(CONTRAST, 1, *size)
    counts = np.random.default_rng(2).poisson(DOSE * rate)
    mask = probe_mask(np.abs(np.fft.fftshift(np.fft.fft2(problem.probe[0]))) ** 2)
    kappa = fractional_scattering(counts.mean(0), mask)
    eta = contrast_factor(lambda eta: scan(eta * WEAK, 3, *size).rate.mean(0), kappa, mask)
    print(f"fractional scattering {kappa:.4f}, contrast factor {eta:.3f}: it is {CONTRAST / WEAK:.3f} in truth")
    first = {
        "first scan": np.random.default_rng(4).poisson(DOSE * scan(CONTRAST, 3, *size).rate),
        "mismatched": DOSE * scan(WEAK, 3, *size).rate,
        "contrast-matched": DOSE * scan(eta * WEAK, 3, *size).rate,
    }
    images = ladder(problem, counts, DOSE * rate, truth, first)
    for path in given.data.glob(SCAN) if given.data else ():
        binned = np.load(path).reshape(56, 56, 64, 2, 64, 2).sum((3, 5), dtype=np.uint16)
        optics = {"pixel_size": 61.7 / (128 * 1.03e-3) * 1.969e-12, "wavelength": 1.969e-12}
        probe = probe_from_patterns(binned.mean((0, 1)), defocus=-13.5e-6, **optics)
        positions = raster_positions((28, 56), (6.25e-9, 3.125e-9), rotation_deg=126)
        even, odd = binned.reshape(28, 2, 56, 64, 64).swapaxes(0, 1).reshape(2, -1, 64, 64)
        problem = PtychographyProblem.of(odd, positions, probe, metres=True, **optics)
        print("\nrotavirus, against what is found without encoding: ", end="")
        ladder(problem, odd, odd, reconstruct(problem, "epie", **EPIE).object, {"first scan": even})
    draw(images, given.out)
    print(f"\n{WHY}\nwrote {given.out}")


if __name__ == "__main__":
    main()
