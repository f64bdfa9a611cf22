"""How small, and how good: bits a pixel, and what loss costs in counts, in images and in dose.

Each metric has its formula, its units and its source in its docstring. All take whatever NumPy takes; a value that is
not a number, shapes that differ and an empty support are refused, never left out.
"""

from stemcodecs.metrics.alignment import align_objects, phase_mse
from stemcodecs.metrics.counts import diffraction_mse, total_count_bias
from stemcodecs.metrics.dose import dose_equivalent
from stemcodecs.metrics.images import psnr, smse, ssim
from stemcodecs.metrics.resolution import FourierRingCorrelation, fourier_ring_correlation, half_bit_resolution
from stemcodecs.metrics.shannon import bits_per_pixel, poisson_entropy, shannon_bound

__all__ = [
    "FourierRingCorrelation",
    "align_objects",
    "bits_per_pixel",
    "diffraction_mse",
    "dose_equivalent",
    "fourier_ring_correlation",
    "half_bit_resolution",
    "phase_mse",
    "poisson_entropy",
    "psnr",
    "shannon_bound",
    "smse",
    "ssim",
    "total_count_bias",
]
