"""``stemcodecs.pca``: patterns as a few coefficients of the scan's eigen-patterns, with or without
what is left.

The basis, fitted to the whole scan and quantised to integers, travels in the codec's configuration;
a chunk holds the integer coefficients of its patterns and, with a residual, the counts coded given
the prediction. Without a residual there is no pointwise guarantee, and the configuration says so.
Chunk bytes: ``lowrank/FORMAT.md``. Sources: Loetgering et al. 2017 (doi:10.1515/aot-2017-0053) for
PCA of ptychographic data; the residual and its coding are this package's own.
"""

from __future__ import annotations

import asyncio
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numcodecs.abc
import numcodecs.compat
import numpy as np
from zarr.abc.buffer import Buffer, NDBuffer
from zarr.abc.codec import ArrayBytesCodecPartialDecodeMixin
from zarr.abc.store import ByteGetter

from stemcodecs.codecs.base import ChunkCodec, as_buffer, check_configuration, check_declared
from stemcodecs.codecs.pixel_histogram import PixelHistogram
from stemcodecs.dtypes import require_numeric
from stemcodecs.errors import ConfigurationError, CorruptChunkError, FormatVersionError
from stemcodecs.lowrank.basis import check_detector
from stemcodecs.lowrank.low_rank_model import LowRankModel
from stemcodecs.lowrank.pca_chunk import BIG_ENDIAN, COLUMN_MAJOR, LOW_RANK, MAPPED, MARKED, WHOLE, Head, read
from stemcodecs.lowrank.stored_model import StoredPcaModel, find_model, find_model_sync
from stemcodecs.zarr_private import JSON, ArraySpec, parse_named_configuration

if TYPE_CHECKING:
    from stemcodecs.counts.counts_map import CountsMap
    from stemcodecs.entropy.chunk.header import Header

__all__ = ["NumcodecsPca", "Pca"]

NAME = "stemcodecs.pca"
VERSION = 1
DEFAULT_BOUND = 0.5

Array = np.ndarray[Any, Any]
Residual = Literal["none", "bounded", "lossless"]

_KEYS = ("version", "sha256", "model", "residual", "bound", "map", "guarantee")


@dataclass(frozen=True, kw_only=True)
class Pca(ArrayBytesCodecPartialDecodeMixin, ChunkCodec):
    """Zarr format 3 serializer ``stemcodecs.pca``; chunks must span the whole detector.

    Parameters
    ----------
    sha256 : str
        Digest of the model: two codecs are equal if their digests and residuals are.
    model : str, optional
        The model as a ``data:`` URI. Without it the model lies beside the array
        (:mod:`stemcodecs.lowrank.stored_model`).
    residual : {"none", "bounded", "lossless"}
        ``none`` decodes the low-rank prediction: integers rounded and at least 0, floats as rates.
        ``bounded`` keeps every count N within bound·√N. ``lossless`` restores every value bit by
        bit, whatever the chunk holds.
    bound : float
        r of ``bounded``; must stay at its default otherwise.
    map : str, optional
        How values become the counts that the model is of, where they are none:
        :meth:`stemcodecs.counts.counts_map.CountsMap.to_uri`. N is then the count behind a value.

    Raises
    ------
    ConfigurationError
        If a parameter is not one of these.
    """

    codec_name = NAME
    sha256: str
    model: str | None = field(default=None, repr=False, compare=False, hash=False)
    residual: Residual = "none"
    bound: float = DEFAULT_BOUND
    map: str | None = field(default=None, repr=False)
    _held: ClassVar[LowRankModel | None] = None

    def __post_init__(self) -> None:
        if self.residual not in ("none", "bounded", "lossless"):
            raise ConfigurationError(f"{NAME}: residual {self.residual!r} is not 'none', 'bounded' or 'lossless'")
        if not (isinstance(self.bound, int | float) and 0 < self.bound <= 64):
            raise ConfigurationError(f"{NAME}: bound {self.bound!r} must be a number above 0 and at most 64")
        if self.residual != "bounded" and self.bound != DEFAULT_BOUND:
            raise ConfigurationError(f"{NAME}: bound {self.bound!r} is that of residual 'bounded'; leave it out")
        if not (isinstance(self.sha256, str) and len(self.sha256) == 64):
            raise ConfigurationError(f"{NAME}: sha256 must be the 64 hexadecimal digits of the model's digest")
        _ = self.counts_map
        self._hold(LowRankModel.kept(self.sha256))

    @classmethod
    def from_model(
        cls, model: LowRankModel, *, residual: Residual = "none", bound: float = DEFAULT_BOUND, map: str | None = None
    ) -> Self:
        """Codec with the model inside its configuration.

        Raises
        ------
        ConfigurationError
            If the model is too large for metadata (16 MiB).
        """
        model.keep()
        return cls(sha256=model.digest, model=model.to_uri(), residual=residual, bound=bound, map=map)

    @staticmethod
    def stored_model(configuration: Mapping[str, Any]) -> StoredPcaModel | None:
        """The model that an array with this configuration keeps beside it, if it does."""
        return None if "model" in configuration else StoredPcaModel(configuration["sha256"])

    @property
    def counts_map(self) -> CountsMap | None:
        """How values become counts, where they are none."""
        if self.map is None:
            return None
        # Here, so that reading other metadata does not load Numba.
        from stemcodecs.counts.counts_map import CountsMap

        return CountsMap.from_uri(self.map)

    @property
    def guarantee(self) -> str:
        """What holds for every decoded value."""
        if self.residual == "lossless":
            return "every value is restored exactly"
        if self.residual == "bounded":
            which = "" if self.map is None else " behind a value"
            return f"|N' - N| <= {self.bound!r} * sqrt(N) for every count N{which}"
        return "no pointwise guarantee"

    @classmethod
    def from_dict(cls, data: dict[str, JSON]) -> Self:
        """Codec from array metadata."""
        _, configuration = parse_named_configuration(data, NAME)
        return cls(**_checked(configuration))

    def to_dict(self) -> dict[str, JSON]:
        """Array metadata."""
        return {"name": NAME, "configuration": self.configuration()}

    def configuration(self) -> dict[str, JSON]:
        """What the metadata of both Zarr formats stores."""
        stored: dict[str, JSON] = {
            "version": VERSION,
            "sha256": self.sha256,
            "residual": self.residual,
        }
        if self.residual == "bounded":
            stored["bound"] = self.bound
        if self.model is not None:
            stored["model"] = self.model
        if self.map is not None:
            stored["map"] = self.map
        stored["guarantee"] = self.guarantee
        return stored

    def validate(self, *, shape: Any, dtype: Any, chunk_grid: Any) -> None:
        """Refuse dtypes and detector shapes that can never be encoded when the array is created."""
        super().validate(shape=shape, dtype=dtype, chunk_grid=chunk_grid)
        # A model beside the array is loaded by the first read; opening an array must not need it.
        if self.model is not None or self._held is not None:
            check_detector(tuple(shape), self._model().detector)
        if (behind := self.counts_map) is not None:
            native = dtype.to_native_dtype()
            # Rates may be read of integers too (`lowrank.rates`).
            rates = self.residual == "none" and native.kind == "f"
            behind.check(behind.dtype if rates else native, tuple(getattr(chunk_grid, "chunk_shape", shape)))

    def encode_chunk(self, chunk: Array) -> bytes:
        """Encode patterns (…, det_y, det_x).

        Raises
        ------
        ConfigurationError
            If the chunk does not span the model's detector, or (without residual) holds what a
            low-rank model cannot represent: many values that are no counts, or counts far beyond the
            fitted scan. Marks of gaps, dead and saturated pixels are kept exactly.
        """
        return self._encode(chunk, 0)

    def _encode(self, chunk: Array, flags: int) -> bytes:
        require_numeric(NAME, chunk.dtype)
        chunk = np.ascontiguousarray(chunk, chunk.dtype.newbyteorder("="))
        model = self._model()
        lead = check_detector(chunk.shape, model.detector)
        kind, content = self._content(chunk.reshape(math.prod(lead), math.prod(model.detector)), model)
        # What is no counts, or beyond the model, is stored whole: the guarantee of the residual holds for any chunk.
        if content is None:
            kind, content = WHOLE, PixelHistogram().encode_chunk(chunk)
        head = Head(dtype=chunk.dtype.newbyteorder("<"), shape=chunk.shape, kind=kind, flags=flags)
        return head.write(self.sha256, content)

    def _content(self, flat: Array, model: LowRankModel) -> tuple[int, bytes | None]:
        """Kind and content of a chunk of patterns[k, pixels]; None where it is to be stored whole."""
        from stemcodecs.lowrank.coding import encode_counts, encode_prediction, without_marks
        from stemcodecs.lowrank.marked import LARGEST_COUNT
        from stemcodecs.lowrank.residual import LARGEST_BOUNDED

        bound, behind = self._r(), self.counts_map
        if behind is not None:
            from stemcodecs.lowrank.mapped import encode_mapped

            behind.check(flat.dtype, (len(flat), *model.detector))
            return MAPPED, encode_mapped(flat, behind, model, residual=self.residual != "none", bound=bound)
        kind, marks = LOW_RANK, b""
        largest = LARGEST_BOUNDED + 1 if bound else LARGEST_COUNT
        if (split := without_marks(flat, model, largest=largest, whole=self.residual != "none")) is not None:
            kind = MARKED
            flat, marks = split[0], struct.pack("<Q", len(split[1])) + split[1]
        if self.residual == "none":
            return kind, marks + encode_prediction(flat, model)
        content = encode_counts(flat, model, bound)
        return kind, None if content is None else marks + content

    def decode_chunk(self, data: bytes | memoryview) -> Array:
        """Decode to a fresh array with the shape and dtype that were encoded.

        Raises
        ------
        CorruptChunkError
            If the bytes are truncated, altered, or of another model.
        """
        head, content = read(memoryview(data).cast("B"), self.sha256, NAME)
        return self._decode(head, content)

    def _decode(
        self, head: Head, content: memoryview, wanted: Array | None = None, rates: np.dtype[Any] | None = None
    ) -> Array:
        from stemcodecs.lowrank.coding import decode_patterns, split_marked

        if head.kind == WHOLE:
            from stemcodecs.entropy.chunk.decode import decode_parsed

            return decode_parsed(_whole_header(head, content), content)
        if (head.kind == MAPPED) != (self.map is not None):
            raise CorruptChunkError(
                "the chunk and its array's metadata do not agree whether values are mapped to counts"
            )
        if (behind := self.counts_map) is not None:
            from stemcodecs.lowrank.mapped import decode_mapped, rates_mapped

            if rates is not None and head.dtype.kind != "f":
                return rates_mapped(head, content, behind, self._model(), rates, wanted)
            return decode_mapped(
                head, content, behind, self._model(), residual=self.residual != "none", bound=self._r(), wanted=wanted
            )
        marks = None
        if head.kind == MARKED:
            marks, content = split_marked(content, head)
        decode_as = head if rates is None else replace(head, dtype=rates)
        values = decode_patterns(
            decode_as, content, self._model(), residual=self.residual != "none", bound=self._r(), wanted=wanted
        )
        if marks is not None:
            here = marks if rates is None else marks.astype(head.dtype, rates)
            here.insert(values.reshape(head.positions, head.pixels))
        return values

    def _decode_sync(self, chunk_data: Buffer, chunk_spec: ArraySpec) -> NDBuffer:
        return self._decode_selection(chunk_data, None, chunk_spec)

    async def _decode_partial_single(
        self, byte_getter: ByteGetter, selection: Any, chunk_spec: ArraySpec
    ) -> NDBuffer | None:
        """Decode only the groups of scan positions that a selection needs.

        Zarr hands the codec its place in the store here, and nowhere else: this is how a model that lies beside the
        array is found.
        """
        data = await byte_getter.get(chunk_spec.prototype)
        if data is None:
            return None
        if self.model is None and self._held is None:
            self._hold(await find_model(byte_getter, self.sha256))
        return await asyncio.to_thread(self._decode_selection, data, selection, chunk_spec)

    def _decode_partial_sync(self, byte_getter: Any, selection: Any, chunk_spec: ArraySpec) -> NDBuffer | None:
        """As above, for Zarr's fused pipeline."""
        data = byte_getter.get_sync(prototype=chunk_spec.prototype)
        if data is None:
            return None
        if self.model is None and self._held is None:
            self._hold(find_model_sync(byte_getter, self.sha256))
        return self._decode_selection(data, selection, chunk_spec)

    def _decode_selection(self, data: Buffer, selection: Any, chunk_spec: ArraySpec) -> NDBuffer:
        from stemcodecs.entropy.chunk.partial import positions_of

        head, content = read(data.as_numpy_array().data.cast("B"), self.sha256, NAME)
        native = chunk_spec.dtype.to_native_dtype()
        rates = None
        if self.residual == "none" and native.kind == "f" and head.kind != WHOLE:
            # A prediction is a rate, which the chunk holds whatever dtype it was coded from (`lowrank.rates`).
            rates = native.newbyteorder("=")
        # The head is held against the metadata before anything of its size is allocated.
        check_declared(head.dtype if rates is None else rates, head.shape, chunk_spec)
        wanted = positions_of(selection, head.shape) if selection is not None and len(head.shape) > 2 else None
        decoded = self._decode(head, content, wanted, rates).astype(native, copy=False)
        # A copy of what was asked for, so that the rest of the chunk does not stay in memory with it.
        return as_buffer(decoded if selection is None else np.array(decoded[selection]), chunk_spec)

    def _model(self) -> LowRankModel:
        if self._held is None:
            self._hold(LowRankModel.load(self.model, self.sha256))
        assert self._held is not None
        return self._held

    def _hold(self, model: LowRankModel | None) -> None:
        # For as long as the codec lives: a model that lies beside the array cannot be found again from everywhere.
        object.__setattr__(self, "_held", model)

    def __getstate__(self) -> dict[str, Any]:
        """Without the model, which is found again: arrays travel to every worker of a cluster."""
        return {key: value for key, value in vars(self).items() if key != "_held"}

    def _r(self) -> Fraction | None:
        # The decimal that was written, not its binary neighbour.
        return Fraction(repr(self.bound)) if self.residual == "bounded" else None


def _whole_header(head: Head, content: memoryview) -> Header:
    """Header of the chunk inside a chunk, held against the outer one before anything of its size is allocated."""
    from stemcodecs.entropy.chunk.header import read_header

    inner = read_header(content, head.shape)
    if inner.dtype != head.dtype:
        raise CorruptChunkError("the chunk's parts disagree about its dtype")
    return inner


def _checked(configuration: Any) -> dict[str, Any]:
    """Parameters of :class:`Pca` from a stored configuration."""
    stored = dict(configuration or {})
    check_configuration(NAME, stored, _KEYS)
    # A configuration without a version is of the first.
    version = stored.pop("version", VERSION)
    if version != VERSION:
        raise FormatVersionError(
            f"{NAME}: configuration version {version}, this stemcodecs reads {VERSION}; upgrade it"
        )
    stored.pop("guarantee", None)  # for readers of the metadata; derived from the rest
    if "sha256" not in stored:
        raise ConfigurationError(f"{NAME}: the configuration has no sha256; fit a basis first and use Pca.from_model")
    return stored


class NumcodecsPca(numcodecs.abc.Codec):  # type: ignore[misc]
    """numcodecs codec ``stemcodecs.pca`` for Zarr format 2, with the configuration of
    :class:`Pca`.
    """

    codec_id = NAME

    def __init__(self, **configuration: Any) -> None:
        self._codec = Pca(**_checked(configuration))

    def encode(self, buf: Any) -> bytes:
        """Encode one chunk, given as an array with the chunk's shape."""
        chunk = numcodecs.compat.ensure_ndarray_like(buf)
        flags = BIG_ENDIAN if chunk.dtype.byteorder == ">" else 0
        if chunk.flags.f_contiguous and not chunk.flags.c_contiguous:
            flags |= COLUMN_MAJOR
        from stemcodecs.entropy.chunk.undeclared import check_encoded

        return check_encoded(chunk.nbytes, self._codec._encode(chunk, flags))

    def decode(self, buf: Any, out: Any = None) -> Any:
        """Decode one chunk, laid out in memory as the array that was encoded; see
        :mod:`stemcodecs.entropy.chunk.undeclared` for how much a chunk may hold.
        """
        from stemcodecs.entropy.chunk.undeclared import check_room, decode_undeclared

        data = memoryview(numcodecs.compat.ensure_bytes(buf))
        head, content = read(data, self._codec.sha256, NAME)
        check_room(head.positions * head.pixels * head.dtype.itemsize, len(data), out)
        if head.kind == WHOLE:
            _whole_header(head, content)
            decoded = decode_undeclared(content, out)
        else:
            decoded = self._codec._decode(head, content)
        if head.flags & BIG_ENDIAN:
            decoded = decoded.astype(decoded.dtype.newbyteorder(">"))
        if head.flags & COLUMN_MAJOR:
            decoded = np.asfortranarray(decoded)
        return decoded if out is None else numcodecs.compat.ndarray_copy(decoded, out)

    def get_config(self) -> dict[str, Any]:
        """Configuration as stored in the array's metadata."""
        return {"id": NAME, **self._codec.configuration()}

    def __repr__(self) -> str:
        """Short: the model is shown by its digest."""
        return repr(self._codec).replace("Pca(", "NumcodecsPca(", 1)
