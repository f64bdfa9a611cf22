"""Ptychography as the judge: the object behind a scan, reconstructed from counts, and what a lossy store does to it."""
