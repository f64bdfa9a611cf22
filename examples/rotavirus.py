"""Rotavirus capsids from 56×56 patterns of five electrons a pixel; the probe is made from its defocus.

Run with ``python rotavirus.py [FOLDER]``; needs torch and matplotlib. FOLDER holds the real scan (from the tests of
Ptycho.jl); without it capsids are simulated. Gradients: S. Kandel et al. 2019, arXiv:1902.03920.
"""

import sys
from pathlib import Path

import numpy as np

from stemcodecs_pipelines import PtychographyProblem, reconstruct
from stemcodecs_pipelines.ptychography.forward import diffraction_patterns
from stemcodecs_pipelines.ptychography.geometry import raster_positions, wavelength_of
from stemcodecs_pipelines.ptychography.plot import draw_reconstruction
from stemcodecs_pipelines.ptychography.probe import aperture_probe, probe_from_patterns

folder = Path(sys.argv[1]) if len(sys.argv) > 1 else None
wavelength = wavelength_of(300e3, "electron")
side, rows = (128, 56) if folder is not None else (64, 28)
# The bright-field disc of 1.03 mrad has a radius of 61.7 pixels on the real detector.
optics = {"pixel_size": wavelength / (128 * 1.03e-3 / 61.7), "wavelength": wavelength}
positions = raster_positions((rows, rows), (3.125e-9, 3.125e-9), rotation_deg=126)
if folder is not None:
    patterns = np.load(folder / "rotavirus_4dstem_scan56x56_det128_u8.npy")
    probe = probe_from_patterns(patterns.mean((0, 1)), defocus=-13.5e-6, **optics)
else:
    probe = aperture_probe(side, semi_angle=1.0e-3, defocus=-13.5e-6, **optics)
    frame = PtychographyProblem.of(np.zeros((rows**2, side, side)), positions, probe, metres=True, **optics)
    y, x = np.indices(frame.object_shape)
    capsids = [np.hypot(y - a, x - b) for a, b in np.mgrid[40:160:34, 40:160:34].reshape(2, -1).T]
    capsids = np.exp(sum(0.15j * np.exp(-(((r - 14) / 3) ** 2)) for r in capsids))
    rate = 5.3 * side**2 * diffraction_patterns(capsids, probe, frame.positions)
    patterns = np.random.default_rng(0).poisson(rate).astype(np.uint8)

problem = PtychographyProblem.of(patterns, positions, probe, metres=True, **optics)
result = reconstruct(problem, "gradient", iterations=8, progress=lambda *done: print("{}/{}  {:.4f}".format(*done)))
draw_reconstruction(result, "rotavirus.png")
print(f"rotavirus.png: pixel {1e9 * problem.pixel_size:.3f} nm, amplitude error {result.error:.4f}")
