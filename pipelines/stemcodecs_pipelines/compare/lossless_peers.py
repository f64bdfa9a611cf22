"""Lossless compressors of others, each at its best setting and in its best layout.

One definition for ``stemcodecs compare``, ``stemcodecs demo`` and the benchmarks. Where a peer has settings or layouts
that suit one data set and not another, those that give the smallest size on a few patterns are taken. HDF5 filters see
one pattern at a time, as a detector's file holds them.
"""

from __future__ import annotations

import gzip
import lzma
import subprocess
import tempfile
from collections.abc import Callable
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import numpy as np

from stemcodecs_pipelines.compare.peer_coders import Coder, Peer, as_it_lies, one_by_one, pixel_major, tiled

__all__ = ["BLOSC", "LONG_PEERS", "PEERS", "SLOW_PEERS", "blosc_coder"]

Array = np.ndarray[Any, Any]
READERS_EXTRA = "pip install 'stemcodecs[readers]'"


def _values(data: Any, like: Array) -> Array:
    return np.frombuffer(data, like.dtype).reshape(like.shape)


def _of_bytes(
    compress: Callable[[bytes], bytes], decompress: Callable[[bytes], bytes], *, package: str = ""
) -> list[Coder]:
    """A byte compressor in both layouts."""

    def encode(values: Array) -> bytes:
        return bytes(compress(values.tobytes()))

    def decode(data: bytes, like: Array) -> Array:
        return _values(decompress(data), like)

    return [as_it_lies(encode, decode, package=package), pixel_major(encode, decode, package=package)]


def blosc_coder(name: str, level: int, layout: Callable[..., Coder] = as_it_lies) -> Coder:
    """Blosc with bitshuffle; on one thread where it is not called from the main one."""

    def codec() -> Any:
        from numcodecs import Blosc

        return Blosc(name, clevel=level, shuffle=Blosc.BITSHUFFLE)

    return layout(lambda values: bytes(codec().encode(values)), lambda data, like: _values(codec().decode(data), like))


def _gzip(level: int) -> list[Coder]:
    return _of_bytes(partial(gzip.compress, compresslevel=level, mtime=0), gzip.decompress)


def _zstd(level: int) -> list[Coder]:
    def codec() -> Any:
        from numcodecs import Zstd

        return Zstd(level)

    return _of_bytes(lambda data: codec().encode(data), lambda data: codec().decode(data))


def _brotli(level: int) -> list[Coder]:
    def function(verb: str) -> Any:
        import imagecodecs

        return getattr(imagecodecs, f"brotli_{verb}")

    return _of_bytes(
        lambda data: function("encode")(data, level=level, lgwin=24),
        lambda data: function("decode")(data),
        package="imagecodecs",
    )


def _zpaq(level: int) -> list[Coder]:
    """The program zpaq on a file, for that is what it takes."""

    def run(folder: str, *arguments: str) -> None:
        subprocess.run(["zpaq", *arguments, "-threads", "1"], cwd=folder, check=True, capture_output=True)

    def compress(data: bytes) -> bytes:
        with tempfile.TemporaryDirectory(prefix="stemcodecs-zpaq-") as folder:
            (Path(folder) / "values").write_bytes(data)
            run(folder, "add", "values.zpaq", "values", f"-m{level}")
            return (Path(folder) / "values.zpaq").read_bytes()

    def decompress(data: bytes) -> bytes:
        with tempfile.TemporaryDirectory(prefix="stemcodecs-zpaq-") as folder:
            (Path(folder) / "values.zpaq").write_bytes(data)
            run(folder, "extract", "values.zpaq")
            return (Path(folder) / "values").read_bytes()

    return _of_bytes(compress, decompress)


def _hdf5(compressor: Literal["lz4", "zstd"], level: int, elements: int) -> Coder:
    """An HDF5 file in memory with one pattern a chunk; the size is that of the stored chunks."""

    def dataset(file: Any, **what: Any) -> Any:
        import hdf5plugin

        kind = hdf5plugin.Bitshuffle(nelems=elements, cname=compressor, clevel=level)
        return file.create_dataset("data", compression=kind, **what)

    def encode(patterns: Array) -> list[bytes]:
        import h5py

        with h5py.File(BytesIO(), "w") as file:
            stored = dataset(file, data=patterns, chunks=(1, *patterns.shape[1:]))
            return [stored.id.read_direct_chunk((i, 0, 0))[1] for i in range(len(patterns))]

    def decode(data: list[bytes], like: Array) -> Array:
        import h5py

        with h5py.File(BytesIO(), "w") as file:
            stored = dataset(file, shape=like.shape, dtype=like.dtype, chunks=(1, *like.shape[1:]))
            for i, part in enumerate(data):
                stored.id.write_direct_chunk((i, 0, 0), part)
            return np.asarray(stored[...])

    return Coder(encode=encode, decode=decode, layout="each pattern", package="hdf5plugin")


def _pcodec(level: int) -> list[Coder]:
    def encode(values: Array) -> bytes:
        from pcodec import ChunkConfig, standalone

        config = ChunkConfig(compression_level=level, enable_8_bit=True)
        return bytes(standalone.simple_compress(values.reshape(-1), config))

    def decode(data: bytes, like: Array) -> Array:
        from pcodec import standalone

        values = standalone.simple_decompress(data)
        assert values is not None
        return np.asarray(values).reshape(like.shape)

    return [layout(encode, decode, package="pcodec") for layout in (as_it_lies, pixel_major)]


def _image(kind: str, encode: dict[str, Any], decode: dict[str, Any]) -> list[Coder]:
    """A coder of images, of every pattern by itself and of all of them tiled into one."""

    def function(verb: str) -> Any:
        import imagecodecs

        return getattr(imagecodecs, f"{kind}_{verb}")

    def to_bytes(image: Array) -> bytes:
        return bytes(function("encode")(image, **encode))

    def to_image(data: bytes, like: Array) -> Array:
        return np.asarray(function("decode")(data, **decode))

    return [layout(to_bytes, to_image, package="imagecodecs") for layout in (one_by_one, tiled)]


def _pillow_png() -> Coder:
    """PNG where only Pillow is there, which chooses filter and strategy itself."""

    def encode(image: Array) -> bytes:
        from PIL import Image

        file = BytesIO()
        Image.fromarray(image).save(file, "PNG", compress_level=9)
        return file.getvalue()

    def decode(data: bytes, like: Array) -> Array:
        from PIL import Image

        return np.asarray(Image.open(BytesIO(data))).astype(like.dtype)

    return one_by_one(encode, decode, package="PIL")


def _terse(mode: str, block: int) -> Coder:
    """TERSE/PROLIX in its own file format (J. P. Abrahams, Acta Cryst. A79, 536, 2023)."""

    def encode(patterns: Array) -> bytes:
        import pyterse

        coded = pyterse.Terse()
        # No threads of its own: their time would count nowhere.
        coded.set_dop(0)
        coded.set_block_size(block)
        coded.push_back(patterns, getattr(pyterse, mode))
        stream = BytesIO()
        coded.write(stream)
        return stream.getvalue()

    def decode(data: bytes, like: Array) -> Array:
        import pyterse

        coded = pyterse.Terse(BytesIO(data))
        coded.set_dop(0)
        return np.asarray(coded.prolix()).reshape(like.shape).astype(like.dtype, copy=False)

    return as_it_lies(encode, decode, package="pyterse")


def _jpegxl(effort: int) -> list[Coder]:
    return _image("jpegxl", {"lossless": True, "effort": effort, "numthreads": 1}, {"numthreads": 1})


def _both(name: str, level: int) -> list[Coder]:
    return [blosc_coder(name, level), blosc_coder(name, level, pixel_major)]


BLOSC = blosc_coder("zstd", 5)
"""The reference of all speeds: Blosc (zstd, level 5, bitshuffle), the usual choice in Zarr."""

PEERS: tuple[Peer, ...] = (
    Peer(name="gzip -6", settings=_gzip(6), slow=True),
    Peer(
        name="PNG",
        settings=[
            *(
                coder
                # All filters or none, with runs of equal bytes or with matches. Level 9 takes thirty times as long, and
                # gives larger files of counts than runs do.
                for filters, strategy in ((248, 3), (248, 1), (8, 1))
                for coder in _image("png", {"level": 6, "filter": filters, "strategy": strategy}, {})
            ),
            _pillow_png(),
        ],
        kinds="u",
        widest=2,
        slow=True,
        install="pip install 'stemcodecs[plot]'",
    ),
    Peer(name="Blosc lz4-9 bitshuffle", settings=_both("lz4", 9)),
    Peer(name="Blosc zstd-5 bitshuffle", settings=_both("zstd", 5)),
    Peer(name="Blosc zstd-9 bitshuffle", settings=_both("zstd", 9), slow=True),
    Peer(
        name="HDF5 bitshuffle lz4",
        settings=[_hdf5("lz4", 0, elements) for elements in (0, 65536)],
        install=READERS_EXTRA,
    ),
    Peer(
        name="HDF5 bitshuffle zstd-9",
        settings=[_hdf5("zstd", 9, elements) for elements in (0, 65536)],
        slow=True,
        install=READERS_EXTRA,
    ),
    Peer(name="zstd -12", settings=_zstd(12), slow=True),
    Peer(name="pcodec -12", settings=_pcodec(12), slow=True),
    Peer(
        name="TERSE",
        settings=[_terse(mode, block) for mode in ("SMALL_UNSIGNED", "UNSIGNED") for block in (4, 6, 8, 12)],
        kinds="u",
        widest=2,
    ),
    Peer(name="JPEG-LS", settings=_image("jpegls", {}, {}), kinds="u", widest=2),
    Peer(name="JPEG-XL effort 7", settings=_jpegxl(7), kinds="u", widest=2, slow=True),
)

LONG_PEERS: tuple[Peer, ...] = (
    Peer(name="gzip -9", settings=_gzip(9), slow=True),
    # Level 22 looks back over 128 MB, as --ultra --long=27 does.
    Peer(name="zstd -22 long", settings=_zstd(22), slow=True),
)
"""Those that take seconds or minutes: it depends on the scan, and they are left out where it is minutes."""

SLOW_PEERS: tuple[Peer, ...] = (
    Peer(name="JPEG-XL effort 9", settings=_jpegxl(9), kinds="u", widest=2, slow=True),
    Peer(
        name="xz -9e",
        settings=_of_bytes(partial(lzma.compress, preset=9 | lzma.PRESET_EXTREME), lzma.decompress),
        slow=True,
    ),
    Peer(name="brotli -11", settings=_brotli(11), slow=True),
    Peer(name="zpaq -m5", settings=_zpaq(5), slow=True, program="zpaq", install="apt install zpaq"),
)
"""Those that take minutes, for ``--all``."""
