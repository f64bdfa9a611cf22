"""A PCA basis in floating point, as fitted: eigen-patterns, their strengths, and the noise they
carry.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from stemcodecs.errors import ConfigurationError
from stemcodecs.lowrank.stabilize import anscombe, anscombe_variance, inverse_anscombe

__all__ = ["PcaBasis", "as_features", "check_rank", "exact_basis"]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, kw_only=True, eq=False)
class PcaBasis:
    """Eigen-patterns of a scan.

    Attributes
    ----------
    components : ndarray, float32, (rank, det_y, det_x)
        Orthonormal eigen-patterns, strongest first. Components without energy are left out, so a
        constant scan has rank 0.
    eigenvalues : ndarray, float64, (rank,)
        Mean square of each coefficient over the scan.
    mean : ndarray, float32, (det_y, det_x)
        Mean of the (stabilised) patterns if ``centred``, else zero.
    mean_counts : ndarray, float64, (det_y, det_x)
        Mean pattern in counts.
    total : float
        Mean energy of a pattern about ``mean``: the sum of all eigenvalues, kept or not.
    positions : int
        Number of patterns that were fitted.
    centred, stabilised : bool
        Whether the mean was subtracted, and whether counts went through the Anscombe transform.
    """

    components: Array
    eigenvalues: Array
    mean: Array
    mean_counts: Array
    total: float
    positions: int
    centred: bool
    stabilised: bool

    @property
    def rank(self) -> int:
        """Number of eigen-patterns."""
        return int(self.components.shape[0])

    @property
    def detector(self) -> tuple[int, int]:
        """Detector shape (det_y, det_x)."""
        return (int(self.mean.shape[0]), int(self.mean.shape[1]))

    @property
    def explained_variance_ratio(self) -> Array:
        """Share of ``total`` that each component carries; float64, (rank,)."""
        return self.eigenvalues / self.total if self.total > 0 else np.zeros_like(self.eigenvalues)

    def noise(self) -> Array:
        """Standard deviation of each coefficient from counting noise alone; float64, (rank,)."""
        variance = anscombe_variance(self.mean_counts) if self.stabilised else self.mean_counts
        result: Array = np.sqrt(np.einsum("kp,p->k", self._flat().astype(np.float64) ** 2, variance.ravel()))
        return result

    def truncate(self, rank: int) -> PcaBasis:
        """The first ``rank`` components: PCA bases are nested. Rank 0 leaves the mean alone."""
        if rank != 0:
            check_rank(rank, self.rank, "the basis")
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return PcaBasis(
            **{
                **fields,
                "components": self.components[:rank],
                "eigenvalues": self.eigenvalues[:rank],
            }
        )

    def project(self, patterns: Array) -> Array:
        """Coefficients (…, rank) of counts (…, det_y, det_x); float32."""
        lead = check_detector(patterns.shape, self.detector)
        flat = as_features(patterns.reshape(-1, self.mean.size), self.stabilised) - self.mean.ravel()
        return (flat @ self._flat().T).reshape(*lead, self.rank)

    def rebuild(self, coefficients: Array) -> Array:
        """Rates (…, det_y, det_x) in counts, at least 0, from coefficients (…, rank)."""
        flat = coefficients.reshape(math.prod(coefficients.shape[:-1]), self.rank) @ self._flat() + self.mean.ravel()
        rate = inverse_anscombe(flat) if self.stabilised else np.maximum(flat, 0)
        return rate.reshape(*coefficients.shape[:-1], *self.detector)

    def _flat(self) -> Array:
        return self.components.reshape(self.rank, self.mean.size)


def check_detector(shape: tuple[int, ...], detector: tuple[int, int]) -> tuple[int, ...]:
    """The leading dimensions of patterns of this shape, which must end in the whole detector."""
    if len(shape) < 2 or tuple(shape[-2:]) != tuple(detector):
        raise ConfigurationError(
            f"the PCA basis is for a detector of {detector[0]} × {detector[1]} pixels, the data "
            "has shape "
            f"{tuple(shape)}; its last two dimensions must be the whole detector (fit a basis for "
            "this detector, "
            "or choose chunks that span it)"
        )
    return tuple(shape[:-2])


def check_rank(rank: int, largest: int, of: str) -> None:
    """Refuse a rank that the data cannot give."""
    if not 1 <= rank <= largest:
        raise ConfigurationError(
            f"rank {rank} is not possible: {of} allows 1 to {largest}; choose a rank in that range"
        )


def as_features(counts: Array, stabilised: bool, out: Array | None = None) -> Array:
    """Counts as the float32 values that PCA works on, into ``out`` if it is given; refuses NaN, infinities, and
    negative counts.
    """
    if counts.dtype.kind not in "biuf":
        raise ConfigurationError(f"PCA needs real numbers, not {counts.dtype}")
    if counts.dtype.kind == "f" and not np.isfinite(counts).all():
        raise ConfigurationError("the scan holds NaN or infinite values, which PCA cannot model; replace them first")
    if stabilised:
        if counts.dtype.kind in "if" and counts.size and counts.min() < 0:
            raise ConfigurationError(
                "the scan holds negative values, which the Anscombe transform cannot take; "
                "replace detector gaps by 0, or fit plain counts (stabilised=False, stemcodecs pca --raw)"
            )
        return anscombe(counts, out)
    features = np.empty(counts.shape, np.float32) if out is None else out
    features[...] = counts
    return features


def exact_basis(patterns: Array, *, rank: int, centred: bool = True, stabilised: bool = True) -> PcaBasis:
    """Fit by a full SVD in memory, in float64: for small scans, training sets, and as the reference
    in tests.

    Parameters
    ----------
    patterns : ndarray, (…, det_y, det_x)
        Counts.
    rank : int
        Number of components, at most the smaller of positions and pixels.

    Raises
    ------
    ConfigurationError
        If the rank is not possible, or the data holds NaN (or negative values with ``stabilised``).
    """
    if patterns.ndim < 3:
        raise ConfigurationError(f"PCA needs a stack of patterns, not an array of shape {patterns.shape}")
    detector = (int(patterns.shape[-2]), int(patterns.shape[-1]))
    counts = patterns.reshape(-1, detector[0] * detector[1])
    check_rank(
        rank,
        min(counts.shape),
        f"a scan of {counts.shape[0]} positions and {counts.shape[1]} pixels",
    )
    features = as_features(counts, stabilised).astype(np.float64)
    mean = features.mean(0) if centred else np.zeros(features.shape[1])
    features -= mean
    _, strength, components = np.linalg.svd(features, full_matrices=False)
    return assemble(
        components=components,
        energies=strength**2,
        total=float((features**2).sum()),
        mean=mean,
        sum_counts=counts.sum(0, dtype=np.float64),
        positions=len(counts),
        rank=rank,
        detector=detector,
        centred=centred,
        stabilised=stabilised,
    )


def assemble(
    *,
    components: Array,
    energies: Array,
    total: float,
    mean: Array,
    sum_counts: Array,
    positions: int,
    rank: int,
    detector: tuple[int, int],
    centred: bool,
    stabilised: bool,
) -> PcaBasis:
    """Put a basis together: energies are sums over the scan; components without energy are
    dropped.
    """
    # Float32 features: what lies below their rounding is not a component but arithmetic.
    scale = total + positions * float((mean**2).sum())
    kept = min(rank, int(np.count_nonzero(energies > 1e-12 * scale)))
    components = components[:kept]
    # An eigen-pattern is defined up to its sign: make its strongest pixel positive.
    peak = np.take_along_axis(components, np.abs(components).argmax(1)[:, None], 1) if kept else np.ones((0, 1))
    return PcaBasis(
        components=(components * np.sign(peak)).astype(np.float32).reshape(kept, *detector),
        eigenvalues=energies[:kept] / positions,
        mean=mean.astype(np.float32).reshape(detector),
        mean_counts=(sum_counts / positions).reshape(detector),
        total=total / positions,
        positions=positions,
        centred=centred,
        stabilised=stabilised,
    )
