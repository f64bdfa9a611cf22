"""``stemcodecs.pixel_histogram``: lossless entropy coding with pixel-specific histograms.

Detector pixels differ far more from one another than a pixel differs from itself over a scan, so that a histogram per
pixel says more than any history of bytes: J. Hinkle et al., "Lossless Image Compression for 4D-STEM Datasets" (Oak
Ridge National Laboratory). Here the histograms come from a bank that pixels share, the coder is interleaved rANS, and
counts already decoded refine the prediction. The bytes are described in ``FORMAT.md``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import numcodecs.abc
import numcodecs.compat
import numpy as np
from zarr.abc.buffer import Buffer, NDBuffer

from stemcodecs.codecs.base import ChunkCodec, as_buffer, check_configuration, check_declared
from stemcodecs.codecs.partial_decode import PartialDecode, Steps
from stemcodecs.dtypes import require_numeric
from stemcodecs.errors import ConfigurationError
from stemcodecs.zarr_private import JSON, ArraySpec, parse_named_configuration

if TYPE_CHECKING:
    from stemcodecs.entropy.chunk.decode import DecodePositions
    from stemcodecs.entropy.chunk.header import Header
    from stemcodecs.entropy.model.shared_model import SharedModel

__all__ = ["MODES", "NumcodecsPixelHistogram", "PixelHistogram"]

NAME = "stemcodecs.pixel_histogram"
MODES = ("auto", "pixel", "neighbour", "scan")
_KEYS = frozenset({"mode", "model", "model_sha256"})
_LITTLE = 1 << 16
"""Bytes that may always be read."""
_MOSTLY = 0.75
"""Share of a chunk's positions above which it is read whole."""


def _check_mode(mode: object) -> str:
    if mode not in MODES:
        raise ConfigurationError(f"{NAME}: mode {mode!r} is unknown; choose one of {', '.join(MODES)}")
    return str(mode)


class _Coding:
    """What both faces of the codec do with an array."""

    mode: str
    model: str | None
    model_sha256: str | None

    def encode_chunk(self, chunk: np.ndarray[Any, Any]) -> bytes:
        """Encode a numeric array; the last two axes are the detector."""
        from stemcodecs.entropy.chunk.encode import encode_array
        from stemcodecs.entropy.fit.fit_model import FitOptions

        require_numeric(NAME, chunk.dtype)
        return encode_array(chunk, FitOptions(mode=self.mode), self.shared())

    def decode_chunk(self, data: bytes | memoryview) -> np.ndarray[Any, Any]:
        """Decode to a fresh array with the shape and dtype that were encoded."""
        from stemcodecs.entropy.chunk.decode import decode_array

        return decode_array(data, self.shared())

    def shared(self) -> SharedModel | None:
        """The model that the configuration carries, if any."""
        if self.model is None:
            return None
        from stemcodecs.entropy.model.shared_model import load_shared

        return load_shared(self.model, self.model_sha256 or "")

    def decoder(self) -> DecodePositions:
        """What decodes scan positions: the one thing that chunks of another model have of their own."""
        from stemcodecs.entropy.chunk.decode import decode_positions

        return decode_positions


def _check_model(model: object, digest: object) -> None:
    if (model is None) != (digest is None):
        raise ConfigurationError(f"{NAME}: 'model' and 'model_sha256' go together; give both or neither")
    if model is not None and not (isinstance(model, str) and isinstance(digest, str)):
        raise ConfigurationError(f"{NAME}: 'model' and 'model_sha256' must be strings")


@dataclass(frozen=True, kw_only=True)
class PixelHistogram(_Coding, PartialDecode, ChunkCodec):
    """Zarr format 3 serializer ``stemcodecs.pixel_histogram``.

    Give it as ``serializer``, with ``compressors=None``. The last two axes of a chunk are taken as the detector; a
    chunk may cover part of it, and statistics are per pixel of the chunk.

    Attributes
    ----------
    mode : {"auto", "pixel", "neighbour", "scan"}
        ``pixel``: one histogram per pixel from a bank, fastest. ``neighbour``: counts already decoded in the same
        pattern refine the prediction. ``scan``: those of scan neighbours as well; a single pattern then takes longer to
        read. ``auto`` estimates the sizes on a sample of each chunk.
    model, model_sha256 : str, optional
        A model that all chunks share (:func:`stemcodecs.entropy.model.shared_model.SharedModel.configuration`).

    Raises
    ------
    ConfigurationError
        For an unknown mode, or a model that does not match its digest.
    """

    codec_name = NAME
    mode: str = "auto"
    model: str | None = field(default=None, repr=False, compare=False)
    model_sha256: str | None = None

    def __post_init__(self) -> None:
        """Check the configuration."""
        _check_mode(self.mode)
        _check_model(self.model, self.model_sha256)

    @classmethod
    def from_dict(cls, data: dict[str, JSON]) -> Self:
        """From the metadata of an array."""
        _, configuration = parse_named_configuration(data, NAME, require_configuration=False)
        check_configuration(NAME, configuration or {}, _KEYS)
        return cls(**(configuration or {}))  # type: ignore[arg-type]

    def to_dict(self) -> dict[str, JSON]:
        """For the metadata of an array."""
        configuration: dict[str, JSON] = {"mode": self.mode}
        if self.model is not None:
            configuration |= {"model": self.model, "model_sha256": self.model_sha256}
        return {"name": NAME, "configuration": configuration}

    def _decode_sync(self, chunk_data: Buffer, chunk_spec: ArraySpec) -> NDBuffer:
        from stemcodecs.entropy.chunk.decode import decode_parsed
        from stemcodecs.entropy.chunk.header import read_header

        data = chunk_data.as_numpy_array().data
        # The header is held against the metadata before anything of its size is allocated.
        header = read_header(data, tuple(chunk_spec.shape))
        check_declared(header.dtype, header.shape, chunk_spec)
        array = decode_parsed(header, data, self.shared(), self.decoder())
        native = chunk_spec.dtype.to_native_dtype()
        return as_buffer(array.astype(native, copy=False), chunk_spec)

    def decode_in_steps(self, selection: Any, chunk_spec: ArraySpec, first_read: int) -> Steps:
        """Decode only the groups of scan positions that a selection needs, and read no other bytes."""
        from stemcodecs.entropy.chunk.header import header_length

        (head,) = yield [(0, first_read)]
        if head is None:
            return None
        length = header_length(head, tuple(chunk_spec.shape))
        if length > len(head):
            (rest,) = yield [(len(head), length)]
            head += rest or b""
        header, positions = self._positions(head[:length], selection, chunk_spec)
        if positions is None:
            (whole,) = yield [(0, None)]
            if whole is None:
                return None
            return self._decode_sync(chunk_spec.prototype.buffer.from_bytes(whole), chunk_spec)[selection]
        ranges = header.ranges(positions)
        parts = {(start, stop): head[start:stop] for start, stop in ranges if stop <= len(head)}
        missing = [one for one in ranges if one not in parts]
        if missing:
            got = yield list(missing)
            parts |= {one: part or b"" for one, part in zip(missing, got, strict=True)}
        return self._decode_parts(header, parts, positions, selection, chunk_spec)

    @staticmethod
    def _positions(head: bytes, selection: Any, chunk_spec: ArraySpec) -> tuple[Header, np.ndarray[Any, Any] | None]:
        """Header of a chunk, and the scan positions to decode for a selection; None: the chunk as a whole."""
        from stemcodecs.entropy.chunk.header import COUNTS
        from stemcodecs.entropy.chunk.partial import cached_header, positions_of

        header = cached_header(head, tuple(chunk_spec.shape))
        check_declared(header.dtype, header.shape, chunk_spec)
        positions = positions_of(selection, header.shape)
        # Near the whole chunk one read is faster than many, and a stored chunk is one piece.
        if header.kind != COUNTS or positions.size > _MOSTLY * header.layout.n_positions:
            return header, None
        # Groups larger than the values they hold are hardly worth a partial read. That of the whole chunk takes what is
        # there, and holds the table against it.
        asked = sum(stop - start for start, stop in header.ranges(positions))
        most = _LITTLE + 2 * math.prod(header.shape) * header.dtype.itemsize
        return header, positions if asked <= most else None

    def _decode_parts(
        self,
        header: Header,
        parts: dict[tuple[int, int], bytes],
        positions: np.ndarray[Any, Any],
        selection: Any,
        chunk_spec: ArraySpec,
    ) -> NDBuffer:
        from stemcodecs.entropy.chunk.partial import decode_selection

        array = decode_selection(header, parts, positions, selection, self.shared(), self.decoder())
        return as_buffer(np.asarray(array).astype(chunk_spec.dtype.to_native_dtype(), copy=False), chunk_spec)


class NumcodecsPixelHistogram(_Coding, numcodecs.abc.Codec):  # type: ignore[misc]
    """numcodecs codec ``stemcodecs.pixel_histogram``, for Zarr format 2.

    Parameters are those of :class:`PixelHistogram`. Give it as the only compressor, without filters.
    """

    codec_id = NAME

    def __init__(self, mode: str = "auto", model: str | None = None, model_sha256: str | None = None) -> None:
        self.mode = _check_mode(mode)
        _check_model(model, model_sha256)
        self.model = model
        self.model_sha256 = model_sha256

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """From the metadata of an array."""
        configuration = {key: value for key, value in config.items() if key != "id"}
        check_configuration(NAME, configuration, _KEYS)
        return cls(**configuration)

    def get_config(self) -> dict[str, Any]:
        """For the metadata of an array."""
        config = {"id": NAME, "mode": self.mode}
        if self.model is not None and self.model_sha256 is not None:
            config |= {"model": self.model, "model_sha256": self.model_sha256}
        return config

    def encode(self, buf: Any) -> bytes:
        """Encode a numeric array."""
        from stemcodecs.entropy.chunk.undeclared import check_encoded

        array = numcodecs.compat.ensure_ndarray_like(buf)
        return check_encoded(array.nbytes, self.encode_chunk(array))

    def decode(self, buf: Any, out: Any = None) -> Any:
        """Decode bytes, into ``out`` if it is given; without it within :mod:`stemcodecs.entropy.chunk.undeclared`."""
        from stemcodecs.entropy.chunk.undeclared import decode_undeclared

        data = memoryview(numcodecs.compat.ensure_contiguous_ndarray(buf)).cast("B")
        return numcodecs.compat.ndarray_copy(decode_undeclared(data, out, self.shared()), out)
