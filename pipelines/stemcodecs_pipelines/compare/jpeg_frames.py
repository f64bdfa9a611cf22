"""JPEG as movies are held against it: every frame an image of its own, at the best quality that fits a budget of bytes.

The protocol of TCS-DL (Patterns 2, 100292, 2021, doi:10.1016/j.patter.2021.100292): where B frames share one
measurement, JPEG may spend 1/B of the raw bytes on each.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np

from stemcodecs.errors import ConfigurationError, UnsupportedDtypeError

__all__ = ["best_within", "jpeg_frames"]

Array = np.ndarray[Any, Any]
_LOWEST, _HIGHEST, _ROUNDS = 1, 95, 7
"""Qualities of JPEG; above 95 libjpeg spends bytes on nothing. 7 halvings tell all of them apart."""


def best_within(encode: Callable[[float], bytes], budget: int, low: float, high: float, rounds: int) -> bytes:
    """Bytes of the best quality that fits, found by halving; those of the lowest where none does.

    Parameters
    ----------
    encode : callable
        From a quality to bytes, which grow with it.
    budget : int
        Bytes.
    low, high : float
        Qualities to search between.
    rounds : int
        Halvings.
    """
    best = encode(low)
    for _ in range(rounds):
        middle = (low + high) / 2
        data = encode(middle)
        if len(data) <= budget:
            best, low = data, middle
        else:
            high = middle
    return best


def jpeg_frames(frames: Array, budget: int) -> tuple[int, Array]:
    """Store every frame as a grey JPEG image, and read it back.

    Parameters
    ----------
    frames : ndarray of uint8, (time, y, x)
        A movie.
    budget : int
        Bytes that one frame may take.

    Returns
    -------
    stored_bytes : int
        Of all frames: more than allowed where the lowest quality takes more.
    decoded : ndarray of uint8, (time, y, x)

    Raises
    ------
    UnsupportedDtypeError
        The frames are not uint8, which is all that JPEG takes.
    ConfigurationError
        Pillow is not installed.
    """
    if frames.dtype != np.uint8:
        raise UnsupportedDtypeError(f"JPEG stores uint8, not {frames.dtype}; scale the frames to 8 bits")
    try:
        from PIL import Image
    except ImportError:
        raise ConfigurationError("JPEG needs Pillow; install it with: pip install 'stemcodecs[plot]'") from None
    size, decoded = 0, np.empty_like(frames)
    for i, frame in enumerate(frames):
        image = Image.fromarray(frame)

        def encode(quality: float, image: Any = image) -> bytes:
            file = io.BytesIO()
            image.save(file, "JPEG", quality=round(quality))
            return file.getvalue()

        data = best_within(encode, budget, _LOWEST, _HIGHEST, _ROUNDS)
        size += len(data)
        decoded[i] = np.asarray(Image.open(io.BytesIO(data)))
    return size, decoded
