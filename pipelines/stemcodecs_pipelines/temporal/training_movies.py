"""Movies that a network learns from: simulated ones, or the user's own, in random crops."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from stemcodecs.errors import ConfigurationError
from stemcodecs.simulate.movies import simulate_movie
from stemcodecs.temporal.masks import TILE
from stemcodecs.temporal.network_input import network_input
from stemcodecs.temporal.sampling import Sampling

__all__ = ["VALIDATION_SEED", "Batch", "TrainingMovies"]

Array = np.ndarray[Any, Any]

VALIDATION_SEED = 1 << 31
"""Seeds of the movies that no network is trained on begin here."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Crops of some movies.

    Attributes
    ----------
    measured : ndarray of float32
        Normalised measurements, (n, planes, rows, columns).
    wanted : ndarray of float32
        Frames without noise (the user's own: as they are) in the units of the measurement, (n, frames, y, x).
    weight : ndarray of float32
        What a unit is of white, (n, 1, 1, 1): errors are compared as PSNR does it.
    masks : ndarray of float32 or None
        The masks of all of them, (1, frames, y, x); None for bins.
    """

    measured: Array
    wanted: Array
    weight: Array
    masks: Array | None


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingMovies:
    """Noisy clips of B frames, what a network should give for them, and how they are measured.

    Attributes
    ----------
    noisy, wanted : ndarray
        (clips, frames, y, x), in units of the camera.
    white : float
        Value of a white pixel.
    sampling : Sampling
        What is measured of a clip.
    """

    noisy: Array
    wanted: Array
    white: float
    sampling: Sampling

    @classmethod
    def simulated(
        cls, count: int, sampling: Sampling, *, motion: str, seed: int, side: int = 128,
        progress: Callable[[int], None] = lambda done: None,
    ) -> Self:  # fmt: skip
        """Simulated movies of consecutive seeds."""
        noisy = np.empty((count, sampling.frames, side, side), np.uint8)
        wanted = np.empty(noisy.shape, np.float32)
        for i in range(count):
            movie = simulate_movie("any", (sampling.frames, side, side), motion, seed=seed + i)
            noisy[i], wanted[i] = movie.frames, movie.clean
            progress(i + 1)
        return cls(noisy=noisy, wanted=wanted, white=255.0, sampling=sampling)

    @classmethod
    def of_movies(cls, movies: list[Array], sampling: Sampling, *, side: int = 128) -> Self:
        """Clips of the user's movies (time, y, x), cut without overlap; their frames, noise included, are the aim.

        Raises
        ------
        ConfigurationError
            No movie is long and large enough for a clip.
        """
        frames = sampling.frames
        clips = [
            movie[t : t + frames, y : y + side, x : x + side]
            for movie in movies
            for t in range(0, movie.shape[0] - frames + 1, frames)
            for y in range(0, movie.shape[1] - side + 1, side)
            for x in range(0, movie.shape[2] - side + 1, side)
        ]
        if not clips:
            raise ConfigurationError(
                f"no movie has {frames} frames of {side} × {side} pixels; give longer movies, or fewer --frames"
            )
        noisy = np.stack(clips)
        return cls(noisy=noisy, wanted=noisy, white=float(max(noisy.max(), 1)), sampling=sampling)

    def __len__(self) -> int:
        return len(self.noisy)

    def split(self, last: int) -> tuple[Self, Self]:
        """All clips but the last ones, and these.

        Raises
        ------
        ConfigurationError
            None would be left to learn from.
        """
        if len(self) <= last:
            raise ConfigurationError(
                f"{len(self)} clips are too few to learn from and to validate with; give more movies"
            )
        parts = ((self.noisy[of], self.wanted[of]) for of in (slice(None, -last), slice(-last, None)))
        first, rest = (
            type(self)(noisy=noisy, wanted=wanted, white=self.white, sampling=self.sampling) for noisy, wanted in parts
        )
        return first, rest

    def whole(self, clip: int) -> Batch:
        """One clip, not cropped."""
        return self._batch([(self.noisy[clip], self.wanted[clip])], 0, 0)

    def batch(self, rng: np.random.Generator, size: int, side: int) -> Batch:
        """Random crops, some reversed in time or turned over."""
        span = self.noisy.shape[-1] - side
        # A crop begins where the tile does: one set of masks serves the whole batch.
        y, x = (TILE * int(i) for i in rng.integers(0, span // TILE + 1, 2))
        parts = []
        for clip in rng.integers(0, len(self), size):
            noisy, wanted = (a[clip, :, y : y + side, x : x + side] for a in (self.noisy, self.wanted))
            backwards, over = rng.random(2) < 0.5
            if backwards:
                noisy, wanted = noisy[::-1], wanted[::-1]
            if over:
                noisy, wanted = noisy.swapaxes(1, 2), wanted.swapaxes(1, 2)
            parts.append((noisy, wanted))
        return self._batch(parts, y, x)

    def _batch(self, parts: list[tuple[Array, Array]], y: int, x: int) -> Batch:
        """Measure crops of equal size that were cut at (y, x)."""
        shape = parts[0][0].shape[1:]
        masks = None
        if self.sampling.measurement != "bins":
            masks = self.sampling.masks(self.noisy.shape[-2:])[:, y : y + shape[0], x : x + shape[1]]
        measured, frames, weights = [], [], []
        for noisy, wanted in parts:
            if masks is None:
                total, opened = self.sampling.measure(np.ascontiguousarray(noisy)), self.sampling.opened(shape)
            else:
                total = (noisy.astype(np.int64) * masks).sum(axis=0, keepdims=True)
                opened = masks.sum(axis=0, dtype=np.int64, keepdims=True)
            given = network_input(total, opened)
            measured.append(given.measured)
            frames.append(((wanted - given.shift) / given.scale).astype(np.float32))
            weights.append(given.scale / self.white)
        return Batch(
            measured=np.stack(measured),
            wanted=np.stack(frames),
            weight=np.array(weights, np.float32).reshape(-1, 1, 1, 1),
            masks=None if masks is None else masks[None].astype(np.float32),
        )
