"""Readers: open any supported source as a `Scan` that is read block by block."""

from stemcodecs.readers.open import open_scan
from stemcodecs.readers.scan import Axis, Scan

__all__ = ["Axis", "Scan", "open_scan"]
