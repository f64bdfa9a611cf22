"""A simulated scan: the true rate and Poisson counts of any block, in any order, out of core."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import cached_property, partial
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from stemcodecs.errors import ConfigurationError
from stemcodecs.metrics import poisson_entropy
from stemcodecs.readers.scan import Axis, Region, Scan, explicit_region
from stemcodecs.simulate.specimens import Crystal, PhaseObject, Specimen, Unstructured

__all__ = ["KINDS", "Simulation", "simulate_scan"]

KINDS = ("unstructured", "lattice", "grains", "ptychography")

# Streams of random numbers that must not overlap: the noise of a position, and the specimen.
_NOISE, _SPECIMEN = 0, 1

_SCAN_STEP_NM = 0.5
_DETECTOR_MRAD = 64.0


@dataclass(frozen=True, kw_only=True)
class Simulation:
    """A simulated scan; made by `simulate_scan`, which says what the parameters mean.

    Nothing is computed before it is asked for, and then for the positions asked for: `block` and
    `rate` give the same values whatever the blocks, in any order and in any process (with the same
    NumPy version). Memory is that of the block, plus for ``ptychography`` the object.
    """

    kind: str
    scan_shape: tuple[int, int]
    detector_shape: tuple[int, int]
    mean_counts: float
    seed: int
    dtype: np.dtype[Any]
    grains: int

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ConfigurationError(f"no specimen {self.kind!r}; choose one of {', '.join(KINDS)}")
        if len(self.scan_shape) != 2 or len(self.detector_shape) != 2 or min(self.shape) < 1:
            raise ConfigurationError(
                f"scan {self.scan_shape} on detector {self.detector_shape} cannot be; give two positive sizes for each"
            )
        if not 0 < self.mean_counts < np.inf or self.grains < 1 or self.seed < 0:
            raise ConfigurationError(
                "mean_counts and grains must be positive, and seed not negative; "
                f"got {self.mean_counts}, {self.grains} and {self.seed}"
            )
        if self.dtype.kind not in "uif":
            raise ConfigurationError(f"counts cannot be {self.dtype}; choose an integer or floating-point dtype")

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Shape of the scan (scan_y, scan_x, det_y, det_x)."""
        return (*self.scan_shape, *self.detector_shape)  # type: ignore[return-value]

    @property
    def nbytes(self) -> int:
        """Size of all counts in memory, in bytes."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    @property
    def axes(self) -> tuple[Axis, ...]:
        """Calibrated axes: scan in nm from 0, detector in mrad around the optic axis."""
        pixel = _DETECTOR_MRAD / min(self.detector_shape)
        return (
            Axis(name="scan_y", size=self.shape[0], scale=_SCAN_STEP_NM, units="nm"),
            Axis(name="scan_x", size=self.shape[1], scale=_SCAN_STEP_NM, units="nm"),
            *(
                Axis(name=name, size=n, scale=pixel, offset=-pixel * (n - 1) / 2, units="mrad")
                for name, n in zip(("det_y", "det_x"), self.detector_shape, strict=True)
            ),
        )

    @property
    def counts(self) -> np.ndarray[Any, Any]:
        """All counts; computed anew each time, in memory as a whole."""
        return self.block(())

    def block(self, region: Region) -> np.ndarray[Any, Any]:
        """Counts of a region.

        Parameters
        ----------
        region : tuple of slice
            As for `stemcodecs.readers.Scan.read`: one slice without step for each dimension,
            trailing ones may be left out. Parts of the detector cost as much as all of it.

        Returns
        -------
        numpy.ndarray
            C-contiguous, 4D, of `dtype`.

        Raises
        ------
        ConfigurationError
            A count is larger than `dtype` holds.
        """
        region = explicit_region(region, self.shape)
        block = np.empty([s.stop - s.start for s in region], self.dtype)
        largest = _largest_count(self.dtype)
        for place, y, x in _positions(region):
            # The position is the counter of the generator: its numbers depend on nothing else.
            noise = np.random.Philox(key=self._key, counter=[0, y, x, _NOISE])
            counts = np.random.Generator(noise).poisson(self._rate_at(y, x))
            if counts.max() > largest:
                raise ConfigurationError(
                    f"{counts.max()} counts at position ({y}, {x}) are more than {self.dtype} "
                    "holds; choose a wider dtype or fewer mean_counts"
                )
            block[place] = counts[region[2:]]
        return block

    def rate(self, region: Region = ()) -> np.ndarray[Any, np.dtype[np.float64]]:
        """True rate of a region: what the counts would be on average; float64, 4D."""
        region = explicit_region(region, self.shape)
        block = np.empty([s.stop - s.start for s in region], np.float64)
        for place, y, x in _positions(region):
            block[place] = self._rate_at(y, x)[region[2:]]
        return block

    def shannon_bound(self, region: Region = ()) -> float:
        """Fewest bits per pixel of a lossless code of a region: mean entropy of the counts.

        Takes about as long as the counts; needs the memory of one pattern.
        """
        region = explicit_region(region, self.shape)
        means = [float(poisson_entropy(self._rate_at(y, x)[region[2:]]).mean()) for _, y, x in _positions(region)]
        return float(np.mean(means))

    def scan(self) -> Scan:
        """Open the simulation like a file, for everything that reads a `Scan` block by block."""
        parameters = {f.name: getattr(self, f.name) for f in fields(self)}
        parameters |= {"dtype": self.dtype.str, "scan_shape": list(self.scan_shape)}
        parameters |= {"detector_shape": list(self.detector_shape)}
        return Scan(
            path=f"simulation:{self.kind}",
            format="simulation",
            opener=partial(SimulatedBlocks, self),
            axes=self.axes,
            metadata={"simulation": parameters},
        )

    def _rate_at(self, y: int, x: int) -> np.ndarray[Any, np.dtype[np.float64]]:
        pattern = self._specimen.pattern(y, x)
        electrons = self.mean_counts * pattern.size * self._specimen.dose[y, x]
        rate: np.ndarray[Any, np.dtype[np.float64]] = pattern * (electrons / pattern.sum())
        return rate

    @cached_property
    def _specimen(self) -> Specimen:
        if self.kind == "unstructured":
            return Unstructured(self.scan_shape, self.detector_shape)
        stream = np.random.Philox(key=self._key, counter=[0, 0, 0, _SPECIMEN])
        rng = np.random.Generator(stream)
        if self.kind == "ptychography":
            return PhaseObject(self.scan_shape, self.detector_shape, rng)
        grains = 1 if self.kind == "lattice" else self.grains
        return Crystal(self.scan_shape, self.detector_shape, grains, rng)

    @cached_property
    def _key(self) -> np.ndarray[Any, Any]:
        return np.random.SeedSequence(self.seed).generate_state(2, np.uint64)

    def __getstate__(self) -> dict[str, Any]:
        # The specimen follows from the parameters and can be large: it does not travel.
        return {f.name: getattr(self, f.name) for f in fields(self)}


class SimulatedBlocks:
    """A simulation as the source of a `Scan`."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self.shape = simulation.shape
        self.dtype = simulation.dtype

    def read(self, region: Region) -> np.ndarray[Any, Any]:
        """Counts of a region."""
        return self._simulation.block(region)

    def close(self) -> None:
        """Nothing is open."""


def simulate_scan(
    kind: str = "grains",
    scan_shape: tuple[int, int] = (32, 32),
    detector_shape: tuple[int, int] = (128, 128),
    mean_counts: float = 1.0,
    seed: int = 0,
    dtype: DTypeLike = np.uint16,
    *,
    grains: int = 12,
) -> Simulation:
    """Describe a simulated 4D-STEM scan with Poisson counts of known rate.

    Parameters
    ----------
    kind : {"grains", "lattice", "unstructured", "ptychography"}
        ``grains``: bright-field disk and Bragg disks that move, rotate and tilt from grain to
        grain, thickness modulation, diffuse background. ``lattice``: one bent crystal.
        ``unstructured``: disk, tail and background under a dose that varies by ±5 %.
        ``ptychography``: coherent, |FFT|² of a defocused probe through a random phase object.
    scan_shape : tuple of int
        Scan positions (scan_y, scan_x).
    detector_shape : tuple of int
        Detector pixels (det_y, det_x).
    mean_counts : float
        Mean of the rate over all positions and pixels, electrons per pixel; holds exactly.
    seed : int
        Chooses specimen and noise.
    dtype : dtype
        Of the counts; float32 imitates Nion Swift. A count that it cannot hold is refused.
    grains : int
        Number of grains of ``grains``.

    Returns
    -------
    Simulation
        Gives counts, rate and Shannon bound of any block on demand.

    Raises
    ------
    ConfigurationError
        An unknown kind, or values that cannot be.

    Examples
    --------
    >>> simulation = simulate_scan("unstructured", (4, 4), (16, 16), mean_counts=0.5)
    >>> simulation.block((slice(0, 2),)).shape
    (2, 4, 16, 16)
    """
    try:
        parsed = np.dtype(dtype)
    except TypeError as error:
        raise ConfigurationError(f"no dtype {dtype!r}; choose one such as uint16") from error
    return Simulation(
        kind=kind,
        scan_shape=tuple(int(n) for n in scan_shape),  # type: ignore[arg-type]
        detector_shape=tuple(int(n) for n in detector_shape),  # type: ignore[arg-type]
        mean_counts=float(mean_counts),
        seed=int(seed),
        dtype=parsed,
        grains=int(grains),
    )


def _positions(region: Region) -> Iterator[tuple[tuple[int, int], int, int]]:
    """Scan positions of a region, and where they go in the block."""
    rows, columns = region[0], region[1]
    for i, y in enumerate(range(rows.start, rows.stop)):
        for j, x in enumerate(range(columns.start, columns.stop)):
            yield (i, j), y, x


def _largest_count(dtype: np.dtype[Any]) -> int:
    """Largest count up to which the dtype holds every integer."""
    if dtype.kind == "f":
        return 1 << (int(np.finfo(dtype).nmant) + 1)
    return int(np.iinfo(dtype).max)
