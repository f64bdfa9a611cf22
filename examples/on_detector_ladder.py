"""Compress diffraction patterns on the detector: 6:1, 10:1, 16:1, 55:1, 164:1, and what it costs.

An encoding matrix is learned before the experiment and loaded on the detector, which then sends N/C
numbers instead of the N counts of a pattern. What it was learned from decides how well it works:

- own scan: the scan itself, the best that PCA can do, known only afterwards;
- first scan: another specimen, measured under the same conditions, with its noise;
- mismatched: a simulated training object without noise, of too weak contrast;
- contrast-matched: the same object, its contrast multiplied by the factor η at which it scatters the same fraction κ
  as the specimen, read off the specimen's mean pattern.

Run with ``python on_detector_ladder.py ladder.png``; takes about two minutes and needs matplotlib.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from stemcodecs.lowrank import (
    DetectorEncoder,
    contrast_factor,
    fractional_scattering,
    probe_mask,
)
from stemcodecs.metrics import phase_mse
from stemcodecs_pipelines import PtychographyProblem, reconstruct
from stemcodecs_pipelines.ptychography.forward import diffraction_patterns

RATIOS = (6, 10, 16, 55, 164)
PIXELS = 64
SCAN = 28
STEP = 3
DOSE = 2e5  # counts per pattern
CONTRAST = 0.84  # phase of the specimen, rad (standard deviation is half of it)
WEAK = 0.25  # the training object's contrast before matching
MARGIN = 40

Array = np.ndarray[Any, Any]


def phase_map(size: int, seed: int) -> Array:
    """Fine and coarse structure of unit contrast."""
    noise = np.random.default_rng(seed).standard_normal((2, size, size))
    k = np.fft.fftfreq(size)
    square = k[:, None] ** 2 + k**2
    fine, coarse = (
        np.fft.ifft2(np.fft.fft2(layer) * np.exp(-2 * (np.pi * width) ** 2 * square)).real
        for layer, width in zip(noise, (1.5, 6.0), strict=True)
    )
    return 0.5 * (fine / fine.std() + coarse / coarse.std())


def specimen(contrast: float, seed: int) -> Array:
    """Transmission function of a thin phase object."""
    return np.exp(1j * contrast * phase_map(PIXELS + SCAN * STEP + 8, seed))


def make_probe() -> Array:
    """A defocused aperture, of unit energy."""
    k = np.fft.fftfreq(PIXELS)
    square = k[:, None] ** 2 + k**2
    wave = np.fft.fftshift(np.fft.ifft2((square < 0.16**2) * np.exp(-100j * np.pi * square)))
    return wave / np.sqrt((np.abs(wave) ** 2).sum())


def scan_positions(seed: int) -> Array:
    """A raster with a pixel of jitter, against the raster pathology of ptychography."""
    jitter = np.random.default_rng(seed).integers(-1, 2, (SCAN, SCAN, 2))
    raster = np.stack(np.meshgrid(np.arange(SCAN), np.arange(SCAN), indexing="ij"), -1) * STEP
    return (raster + 4 + jitter).reshape(-1, 2)


def main(picture: str) -> None:
    """Print the table and draw the ladder."""
    probe, positions = make_probe(), scan_positions(0)
    truth = specimen(CONTRAST, seed=1)
    rate = DOSE * diffraction_patterns(truth, probe, positions)
    counts = np.random.default_rng(2).poisson(rate)

    def training(contrast: float, seed: int = 3) -> Array:
        return DOSE * diffraction_patterns(specimen(contrast, seed), probe, scan_positions(seed))

    vacuum = np.abs(np.fft.fftshift(np.fft.fft2(probe, norm="ortho"))) ** 2
    mask = probe_mask(vacuum)
    kappa = fractional_scattering(counts.mean(0), mask)
    eta = contrast_factor(lambda eta: training(eta * WEAK).mean(0), kappa, mask)
    weak_kappa = fractional_scattering(training(WEAK).mean(0), mask)
    print(f"fractional scattering: specimen {kappa:.4f}, training object {weak_kappa:.4f}")
    print(f"contrast factor eta = {eta:.3f} (the specimen's contrast is {CONTRAST / WEAK:.3f} ×)\n")

    first_scan = np.random.default_rng(4).poisson(training(CONTRAST))
    sources = {
        "own scan": counts,
        "first scan": first_scan,
        "mismatched": training(WEAK),
        "contrast-matched": training(eta * WEAK),
    }
    most = round(PIXELS**2 / RATIOS[0])
    encoders = {name: DetectorEncoder.fit(patterns, coefficients=most) for name, patterns in sources.items()}

    inside = np.zeros(truth.shape, bool)
    inside[MARGIN:-MARGIN, MARGIN:-MARGIN] = True

    def judge(patterns: Array) -> tuple[float, float, Array]:
        problem = PtychographyProblem.of(patterns, positions, probe, object_shape=truth.shape)
        image = reconstruct(problem, "epie", iterations=12, object_step=1.0).object
        diffraction = float(np.mean((np.sqrt(patterns) - np.sqrt(rate)) ** 2))
        return phase_mse(image, truth, inside), diffraction, np.angle(image)

    images: dict[tuple[str, int], Array] = {}
    errors: dict[str, list[float]] = {}
    lossless, noise, images["lossless", 1] = judge(counts)
    print("image phase error, rad² (diffraction error, mean of (√N' − √λ)²)")
    print(f"{'trained on':18s}" + "".join(f"{ratio:>9d}:1      " for ratio in RATIOS))
    for name, encoder in encoders.items():
        cells = []
        for ratio in RATIOS:
            smaller = encoder.at(ratio=ratio)
            # On the detector this is one matrix product per pattern; here all at once.
            error, diffraction, images[name, ratio] = judge(smaller.decode(smaller.encode(counts)))
            cells.append(f"{error:8.4f} ({diffraction:5.3f})")
            errors.setdefault(name, []).append(error)
        print(f"{name:18s}" + " ".join(cells))
    print(f"{'without encoding':18s}{lossless:8.4f} ({noise:5.3f})")
    gains = np.divide(errors["contrast-matched"], errors["mismatched"])
    print("phase error of contrast-matched over mismatched training: " + ", ".join(f"{gain:.2f}" for gain in gains))
    draw(images, list(encoders), picture)


def draw(images: dict[tuple[str, int], Array], names: list[str], picture: str) -> None:
    """Reconstructed phases: one row a training set, one column a compression."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2 * len(RATIOS) + 2, 2.1 * len(names)), layout="constrained")
    FigureCanvasAgg(figure)
    axes: Any = figure.subplots(len(names), len(RATIOS) + 1)
    inside = slice(MARGIN, -MARGIN)
    for row, name in enumerate(names):
        shown = [images["lossless", 1], *(images[name, ratio] for ratio in RATIOS)]
        for column, image in enumerate(shown):
            axis = axes[row, column]
            part = image[inside, inside]
            axis.imshow(part - np.median(part), cmap="gray", vmin=-1.5, vmax=1.5)
            axis.set_xticks([])
            axis.set_yticks([])
            if row == 0:
                axis.set_title("lossless" if column == 0 else f"{RATIOS[column - 1]}:1")
        axes[row, 0].set_ylabel(name)
    figure.savefig(picture, dpi=110)
    print(f"\nwrote {picture}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "on_detector_ladder.png")
