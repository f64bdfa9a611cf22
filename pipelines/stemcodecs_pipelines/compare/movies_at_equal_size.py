"""Frames of a movie as they come back from 1/B of its bytes: JPEG, the temporal mean, and measurements of B frames.

The comparison of TCS-DL (Patterns 2, 100292, 2021, doi:10.1016/j.patter.2021.100292), with what is simpler beside it.
"""

from __future__ import annotations

import json
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np

from stemcodecs.codecs import Tcs
from stemcodecs.errors import ConfigurationError
from stemcodecs.temporal.weights import shipped
from stemcodecs_pipelines.compare.jpeg_frames import jpeg_frames

__all__ = ["STEPS", "TIME_BINS", "MovieCopy", "movie_copies"]

Array = np.ndarray[Any, Any]

STEPS = {10: 8, 20: 12, 30: 20}
"""Quantisation steps of the sums by B, for frames of 8 bits: below their noise."""
TIME_BINS = {10: 4, 20: 4, 30: 5}
"""Bins of B frames that, with 2 × 2 pixels, take no more numbers than one frame does (30: a quarter more)."""


class MovieCopy(NamedTuple):
    """What comes back.

    Attributes
    ----------
    share : float
        Stored bytes over raw bytes.
    frames : ndarray, (time, y, x)
        As they are decoded.
    """

    share: float
    frames: Array


def movie_copies(frames: Array, ratio: int) -> dict[str, MovieCopy]:
    """Store B frames in each way, and read them back.

    Parameters
    ----------
    frames : ndarray of uint8, (B, y, x)
        A movie.
    ratio : {10, 20, 30}
        B.

    Returns
    -------
    dict of str to MovieCopy
        ``JPEG``: every image in 1/B of its raw size. ``temporal mean``: one frame for all, in the bytes of a raw one.
        ``bins``: sums over space–time bins, interpolated. ``masks, GAP-TV``, and for each network whose weights come
        with stemcodecs ``masks, … network`` (where onnxruntime is installed): sums behind masks.

    Raises
    ------
    ConfigurationError
        Another B, another number of frames, or Pillow is not installed.
    UnsupportedDtypeError
        The frames are not uint8.
    """
    if ratio not in STEPS or len(frames) != ratio:
        raise ConfigurationError(f"{len(frames)} frames at B = {ratio}: give B frames, and a B of 10, 20 or 30")
    size, decoded = jpeg_frames(frames, frames[0].size // ratio)
    found = {"JPEG": MovieCopy(share=size / frames.size, frames=decoded)}
    mean = np.repeat(frames.mean(axis=0)[None], ratio, axis=0)
    found["temporal mean"] = MovieCopy(share=1 / ratio, frames=mean)
    for name, codec in _codecs(ratio).items():
        data = codec.encode_chunk(frames)
        found[name] = MovieCopy(share=len(data) / frames.size, frames=codec.decode_chunk(data))
    return found


def _codecs(ratio: int) -> dict[str, Tcs]:
    how: dict[str, Any] = {"frames": ratio, "step": STEPS[ratio], "incoherent": "measured"}
    bins: dict[str, Any] = {"measurement": "bins", "time_bins": TIME_BINS[ratio], "space_bins": 2}
    found = {"bins": Tcs(**bins, **how, decoder="interpolate"), "masks, GAP-TV": Tcs(measurement="tiled", **how)}
    for digest, path in shipped().items() if find_spec("onnxruntime") else ():
        card = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        # Networks for bins have bins of their own.
        if card["frames"] == ratio and card["measurement"] != "bins":
            masks = {"measurement": card["measurement"], "seed": card["seed"]}
            # The first card does not name its architecture: there was one.
            found[f"masks, {card.get('network', 'compact')} network"] = Tcs(
                **masks, **how, decoder="network", weights=digest
            )
    return found
