"""Lossy compressors of others for counts, each set to a bound in units of the shot noise, and JPEG for movies.

Whatever their own way to state a bound, they are held against ours: |N' − N| ≤ r √max(N, 1) for every count N.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from stemcodecs_pipelines.compare.lossless_peers import blosc_coder
from stemcodecs_pipelines.compare.peer_coders import Coder, Encoded, Peer, one_by_one, pixel_major, tiled

__all__ = ["LOSSY_PEERS", "LossyPeer"]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, kw_only=True)
class LossyPeer(Peer):
    """A lossy compressor of others; its coders take counts, unsigned, and give counts back, as integers or floats.

    Parameters
    ----------
    bound : float or None
        Bound in standard deviations of the shot noise; None for one that has none.
    movies_only : bool
        Whether it is made for movies.
    """

    bound: float | None
    movies_only: bool = False

    @property
    def guarantee(self) -> str:
        """What it shall keep, in words."""
        return "no pointwise guarantee" if self.bound is None else f"|N' - N| <= {self.bound:g} * sqrt(max(N, 1))"

    def keeps(self, decoded: Array, source: Array) -> bool:
        """Whether the bound holds, with room for the rounding of float64."""
        if self.bound is None or decoded.shape != source.shape:
            return bool(decoded.shape == source.shape)
        for pattern, other in zip(source, decoded, strict=True):
            counts = pattern.astype(np.float64)
            allowed = self.bound * np.sqrt(np.maximum(counts, 1)) * (1 + 1e-12)
            if not (np.abs(other.astype(np.float64) - counts) <= allowed).all():
                return False
        return True


def _roots(coder: Coder) -> Coder:
    """Whole roots c of the counts, coded without loss, and decoded to c (c + 1): at most √N off, and 0 stays 0."""

    def encode(counts: Array) -> Encoded:
        return coder.encode(_whole_roots(counts))

    def decode(data: Any, like: Array) -> Array:
        # The largest root r of a dtype gives r (r + 1), which fits the dtype of twice its size.
        narrow, wide = (np.uint8, np.uint16) if like.dtype.itemsize <= 2 else (np.uint16, np.uint32)
        codes = coder.decode(data, np.broadcast_to(np.zeros((), narrow), like.shape)).astype(wide)
        return np.asarray(np.multiply(codes, codes + 1, out=codes))

    return Coder(encode=encode, decode=decode, layout=coder.layout, package=coder.package)


def _whole_roots(counts: Array) -> Array:
    roots = np.empty(counts.shape, np.uint8 if counts.dtype.itemsize <= 2 else np.uint16)
    for i, pattern in enumerate(counts):
        # Exact: float64 holds every count of 32 bits, and its root is rounded correctly.
        roots[i] = np.floor(np.sqrt(pattern.astype(np.float64)))
    return roots


def _of_roots(kind: str, settings: Callable[[float], dict[str, Any]], bound: float) -> list[Coder]:
    """A coder of floats with an absolute bound, given √N: an error e there is 2 e √N + e² in N."""
    # Where N = 1 the square weighs most; a little less, for rounding to float32.
    error = (math.sqrt(1.0 + bound) - 1.0) * (1.0 - 1e-5)

    def function(verb: str) -> Any:
        import imagecodecs

        return getattr(imagecodecs, f"{kind}_{verb}")

    def encode(counts: Array) -> bytes:
        return bytes(function("encode")(np.sqrt(counts, dtype=np.float32), **settings(error)))

    def decode(data: bytes, like: Array) -> Array:
        given = {"shape": like.shape, "dtype": np.float32} if kind == "sz3" else {}
        roots = np.asarray(function("decode")(data, **given)).reshape(like.shape)
        roots = roots if roots.flags.writeable else roots.copy()
        np.maximum(roots, 0, out=roots)
        return np.asarray(np.square(roots, out=roots))

    return [layout(encode, decode, package="imagecodecs") for layout in (_whole, pixel_major)]


def _whole(encode: Callable[[Array], bytes], decode: Callable[[bytes, Array], Array], *, package: str) -> Coder:
    """All patterns as one array of three dimensions."""
    return Coder(encode=encode, decode=decode, layout="one array", package=package)


def _jpegxl() -> list[Coder]:
    def function(verb: str) -> Any:
        import imagecodecs

        return getattr(imagecodecs, f"jpegxl_{verb}")

    return [
        tiled(
            lambda image: function("encode")(image, lossless=True, effort=7, numthreads=1),
            lambda data, like: np.asarray(function("decode")(data, numthreads=1)),
            package="imagecodecs",
        )
    ]


def _anscombe() -> list[Coder]:
    """The Zarr filter anscombe-transform at its own step of half a standard deviation, then Blosc."""
    settings: dict[str, Any] = {"conversion_gain": 1.0, "zero_level": 0, "encoded_dtype": "uint16"}

    def wrapped(layout: Callable[..., Coder]) -> Coder:
        blosc = blosc_coder("zstd", 9, layout)

        def encode(counts: Array) -> Encoded:
            from anscombe_transform import encode

            return blosc.encode(encode(counts, **settings))

        def decode(data: Any, like: Array) -> Array:
            from anscombe_transform import decode

            codes = blosc.decode(data, np.broadcast_to(np.zeros((), np.uint16), like.shape))
            return np.asarray(decode(codes.reshape(-1), decoded_dtype="int32", **settings)).reshape(like.shape)

        return Coder(encode=encode, decode=decode, layout=blosc.layout, package="anscombe_transform")

    return [wrapped(pixel_major)]


def _jpeg(quality: int) -> list[Coder]:
    def function(verb: str) -> Any:
        import imagecodecs

        return getattr(imagecodecs, f"jpeg8_{verb}")

    return [
        one_by_one(
            lambda image: function("encode")(image, level=quality),
            lambda data, like: np.asarray(function("decode")(data)),
            package="imagecodecs",
        )
    ]


LOSSY_PEERS: tuple[LossyPeer, ...] = (
    LossyPeer(
        name="isqrt + Blosc zstd-9",
        settings=[_roots(blosc_coder("zstd", 9, pixel_major))],
        kinds="u",
        widest=4,
        bound=1.0,
        slow=True,
    ),
    LossyPeer(
        name="isqrt + JPEG-XL effort 7",
        settings=[_roots(c) for c in _jpegxl()],
        kinds="u",
        widest=4,
        bound=1.0,
        slow=True,
    ),
    *(
        LossyPeer(
            name=f"SZ3 of √N, {bound:g} σ",
            settings=_of_roots("sz3", lambda error: {"mode": "abs", "abs": error}, bound),
            kinds="u",
            widest=4,
            bound=bound,
        )
        for bound in (0.5, 1.0)
    ),
    LossyPeer(
        name="ZFP of √N, 1 σ",
        settings=_of_roots("zfp", lambda error: {"mode": "a", "level": error, "numthreads": 1}, 1.0),
        kinds="u",
        widest=4,
        bound=1.0,
    ),
    LossyPeer(
        name="anscombe-transform + Blosc zstd-9",
        settings=_anscombe(),
        kinds="u",
        widest=4,
        bound=0.5,
        install="pip install anscombe-transform",
    ),
    *(
        LossyPeer(
            name=f"JPEG quality {quality}", settings=_jpeg(quality), kinds="u", widest=1, bound=None, movies_only=True
        )
        for quality in (95, 75)
    ),
)
