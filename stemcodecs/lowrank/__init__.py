"""Low-rank models of a scan: bases, their integer form, on-detector encoding, contrast matching.

Light to import: the coding kernels load with the codec :mod:`stemcodecs.codecs.pca`.
"""

from stemcodecs.lowrank.basis import PcaBasis, exact_basis
from stemcodecs.lowrank.contrast import contrast_factor, fractional_scattering, probe_mask
from stemcodecs.lowrank.detector import DetectorEncoder
from stemcodecs.lowrank.model import LowRankModel
from stemcodecs.lowrank.sibling import open_with_model, write_model
from stemcodecs.lowrank.unrounded import rates

__all__ = [
    "DetectorEncoder",
    "LowRankModel",
    "PcaBasis",
    "contrast_factor",
    "exact_basis",
    "fractional_scattering",
    "open_with_model",
    "probe_mask",
    "rates",
    "write_model",
]
