"""What does a lossy store do to the reconstructed image?

A simulated scan is stored with a bound of r standard deviations on every count. The judge reconstructs from the
original and from each store with equal settings, and compares resolution (Fourier ring correlation of two halves of the
scan), phase error against the truth, and the dose whose shot noise would have cost as much.

Run with ``python judge_loss.py``; needs matplotlib for the picture. ePIE keeps it free of torch; try "gradient".
"""

import numpy as np
import zarr

from stemcodecs.codecs import PoissonHistogram
from stemcodecs_pipelines import PtychographyProblem, judge
from stemcodecs_pipelines.ptychography.forward import diffraction_patterns
from stemcodecs_pipelines.ptychography.geometry import raster_positions
from stemcodecs_pipelines.ptychography.probe import aperture_probe

side, rows, pixel, wavelength = 32, 12, 20e-12, 2e-12
probe = aperture_probe(side, semi_angle=0.021, defocus=12e-9, pixel_size=pixel, wavelength=wavelength)
positions = raster_positions((rows, rows), (4.0, 4.0)) + np.random.default_rng(0).uniform(-1, 1, (rows**2, 2))
frame = PtychographyProblem.of(np.zeros((rows**2, side, side)), positions, probe, pixel_size=pixel)
k = np.hypot(*np.meshgrid(*(np.fft.fftfreq(n) for n in frame.object_shape), indexing="ij"))
noise = np.random.default_rng(1).standard_normal(frame.object_shape)
phase = np.fft.ifft2(np.fft.fft2(noise) * np.exp(-((k / 0.15) ** 2))).real
truth = np.exp(0.5j * phase / phase.std())
counts = np.random.default_rng(2).poisson(3e4 * diffraction_patterns(truth, probe, frame.positions)).astype(np.uint16)

for r in (0.5, 1, 2):
    name = f"scan_r{r:g}.zarr"
    codec = PoissonHistogram(r=r, decoder="centroid")
    zarr.create_array(name, data=counts, chunks=counts.shape, serializer=codec, compressors=None, overwrite=True)
    verdict = judge(counts, name, frame, "epie", truth=truth, dose=True, iterations=10)
    print(f"r = {r:g}\n{verdict.describe()}\n")
verdict.draw("judge_loss.png")
