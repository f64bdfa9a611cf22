"""Fluorescence tomography: element maps from fluorescence counts, with self-absorption, to judge what loss costs."""
