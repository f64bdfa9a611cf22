"""Networks run by onnxruntime, the one optional package of this room (``pip install 'stemcodecs[learned]'``)."""

from __future__ import annotations

import os
from functools import lru_cache
from typing import Any

import numpy as np

from stemcodecs.errors import ConfigurationError
from stemcodecs.temporal.masks import TILE, mask_of
from stemcodecs.temporal.network_input import network_input
from stemcodecs.temporal.sampling import Sampling
from stemcodecs.temporal.weights import load_weights

__all__ = ["network_frames"]

Array = np.ndarray[Any, Any]

_PROPERTIES = ("frames", "measurement", "seed")
"""Of the sampling that weights were trained for, written into them by the export."""


def network_frames(total: Array, sampling: Sampling, sha256: str, model: str | None) -> Array:
    """Frames of one measurement, in units of the movie: float32 (B, y, x).

    Parameters
    ----------
    total : ndarray
        Sums, (y, x).
    sampling : Sampling
        How they were measured.
    sha256 : str
        Of the weights.
    model : str, optional
        The weights as a ``data:`` URI, where they are not among those shipped.

    Raises
    ------
    ConfigurationError
        onnxruntime is missing, or the weights are unknown, damaged, or made for other measurements.
    """
    session = _session(sha256, model)
    _check_fit(session.get_modelmeta().custom_metadata_map, sampling)
    height, width = total.shape
    padded = (-(-height // TILE) * TILE, -(-width // TILE) * TILE)
    masks = mask_of(sampling.measurement, sampling.frames, sampling.seed, padded)
    given = network_input(total, sampling.masks((height, width)))
    measured = np.pad(given.measured, ((0, padded[0] - height), (0, padded[1] - width)), mode="edge")
    feed = {"measured": measured[None, None], "masks": masks[None].astype(np.float32)}
    out: Array = session.run(["frames"], feed)[0][0]
    if out.shape != (sampling.frames, *padded):
        raise ConfigurationError(f"the network gives frames of {out.shape}, not {(sampling.frames, *padded)}")
    return np.float32(given.shift) + np.float32(given.scale) * out[:, :height, :width]


def _check_fit(properties: dict[str, str], sampling: Sampling) -> None:
    made_for = {name: properties.get(name) for name in _PROPERTIES}
    asked = {name: str(getattr(sampling, name)) for name in _PROPERTIES}
    if made_for != asked:
        raise ConfigurationError(
            f"the weights were trained for {_words(made_for)}, the movie was measured with {_words(asked)}; "
            "decode it by gap-tv, or train weights for it: stemcodecs train tcs"
        )


def _words(values: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in values.items())


def _threads() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@lru_cache(maxsize=4)
def _session(sha256: str, model: str | None) -> Any:
    try:
        import onnxruntime
    except ImportError:
        raise ConfigurationError(
            "the decoder 'network' needs onnxruntime; install it with: pip install 'stemcodecs[learned]', "
            "or read the movie with the decoder gap-tv (stemcodecs.movies.with_decoder)"
        ) from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = _threads()
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(load_weights(sha256, model), options, providers=["CPUExecutionProvider"])
    except ConfigurationError:
        raise
    except Exception as error:
        # onnxruntime has a dozen classes of errors for a graph that it cannot run.
        first = str(error).splitlines()[0][:200]
        raise ConfigurationError(
            f"onnxruntime cannot run the weights {sha256[:16]}… ({first}); train them anew"
        ) from None
