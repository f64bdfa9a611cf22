"""Quantisation within the shot noise."""
