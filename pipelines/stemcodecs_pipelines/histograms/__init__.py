"""Pixel-specific histograms of a whole scan."""
