"""What does a lossy store do to the reconstructed image?

A simulated scan is stored with a bound of r standard deviations on every count (P. Huang et al. 2021,
doi:10.1107/S1600577520013326). The judge reconstructs from the original and from each store with equal settings, and
compares resolution (Fourier ring correlation of two halves of the scan), phase error against the truth, and the dose
whose shot noise would have cost as much.

Run with ``python judge_loss.py``; needs matplotlib for the picture. ePIE keeps it free of torch; try "gradient".
"""

import numpy as np
import zarr

from stemcodecs.codecs import PoissonHistogram
from stemcodecs_pipelines import judge
from stemcodecs_pipelines.ptychography.simulated_scan import rough_phase, simulate_ptychography

optics = {"semi_angle": 0.021, "defocus": 12e-9, "pixel_size": 20e-12, "wavelength": 2e-12}
frame, truth, rate = simulate_ptychography(
    lambda shape: np.exp(0.5j * rough_phase(shape, 1.5)), rows=12, side=32, step=4.0, **optics
)
counts = np.random.default_rng(2).poisson(3e4 * rate).astype(np.uint16)

for r in (0.5, 1, 2):
    name = f"scan_r{r:g}.zarr"
    codec = PoissonHistogram(r=r, decoder="centroid")
    zarr.create_array(name, data=counts, chunks=counts.shape, serializer=codec, compressors=None, overwrite=True)
    verdict = judge(counts, name, frame, "epie", truth=truth, dose=True, iterations=10)
    print(f"r = {r:g}\n{verdict.describe()}\n")
verdict.draw("judge_loss.png")
