"""How B frames become one measurement: masks or space–time bins, summed exactly, and quantised if that is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from stemcodecs.errors import ConfigurationError
from stemcodecs.temporal.masks import mask_of
from stemcodecs.temporal.sum_kernels import add_binned, add_masked, quantise

__all__ = ["MEASUREMENTS", "Sampling"]

Array = np.ndarray[Any, Any]

MEASUREMENTS = ("tiled", "random", "bins")
MOST_FRAMES = 128
MOST_SPACE_BIN = 16


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """What is measured of every ``frames`` frames.

    Parameters
    ----------
    measurement : {"tiled", "random", "bins"}
        Sum of the frames behind masks (:mod:`stemcodecs.temporal.masks`), or sums over bins of a few frames and pixels.
    frames : int
        Frames B of a measurement, 2 to 128.
    seed : int
        Of the masks, 0 to 2⁶⁴ − 1; 0 for bins.
    step : int
        Width of a quantisation step; 1 keeps the sums exactly, else they hold within step // 2.
    time_bins, space_bins : int
        For bins: time bins of a measurement, and rows and columns of pixels that are summed. Else 1.

    Raises
    ------
    ConfigurationError
        A value is not allowed.
    """

    measurement: str = "tiled"
    frames: int = 10
    seed: int = 0
    step: int = 1
    time_bins: int = 1
    space_bins: int = 1

    def __post_init__(self) -> None:
        if self.measurement not in MEASUREMENTS:
            raise ConfigurationError(f"measurement {self.measurement!r} is none of {', '.join(MEASUREMENTS)}")
        bins = self.measurement == "bins"
        limits = {
            "frames": (2, MOST_FRAMES),
            "seed": (0, 0 if bins else 2**64 - 1),
            "step": (1, 1 << 16),
            "time_bins": (1, self.frames if bins and isinstance(self.frames, int) else 1),
            "space_bins": (1, MOST_SPACE_BIN if bins else 1),
        }
        for name, (least, most) in limits.items():
            value = getattr(self, name)
            if type(value) is not int or not least <= value <= most:
                raise ConfigurationError(
                    f"{name} {value!r} must be a whole number from {least} to {most} "
                    f"for measurement {self.measurement!r}"
                )

    def plane_shape(self, shape: tuple[int, int]) -> tuple[int, int, int]:
        """Planes, rows and columns of a measurement of frames of a shape."""
        s = self.space_bins
        return self.time_bins, -(-shape[0] // s), -(-shape[1] // s)

    def masks(self, shape: tuple[int, int]) -> Array:
        """Masks of frames of a shape: uint8 (frames, rows, columns)."""
        return mask_of(self.measurement, self.frames, self.seed, shape)

    @property
    def bin_edges(self) -> Array:
        """First frame of each time bin, and one behind the last: int64."""
        return np.arange(self.time_bins + 1) * self.frames // self.time_bins

    def opened(self, shape: tuple[int, int]) -> Array:
        """How many values are summed in each value of a measurement: int64, of :meth:`plane_shape`, read-only."""
        return _opened(self, shape)

    @property
    def most_opened(self) -> int:
        """No value of a measurement sums more values than that."""
        return int(-(-self.frames // self.time_bins) * self.space_bins**2)

    def largest(self, dtype: np.dtype[Any]) -> int:
        """Largest sum that frames of a dtype can have."""
        return int(np.iinfo(dtype).max) * self.most_opened

    def sum_dtype(self, dtype: np.dtype[Any]) -> np.dtype[Any]:
        """Dtype of the sums of frames of a dtype."""
        return np.dtype(np.uint16 if self.largest(dtype) < 1 << 16 else np.uint32)

    def measure(self, frames: Array) -> Array:
        """Sums of frames, exactly.

        Parameters
        ----------
        frames : ndarray of uint8 or uint16
            At most B frames (time, y, x), C-contiguous; where they are fewer, the last one is taken again.

        Returns
        -------
        ndarray of uint16 or uint32
            Of :meth:`plane_shape`.
        """
        shape = frames.shape[1:]
        out = np.zeros(self.plane_shape(shape), self.sum_dtype(frames.dtype))
        if self.measurement == "bins":
            add_binned(frames, self.bin_edges, self.space_bins, np.zeros(shape[1], np.uint32), out)
        else:
            add_masked(frames, self.masks(shape), out[0])
        return out

    def quantise(self, total: Array) -> Array:
        """Steps of sums, rounded: of the sums' dtype."""
        if self.step == 1:
            return total
        out = np.empty_like(total)
        quantise(total.reshape(-1), self.step, out.reshape(-1))
        return out


@lru_cache(maxsize=4)
def _opened(sampling: Sampling, shape: tuple[int, int]) -> Array:
    # The same for every measurement of a movie.
    if sampling.measurement == "bins":
        rows, columns = (np.diff(np.append(np.arange(0, n, sampling.space_bins), n)) for n in shape)
        numbers = np.diff(sampling.bin_edges)[:, None, None] * rows[:, None] * columns
    else:
        numbers = np.asarray(sampling.masks(shape).sum(axis=0, dtype=np.int64)[None])
    numbers.flags.writeable = False
    return numbers
