"""Compressors of others behind one small interface, and the layouts in which they are given a scan."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np

__all__ = ["Coder", "Encoded", "Peer", "as_it_lies", "one_by_one", "pixel_major", "same_bits", "size_of", "tiled"]

Array = np.ndarray[Any, Any]
Encoded = bytes | list[bytes]

TRIED_BYTES = 4 << 20
"""Of patterns on which settings and layouts are compared."""
FEWEST_TRIED = 16
"""Patterns on which they are compared at least: one alone shows nothing of a layout."""
COMPARE_EXTRA = "pip install 'stemcodecs[compare]'"


@dataclass(frozen=True, kw_only=True)
class Coder:
    """A compressor with its settings.

    Parameters
    ----------
    encode : callable
        From patterns, shape (n, det_y, det_x), to bytes or a list of them.
    decode : callable
        From those and an array of the same shape and dtype (whose values it must not use) to patterns.
    layout : str
        How it is given the patterns, in words.
    package : str
        Module that it needs; empty for none.
    """

    encode: Callable[[Array], Encoded]
    decode: Callable[[Any, Array], Array]
    layout: str = ""
    package: str = ""

    @property
    def installed(self) -> bool:
        """Whether its package is there."""
        return not self.package or find_spec(self.package) is not None


@dataclass(frozen=True, kw_only=True)
class Peer:
    """A compressor of others.

    Parameters
    ----------
    name : str
        As in the table.
    settings : sequence of Coder
        To choose from; those whose package is missing are left out.
    kinds : str
        Kinds of dtype that it takes as they are.
    widest : int
        Bytes of the widest dtype that it takes.
    slow : bool
        Whether it is too slow for more than a part of a large simulated scan.
    install : str
        Command that installs what it needs.
    program : str
        Program that it runs; empty for none.
    """

    name: str
    settings: Sequence[Coder]
    kinds: str = "iuf"
    widest: int = 8
    slow: bool = False
    install: str = COMPARE_EXTRA
    program: str = ""

    @property
    def installed(self) -> bool:
        """Whether what it needs is there."""
        if self.program and shutil.which(self.program) is None:
            return False
        return any(coder.installed for coder in self.settings)

    def accepts(self, patterns: Array) -> Array | None:
        """The patterns in a dtype that it takes, every value as it is; None if there is none.

        What takes unsigned integers of 8 or 16 bits only gets others so where the values allow it.
        """
        if patterns.dtype.kind == "b":
            patterns = patterns.view(np.uint8)
        if patterns.dtype.kind in self.kinds and patterns.dtype.itemsize <= self.widest:
            return patterns
        if patterns.dtype.kind not in "iu" or patterns.min() < 0 or patterns.max() > 65535:
            return None
        narrow = patterns.astype(np.uint8 if patterns.max() < 256 else np.uint16)
        return narrow if narrow.dtype.itemsize <= self.widest else None

    def keeps(self, decoded: Array, source: Array) -> bool:
        """Whether decoded patterns are what they must be."""
        return same_bits(decoded, source)

    def best(self, patterns: Array) -> Coder:
        """The settings with the smallest size on a few neighbouring patterns.

        Where all of them lose values there, the first is taken: on the whole scan it will be found out.

        Raises
        ------
        Exception
            Whatever the last of them raises, where all do.
        """
        usable = [coder for coder in self.settings if coder.installed]
        if len(usable) == 1:
            return usable[0]
        count = max(FEWEST_TRIED, TRIED_BYTES // max(1, patterns[:1].nbytes))
        first = max(0, (len(patterns) - count) // 2)
        tried = np.ascontiguousarray(patterns[first : first + count])
        found: list[tuple[int, int]] = []
        problem: Exception | None = None
        for i, coder in enumerate(usable):
            try:
                data = coder.encode(tried)
                if self.keeps(coder.decode(data, tried), tried):
                    found.append((size_of(data), i))
            except Exception as error:  # every package raises its own kinds
                problem = error
        if not found and problem is not None:
            raise problem
        return usable[min(found)[1]] if found else usable[0]


def size_of(data: Encoded) -> int:
    """Bytes."""
    return len(data) if isinstance(data, bytes) else sum(len(part) for part in data)


def same_bits(decoded: Array, source: Array) -> bool:
    """Whether two arrays have the same shape, dtype and bits: NaN and −0 count."""
    if decoded.shape != source.shape or decoded.dtype != source.dtype:
        return False
    bits = f"u{source.dtype.itemsize}"
    return np.array_equal(np.ascontiguousarray(decoded).view(bits), np.ascontiguousarray(source).view(bits))


def as_it_lies(
    encode: Callable[[Array], bytes], decode: Callable[[bytes, Array], Array], *, package: str = ""
) -> Coder:
    """The patterns one after the other in one buffer."""
    return Coder(encode=encode, decode=decode, layout="pattern after pattern", package=package)


def pixel_major(
    encode: Callable[[Array], bytes], decode: Callable[[bytes, Array], Array], *, package: str = ""
) -> Coder:
    """All positions of a pixel side by side in one buffer; the time includes the transposition."""

    def encode_rows(patterns: Array) -> bytes:
        return encode(np.ascontiguousarray(patterns.reshape(len(patterns), -1).T))

    def decode_rows(data: bytes, like: Array) -> Array:
        rows = decode(data, like.reshape(-1, len(like)))
        return np.ascontiguousarray(rows.T).reshape(like.shape)

    return Coder(encode=encode_rows, decode=decode_rows, layout="pixel-major", package=package)


def one_by_one(
    encode: Callable[[Array], bytes], decode: Callable[[bytes, Array], Array], *, package: str = ""
) -> Coder:
    """Every pattern by itself, as in a file of images."""

    def join(data: list[bytes], like: Array) -> Array:
        out = np.empty_like(like)
        for i, part in enumerate(data):
            out[i] = decode(part, like[i])
        return out

    return Coder(
        encode=lambda patterns: [bytes(encode(p)) for p in patterns],
        decode=join,
        layout="each pattern",
        package=package,
    )


def tiled(encode: Callable[[Array], bytes], decode: Callable[[bytes, Array], Array], *, package: str = "") -> Coder:
    """All patterns as one image, in rows and columns of about equal number; the last row is filled up with zeros."""

    def grid(like: Array) -> tuple[int, int]:
        columns = math.isqrt(max(0, len(like) - 1)) + 1
        return -(-len(like) // columns), columns

    def encode_image(patterns: Array) -> bytes:
        rows, columns = grid(patterns)
        height, width = patterns.shape[1:]
        full = np.zeros((rows * columns, height, width), patterns.dtype)
        full[: len(patterns)] = patterns
        image = full.reshape(rows, columns, height, width).swapaxes(1, 2).reshape(rows * height, columns * width)
        return bytes(encode(np.ascontiguousarray(image)))

    def decode_image(data: bytes, like: Array) -> Array:
        rows, columns = grid(like)
        height, width = like.shape[1:]
        shape = (rows * height, columns * width)
        image = decode(data, np.broadcast_to(np.zeros((), like.dtype), shape)).reshape(rows, height, columns, width)
        return np.ascontiguousarray(image.swapaxes(1, 2).reshape(-1, height, width)[: len(like)])

    return Coder(encode=encode_image, decode=decode_image, layout="tiled into one image", package=package)
