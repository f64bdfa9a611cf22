"""Temporal compressive sensing of movies: masks, exact measurements, and decoders."""

from stemcodecs.temporal.sampling import Sampling

__all__ = ["Sampling"]
