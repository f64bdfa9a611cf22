"""``stemcodecs.tcs``: temporal compressive sensing of movies: B frames as one exact sum behind masks, or as bins.

Encoding is integer arithmetic, and runs beside a camera. What is decoded is an estimate: there is no pointwise
guarantee, and the configuration says so; only the measurement itself is exact, up to a stated step, and can always be
read (:func:`stemcodecs.movies.with_decoder`). Frames that change too much to share a measurement are kept exactly.
Chunk bytes: ``temporal/FORMAT.md``. Source: TCS-DL (Patterns 2, 100292, 2021, doi:10.1016/j.patter.2021.100292).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from itertools import pairwise
from typing import Any, Literal, Self

import numcodecs.abc
import numcodecs.compat
import numpy as np
from zarr.abc.buffer import Buffer, NDBuffer

from stemcodecs.codecs.base import ChunkCodec, as_buffer, check_configuration, check_declared
from stemcodecs.codecs.partial_decode import PartialDecode, Steps
from stemcodecs.errors import ConfigurationError, CorruptChunkError, FormatVersionError
from stemcodecs.temporal.sampling import Sampling
from stemcodecs.temporal.tcs_chunk import BIG_ENDIAN, COLUMN_MAJOR, TcsHead
from stemcodecs.temporal.weights import NETWORKS
from stemcodecs.zarr_private import JSON, ArraySpec, parse_named_configuration

__all__ = ["NumcodecsTcs", "Tcs"]

NAME = "stemcodecs.tcs"
VERSION = 1
DECODERS = ("gap-tv", "interpolate", "network", "birnat", "measurement")
GUARANTEE = "no pointwise guarantee"

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, kw_only=True)
class Tcs(Sampling, PartialDecode, ChunkCodec):
    """Zarr format 3 serializer ``stemcodecs.tcs``; chunks are (…, time, y, x) of uint8 or uint16.

    Parameters
    ----------
    measurement, frames, seed, step, time_bins, space_bins
        As of :class:`stemcodecs.temporal.sampling.Sampling`.
    decoder : {"gap-tv", "interpolate", "network", "birnat", "measurement"}
        How frames come back: by total variation, between bins, or by a network, the compact one or that of TCS-DL.
        ``measurement`` gives the sums themselves, of another shape than the frames: for views only.
    weights : str, optional
        SHA-256 of the network's weights.
    model : str, optional
        The weights as a ``data:`` URI; else they come with the package.
    incoherent : {"exact", "measured"}
        What becomes of frames that change too much to share a measurement.

    Raises
    ------
    ConfigurationError
        A parameter is not one of these, or does not fit the others.
    """

    codec_name = NAME
    decoder: Literal["gap-tv", "interpolate", "network", "birnat", "measurement"] = "gap-tv"
    weights: str | None = None
    model: str | None = field(default=None, repr=False, compare=False, hash=False)
    incoherent: Literal["exact", "measured"] = "exact"

    def __post_init__(self) -> None:
        try:
            super().__post_init__()
        except ConfigurationError as error:
            raise ConfigurationError(f"{NAME}: {error}") from None
        if self.decoder not in DECODERS:
            raise ConfigurationError(f"{NAME}: decoder {self.decoder!r} is none of {', '.join(DECODERS)}")
        if self.incoherent not in ("exact", "measured"):
            raise ConfigurationError(f"{NAME}: incoherent {self.incoherent!r} must be 'exact' or 'measured'")
        bins = self.measurement == "bins"
        if self.decoder == ("birnat" if bins else "interpolate"):
            raise ConfigurationError(
                f"{NAME}: decoder {self.decoder!r} does not fit measurement {self.measurement!r}; masks are decoded by "
                "gap-tv, network or birnat, bins by gap-tv, interpolate or network"
            )
        if (self.decoder in NETWORKS) != (self.weights is not None) or (self.model and not self.weights):
            raise ConfigurationError(f"{NAME}: weights belong to the decoders network and birnat, and they need them")
        if self.weights is not None and not (isinstance(self.weights, str) and _is_digest(self.weights)):
            raise ConfigurationError(f"{NAME}: weights must be the 64 hexadecimal digits of their sha256")

    @property
    def sampling(self) -> Sampling:
        """What is measured."""
        return Sampling(**{f.name: getattr(self, f.name) for f in fields(Sampling)})

    @property
    def guarantee(self) -> str:
        """What holds for every decoded value."""
        return GUARANTEE

    @classmethod
    def from_dict(cls, data: dict[str, JSON]) -> Self:
        """Codec from array metadata."""
        _, configuration = parse_named_configuration(data, NAME, require_configuration=False)
        return cls(**_parameters(configuration))

    def to_dict(self) -> dict[str, JSON]:
        """Array metadata."""
        return {"name": NAME, "configuration": self.configuration()}

    def configuration(self) -> dict[str, JSON]:
        """What the metadata of both Zarr formats stores."""
        stored: dict[str, JSON] = {"version": VERSION, "measurement": self.measurement, "frames": self.frames}
        if self.measurement == "bins":
            stored |= {"time_bins": self.time_bins, "space_bins": self.space_bins}
        else:
            stored["seed"] = self.seed
        stored |= {"step": self.step, "decoder": self.decoder, "incoherent": self.incoherent}
        if self.weights is not None:
            stored["weights"] = self.weights
        if self.model is not None:
            stored["model"] = self.model
        stored["guarantee"] = self.guarantee
        return stored

    def validate(self, *, shape: Any, dtype: Any, chunk_grid: Any) -> None:
        """Refuse arrays that can never be encoded when they are created."""
        from stemcodecs.temporal.coding import check_movie

        if self.decoder != "measurement":
            check_movie(dtype.to_native_dtype(), len(shape))

    def encode_chunk(self, chunk: Array) -> bytes:
        """Encode movies (…, time, y, x).

        Raises
        ------
        UnsupportedDtypeError
            They are not uint8 or uint16.
        ConfigurationError
            The codec is a view of measurements.
        """
        return self.encode_laid_out(chunk, 0)

    def encode_laid_out(self, chunk: Array, flags: int) -> bytes:
        """As `encode_chunk`, with the flags of the layout in memory that Zarr format 2 takes back."""
        from stemcodecs.temporal.coding import encode_movies

        if self.decoder == "measurement":
            raise ConfigurationError(f"{NAME}: measurements cannot be written through a view; write the movie itself")
        return encode_movies(chunk, self.sampling, keep_incoherent=self.incoherent == "exact", flags=flags)

    def decode_chunk(self, data: bytes | memoryview) -> Array:
        """Decode to frames of the shape and dtype that were encoded; with ``decoder="measurement"`` to the sums.

        Raises
        ------
        CorruptChunkError
            The bytes are truncated, altered, or were measured in another way.
        ConfigurationError
            The network cannot be run.
        """
        view = memoryview(data).cast("B")
        head = TcsHead.read(view, self.sampling)
        return self.decode_parsed(head, view)

    def decode_parsed(self, head: TcsHead, view: memoryview) -> Array:
        """Decode a chunk whose head has been read."""
        offsets = head.offsets()
        if offsets[-1] != len(view):
            raise CorruptChunkError("the chunk does not end where its last measurement does")
        parts = [view[a:b] for a, b in pairwise(offsets)]
        return self._decode_entries(head, dict(enumerate(parts)))

    def measurements_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the measurements of a chunk of this shape: (…, planes, y, x)."""
        planes, height, width = self.plane_shape((shape[-2], shape[-1]))
        return (*shape[:-3], -(-shape[-3] // self.frames) * planes, height, width)

    def _decode_entries(self, head: TcsHead, parts: dict[int, memoryview]) -> Array:
        """The chunk with the entries that are there; zeros elsewhere, which take no memory until they are read."""
        from stemcodecs.temporal.coding import Decoder, decode_all, decode_sums

        sampling, sums = self.sampling, self.decoder == "measurement"
        shape = self.measurements_shape(head.shape) if sums else head.shape
        out = np.zeros(shape, np.uint32 if sums else head.dtype)
        movies = out.reshape(len(head.used), *shape[-3:]) if head.used else out.reshape(0, *shape[-3:])
        decoder = Decoder(name=self.decoder, weights=self.weights or "", model=self.model)
        number, jobs = 0, []
        for movie, used in zip(movies, head.used, strict=True):
            for first in range(0, used, self.frames):
                count = min(self.frames, used - first)
                if number in parts and sums:
                    at = first // self.frames * self.time_bins
                    movie[at : at + self.time_bins] = decode_sums(
                        head, sampling, head.entries[number], count, parts[number]
                    )
                elif number in parts:
                    jobs.append((head.entries[number], movie[first : first + count], parts[number]))
                number += 1
        decode_all(head, sampling, decoder, jobs)
        return out

    def _check_declared(self, head: TcsHead, chunk_spec: ArraySpec) -> None:
        # Before anything of the head's size is allocated.
        if self.decoder == "measurement":
            check_declared(np.dtype(np.uint32), self.measurements_shape(head.shape), chunk_spec)
        else:
            check_declared(head.dtype, head.shape, chunk_spec)

    def _decode_sync(self, chunk_data: Buffer, chunk_spec: ArraySpec) -> NDBuffer:
        view = chunk_data.as_numpy_array().data.cast("B")
        head = TcsHead.read(view, self.sampling)
        self._check_declared(head, chunk_spec)
        decoded = self.decode_parsed(head, view)
        return as_buffer(decoded.astype(chunk_spec.dtype.to_native_dtype(), copy=False), chunk_spec)

    def decode_in_steps(self, selection: Any, chunk_spec: ArraySpec, first_read: int) -> Steps:
        """Read and decode only the measurements that a selection needs."""
        from stemcodecs.entropy.chunk.partial import positions_of

        shape = tuple(chunk_spec.shape)
        frames = shape if self.decoder != "measurement" else self._frames_shape(shape)
        (first,) = yield [(0, TcsHead.most_bytes(frames, self.sampling))]
        if first is None:
            return None
        head = TcsHead.read(memoryview(first), self.sampling)
        self._check_declared(head, chunk_spec)
        each = self.frames if self.decoder != "measurement" else self.time_bins
        # Flat positions over movies and times: of each, the measurement.
        movies, times = np.divmod(positions_of(selection, shape), shape[-3])
        counts = -(-np.array(head.used, np.int64) // self.frames)
        inside = times // each < counts[movies]
        before = np.concatenate([[0], np.cumsum(counts)])
        numbers = np.unique(before[movies[inside]] + times[inside] // each).tolist()
        offsets = head.offsets()
        got = yield [(offsets[n], offsets[n + 1]) for n in numbers]
        parts = {n: memoryview(part or b"") for n, part in zip(numbers, got, strict=True)}
        decoded = self._decode_entries(head, parts)
        # A copy of what was asked for, so that the rest of the chunk does not stay in memory with it.
        wanted = np.array(decoded[selection]).astype(chunk_spec.dtype.to_native_dtype(), copy=False)
        return as_buffer(wanted, chunk_spec)

    def _frames_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """A shape of frames that has as many measurements as a view's chunk: for the size of the head."""
        return (*shape[:-3], shape[-3] // self.time_bins * self.frames, *shape[-2:])


def _is_digest(text: str) -> bool:
    return len(text) == 64 and all(c in "0123456789abcdef" for c in text)


def _parameters(configuration: Any) -> dict[str, Any]:
    """Parameters of :class:`Tcs` from a stored configuration."""
    stored = dict(configuration or {})
    known = {f.name for f in fields(Tcs)} | {"version", "guarantee"}
    check_configuration(NAME, stored, known)
    # A configuration without a version is of the first.
    version = stored.pop("version", VERSION)
    if version != VERSION:
        raise FormatVersionError(
            f"{NAME}: configuration version {version}, this stemcodecs reads {VERSION}; upgrade it"
        )
    stored.pop("guarantee", None)  # for readers of the metadata; derived from the rest
    return stored


class NumcodecsTcs(numcodecs.abc.Codec):  # type: ignore[misc]
    """numcodecs codec ``stemcodecs.tcs`` for Zarr format 2, with the configuration of :class:`Tcs`."""

    codec_id = NAME

    def __init__(self, **configuration: Any) -> None:
        self._codec = Tcs(**_parameters(configuration))

    def encode(self, buf: Any) -> bytes:
        """Encode one chunk, given as an array with the chunk's shape."""
        from stemcodecs.entropy.chunk.undeclared import check_encoded

        chunk = numcodecs.compat.ensure_ndarray_like(buf)
        flags = BIG_ENDIAN if chunk.dtype.byteorder == ">" else 0
        if chunk.flags.f_contiguous and not chunk.flags.c_contiguous:
            flags |= COLUMN_MAJOR
        data = self._codec.encode_laid_out(chunk, flags)
        return check_encoded(max(chunk.nbytes, self._scratch(chunk.shape)), data)

    def decode(self, buf: Any, out: Any = None) -> Any:
        """Decode one chunk, laid out in memory as the array that was encoded; see
        :mod:`stemcodecs.entropy.chunk.undeclared` for how much a chunk may hold.
        """
        from stemcodecs.entropy.chunk.undeclared import check_room

        view = memoryview(numcodecs.compat.ensure_bytes(buf))
        head = TcsHead.read(view, self._codec.sampling)
        nbytes = head.nbytes
        if self._codec.decoder == "measurement":
            nbytes = 4 * math.prod(self._codec.measurements_shape(head.shape))
        # Decoding takes more than the values where they are few: without ``out`` nobody said that so much is there.
        check_room(nbytes if out is not None else max(nbytes, self._scratch(head.shape)), len(view), out)
        decoded = self._codec.decode_parsed(head, view)
        if head.flags & BIG_ENDIAN:
            decoded = decoded.astype(decoded.dtype.newbyteorder(">"))
        if head.flags & COLUMN_MAJOR:
            decoded = np.asfortranarray(decoded)
        return decoded if out is None else numcodecs.compat.ndarray_copy(decoded, out)

    def _scratch(self, shape: tuple[int, ...]) -> int:
        """Bytes that decoding one measurement takes, about: five times its frames in float32."""
        return 20 * self._codec.frames * math.prod(shape[-2:])

    def get_config(self) -> dict[str, Any]:
        """Configuration as stored in the array's metadata."""
        return {"id": NAME, **self._codec.configuration()}

    def __repr__(self) -> str:
        """Short: the weights are shown by their digest."""
        return repr(self._codec).replace("Tcs(", "NumcodecsTcs(", 1)
