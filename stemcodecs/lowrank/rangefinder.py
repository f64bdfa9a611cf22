"""Streaming randomised range finder: the numerics of an out-of-core PCA, one block of patterns at a
time.

Each pass over the scan accumulates Z = Xᵀ(XΩ) block by block (P pixels × ℓ sketch columns, never P²
nor J²). Between passes Ω becomes an orthonormal basis of Z: a power iteration (Halko, Martinsson
and Tropp 2011, doi:10.1137/090771806). After the last pass the pair (Ω, Z) gives the eigenvectors
of XᵀX by the stabilised Nyström formula (Tropp, Yurtsever, Udell and Cevher 2017,
arXiv:1706.05736), which is worth half an iteration more than a Rayleigh-Ritz step and needs no
further pass: two passes are one power iteration and the result.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

import numpy as np

from stemcodecs.lowrank.basis import as_features

__all__ = [
    "PassSums",
    "first_sketch",
    "forget_products",
    "next_sketch",
    "nystrom",
    "pass_sums",
    "symmetric_product",
]

Array = np.ndarray[Any, Any]

_CACHED = 1 << 16
_scratch = threading.local()
# Appending and popping are atomic.
_products: list[Array] = []


@dataclass(kw_only=True)
class PassSums:
    """What one block adds: sums over its patterns of shifted features x − s."""

    product: Array
    """Σ x (xᵀΩ), float32 per block, float64 once accumulated, (pixels, sketch)."""
    features: Array | float = 0.0
    """Σ x, float64, (pixels,)."""
    counts: Array | float = 0.0
    """Σ counts, float64, (pixels,)."""
    energy: float = 0.0
    """Σ |x|²."""
    positions: int = 0

    def add(self, other: PassSums) -> None:
        """Accumulate another partial into this one."""
        self.product += other.product
        self.features = self.features + other.features
        self.counts = self.counts + other.counts
        self.energy += other.energy
        self.positions += other.positions

    def give_back(self) -> None:
        """Let the next block use the memory of the product, which nobody may look at any more."""
        _products.append(self.product)

    @classmethod
    def zero(cls, pixels: int, columns: int) -> PassSums:
        """The neutral element."""
        return cls(product=np.zeros((pixels, columns)))


def pass_sums(counts: Array, shift: Array | None, sketch: Array, stabilised: bool, moments: bool) -> PassSums:
    """PassSums sums of counts (positions, pixels); ``shift`` (pixels,) is subtracted from the
    features.

    ``moments`` asks for all sums; they are the same in every pass, so later passes take the product
    alone. A shift near the mean keeps float32 products accurate when the centred energy is a small
    part of the whole.
    """
    features = _features(counts, shift, stabilised)
    product = _take((sketch.shape[0], sketch.shape[1]))
    np.matmul(features.T, features @ sketch, out=product)
    if not moments:
        return PassSums(product=product)
    # Of the few patterns of a block, small counts are summed twice as fast in 32 bits, and without rounding.
    narrow = counts.dtype.kind == "u" and counts.dtype.itemsize <= 2 and len(counts) <= 1 << 16
    return PassSums(
        product=product,
        features=(np.ones(len(features), np.float32) @ features).astype(np.float64),
        counts=counts.sum(0, dtype=np.uint32 if narrow else np.float64).astype(np.float64),
        # Per pattern in float32, over patterns in float64.
        energy=float(np.einsum("ij,ij->i", features, features).sum(dtype=np.float64)),
        positions=len(counts),
    )


def _features(counts: Array, shift: Array | None, stabilised: bool) -> Array:
    """Shifted features of a block, in memory that this thread uses again for its next block."""
    kept: Array | None = getattr(_scratch, "features", None)
    if kept is None or kept.size < counts.size:
        kept = _scratch.features = np.empty(counts.size, np.float32)
    features = kept[: counts.size].reshape(counts.shape)
    # A few patterns at a time stay in the cache from one operation to the next.
    rows = max(1, _CACHED // max(1, counts.shape[1]))
    for first in range(0, len(counts), rows):
        part = features[first : first + rows]
        as_features(counts[first : first + rows], stabilised, out=part)
        if shift is not None:
            part -= shift
    return features


def _take(shape: tuple[int, int]) -> Array:
    """Memory for a product: fresh memory has to be cleared first."""
    while _products:
        product = _products.pop()
        if product.shape == shape:
            return product
    return np.empty(shape, np.float32)


def forget_products() -> None:
    """Let go of the memory that :meth:`PassSums.give_back` keeps."""
    _products.clear()


def first_sketch(pixels: int, columns: int, seed: int) -> Array:
    """A Gaussian test matrix, float32, (pixels, columns)."""
    return np.random.default_rng(seed).standard_normal((pixels, columns), dtype=np.float32)


def symmetric_product(partial: PassSums, sketch: Array, centred: bool) -> Array:
    """AΩ for A = Σ (x − x̄)(x − x̄)ᵀ if ``centred``, else Σ x xᵀ; float64, (pixels, sketch)."""
    if not centred:
        return partial.product
    mean = np.asarray(partial.features) / partial.positions
    # The mean is taken out of the sum afterwards: it is known only when the pass is over.
    return partial.product - partial.positions * np.outer(mean, mean @ sketch)


def next_sketch(product: Array) -> Array:
    """An (almost) orthonormal float32 basis of the product's columns, for the next power
    iteration.
    """
    # Whitening by the small Gram matrix: a quarter of the time and memory of a tall QR. Directions
    # 10⁷ times weaker than the strongest are below the float32 products anyway.
    energies, turn = np.linalg.eigh(product.T @ product)
    floor = 1e-14 * energies[-1] + np.finfo(np.float64).tiny
    whitened: Array = product @ (turn / np.sqrt(np.maximum(energies, floor)))
    return whitened.astype(np.float32)


def nystrom(product: Array, sketch: Array) -> tuple[Array, Array]:
    """Eigenvectors (rows, float64) and eigenvalues of A from AΩ and Ω, strongest first."""
    size = float(np.linalg.norm(product))
    if size == 0.0:
        return np.zeros((0, product.shape[0])), np.zeros(0)
    # Rounding makes the core indefinite: a shift of its size, taken off the eigenvalues again, mends that.
    shift = np.sqrt(product.shape[0]) * np.finfo(np.float32).eps * size
    # In place: these arrays are the most that the client holds.
    shifted = sketch.astype(np.float64)
    core = shifted.T @ product + shift * (shifted.T @ shifted)
    shifted *= shift
    shifted += product
    values, vectors = np.linalg.eigh((core + core.T) / 2)
    usable = values > np.finfo(np.float64).eps * values[-1]
    factor = shifted @ (vectors[:, usable] / np.sqrt(values[usable]))
    del shifted
    # Eigenvectors of the small Gram matrix instead of an SVD of the tall one: a third of the
    # memory.
    energies, turn = np.linalg.eigh(factor.T @ factor)
    energies, turn = energies[::-1], turn[:, ::-1]
    solid = energies > np.finfo(np.float64).eps * len(energies) * energies[0]
    left = (turn[:, solid] / np.sqrt(energies[solid])).T @ factor.T
    return left, np.maximum(energies[solid] - shift, 0.0)
