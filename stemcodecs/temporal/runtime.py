"""Networks run by onnxruntime, the one optional package of this room (``pip install 'stemcodecs[learned]'``)."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np

from stemcodecs.errors import ConfigurationError
from stemcodecs.temporal.masks import TILE, mask_of
from stemcodecs.temporal.network_input import network_input
from stemcodecs.temporal.sampling import Sampling
from stemcodecs.temporal.weights import NETWORKS, fitting, load_weights

__all__ = ["AT_ONCE", "network_frames", "run_at_once"]

Array = np.ndarray[Any, Any]

SEEN_AT_ONCE, MARGIN = {"birnat": 128}, 8
"""Rows and columns that a network with attention is given at once, for its memory grows with the square of the pixels;
and those at the edges of such parts that are thrown away. Multiples of the tile of the masks."""


AT_ONCE = 2
"""Measurements that networks decode at a time, in the whole process: the layers of one leave processors waiting."""

_pool: ThreadPoolExecutor | None = None
_starting = threading.Lock()
T = TypeVar("T")


def _forget_pool() -> None:
    # The threads of a pool do not survive a fork, and a lock may have been copied locked.
    global _pool, _starting
    _pool, _starting = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)


def run_at_once(function: Callable[[T], None], jobs: list[T]) -> None:
    """Call a function, which runs networks with a part of the processors, for several jobs at a time.

    Many callers wait for each other, so that their networks do not take the memory of all at once.
    """
    global _pool
    with _starting:
        if _pool is None:
            _pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="stemcodecs-network")
        pool = _pool
    list(pool.map(function, jobs))


def network_frames(
    total: Array,
    sampling: Sampling,
    shape: tuple[int, int],
    network: str,
    sha256: str,
    model: str | None,
    at_once: int = 1,
) -> Array:
    """Frames of one measurement, in units of the movie: float32 (B, y, x).

    Parameters
    ----------
    total : ndarray
        Sums, (planes, rows, columns).
    sampling : Sampling
        How they were measured.
    shape : tuple of int
        Of a frame.
    network : {"compact", "birnat"}
        What the weights are of.
    sha256 : str
        Of the weights.
    model : str, optional
        The weights as a ``data:`` URI, where they are not among those shipped.
    at_once : int
        Networks that run at the same time and share the processors.

    Raises
    ------
    ConfigurationError
        onnxruntime is missing, or the weights are unknown, damaged, or made for other measurements.
    """
    session = _session(sha256, model, max(1, _threads() // at_once))
    _check_fit(session.get_modelmeta().custom_metadata_map, sampling, network)
    padded = (-(-shape[0] // TILE) * TILE, -(-shape[1] // TILE) * TILE)
    given = network_input(total, sampling.opened(shape))
    missing = [whole - n for whole, n in zip(sampling.plane_shape(padded)[1:], total.shape[1:], strict=True)]
    feed = {"measured": np.pad(given.measured, ((0, 0), (0, missing[0]), (0, missing[1])), mode="edge")}
    if sampling.measurement != "bins":
        feed["masks"] = _mask_input(sampling, padded)
    side = SEEN_AT_ONCE.get(network)
    out = _run(session, feed) if side is None else _run_in_parts(session, feed, side)
    if out.shape != (sampling.frames, *padded):
        raise ConfigurationError(f"the network gives frames of {out.shape}, not {(sampling.frames, *padded)}")
    out = out[:, : shape[0], : shape[1]]
    return np.float32(given.shift) + np.float32(given.scale) * out


@lru_cache(maxsize=4)
def _mask_input(sampling: Sampling, shape: tuple[int, int]) -> Array:
    # The same for every measurement of a movie.
    masks = mask_of(sampling.measurement, sampling.frames, sampling.seed, shape).astype(np.float32)
    masks.flags.writeable = False
    return masks


def _run(session: Any, feed: dict[str, Array]) -> Array:
    out: Array = session.run(["frames"], {name: part[None] for name, part in feed.items()})[0][0]
    return out


def _run_in_parts(session: Any, feed: dict[str, Array], side: int) -> Array:
    """Frames in parts of ``side`` rows and columns that overlap; only for masks, where both have the same pixels."""
    height, width = feed["measured"].shape[1:]
    if max(height, width) <= side:
        return _run(session, feed)
    out = np.empty((len(feed["masks"]), height, width), np.float32)
    step = side - 2 * MARGIN
    for y in range(0, height, step):
        for x in range(0, width, step):
            top, left = max(0, y - MARGIN), max(0, x - MARGIN)
            part = {name: a[:, top : y + step + MARGIN, left : x + step + MARGIN] for name, a in feed.items()}
            found = _run(session, part)
            out[:, y : y + step, x : x + step] = found[:, y - top :, x - left :][:, :step, :step]
    return out


def _check_fit(properties: dict[str, str], sampling: Sampling, network: str) -> None:
    asked = fitting(sampling)
    made_for = {name: properties.get(name) for name in asked}
    if made_for != asked:
        raise ConfigurationError(
            f"the weights were trained for {_words(made_for)}, the movie was measured with {_words(asked)}; "
            "decode it by gap-tv, or train weights for it: stemcodecs train tcs"
        )
    found = properties.get("network", "compact")
    if found != network:
        fit = "".join(decoder for decoder, kind in NETWORKS.items() if kind == found)
        raise ConfigurationError(f"the weights are of another network, {found!r}; decode by {fit or 'gap-tv'}")


def _words(values: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in values.items())


def _threads() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@lru_cache(maxsize=4)
def _session(sha256: str, model: str | None, threads: int) -> Any:
    try:
        import onnxruntime
    except ImportError:
        raise ConfigurationError(
            "the decoder 'network' needs onnxruntime; install it with: pip install 'stemcodecs[learned]', "
            "or read the movie with the decoder gap-tv (stemcodecs.movies.with_decoder)"
        ) from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    # Chunks are decoded by several threads at once: those of a network that wait must not take the time of the others.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
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
