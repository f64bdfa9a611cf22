"""SHA-256 digests of stored objects and of values."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

__all__ = ["raw_digest", "sha256"]


def sha256(data: Any) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """SHA-256 as 32 numbers."""
    return np.frombuffer(hashlib.sha256(data).digest(), np.uint8)


def raw_digest(block: np.ndarray[Any, Any]) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Digest of a block's values: C order, little-endian."""
    little = block.astype(block.dtype.newbyteorder("<"), copy=False)
    return sha256(np.ascontiguousarray(little).reshape(-1).view(np.uint8))
