"""Lossless compressors of others, each at its best setting, behind one small interface.

Every peer gets the counts in the dtype in which they are stored. What takes 8 or 16 bits only (PNG, JPEG-LS, JPEG-XL,
TERSE) gets wider integers as uint16 where the values allow it. Where a peer has settings that suit one data set and not
another, the ones that give the smallest size on a few patterns are taken. Image and HDF5 codecs see one pattern at a
time, as a file of images or a detector's HDF5 file holds them; the others see the scan as one buffer.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from io import BytesIO
from typing import Any

import numpy as np

__all__ = ["BLOSC", "PEERS", "Coder", "Peer"]

Array = np.ndarray[Any, Any]
Encoded = bytes | list[bytes]
SAMPLE = 16
"""Patterns on which settings are compared."""


@dataclass(frozen=True, kw_only=True)
class Coder:
    """A compressor with its settings.

    Parameters
    ----------
    encode : callable
        From patterns, shape (n, det_y, det_x), to bytes or a list of them.
    decode : callable
        From those and an array of the same shape and dtype (whose values it must not use) to patterns.
    """

    encode: Callable[[Array], Encoded]
    decode: Callable[[Any, Array], Array]


@dataclass(frozen=True, kw_only=True)
class Peer:
    """A compressor of others.

    Parameters
    ----------
    name : str
        As in the table.
    package : str
        Module that it needs.
    settings : sequence of Coder
        To choose from.
    widest : int
        Bytes of the widest dtype that it takes.
    slow : bool
        Whether it is too slow for more than a part of a large simulated scan.
    """

    name: str
    package: str
    settings: Sequence[Coder]
    widest: int = 8
    slow: bool = False

    @property
    def installed(self) -> bool:
        """Whether its package is there."""
        return find_spec(self.package) is not None

    def accepts(self, patterns: Array) -> Array | None:
        """The patterns in a dtype that it takes, None if there is none."""
        if patterns.dtype.itemsize <= self.widest:
            return patterns
        if patterns.min() < 0 or patterns.max() > 65535:
            return None
        return patterns.astype(np.uint16)

    def best(self, patterns: Array) -> Coder | None:
        """The settings with the smallest size on a few patterns; None if all of them lose a value there."""
        if len(self.settings) == 1:
            return self.settings[0]
        step = max(1, len(patterns) // SAMPLE)
        sample = np.ascontiguousarray(patterns[::step][:SAMPLE])
        found = [
            (size_of(data), i)
            for i, coder in enumerate(self.settings)
            if np.array_equal(coder.decode(data := coder.encode(sample), sample), sample)
        ]
        return self.settings[min(found)[1]] if found else None


def size_of(data: Encoded) -> int:
    """Bytes."""
    return len(data) if isinstance(data, bytes) else sum(len(part) for part in data)


def _frames(encode: Callable[[Array], bytes], decode: Callable[[bytes], Array]) -> Coder:
    """A coder of one image at a time."""

    def join(data: list[bytes], like: Array) -> Array:
        out = np.empty_like(like)
        for i, part in enumerate(data):
            out[i] = decode(part)
        return out

    return Coder(encode=lambda patterns: [bytes(encode(p)) for p in patterns], decode=join)


def _from_bytes(data: Any, like: Array) -> Array:
    return np.frombuffer(data, like.dtype).reshape(like.shape)


def _gzip() -> Coder:
    def decode(data: list[bytes], like: Array) -> Array:
        return np.stack([np.frombuffer(gzip.decompress(d), like.dtype).reshape(like.shape[1:]) for d in data])

    return Coder(encode=lambda patterns: [gzip.compress(p.tobytes(), 9, mtime=0) for p in patterns], decode=decode)


def _blosc(name: str, level: int, *, pixel_major: bool = False) -> Coder:
    """Blosc with bitshuffle on one thread; pixel-major has all positions of a pixel side by side."""

    def codec() -> Any:
        import numcodecs.blosc

        # One thread, whatever the machine has: Blosc would take all.
        numcodecs.blosc.use_threads = False
        numcodecs.blosc.set_nthreads(1)
        return numcodecs.blosc.Blosc(name, clevel=level, shuffle=numcodecs.blosc.Blosc.BITSHUFFLE)

    if not pixel_major:
        return Coder(
            encode=lambda patterns: bytes(codec().encode(patterns)),
            decode=lambda data, like: _from_bytes(codec().decode(data), like),
        )
    return _pixel_major(
        Coder(
            encode=lambda rows: bytes(codec().encode(rows)),
            decode=lambda data, like: _from_bytes(codec().decode(data), like),
        )
    )


def _pixel_major(coder: Coder) -> Coder:
    """A coder of transposed patterns; its time includes the transposition."""

    def encode(patterns: Array) -> Encoded:
        return coder.encode(np.ascontiguousarray(patterns.reshape(len(patterns), -1).T))

    def decode(data: Encoded, like: Array) -> Array:
        rows = coder.decode(data, like.reshape(-1, len(like)))
        return np.ascontiguousarray(rows.T).reshape(like.shape)

    return Coder(encode=encode, decode=decode)


def _zstd(level: int) -> Coder:
    def codec() -> Any:
        from numcodecs import Zstd

        return Zstd(level)

    return Coder(
        encode=lambda patterns: bytes(codec().encode(patterns)),
        decode=lambda data, like: _from_bytes(codec().decode(data), like),
    )


def _hdf5(compressor: str, level: int, elements: int) -> Coder:
    """An HDF5 file in memory with one pattern a chunk; the size is that of the stored chunks."""

    def encode(patterns: Array) -> list[bytes]:
        import h5py
        import hdf5plugin

        kind = hdf5plugin.Bitshuffle(nelems=elements, cname=compressor, clevel=level)
        with h5py.File(BytesIO(), "w") as file:
            dataset = file.create_dataset("data", data=patterns, chunks=(1, *patterns.shape[1:]), compression=kind)
            return [dataset.id.read_direct_chunk((i, 0, 0))[1] for i in range(len(patterns))]

    def decode(data: list[bytes], like: Array) -> Array:
        import h5py
        import hdf5plugin

        kind = hdf5plugin.Bitshuffle(nelems=elements, cname=compressor, clevel=level)
        with h5py.File(BytesIO(), "w") as file:
            dataset = file.create_dataset(
                "data", shape=like.shape, dtype=like.dtype, chunks=(1, *like.shape[1:]), compression=kind
            )
            for i, part in enumerate(data):
                dataset.id.write_direct_chunk((i, 0, 0), part)
            return np.asarray(dataset[...])

    return Coder(encode=encode, decode=decode)


def _pcodec(level: int) -> Coder:
    def encode(values: Array) -> bytes:
        from pcodec import ChunkConfig, standalone

        config = ChunkConfig(compression_level=level, enable_8_bit=True)
        return bytes(standalone.simple_compress(values.reshape(-1), config))

    def decode(data: bytes, like: Array) -> Array:
        from pcodec import standalone

        values = standalone.simple_decompress(data)
        assert values is not None
        return np.asarray(values).reshape(like.shape)

    return Coder(encode=encode, decode=decode)


def _image(kind: str, encode: dict[str, Any], decode: dict[str, Any]) -> Coder:
    def function(verb: str) -> Any:
        import imagecodecs

        return getattr(imagecodecs, f"{kind}_{verb}")

    return _frames(
        lambda image: bytes(function("encode")(image, **encode)),
        lambda data: np.asarray(function("decode")(data, **decode)),
    )


def _terse(mode: str, block: int) -> Coder:
    """TERSE/PROLIX in its own file format (J. P. Abrahams, Acta Cryst. A79, 536, 2023)."""

    def encode(patterns: Array) -> bytes:
        import pyterse

        coded = pyterse.Terse()
        coded.set_block_size(block)
        coded.push_back(patterns, getattr(pyterse, mode))
        stream = BytesIO()
        coded.write(stream)
        return stream.getvalue()

    def decode(data: bytes, like: Array) -> Array:
        import pyterse

        return np.asarray(pyterse.Terse(BytesIO(data)).prolix()).reshape(like.shape).astype(like.dtype, copy=False)

    return Coder(encode=encode, decode=decode)


BLOSC = _blosc("zstd", 5)
"""The reference of all speeds: Blosc (zstd, level 5, bitshuffle), the usual choice in Zarr, on one thread."""

PEERS: tuple[Peer, ...] = (
    Peer(name="gzip -9, per pattern", package="gzip", settings=[_gzip()], slow=True),
    Peer(
        name="PNG -9, per pattern",
        package="imagecodecs",
        # All filters or none, each with the strategy made for filtered data.
        settings=[_image("png", {"level": 9, "filter": f, "strategy": 1}, {}) for f in (248, 8)],
        widest=2,
        slow=True,
    ),
    Peer(name="Blosc lz4-9 bitshuffle", package="numcodecs", settings=[_blosc("lz4", 9)]),
    Peer(name="Blosc zstd-5 bitshuffle", package="numcodecs", settings=[BLOSC]),
    Peer(name="Blosc zstd-9 bitshuffle", package="numcodecs", settings=[_blosc("zstd", 9)], slow=True),
    Peer(
        name="Blosc lz4-9 bitshuffle, pixel-major", package="numcodecs", settings=[_blosc("lz4", 9, pixel_major=True)]
    ),
    Peer(
        name="Blosc zstd-5 bitshuffle, pixel-major", package="numcodecs", settings=[_blosc("zstd", 5, pixel_major=True)]
    ),
    Peer(
        name="Blosc zstd-9 bitshuffle, pixel-major",
        package="numcodecs",
        settings=[_blosc("zstd", 9, pixel_major=True)],
        slow=True,
    ),
    Peer(
        name="HDF5 bitshuffle lz4",
        package="hdf5plugin",
        settings=[_hdf5("lz4", 0, elements) for elements in (0, 65536)],
    ),
    Peer(
        name="HDF5 bitshuffle zstd-9",
        package="hdf5plugin",
        settings=[_hdf5("zstd", 9, elements) for elements in (0, 65536)],
        slow=True,
    ),
    Peer(name="zstd -19", package="numcodecs", settings=[_zstd(19)], slow=True),
    Peer(name="pcodec -12", package="pcodec", settings=[_pcodec(12)], slow=True),
    Peer(name="pcodec -12, pixel-major", package="pcodec", settings=[_pixel_major(_pcodec(12))], slow=True),
    Peer(
        name="TERSE",
        package="pyterse",
        settings=[_terse(mode, block) for mode in ("SMALL_UNSIGNED", "UNSIGNED") for block in (4, 6, 8, 12)],
        widest=2,
    ),
    Peer(name="JPEG-LS, per pattern", package="imagecodecs", settings=[_image("jpegls", {}, {})], widest=2),
    Peer(
        name="JPEG-XL effort 7, per pattern",
        package="imagecodecs",
        settings=[_image("jpegxl", {"lossless": True, "effort": 7, "numthreads": 1}, {"numthreads": 1})],
        widest=2,
        slow=True,
    ),
)
