"""On-detector encoding: a matrix learned on one scan is loaded on the detector and reduces every
later pattern.

A pattern of N pixels leaves the detector as S' = N/C coefficients, one matrix product per pattern
(Huang et al., "Matrix factorization approaches to lossy compression of ptychography data"; PCA of
ptychographic data: Loetgering et al. 2017, doi:10.1515/aot-2017-0053). There is no pointwise
guarantee: how well it works depends on how alike the training and the new patterns are, which
contrast matching improves (:mod:`stemcodecs.lowrank.contrast`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from stemcodecs.errors import ConfigurationError
from stemcodecs.lowrank.basis import PcaBasis, check_detector, exact_basis

__all__ = ["DetectorEncoder"]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, kw_only=True, eq=False)
class DetectorEncoder:
    """Encoding matrix, applied pattern by pattern or to a batch.

    Attributes
    ----------
    basis : PcaBasis
        What was learned; its components are the rows of the encoding matrix.
    """

    basis: PcaBasis

    @classmethod
    def fit(
        cls,
        training: Array,
        *,
        ratio: float | None = None,
        coefficients: int | None = None,
        centred: bool = False,
        stabilised: bool = False,
    ) -> Self:
        """Learn from training patterns in memory: a first scan, or a simulated object without
        noise.

        For a first scan that is larger than memory, fit the basis out of core:
        ``DetectorEncoder(basis=stemcodecs_pipelines.pca_basis(scan, rank=…, centred=False, stabilised=False))``.

        Parameters
        ----------
        training : ndarray, (…, det_y, det_x)
            Counts, or noise-free rates.
        ratio, coefficients : float or int
            Compression C = N/S', or the number S' itself; give one.
        centred, stabilised : bool
            The defaults are plain linear encoding, the simplest for hardware.

        Raises
        ------
        ConfigurationError
            If S' is more than the training data allows, or both or none of ratio and coefficients
            are given.
        """
        if training.ndim < 3:
            raise ConfigurationError(f"training needs a stack of patterns, not an array of shape {training.shape}")
        kept = coefficient_count(training.shape[-2] * training.shape[-1], ratio, coefficients)
        return cls(basis=exact_basis(training, rank=kept, centred=centred, stabilised=stabilised))

    @property
    def ratio(self) -> float:
        """Compression C = N/S' in numbers per pattern."""
        return self.basis.mean.size / max(self.basis.rank, 1)

    @property
    def matrix(self) -> Array:
        """The encoding matrix, float32, (pixels, S')."""
        return np.ascontiguousarray(self.basis.components.reshape(self.basis.rank, self.basis.mean.size).T)

    def at(self, *, ratio: float | None = None, coefficients: int | None = None) -> DetectorEncoder:
        """The same encoder at a higher compression: its first coefficients."""
        kept = coefficient_count(self.basis.mean.size, ratio, coefficients)
        return DetectorEncoder(basis=self.basis.truncate(kept))

    def encode(self, patterns: Array) -> Array:
        """Coefficients (…, S'), float32, of one pattern (det_y, det_x) or a batch (…, det_y,
        det_x).
        """
        check_detector(patterns.shape, self.basis.detector)
        return self.basis.project(patterns)

    def decode(self, coefficients: Array) -> Array:
        """Rates (…, det_y, det_x), at least 0, from coefficients (…, S')."""
        if coefficients.shape[-1:] != (self.basis.rank,):
            raise ConfigurationError(
                f"the encoder gives {self.basis.rank} coefficients a pattern, got an array of "
                f"shape {coefficients.shape}"
            )
        return self.basis.rebuild(coefficients)


def coefficient_count(pixels: int, ratio: float | None, coefficients: int | None) -> int:
    """S' from C = N/S' or given directly."""
    if (ratio is None) == (coefficients is None):
        raise ConfigurationError("give either the compression ratio or the number of coefficients of the encoder")
    if coefficients is not None:
        return coefficients
    assert ratio is not None
    if not 1 <= ratio <= pixels:
        raise ConfigurationError(f"a compression of {ratio} is not possible with {pixels} pixels; choose 1 to {pixels}")
    return max(1, round(pixels / ratio))
