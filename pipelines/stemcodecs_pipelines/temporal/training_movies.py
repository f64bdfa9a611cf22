"""Movies that a network learns from: simulated ones, or the user's own, in random crops."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from stemcodecs.errors import ConfigurationError
from stemcodecs.simulate.movies import simulate_movie
from stemcodecs.temporal.masks import TILE, mask_of
from stemcodecs.temporal.network_input import network_input

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
        Normalised measurements, (n, 1, y, x).
    wanted : ndarray of float32
        Frames without noise (the user's own: as they are) in the units of the measurement, (n, frames, y, x).
    weight : ndarray of float32
        What a unit is of white, (n, 1, 1, 1): errors are compared as PSNR does it.
    """

    measured: Array
    wanted: Array
    weight: Array


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingMovies:
    """Noisy clips of ``frames`` frames, what a network should give for them, and their masks.

    Attributes
    ----------
    noisy, wanted : ndarray
        (clips, frames, y, x), in units of the camera.
    white : float
        Value of a white pixel.
    masks : ndarray of uint8
        (frames, y, x).
    """

    noisy: Array
    wanted: Array
    white: float
    masks: Array

    @classmethod
    def simulated(
        cls, count: int, frames: int, *, motion: str, mask: str, mask_seed: int, seed: int, side: int = 128,
        progress: Callable[[int], None] = lambda done: None,
    ) -> Self:  # fmt: skip
        """Simulated movies of consecutive seeds."""
        noisy = np.empty((count, frames, side, side), np.uint8)
        wanted = np.empty((count, frames, side, side), np.float32)
        for i in range(count):
            movie = simulate_movie("any", (frames, side, side), motion, seed=seed + i)
            noisy[i], wanted[i] = movie.frames, movie.clean
            progress(i + 1)
        return cls(noisy=noisy, wanted=wanted, white=255.0, masks=mask_of(mask, frames, mask_seed, (side, side)))

    @classmethod
    def of_movies(cls, movies: list[Array], frames: int, *, mask: str, mask_seed: int, side: int = 128) -> Self:
        """Clips of the user's movies (time, y, x), cut without overlap; their frames, noise included, are the aim.

        Raises
        ------
        ConfigurationError
            No movie is long and large enough for a clip.
        """
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
        masks = mask_of(mask, frames, mask_seed, (side, side))
        return cls(noisy=noisy, wanted=noisy, white=float(max(noisy.max(), 1)), masks=masks)

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
        first = type(self)(noisy=self.noisy[:-last], wanted=self.wanted[:-last], white=self.white, masks=self.masks)
        rest = type(self)(noisy=self.noisy[-last:], wanted=self.wanted[-last:], white=self.white, masks=self.masks)
        return first, rest

    def whole(self, clip: int) -> Batch:
        """One clip, not cropped."""
        total = (self.noisy[clip].astype(np.int64) * self.masks).sum(axis=0)
        given = network_input(total, self.masks)
        wanted = (self.wanted[clip].astype(np.float32) - given.shift) / given.scale
        weight = np.full((1, 1, 1, 1), given.scale / self.white, np.float32)
        return Batch(measured=given.measured[None, None], wanted=wanted[None].astype(np.float32), weight=weight)

    def batch(self, rng: np.random.Generator, size: int, side: int) -> tuple[Batch, Array]:
        """Random crops, some reversed in time or turned over, and their masks (1, frames, y, x)."""
        span = self.noisy.shape[-1] - side
        # A crop begins where the tile does: one set of masks serves the whole batch.
        y, x = (TILE * int(i) for i in rng.integers(0, span // TILE + 1, 2))
        masks = self.masks[:, y : y + side, x : x + side]
        parts = []
        for clip in rng.integers(0, len(self), size):
            noisy, wanted = (a[clip, :, y : y + side, x : x + side] for a in (self.noisy, self.wanted))
            backwards, over = rng.random(2) < 0.5
            if backwards:
                noisy, wanted = noisy[::-1], wanted[::-1]
            if over:
                noisy, wanted = noisy.swapaxes(1, 2), wanted.swapaxes(1, 2)
            given = network_input((noisy.astype(np.int64) * masks).sum(axis=0), masks)
            parts.append((given.measured[None], (wanted - given.shift) / given.scale, given.scale / self.white))
        measured, frames, weights = zip(*parts, strict=True)
        weight = np.array(weights, np.float32).reshape(-1, 1, 1, 1)
        wanted_all = np.stack(frames).astype(np.float32)
        return Batch(measured=np.stack(measured), wanted=wanted_all, weight=weight), masks[None].astype(np.float32)
