"""``stemcodecs.learned``: lossless entropy coding by a tiny integer network.

A network of about two thousand parameters predicts the distribution of every count from those already decoded around
it, the mean of its pixel and the dose of its pattern; rANS codes the count with that distribution. The network is
fitted to the scan itself, and all that decoding does is integer arithmetic, so that the bytes decode alike everywhere.
That a convolutional network (L3C, F. Mentzer et al., CVPR 2019) gains little on diffraction patterns has a reason: it
cannot know where on the detector it is. This one is told. A small L3C may be shared as well, to see what it does; it is
trained by ``compress --method learned:arch=l3c``. Images of movies and tilt series have a network of their own, which
sees edges and activity instead. The bytes are described in ``learned/FORMAT.md``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import numcodecs.abc
import numcodecs.compat
import numpy as np
from zarr.abc.buffer import Buffer, NDBuffer

from stemcodecs.codecs.base import ChunkCodec, check_configuration
from stemcodecs.codecs.partial_decode import PartialDecode, Steps, behind
from stemcodecs.codecs.pixel_histogram import PixelHistogram
from stemcodecs.dtypes import require_numeric
from stemcodecs.errors import ConfigurationError
from stemcodecs.learned.prefix import LENGTH, NETWORK, read_prefix
from stemcodecs.zarr_private import JSON, ArraySpec, parse_named_configuration

if TYPE_CHECKING:
    from stemcodecs.entropy.chunk.decode import DecodePositions
    from stemcodecs.entropy.model.shared_model import SharedModel

__all__ = ["Learned", "NumcodecsLearned"]

NAME = "stemcodecs.learned"
SCANS = ("auto", "none")
ARCHITECTURES = ("auto", "context", "images")
MOST_STEPS = 1_000_000
_KEYS = frozenset({"steps", "seed", "scan", "arch", "model", "model_sha256"})

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, kw_only=True)
class _NetworkChunks(PixelHistogram):
    """Chunks in the form of pixel_histogram whose model is a network: read as those are, but for the decoder."""

    def decoder(self) -> DecodePositions:
        from stemcodecs.learned.architectures import decode_positions_by_network

        return decode_positions_by_network


@dataclass(frozen=True, kw_only=True)
class _Settings:
    """What both faces of the codec know, and do with an array."""

    steps: int = 8000
    seed: int = 0
    scan: str = "auto"
    arch: str = "auto"
    model: str | None = field(default=None, repr=False, compare=False)
    model_sha256: str | None = None

    def __post_init__(self) -> None:
        """Check the configuration."""
        for key, least, most in (("steps", 1, MOST_STEPS), ("seed", 0, 2**63 - 1)):
            value = getattr(self, key)
            if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
                raise ConfigurationError(f"{NAME}: {key} {value!r} must be a whole number from {least} to {most}")
        if self.scan not in SCANS:
            raise ConfigurationError(f"{NAME}: scan {self.scan!r} is unknown; choose one of {', '.join(SCANS)}")
        if self.arch not in ARCHITECTURES:
            raise ConfigurationError(f"{NAME}: arch {self.arch!r} is unknown; choose one of {', '.join(ARCHITECTURES)}")
        if (self.model is None) != (self.model_sha256 is None):
            raise ConfigurationError(f"{NAME}: 'model' and 'model_sha256' go together; give both or neither")
        _ = self._of_network

    def configuration(self) -> dict[str, JSON]:
        """For the metadata of an array."""
        out: dict[str, JSON] = {"steps": self.steps, "seed": self.seed, "scan": self.scan, "arch": self.arch}
        if self.model is not None:
            out |= {"model": self.model, "model_sha256": self.model_sha256}
        return out

    def shared(self) -> SharedModel | None:
        """The network that the configuration carries, if any."""
        return self._of_network.shared()

    @property
    def _of_network(self) -> PixelHistogram:
        return _NetworkChunks(model=self.model, model_sha256=self.model_sha256)

    def _entropy(self, kind: int) -> PixelHistogram:
        # A chunk of histograms has them inside: the network of the configuration is none of its business.
        return self._of_network if kind == NETWORK else PixelHistogram()

    def encode_chunk(self, chunk: Array) -> bytes:
        """Encode a numeric array; the last two axes are the detector."""
        from stemcodecs.learned.architectures import encode_by_network
        from stemcodecs.learned.encode import LearnedOptions
        from stemcodecs.learned.fit import NetworkOptions

        require_numeric(NAME, chunk.dtype)
        network = NetworkOptions(steps=self.steps, seed=self.seed)
        options = LearnedOptions(scan=self.scan, arch=self.arch, network=network)
        return encode_by_network(chunk, options, self.shared())

    def decode_chunk(self, data: bytes | memoryview) -> Array:
        """Decode to a fresh array with the shape and dtype that were encoded."""
        from stemcodecs.entropy.chunk.decode import decode_parsed
        from stemcodecs.entropy.chunk.header import read_header

        data = memoryview(data)
        entropy = self._entropy(read_prefix(data))
        chunk = data[LENGTH:]
        return decode_parsed(read_header(chunk), chunk, entropy.shared(), entropy.decoder())


@dataclass(frozen=True, kw_only=True)
class Learned(_Settings, PartialDecode, ChunkCodec):
    """Zarr format 3 serializer ``stemcodecs.learned``.

    Give it as ``serializer``, with ``compressors=None``. The last two axes of a chunk are taken as the detector. A
    chunk without a shared network is fitted one of its own, which takes seconds, and pays from some hundred patterns
    on; where it does not pay, the chunk is coded as ``stemcodecs.pixel_histogram`` does.

    Attributes
    ----------
    steps : int
        Steps of the fit of a chunk's own network; 8,000 take about fifteen seconds of one core.
    seed : int
        Of the fit: the same counts, steps and seed give the same bytes on one machine.
    scan : {"auto", "none"}
        Whether a chunk's own network may look at scan neighbours, or at the images before; a single pattern then takes
        longer to read.
    arch : {"auto", "context", "images"}
        What a chunk's own network sees: ``context`` is for counts of patterns, ``images`` for movies and tilt series,
        ``auto`` takes what is smaller.
    model, model_sha256 : str, optional
        A network that all chunks share (:func:`stemcodecs.entropy.model.shared_model.SharedModel.configuration`).

    Raises
    ------
    ConfigurationError
        For impossible values, or a network that does not match its digest.
    """

    codec_name = NAME

    @classmethod
    def from_dict(cls, data: dict[str, JSON]) -> Self:
        """From the metadata of an array."""
        _, configuration = parse_named_configuration(data, NAME, require_configuration=False)
        check_configuration(NAME, configuration or {}, _KEYS)
        return cls(**(configuration or {}))  # type: ignore[arg-type]

    def to_dict(self) -> dict[str, JSON]:
        """For the metadata of an array."""
        return {"name": NAME, "configuration": self.configuration()}

    def _decode_sync(self, chunk_data: Buffer, chunk_spec: ArraySpec) -> NDBuffer:
        kind = read_prefix(chunk_data.as_numpy_array().data)
        return self._entropy(kind)._decode_sync(chunk_data[LENGTH:], chunk_spec)

    def decode_in_steps(self, selection: Any, chunk_spec: ArraySpec, first_read: int) -> Steps:
        """Decode only the groups of scan positions that a selection needs, and read no other bytes."""
        (first,) = yield [(0, LENGTH)]
        if first is None:
            return None
        entropy = self._entropy(read_prefix(first))
        return (yield from behind(entropy.decode_in_steps(selection, chunk_spec, first_read), LENGTH))


class NumcodecsLearned(numcodecs.abc.Codec):  # type: ignore[misc]
    """numcodecs codec ``stemcodecs.learned``, for Zarr format 2.

    Parameters are those of :class:`Learned`. Give it as the only compressor, without filters.
    """

    codec_id = NAME

    def __init__(self, **configuration: Any) -> None:
        check_configuration(NAME, configuration, _KEYS)
        self._settings = _Settings(**configuration)

    def get_config(self) -> dict[str, Any]:
        """For the metadata of an array."""
        return {"id": NAME, **self._settings.configuration()}

    def encode(self, buf: Any) -> bytes:
        """Encode a numeric array."""
        from stemcodecs.entropy.chunk.undeclared import check_encoded

        array = numcodecs.compat.ensure_ndarray_like(buf)
        return check_encoded(array.nbytes, self._settings.encode_chunk(array))

    def decode(self, buf: Any, out: Any = None) -> Any:
        """Decode bytes, into ``out`` if it is given; without it within :mod:`stemcodecs.entropy.chunk.undeclared`."""
        from stemcodecs.entropy.chunk.undeclared import decode_undeclared

        data = memoryview(numcodecs.compat.ensure_contiguous_ndarray(buf)).cast("B")
        entropy = self._settings._entropy(read_prefix(data))
        values = decode_undeclared(data[LENGTH:], out, entropy.shared(), decode=entropy.decoder())
        return numcodecs.compat.ndarray_copy(values, out)
