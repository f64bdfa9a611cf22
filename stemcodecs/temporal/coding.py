"""Movies of a chunk to bytes, and their measurements back to frames."""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from stemcodecs.errors import ConfigurationError, CorruptChunkError, UnsupportedDtypeError
from stemcodecs.temporal.coherence import MOST_REPLACED, replaced
from stemcodecs.temporal.decoders import gap_tv_frames, interpolated_frames
from stemcodecs.temporal.image_coding import read_planes, write_planes
from stemcodecs.temporal.runtime import AT_ONCE, network_frames, run_at_once
from stemcodecs.temporal.sampling import Sampling
from stemcodecs.temporal.tcs_chunk import EXACT, MEASURED, Entry, TcsHead
from stemcodecs.temporal.weights import NETWORKS

__all__ = ["Decoder", "check_movie", "decode_all", "decode_sums", "encode_movies"]

Array = np.ndarray[Any, Any]

MOST_AT_ONCE = 1 << 22
"""Values of a measurement beyond which networks decode one at a time, each with all processors: so that two never take
more memory than one of such."""


@dataclass(frozen=True, kw_only=True)
class Decoder:
    """How frames come back.

    Attributes
    ----------
    name : {"gap-tv", "interpolate", "network", "birnat"}
        Which decoder.
    weights : str
        SHA-256 of the network's weights.
    model : str, optional
        The weights as a ``data:`` URI, where they do not come with the package.
    at_once : int
        Networks that run at the same time.
    """

    name: str
    weights: str = ""
    model: str | None = None
    at_once: int = 1

    def __call__(self, total: Array, sampling: Sampling, shape: tuple[int, int]) -> Array:
        """Frames of a measurement: float32 (B, y, x)."""
        if self.name == "interpolate":
            return interpolated_frames(total, sampling, shape)
        if self.name in NETWORKS:
            return network_frames(total, sampling, shape, NETWORKS[self.name], self.weights, self.model, self.at_once)
        return gap_tv_frames(total, sampling, shape)


def check_movie(dtype: np.dtype[Any], ndim: int) -> None:
    """Refuse what is no movie of a camera.

    Raises
    ------
    UnsupportedDtypeError
        Another dtype than uint8 or uint16.
    ConfigurationError
        Fewer than three dimensions.
    """
    if dtype.kind != "u" or dtype.itemsize > 2:
        raise UnsupportedDtypeError(
            f"stemcodecs.tcs: cannot measure {dtype}; store uint8 or uint16, as a camera gives them"
        )
    if ndim < 3:
        raise ConfigurationError("stemcodecs.tcs: a movie has the dimensions time, y and x; this array has fewer")


def encode_movies(chunk: Array, sampling: Sampling, *, keep_incoherent: bool, flags: int = 0) -> bytes:
    """Bytes of a chunk.

    Parameters
    ----------
    chunk : ndarray of uint8 or uint16
        (…, time, y, x).
    sampling : Sampling
        What is measured.
    keep_incoherent : bool
        Frames that change too much to share a measurement are kept exactly.
    flags : int
        Of `TcsHead`.
    """
    check_movie(chunk.dtype, chunk.ndim)
    native = np.ascontiguousarray(chunk, chunk.dtype.newbyteorder("="))
    opened = sampling.opened(native.shape[-2:]) if native.size else np.zeros(0, np.int64)
    used, entries, payloads = [], [], []
    movies = int(np.prod(native.shape[:-3], dtype=np.int64))
    for movie in native.reshape(movies, *native.shape[-3:]):
        # Zarr fills chunks at the end of an array with zeros: mixed with frames, they would cost the last of them.
        used.append(_used(movie))
        for start in range(0, used[-1], sampling.frames):
            frames = movie[start : min(start + sampling.frames, used[-1])]
            kind, payload = MEASURED, b""
            if keep_incoherent and replaced(frames, sampling.bin_edges) > MOST_REPLACED:
                kind, payload = EXACT, _encode_exactly(frames)
            else:
                payload = write_planes(sampling.quantise(sampling.measure(frames)), opened, sampling.most_opened)
                if keep_incoherent and len(frames) < sampling.frames:
                    # The few that are left at the end of a movie may take no more bytes as they are.
                    exactly = _encode_exactly(frames)
                    if len(exactly) <= len(payload):
                        kind, payload = EXACT, exactly
            entries.append(Entry(kind=kind, size=len(payload), crc=zlib.crc32(payload)))
            payloads.append(payload)
    head = TcsHead(dtype=native.dtype, shape=native.shape, flags=flags, used=tuple(used), entries=tuple(entries))
    return b"".join([head.write(sampling), *payloads])


def _used(movie: Array) -> int:
    for t in range(len(movie) - 1, -1, -1):
        if movie[t].any():
            return t + 1
    return 0


def _encode_exactly(frames: Array) -> bytes:
    from stemcodecs.entropy.chunk.encode import encode_array

    return encode_array(frames)


def _checked(payload: memoryview, entry: Entry) -> memoryview:
    if len(payload) != entry.size:
        raise CorruptChunkError("the chunk is truncated")
    if zlib.crc32(payload) != entry.crc:
        raise CorruptChunkError("the checksum of a measurement is wrong")
    return payload


def _exact_frames(head: TcsHead, count: int, payload: memoryview) -> Array:
    from stemcodecs.entropy.chunk.decode import decode_parsed
    from stemcodecs.entropy.chunk.header import read_header

    shape = (count, *head.frame_shape)
    inner = read_header(payload, shape)
    if inner.dtype.newbyteorder("=") != head.dtype:
        raise CorruptChunkError("the chunk's parts disagree about its dtype")
    return np.ascontiguousarray(decode_parsed(inner, payload)).astype(head.dtype, copy=False)


def decode_sums(head: TcsHead, sampling: Sampling, entry: Entry, count: int, payload: memoryview) -> Array:
    """Sums of one entry of ``count`` frames, exact up to the step: int64, planes of the sampling.

    Raises
    ------
    CorruptChunkError
        The bytes are damaged.
    """
    payload = _checked(payload, entry)
    if entry.kind == EXACT:
        sums = sampling.measure(_exact_frames(head, count, payload))
        return sampling.quantise(sums).astype(np.int64) * sampling.step
    largest = sampling.largest(head.dtype)
    shape = head.frame_shape
    most = (largest + sampling.step // 2) // sampling.step
    steps = read_planes(payload, sampling.plane_shape(shape), lambda: sampling.opened(shape), most)
    return steps * sampling.step


def decode_all(
    head: TcsHead, sampling: Sampling, decoder: Decoder, jobs: list[tuple[Entry, Array, memoryview]]
) -> None:
    """Frames of several entries, each into an array of (count, y, x) of its own; raises as :func:`decode_frames`."""
    values = sampling.frames * math.prod(head.frame_shape)
    together = decoder.name in NETWORKS and len(jobs) > 1 and values <= MOST_AT_ONCE
    if together:
        decoder = replace(decoder, at_once=AT_ONCE)

    def decode(job: tuple[Entry, Array, memoryview]) -> None:
        entry, out, payload = job
        out[...] = decode_frames(head, sampling, decoder, entry, len(out), payload)

    if together:
        run_at_once(decode, jobs)
    else:
        for job in jobs:
            decode(job)


def decode_frames(
    head: TcsHead, sampling: Sampling, decoder: Decoder, entry: Entry, count: int, payload: memoryview
) -> Array:
    """Frames of one entry, rounded to the movie's dtype: (count, y, x).

    Raises
    ------
    CorruptChunkError
        The bytes are damaged.
    ConfigurationError
        The network cannot be run.
    """
    if entry.kind == EXACT:
        return _exact_frames(head, count, _checked(payload, entry))
    sums = decode_sums(head, sampling, entry, count, payload)
    frames = decoder(sums, sampling, head.frame_shape)[:count]
    # A frame that a decoder makes up may leave what the camera could give; the movie's dtype has no room for it.
    return np.clip(np.rint(frames), 0, np.iinfo(head.dtype).max).astype(head.dtype)
