"""Poisson-noise-aware quantisation with a proved bound: levels, codes, decoders, and its check."""

from stemcodecs.quantize.levels import PRESETS, Levels, huang_levels, optimal_levels
from stemcodecs.quantize.poisson_quantizer import PoissonQuantizer

__all__ = ["PRESETS", "Levels", "PoissonQuantizer", "huang_levels", "optimal_levels"]
