"""A Siemens star by X-ray ptychography: ePIE, gradients, and gradients with three probe modes.

Run with ``python siemens_star.py [FOLDER]``; needs torch and matplotlib. FOLDER holds the real scan
(aps_siemens_xptycho_516x128x128_u16.npy, from the tests of tike 0.26); without it a star is simulated. ePIE: A. Maiden
and J. Rodenburg 2009, doi:10.1016/j.ultramic.2009.05.012.
"""

import sys
from pathlib import Path

import numpy as np

from stemcodecs_pipelines import PtychographyProblem, reconstruct
from stemcodecs_pipelines.ptychography.forward import diffraction_patterns
from stemcodecs_pipelines.ptychography.plot import draw_reconstruction
from stemcodecs_pipelines.ptychography.probe import aperture_probe

folder = Path(sys.argv[1]) if len(sys.argv) > 1 else None
if folder is not None:
    given = np.load(folder / "aps_siemens_scan_probe.npz")
    patterns = np.load(folder / "aps_siemens_xptycho_516x128x128_u16.npy")
    problem = PtychographyProblem.of(patterns, given["scan"], given["probe"].reshape(128, 128))
else:
    optics = {"pixel_size": 10e-9, "wavelength": 1.4e-10}
    probe = aperture_probe(48, semi_angle=2e-3, defocus=1e-4, **optics)
    turn = np.arange(220) * 2.4  # Fermat's spiral
    positions = 4.2 * np.sqrt(np.arange(220))[:, None] * np.stack([np.sin(turn), np.cos(turn)], axis=1)
    frame = PtychographyProblem.of(np.zeros((220, 48, 48)), positions, probe, **optics)
    y, x = np.mgrid[: frame.object_shape[0], : frame.object_shape[1]] - np.array(frame.object_shape)[:, None, None] / 2
    star = np.exp(-0.8j * (np.sin(18 * np.arctan2(y, x)) > 0) * (np.hypot(y, x) > 12))
    rate = diffraction_patterns(star, 300 * probe, frame.positions)
    problem = frame.with_patterns(np.random.default_rng(0).poisson(rate))

for name, settings in {"epie": {}, "gradient": {}, "gradient_3_modes": {"modes": 3}}.items():
    result = reconstruct(problem, name.split("_")[0], **settings)
    draw_reconstruction(result, f"star_{name}.png")
    print(f"{name:17} amplitude error {result.error:.4f}, shares of the modes {result.probe_shares.round(3)}")
