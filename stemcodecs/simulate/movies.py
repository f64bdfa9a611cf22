"""Simulated electron-microscopy movies whose clean frames are known.

Four specimens, as in the literature on temporal compressive sensing of microscopy movies (TCS-DL, Patterns 2, 100292,
2021, doi:10.1016/j.patter.2021.100292): nanoparticles that sinter, a lattice with a grain boundary, columns as STEM
shows them, and fibres that bend. The whole field drifts, parts of it move and rotate by themselves, and the camera adds
Poisson and read-out noise. Everything follows from the seed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from stemcodecs.errors import ConfigurationError, UnsupportedDtypeError

__all__ = ["MOTIONS", "MOVIES", "Movie", "simulate_movie"]

Array = np.ndarray[Any, Any]

MOVIES = ("nanoparticles", "grains", "columns", "fibres")
_SHARES = (0.35, 0.35, 0.15, 0.15)
"""How often ``kind="any"`` draws each of them."""
MOTIONS = ("slow", "mixed", "fast")
_FAST_SHARE = 0.25
"""Movies of ``mixed`` that move as fast as those of ``fast``."""
_WHITE = {np.dtype(np.uint8): 255, np.dtype(np.uint16): 4095}
"""Value of a white pixel: full scale of a camera of 8 and of 12 bits."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Movie:
    """Frames of a movie, and what they would be without noise.

    Attributes
    ----------
    frames : ndarray of uint8 or uint16
        What the camera gives: (time, y, x).
    clean : ndarray of float32
        The expected values of the frames, in the same units and shape.
    white : int
        Value of a white pixel, the peak of PSNR.
    kind, motion : str
        What is seen, and how it moves, as drawn.
    dose : float
        Electrons of a white pixel in a frame.
    """

    frames: Array
    clean: Array
    white: int
    kind: str
    motion: str
    dose: float


@dataclass(frozen=True, kw_only=True)
class _Speeds:
    """Standard deviations: pixels, radians and fractions a frame."""

    drift: float
    own: float
    turn: float
    growth: float


_SPEEDS = {
    "slow": _Speeds(drift=0.033, own=0.02, turn=0.0007, growth=0.002),
    "medium": _Speeds(drift=0.1, own=0.06, turn=0.002, growth=0.006),
    "fast": _Speeds(drift=0.35, own=0.3, turn=0.008, growth=0.006),
}


def simulate_movie(
    kind: str = "any",
    shape: tuple[int, int, int] = (30, 128, 128),
    motion: str = "mixed",
    *,
    dose: float | None = None,
    read_noise: float = 0.01,
    dtype: DTypeLike = np.uint8,
    seed: int = 0,
) -> Movie:
    """Simulate a movie of an electron microscope.

    Parameters
    ----------
    kind : {"nanoparticles", "grains", "columns", "fibres", "any"}
        ``nanoparticles``: faceted crystals with lattice fringes that grow together. ``grains``: two lattices at a
        boundary. ``columns``: atomic columns as bright spots. ``fibres``: long features that bend. ``any`` draws one.
    shape : tuple of int
        Frames, rows, columns.
    motion : {"slow", "mixed", "fast"}
        ``slow``: a few hundredths of a pixel a frame. ``fast``: about half a pixel. ``mixed``: one movie of four is
        fast, the others lie between.
    dose : float, optional
        Electrons of a white pixel in a frame. Default: drawn between 20 and 316, evenly in its logarithm.
    read_noise : float
        Standard deviation of the read-out, as a fraction of white.
    dtype : {uint8, uint16}
        Of the frames: white is 255, or 4095. The camera's converter ends at 0 and at the largest value of 8 or 12 bits.
    seed : int
        Chooses specimen, motion and noise.

    Returns
    -------
    Movie
        Noisy and clean frames.

    Raises
    ------
    ConfigurationError
        An unknown kind or motion, or values that cannot be.
    UnsupportedDtypeError
        Another dtype.

    Examples
    --------
    >>> movie = simulate_movie("columns", (4, 32, 32), "slow", seed=1)
    >>> movie.frames.shape, movie.frames.dtype
    ((4, 32, 32), dtype('uint8'))
    """
    if kind not in (*MOVIES, "any"):
        raise ConfigurationError(f"no movie {kind!r}; choose one of {', '.join(MOVIES)}, any")
    if motion not in MOTIONS:
        raise ConfigurationError(f"no motion {motion!r}; choose one of {', '.join(MOTIONS)}")
    if len(shape) != 3 or min(shape) < 1 or min(shape[1:]) < 8:
        raise ConfigurationError(f"shape {tuple(shape)} must be frames, rows and columns, of at least 8 by 8 pixels")
    if not 0 <= read_noise <= 1 or (dose is not None and not 0 < dose < math.inf):
        raise ConfigurationError(f"dose {dose} must be positive, read_noise {read_noise} from 0 to 1")
    if np.dtype(dtype) not in _WHITE:
        raise UnsupportedDtypeError(f"a camera gives uint8 or uint16, not {np.dtype(dtype)}")
    rng = np.random.default_rng(seed)
    drawn = str(rng.choice(MOVIES, p=_SHARES))
    fast = rng.random() < _FAST_SHARE
    seen = drawn if kind == "any" else kind
    pace = ("fast" if fast else "medium") if motion == "mixed" else motion
    scene = _Scene(rng, seen, (shape[1], shape[2]), _SPEEDS[pace])
    bright = _exposed(rng, np.stack([scene.frame(t) for t in range(shape[0])]))
    electrons = float(10 ** rng.uniform(1.3, 2.5)) if dose is None else float(dose)
    white = _WHITE[np.dtype(dtype)]
    counted = rng.poisson(bright * electrons) / electrons + rng.normal(0, read_noise, bright.shape)
    frames = np.clip(np.rint(counted * white), 0, white).astype(dtype)
    clean = (bright * white).astype(np.float32)
    return Movie(frames=frames, clean=clean, white=white, kind=seen, motion=pace, dose=electrons)


def _exposed(rng: np.random.Generator, contrast: Array) -> Array:
    """Brightness between 0.01 and 0.99 of white: a microscopist sets gain and exposure so."""
    low, high = np.percentile(contrast, [0.5, 99.5])
    middle, span = rng.uniform(0.42, 0.55), rng.uniform(0.5, 0.8)
    scaled: Array = middle + (contrast - (low + high) / 2) * span / max(float(high - low), 0.25)
    return np.clip(scaled, 0.01, 0.99)


def _soft(distance: Array, width: float) -> Array:
    """1 inside (negative distance), 0 outside, over an edge of a width in pixels."""
    soft: Array = 1 / (1 + np.exp(np.clip(distance / width, -30, 30)))
    return soft


class _Lattice:
    """Fringes of two or three plane waves, or columns as bright spots."""

    def __init__(self, rng: np.random.Generator, *, spots: bool) -> None:
        spacing, angle = rng.uniform(4.5, 13), rng.uniform(0, np.pi)
        between = rng.choice([np.pi / 2, np.pi / 3, rng.uniform(1.0, np.pi / 2)])
        waves = [(math.cos(angle + j * between) / spacing, math.sin(angle + j * between) / spacing) for j in (0, 1)]
        if rng.random() < 0.5:
            waves.append((waves[0][0] + waves[1][0], waves[0][1] + waves[1][1]))
        self._waves = 2 * np.pi * np.array(waves)
        self._phases = rng.uniform(0, 2 * np.pi, len(waves))
        weights = rng.uniform(0.4, 1, len(waves))
        self._weights = weights / math.sqrt((weights**2).sum())
        self._sharp = rng.uniform(1, 3) if spots else None

    def __call__(self, x: Array, y: Array) -> Array:
        terms = zip(self._waves, self._phases, self._weights, strict=True)
        value: Array = sum(w * np.cos(k[0] * x + k[1] * y + phase) for k, phase, w in terms)  # type: ignore[assignment]
        return value if self._sharp is None else np.exp(self._sharp * (value - 1.2))


class _Part:
    """A particle, grain or fibre with a motion of its own."""

    def __init__(self, rng: np.random.Generator, kind: str, half: float, drift: Array, speeds: _Speeds) -> None:
        reach = 0.7 * half if kind in ("nanoparticles", "fibres") else 0.15 * half
        self._start = rng.uniform(-reach, reach, 2)
        self._velocity = drift + rng.normal(0, speeds.own, 2)
        self._turn = rng.normal(0, speeds.turn)
        self._radius = rng.uniform(0.22, 0.65) * half
        self._growth = rng.normal(0, speeds.growth)
        self._facets, self._facing = int(rng.integers(4, 9)), rng.uniform(0, 2 * np.pi)
        self._bend, self._bending = rng.normal(0, 0.003), 16 * speeds.growth
        self._direction, self.offset = rng.uniform(0, np.pi), rng.uniform(-0.3, 0.3) * half
        self._width = rng.uniform(0.1, 0.35) * half
        self.lattice = _Lattice(rng, spots=kind == "columns")
        self.base, self.contrast = rng.uniform(-0.15, 0.15), rng.uniform(0.06, 0.22)
        self.sign = rng.choice([-1, 1])

    def own(self, x: Array, y: Array, t: int) -> tuple[Array, Array]:
        """Coordinates that move and turn with the part."""
        dx, dy = x - self._start[0] - self._velocity[0] * t, y - self._start[1] - self._velocity[1] * t
        c, s = math.cos(self._turn * t), math.sin(self._turn * t)
        return dx * c + dy * s, dy * c - dx * s

    def outside(self, x: Array, y: Array, t: int) -> Array:
        """Distance from the faceted outline, negative inside."""
        sector = 2 * np.pi / self._facets
        angle = (np.arctan2(y, x) - self._facing + sector / 2) % sector - sector / 2
        distance: Array = np.hypot(x, y) * np.cos(angle) - self._radius * (1 + self._growth * t)
        return distance

    def across(self, x: Array, y: Array) -> Array:
        """Distance from the line of a grain boundary, with its sign."""
        line: Array = x * math.cos(self._direction) + y * math.sin(self._direction) - self.offset
        return line

    def fibre(self, x: Array, y: Array, t: int) -> Array:
        """Brightness of a fibre, thickest in its middle."""
        c, s = math.cos(self._direction), math.sin(self._direction)
        along = x * s - y * c
        distance = np.abs(x * c + y * s + self._bend * (1 + self._bending * t) * along**2)
        round_off = 0.6 + 0.4 * np.sqrt(np.clip(1 - (distance / self._width) ** 2, 0, 1))
        profile: Array = self.sign * (0.1 + self.contrast) * _soft(distance - self._width, 0.9) * round_off
        return profile


class _Scene:
    """What the beam meets at a time: contrast of any scale about a grey background."""

    def __init__(self, rng: np.random.Generator, kind: str, shape: tuple[int, int], speeds: _Speeds) -> None:
        self._kind = kind
        self._y, self._x = (np.indices(shape) - np.array(shape).reshape(2, 1, 1) / 2).astype(np.float32)
        self._drift = rng.normal(0, speeds.drift, 2)
        count = {"nanoparticles": int(rng.integers(1, 4)), "grains": 2, "columns": 1, "fibres": int(rng.integers(1, 3))}
        self._parts = [_Part(rng, kind, min(shape) / 2, self._drift, speeds) for _ in range(count[kind])]
        self._ramp = rng.normal(0, 0.0006, 2)
        # Amorphous support: random, smooth, and carried along by the drift.
        self._ky, self._kx = np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])[None]
        cut = rng.uniform(0.05, 0.14)
        noise = np.fft.rfft2(rng.normal(size=shape)) * np.exp(-(self._ky**2 + self._kx**2) / cut**2)
        self._support = rng.uniform(0, 0.05) * noise / max(float(np.fft.irfft2(noise, s=shape).std()), 1e-12)
        self._neck, self._sintering = rng.uniform(0.5, 2.0), 10 * speeds.growth

    def frame(self, t: int) -> Array:
        """Contrast of frame t."""
        dx, dy = self._drift * t
        shifted = self._support * np.exp(-2j * np.pi * (self._ky * dy + self._kx * dx))
        image: Array = np.fft.irfft2(shifted, s=self._x.shape) + self._ramp[0] * self._x + self._ramp[1] * self._y
        places = [part.own(self._x, self._y, t) for part in self._parts]
        if self._kind == "fibres":
            return image + sum(part.fibre(*place, t) for part, place in zip(self._parts, places, strict=True))
        if self._kind == "columns":
            return image + self._parts[0].contrast * self._parts[0].lattice(*places[0])
        if self._kind == "grains":
            # One boundary for both, so that neither gap nor overlap opens.
            line = self._parts[0].across(*places[0])
            inside = [_soft(line, 1.0), _soft(-line, 1.0)]
            base = 0.0
        else:
            inside, base = self._grown_together(places, t), 1.0
        for part, place, mask in zip(self._parts, places, inside, strict=True):
            image = image + mask * (base * part.base + part.contrast * part.lattice(*place))
        return image

    def _grown_together(self, places: list[tuple[Array, Array]], t: int) -> list[Array]:
        """Masks of the particles; where two meet, a neck fills that widens with time."""
        distances = np.stack([part.outside(*place, t) for part, place in zip(self._parts, places, strict=True)])
        neck = self._neck * (1 + self._sintering * t)
        nearest = distances.min(axis=0)
        union = nearest - neck * np.log(np.exp(-(distances - nearest) / neck).sum(axis=0))
        share = np.exp(-(distances - nearest) / 0.8)
        return list(_soft(union, 0.8) * share / share.sum(axis=0))
