"""Low-rank models of a scan: bases, their integer form, on-detector encoding, contrast matching.

Light to import: the coding kernels load with the codec :mod:`stemcodecs.codecs.pca`.
"""

from stemcodecs.lowrank.basis import PcaBasis, exact_basis
from stemcodecs.lowrank.contrast import contrast_factor, fractional_scattering, probe_mask
from stemcodecs.lowrank.detector import DetectorEncoder
from stemcodecs.lowrank.float_rates import rates
from stemcodecs.lowrank.low_rank_model import LowRankModel
from stemcodecs.lowrank.stored_model import open_with_model, write_model

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
