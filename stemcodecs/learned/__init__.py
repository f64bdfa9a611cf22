"""Tiny integer networks that predict counts: format, kernels, fit, and the coding of a chunk. See ``FORMAT.md``."""
