"""A PCA basis in integers: what travels in a codec's configuration and what decoding repeats on
every machine.

The prediction of a pattern is y = mean + Σₖ Cₖ·wₖ with integer coefficients Cₖ and integer weights
wₖ: the step of the coefficients is part of the weights. Products and sums run in float64 BLAS on
whole numbers whose partial sums stay below 2⁵², where float64 arithmetic is exact: the result is
that of 64-bit integers in any order of summation, on any machine, at the speed of a matrix product
(a test compares it with int64).
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
import warnings
import weakref
import zlib
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Self

import numpy as np

from stemcodecs.errors import ConfigurationError, CorruptChunkError, FormatVersionError
from stemcodecs.last_used import LastUsed
from stemcodecs.lowrank.basis import PcaBasis, as_features
from stemcodecs.lowrank.stabilize import FRACTION_BITS, anscombe_variance

__all__ = ["TILE", "WARN_BYTES", "LowRankModel", "inflate"]

Array = np.ndarray[Any, Any]

MEAN_BITS = 8
"""Most binary digits of the mean pattern."""
WEIGHT_BITS = 24
EXACT = 2**52
MAGIC = b"SCPB"
VERSION = 1
PREFIX = "data:application/zlib;base64,"
WARN_BYTES = 4 << 20
REFUSE_BYTES = 16 << 20
BATCH = 1 << 22
"""Values turned into float32 at once."""
TILE = 1 << 13
"""Pixels predicted at once."""
LARGEST_BYTES = 4 << 30
EARNED, FREE = 64, 64 << 20
"""A packed model inflates to at most 64 times its size, and 64 MiB: eigen-patterns are noise in their low bytes, and
zlib alone would let 4 MB of metadata fill 4 GiB."""
_LONGEST_HEAD = 1 << 12

KEPT_BYTES = 512 << 20
"""What models may take that no codec holds, so that opening many stores does not fill the memory."""
_kept: LastUsed[str, LowRankModel] = LastUsed(KEPT_BYTES)
_alive: weakref.WeakValueDictionary[str, LowRankModel] = weakref.WeakValueDictionary()
_lock = threading.Lock()


@dataclass(frozen=True, kw_only=True, eq=False)
class LowRankModel:
    """Integer PCA basis.

    Attributes
    ----------
    detector : tuple of int
        (det_y, det_x).
    stabilised : bool
        Whether the prediction is a stabilised value (Anscombe) or a rate in counts.
    step : float
        Step of the coefficients as a fraction of their noise; informative.
    mean : ndarray, int32, (pixels,)
        Mean pattern in units of 2^(−mean_bits).
    mean_bits : int
        Binary digits of the mean pattern, at most 8.
    weights : ndarray, int32, (rank, pixels)
        Eigen-patterns times coefficient step, row k in units of 2^(−exponents[k]).
    exponents : ndarray, uint8, (rank,)
        Binary digits of each row, at most 24: strong components get more.
    """

    detector: tuple[int, int]
    stabilised: bool
    step: float
    mean: Array = field(repr=False)
    mean_bits: int
    weights: Array = field(repr=False)
    exponents: Array = field(repr=False)

    @property
    def rank(self) -> int:
        """Number of coefficients of a pattern."""
        return int(self.weights.shape[0])

    @classmethod
    def from_basis(cls, basis: PcaBasis, *, step: float = 0.5, precision: float | None = 0.05) -> LowRankModel:
        """Quantise a basis.

        Parameters
        ----------
        step : float
            Step of each coefficient in units of its own counting noise: 0.5 adds 2 % to the noise
            variance.
        precision : float or None
            Error that the integer eigen-patterns may add to a pixel, in units of its counting
            noise: each component gets as many digits as its strength asks for. None: the error that the eigen-patterns
            and the mean have anyway, for the noise of the positions that they were fitted to. More digits would take
            more in the model than they save in a residual.

        Raises
        ------
        ConfigurationError
            If ``step`` or ``precision`` is not positive.
        """
        if not (step > 0 and (precision is None or precision > 0)):
            raise ConfigurationError(f"step {step} and precision {precision} of a PCA model must be positive")
        flat = basis.components.reshape(basis.rank, basis.mean.size).astype(np.float64)
        variance = anscombe_variance(basis.mean_counts) if basis.stabilised else basis.mean_counts
        steps = step * np.maximum(basis.noise(), 1e-3)
        scaled = flat * steps[:, None]
        typical = np.sqrt(basis.eigenvalues) / steps
        pixel_noise = np.sqrt(max(float(np.median(variance)), 1e-2))
        mean_bits = MEAN_BITS
        if precision is None:
            known = 1 / np.sqrt(max(basis.positions, 1))
            precision = float(np.clip(known * np.sqrt(max(basis.rank, 1)), 0.02, 0.5))
            mean_bits = int(np.clip(np.floor(-np.log2(known * np.sqrt(12) * pixel_noise)), 0, MEAN_BITS))
        wanted = np.log2(np.maximum(typical, 1) * np.sqrt(max(basis.rank, 1) / 12) / (precision * pixel_noise))
        # A weak component may lie below that error everywhere and still be worth its coefficients:
        # no eigen-pattern is rounded by more than 2 % of its own energy.
        spread = np.sqrt((scaled**2).mean(1))
        wanted = np.maximum(wanted, 1 - np.log2(np.maximum(spread, 2.0**-WEIGHT_BITS)))
        exponents = np.clip(np.ceil(wanted), 0, WEIGHT_BITS).astype(np.uint8)
        weights = np.rint(np.ldexp(scaled, exponents[:, None].astype(int)))
        mean = np.rint(np.ldexp(basis.mean.ravel().astype(np.float64), mean_bits))
        if max(np.abs(weights).max(initial=0), np.abs(mean).max(initial=0)) >= 2**31:
            raise ConfigurationError("the scan's counts are too large for a PCA model; store it with pixel_histogram")
        return cls(
            detector=basis.detector,
            stabilised=basis.stabilised,
            step=step,
            mean=mean.astype(np.int32),
            mean_bits=mean_bits,
            weights=weights.astype(np.int32),
            exponents=exponents,
        )

    @cached_property
    def _integers(self) -> Array:
        """Weights with 24 digits after the point, as whole float64 numbers, (rank, pixels)."""
        shift = (WEIGHT_BITS - self.exponents.astype(int))[:, None]
        result: Array = np.ldexp(self.weights.astype(np.float64), shift)
        return result

    @cached_property
    def _encoder(self) -> Array:
        """Least-squares encoding matrix (pixels, rank) of the integer weights, which are not
        quite orthogonal.
        """
        weights = np.ldexp(self._integers, -WEIGHT_BITS)
        return (np.linalg.pinv(weights @ weights.T, rcond=1e-12, hermitian=True) @ weights).T.astype(np.float32)

    @cached_property
    def _reach(self) -> Array:
        """Largest |weight| of each component, for the bound on partial sums."""
        result: Array = np.abs(self._integers).max(1)
        return result

    def coefficients(self, counts: Array) -> Array:
        """Integer coefficients (positions, rank), int64, of counts (positions, pixels)."""
        # Floating point is free here: only the integers that come out are stored, whatever machine found them.
        result = np.zeros((len(counts), self.rank), np.int64)
        mean = np.ldexp(self.mean.astype(np.float32), -self.mean_bits)
        # A few patterns at once: as float32, a chunk of bytes would take four times its size.
        rows = max(1, BATCH // max(1, counts.shape[1]))
        for first in range(0, len(counts), rows):
            features = as_features(counts[first : first + rows], self.stabilised)
            features -= mean
            if self.rank:
                result[first : first + rows] = np.rint(features @ self._encoder)
        return result

    def in_range(self, coefficients: Array) -> bool:
        """Whether :meth:`predict` is exact for these coefficients."""
        largest = np.abs(coefficients.astype(np.float64)).max(0, initial=0.0)
        mean = np.abs(self.mean.astype(np.float64)).max(initial=0.0) * 2.0 ** (WEIGHT_BITS - self.mean_bits)
        # The largest partial sum that any order of summation can meet.
        return bool(largest @ self._reach + mean < EXACT)

    def predict(self, coefficients: Array) -> Array:
        """Prediction in fixed point, int64 with 12 binary digits, (pixels, positions), of
        (positions, rank).

        Raises
        ------
        CorruptChunkError
            If the coefficients are too large to have come from this model's encoder.
        """
        if not self.in_range(coefficients):
            raise CorruptChunkError("PCA coefficients out of range")
        result = np.empty((self.mean.size, len(coefficients)), np.int64)
        factor = coefficients.T.astype(np.float64)
        mean = np.ldexp(self.mean.astype(np.float64), WEIGHT_BITS - self.mean_bits)
        for pixel in range(0, self.mean.size, TILE):
            product = self._integers[:, pixel : pixel + TILE].T @ factor
            product += mean[pixel : pixel + TILE, None]
            result[pixel : pixel + TILE] = product
        # Whole numbers: the shift of the integer, not a division of the float, defines the
        # rounding.
        result >>= WEIGHT_BITS - FRACTION_BITS
        return result

    def to_bytes(self) -> bytes:
        """Serialise: magic, version, a JSON header, then exponents, mean and weights as byte
        planes (FORMAT.md).
        """
        head = json.dumps(
            {
                "detector": list(self.detector),
                "mean_bits": self.mean_bits,
                "rank": self.rank,
                "stabilised": self.stabilised,
                "step": self.step,
            },
            sort_keys=True,
        ).encode()
        # Neighbouring pixels of the mean are alike: differences compress.
        steps = np.diff(self.mean.astype(np.int64), prepend=0)
        return b"".join(
            [
                MAGIC,
                bytes([VERSION]),
                len(head).to_bytes(4, "little"),
                head,
                self.exponents.tobytes(),
                _planes(steps, 5),
                _planes(self.weights.astype(np.int64), 4),
            ]
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Inverse of :meth:`to_bytes`.

        Raises
        ------
        CorruptChunkError
            If the bytes are not a model.
        FormatVersionError
            If they were written by a newer version.
        """
        if data[:4] != MAGIC or len(data) < 9:
            raise CorruptChunkError("not a PCA model")
        if data[4] != VERSION:
            raise FormatVersionError(
                f"the PCA model has format version {data[4]}, this stemcodecs reads {VERSION}; upgrade"
            )
        start = 9 + int.from_bytes(data[5:9], "little")
        if start > 9 + _LONGEST_HEAD:
            raise CorruptChunkError("the header of the PCA model is broken")
        try:
            head = json.loads(data[9:start])
            rows, columns = (int(n) for n in head["detector"])
            rank, mean_bits = int(head["rank"]), int(head["mean_bits"])
            stabilised, step = bool(head["stabilised"]), float(head["step"])
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            raise CorruptChunkError("the header of the PCA model is broken") from error
        pixels = rows * columns
        if min(rows, columns, rank) < 0 or len(data) != start + rank + 5 * pixels + 4 * rank * pixels:
            raise CorruptChunkError("the PCA model has the wrong size")
        exponents = np.frombuffer(data, np.uint8, rank, start)
        steps = _from_planes(data, start + rank, pixels, 5)
        weights = _from_planes(data, start + rank + 5 * pixels, rank * pixels, 4)
        mean = np.cumsum(steps)
        if (
            not 0 <= mean_bits <= MEAN_BITS
            or exponents.max(initial=0) > WEIGHT_BITS
            or np.abs(mean).max(initial=0) >= 2**31
        ):
            raise CorruptChunkError("the PCA model has values out of range")
        return cls(
            detector=(rows, columns),
            stabilised=stabilised,
            step=step,
            mean=mean.astype(np.int32),
            mean_bits=mean_bits,
            weights=weights.astype(np.int32).reshape(rank, pixels),
            exponents=exponents,
        )

    @cached_property
    def _serialised(self) -> tuple[str, bytes]:
        raw = self.to_bytes()
        return hashlib.sha256(raw).hexdigest(), zlib.compress(raw, 9)

    @property
    def digest(self) -> str:
        """sha256 of :meth:`to_bytes`, hexadecimal: the identity of the model."""
        return self._serialised[0]

    @property
    def packed(self) -> bytes:
        """:meth:`to_bytes` as a zlib stream: what is stored."""
        return self._serialised[1]

    @property
    def uri_bytes(self) -> int:
        """Length of :meth:`to_uri`."""
        return len(PREFIX) + 4 * -(-len(self.packed) // 3)

    def to_uri(self) -> str:
        """A ``data:`` URI for a codec's configuration.

        Raises
        ------
        ConfigurationError
            If the model is above 16 MiB; above 4 MiB a warning says that opening will be slow.
        """
        advice = "lower the rank, bin the detector, or keep the model beside the array (stemcodecs.lowrank.write_model)"
        if self.uri_bytes > REFUSE_BYTES:
            raise ConfigurationError(
                f"the PCA model takes {self.uri_bytes / 2**20:.1f} MiB, metadata may hold {REFUSE_BYTES >> 20}; "
                f"{advice}"
            )
        if self.uri_bytes > WARN_BYTES:
            warnings.warn(
                f"the PCA model puts {self.uri_bytes / 2**20:.1f} MiB into the metadata, which slows opening; {advice}",
                stacklevel=2,
            )
        return PREFIX + base64.b64encode(self.packed).decode()

    @classmethod
    def load(cls, uri: str | None, digest: str) -> LowRankModel:
        """The model with this digest: from this process's cache, else from the URI.

        Raises
        ------
        ConfigurationError
            If the URI is missing and the model was not loaded before, or the URI does not hold this
            model.
        """
        kept = cls.kept(digest)
        if kept is not None:
            return kept
        if uri is None:
            raise ConfigurationError(
                f"the PCA model {digest[:12]}… is not in the array's metadata and was not found beside it; "
                "open the array through its group, as in zarr.open('scan.zarr')['data'] (inside shards, in Zarr "
                "format 2, and to write: with stemcodecs.lowrank.open_with_model)"
            )
        if not uri.startswith(PREFIX):
            raise ConfigurationError("the PCA model in the configuration is not a data: URI of this codec")
        try:
            raw = inflate(base64.b64decode(uri[len(PREFIX) :], validate=True))
        except (ValueError, zlib.error) as error:
            raise ConfigurationError("the PCA model in the configuration is damaged; restore the metadata") from error
        if hashlib.sha256(raw).hexdigest() != digest:
            raise ConfigurationError(
                "the PCA model in the configuration does not match its sha256; restore the metadata"
            )
        return cls.from_bytes(raw).keep()

    @staticmethod
    def kept(digest: str) -> LowRankModel | None:
        """A model in this process's cache: one that somebody holds, or one of the last."""
        with _lock:
            return _kept.get(digest) or _alive.get(digest)

    def keep(self) -> LowRankModel:
        """Put the model into this process's cache, so that codecs with its digest find it."""
        with _lock:
            model = _alive.setdefault(self.digest, self)
            return _kept.put(self.digest, model, model.nbytes)

    @property
    def nbytes(self) -> int:
        """Memory that the model takes once it has been used, in bytes."""
        # The integers as they are stored, and as float64 for the products with coefficients and with patterns.
        return int(self.mean.nbytes + 5 * self.weights.nbytes)


def inflate(data: bytes) -> bytes:
    """Decompress a model of at most 4 GiB, and no more than its bytes earn: a small stream must not fill the memory.

    Raises
    ------
    ValueError, zlib.error
        If it does not end there, or is damaged.
    """
    engine = zlib.decompressobj()
    # A limit on the output, not on the input: a megabyte of zlib can be a gigabyte of zeros.
    raw = engine.decompress(data, min(LARGEST_BYTES, FREE + EARNED * len(data)))
    if not engine.eof:
        raise ValueError("the model does not end")
    return raw


def _planes(values: Array, width: int) -> bytes:
    """Zigzag integers as byte planes, low bytes first: small values leave runs of zeros."""
    zigzag = ((values << 1) ^ (values >> 63)).ravel().astype("<u8")
    return zigzag.view(np.uint8).reshape(-1, 8)[:, :width].T.tobytes()


def _from_planes(data: bytes, start: int, count: int, width: int) -> Array:
    planes = np.frombuffer(data, np.uint8, count * width, start).reshape(width, count)
    zigzag = np.zeros((count, 8), np.uint8)
    zigzag[:, :width] = planes.T
    value = zigzag.view("<u8").ravel().astype(np.int64)
    return (value >> 1) ^ -(value & 1)
