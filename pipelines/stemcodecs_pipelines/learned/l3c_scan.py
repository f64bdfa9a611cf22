"""An L3C-mini for a whole scan: trained on patterns spread over it, and held against histograms."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from stemcodecs.errors import ConfigurationError
from stemcodecs_pipelines.learned.scan_network import _sample

if TYPE_CHECKING:
    from stemcodecs.codecs import Learned, PixelHistogram
    from stemcodecs.readers.scan import Scan
    from stemcodecs_pipelines.methods.base import Learning

__all__ = ["trained"]

Array = np.ndarray[Any, Any]

JUDGED_VALUES = 4_000_000
"""Values that the network and histograms are compared on."""
STEPS_SHOWN = 100


def trained(
    scan: Scan, alone: Learned, learning: Learning, *, seconds: float, location: bool
) -> Learned | PixelHistogram:
    """The codec of a scan, with a network that all its chunks share.

    Parameters
    ----------
    scan : Scan
    alone : Learned
        A codec without a network, with the seed to use.
    learning : Learning
        Whom to tell.
    seconds : float
        Time to train in.
    location : bool
        Whether the network is told the mean of every pixel.

    Returns
    -------
    Learned or PixelHistogram
        The latter where the values are no counts.

    Raises
    ------
    ConfigurationError
        torch is missing.
    """
    from stemcodecs.codecs import PixelHistogram
    from stemcodecs.entropy.model.shared_model import SharedModel
    from stemcodecs.entropy.values.plane import to_plane
    from stemcodecs.learned.l3c_model_bytes import write_l3c

    try:
        from stemcodecs_pipelines.learned.l3c_training import TrainingOptions, train_l3c
    except ImportError as error:
        raise ConfigurationError(
            f"arch=l3c needs {error.name} to train; install it with: pip install 'stemcodecs[train]', or take "
            "--method learned, which trains without"
        ) from None
    patterns = _sample(scan)
    native = np.ascontiguousarray(patterns, patterns.dtype.newbyteorder("="))
    plane = to_plane(native) if native.size else None
    if plane is None or not plane.counts.any():
        learning.report("there is nothing for a network to learn: stored by pixel_histogram", 1, 1)
        return PixelHistogram()
    # A line of pixels is an image of one row.
    shape = native.shape if native.ndim > 2 else (native.shape[0], 1, native.shape[-1])
    text = f"training an L3C-mini on {len(native)} of {math.prod(scan.shape[:-2])} patterns for {seconds:g} s"
    learning.report(text, 0, STEPS_SHOWN)
    options = TrainingOptions(
        seconds=seconds, location=location, seed=alone.seed,
        progress=lambda share, bits: learning.report(text, int(share * STEPS_SHOWN), STEPS_SHOWN),
    )  # fmt: skip
    model, _ = train_l3c(plane.counts.reshape(shape), options)
    shared = SharedModel(detector=model.detector, mean_frame_sum=0.0, model=write_l3c(model))
    share = _against_histograms(native, shared, math.prod(scan.shape))
    more = "more" if share > 0 else "less"
    advice = "; --method learned without arch=l3c is smaller" if share > 0 else ""
    learning.report(
        f"the L3C-mini is estimated to take {abs(100 * share):.1f} % {more} than pixel_histogram{advice}", 1, 1
    )
    configuration = shared.configuration()
    return replace(alone, model=configuration["model"], model_sha256=configuration["model_sha256"])


def _against_histograms(patterns: Array, shared: Any, values: int) -> float:
    """How much more than histograms the network takes of a scan of so many values, its own bytes included."""
    from stemcodecs.entropy.chunk.encode import encode_array
    from stemcodecs.learned.l3c_encode import encode_l3c

    some = patterns[:: max(patterns.size // JUDGED_VALUES, 1)]
    of_network = 4 / 3 * len(shared.model) * some.size / values
    return (len(encode_l3c(some, shared)) + of_network) / len(encode_array(some)) - 1
