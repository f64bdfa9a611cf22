"""A model fitted over a whole scan, which all its chunks share through the codec's configuration."""

from __future__ import annotations

import base64
import binascii
import hashlib
import struct
import warnings
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from stemcodecs.errors import ConfigurationError

__all__ = ["SharedModel", "load_shared"]

Array = np.ndarray[Any, Any]

_MAGIC = b"SCPM"
_HEAD = struct.Struct("<4sBIId")
_VERSION = 5
"""The highest: a model without a calibration is of version 1, with one of version 2, or 3 if patterns have scales; with
one that these cannot say it is of version 4, or 5 if patterns have scales or offsets."""
_BEHIND = struct.Struct("<I")
_PREFIX = "data:application/octet-stream;base64,"
LARGE, TOO_LARGE = 4 << 20, 16 << 20


@dataclass(frozen=True, kw_only=True)
class SharedModel:
    """A serialised histogram model for all chunks of a scan.

    Attributes
    ----------
    detector : tuple of int
        (det_y, det_x); every chunk must span it.
    mean_frame_sum : float
        Counts of the mean pattern; doses are relative to it.
    model : bytes
        As in a chunk's header.
    behind : bytes
        How the values of the scan become the counts that the model is of; empty where a chunk finds that out.
    scaled : bool
        Whether each pattern has a scale besides, or an offset if it is of integers, which stands in its chunk.
    extended : bool
        Whether ``behind`` is of a form that chunks of format version 4 have, and not those of version 2.
    """

    detector: tuple[int, int]
    mean_frame_sum: float
    model: bytes
    behind: bytes = b""
    scaled: bool = False
    extended: bool = False

    @cached_property
    def data(self) -> bytes:
        """The model as bytes, as the digest and the configuration have it."""
        version = (4 if self.extended else 2) + self.scaled if self.behind else 1
        head = _HEAD.pack(_MAGIC, version, *self.detector, self.mean_frame_sum)
        return head + (_BEHIND.pack(len(self.behind)) + self.behind if self.behind else b"") + self.model

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 of :attr:`data`, which chunks refer to."""
        return hashlib.sha256(self.data).digest()

    def configuration(self) -> dict[str, str]:
        """Codec configuration that carries the model: ``PixelHistogram(**model.configuration())``.

        Raises
        ------
        ConfigurationError
            If the model is too large for an array's metadata.
        """
        if len(self.data) > TOO_LARGE:
            raise ConfigurationError(
                f"the shared model has {len(self.data) >> 20} MB, too much for metadata: encode without one"
            )
        if len(self.data) > LARGE:
            warnings.warn(
                f"the shared model adds {len(self.data) >> 20} MB to the metadata; opening will be slow", stacklevel=2
            )
        return {"model": _PREFIX + base64.b64encode(self.data).decode(), "model_sha256": self.digest.hex()}


@lru_cache(maxsize=8)
def load_shared(model: str, digest: str) -> SharedModel:
    """Inverse of :meth:`SharedModel.configuration`, kept per process.

    Raises
    ------
    ConfigurationError
        If the text is no model, or does not match its digest.
    """
    try:
        data = base64.b64decode(model.removeprefix(_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        raise ConfigurationError("the shared model is not base64: the array's metadata was altered") from None
    if len(data) < _HEAD.size or hashlib.sha256(data).hexdigest() != digest:
        raise ConfigurationError("the shared model does not match its digest: the array's metadata was altered")
    magic, version, dy, dx, mean_frame_sum = _HEAD.unpack_from(data)
    if magic != _MAGIC or not 1 <= version <= _VERSION:
        raise ConfigurationError("the shared model is of an unknown version: upgrade stemcodecs")
    rest, behind = data[_HEAD.size :], b""
    if version > 1:
        size = _BEHIND.unpack_from(rest)[0] if len(rest) >= _BEHIND.size else 0
        behind, rest = rest[_BEHIND.size : _BEHIND.size + size], rest[_BEHIND.size + size :]
        if not behind or len(behind) != size:
            raise ConfigurationError("the shared model is cut off: the array's metadata was altered")
    return SharedModel(
        detector=(dy, dx), mean_frame_sum=mean_frame_sum, model=rest, behind=behind, scaled=version in (3, 5),
        extended=version > 3,
    )  # fmt: skip
