"""What a lossy store does to the image: equal reconstructions from the original and from what the store gives back."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from stemcodecs.errors import ConfigurationError
from stemcodecs.metrics import (
    FourierRingCorrelation,
    align_objects,
    dose_equivalent,
    fourier_ring_correlation,
    half_bit_resolution,
    phase_mse,
    smse,
)
from stemcodecs_pipelines.ptychography.pattern_source import PatternSource
from stemcodecs_pipelines.ptychography.plot import new_figure, seen, show_image
from stemcodecs_pipelines.ptychography.problem import PtychographyProblem
from stemcodecs_pipelines.ptychography.reconstruct import Method, reconstruct
from stemcodecs_pipelines.ptychography.reconstruction import Reconstruction

__all__ = ["Judgement", "Verdict", "judge", "verdicts"]

Array = np.ndarray[Any, Any]

_TAPER = 0.12
"""Share of the field, at each edge, over which images fade out before they are correlated."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Verdict:
    """One of the two scans.

    Attributes
    ----------
    reconstruction : Reconstruction
        From the whole scan.
    image : ndarray, complex128, (y, x)
        Its object, aligned with the reference in phase, phase ramp and shift.
    frc : FourierRingCorrelation
        Of two halves of the scan, or of two scans; frequencies in 1/m, or in 1/pixel without an object pixel.
    resolution : float
        Half-bit resolution as a full period, in metres or pixels.
    phase_mse : float
        Against the reference, within the support; radian².
    smse : float
        Squared error of the complex object against the reference, mean over the support.
    """

    reconstruction: Reconstruction
    image: Array
    frc: FourierRingCorrelation
    resolution: float
    phase_mse: float
    smse: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Judgement:
    """Both scans beside each other.

    Attributes
    ----------
    original, stored : Verdict
        With equal settings and seeds.
    reference : ndarray of complex, (y, x)
        The truth where it is known, or else the object from the original.
    support : ndarray of bool, (y, x)
        Pixels that are compared.
    dose_equivalent : float or None
        Fraction of the dose whose shot noise costs as much phase error as the loss does, where it was asked for.
    """

    original: Verdict
    stored: Verdict
    reference: Array
    support: Array
    dose_equivalent: float | None

    def describe(self) -> str:
        """Two lines for a reader."""
        pixel = self.original.reconstruction.pixel_size
        unit, name = (1e-9, "nm") if pixel else (1.0, "px")
        rows = [
            f"{title:9} resolution {verdict.resolution / unit:.4g} {name}, phase MSE {verdict.phase_mse:.3g} rad², "
            f"SMSE {verdict.smse:.3g}, amplitude error {verdict.reconstruction.error:.4f}"
            for title, verdict in (("original", self.original), ("stored", self.stored))
        ]
        if self.dose_equivalent is not None:
            rows.append(f"the loss costs as much as measuring with {self.dose_equivalent:.1%} of the dose")
        return "\n".join(rows)

    def draw(self, out: str | os.PathLike[str]) -> None:
        """Phases, their difference, and both Fourier ring correlations as a picture."""
        figure = new_figure((13, 7.5))
        axes: Any = figure.subplot_mosaic([["original", "stored", "difference"], ["frc"] * 3], height_ratios=(2, 1))
        window = seen(self.support)
        pixel = self.original.reconstruction.pixel_size
        for name, verdict in (("original", self.original), ("stored", self.stored)):
            show_image(
                axes[name], np.angle(verdict.image)[window], pixel, f"{name}, phase in rad", self.support[window]
            )
        difference = np.angle(self.stored.image * np.conj(self.original.image))[window]
        show_image(axes["difference"], difference, pixel, "stored − original, rad", self.support[window])
        # The first ring is the mean, which was taken out.
        frequencies = self.original.frc.frequencies[1:] * (1e-9 if pixel else 1.0)
        for name, verdict in (("original", self.original), ("stored", self.stored)):
            axes["frc"].plot(frequencies, verdict.frc.correlation[1:], label=name)
        axes["frc"].plot(frequencies, self.original.frc.half_bit[1:], "k--", label="half bit")
        axes["frc"].set_xlabel("spatial frequency, 1/nm" if pixel else "spatial frequency, 1/pixel")
        axes["frc"].set_title("Fourier ring correlation", fontsize=9)
        axes["frc"].legend()
        figure.savefig(out, dpi=120)


def judge(
    original: Any,
    stored: Any,
    problem: PtychographyProblem,
    method: Method = "gradient",
    *,
    again: tuple[Any, Any] | None = None,
    truth: Array | None = None,
    support: Array | None = None,
    dose: bool = False,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
    **settings: Any,
) -> Judgement:
    """Reconstruct from the original patterns and from what a store gives back, with equal settings, and compare.

    Parameters
    ----------
    original, stored : array, Scan or path
        Patterns of one scan, see `PatternSource.of`; `stored` may be a store written by ``stemcodecs compress``.
    problem : PtychographyProblem
        Positions, probe and mask of the scan; its patterns are not used.
    method : {"gradient", "epie"}
        See `reconstruct`.
    again : pair of patterns, optional
        A second measurement of the same scan, original and stored. The Fourier ring correlation is then between the two
        measurements; without it, between random halves of the scan.
    truth : ndarray of complex, (y, x), optional
        The true object in the frame of the problem. Without it errors are those against the object from the original.
    support : ndarray of bool, optional
        Pixels to compare; by default where the probe was.
    dose : bool
        Find the dose equivalent too: about ten more reconstructions, with all patterns in memory.
    seed : int
        Fixes the halves, the thinning, and the order of the patterns.
    progress : callable
        Called with the reconstructions that are done and all of them (without those of the dose equivalent).
    **settings
        See `reconstruct`.

    Raises
    ------
    ConfigurationError
        Shapes that do not fit, an empty support, or whatever `reconstruct` refuses.
    """
    inside = problem.covered() if support is None else np.asarray(support, bool)
    for name, image in (("support", inside), ("truth", truth)):
        if image is not None and image.shape != problem.object_shape:
            raise ConfigurationError(
                f"a {name} of shape {image.shape} does not fit an object of {problem.object_shape}"
            )
    if not inside.any():
        raise ConfigurationError("the support is empty; mark the pixels that shall be compared")
    problems = [problem.with_patterns(patterns) for patterns in (original, stored)]
    done = 0

    def run(part: PtychographyProblem) -> Reconstruction:
        nonlocal done
        result = reconstruct(part, method, seed=seed, **settings)
        done += 1
        progress(done, 6 if again is None else 4)
        return result

    whole = [run(p) for p in problems]
    reference = whole[0].object if truth is None else np.asarray(truth)
    verdicts = []
    for number, (part, result) in enumerate(zip(problems, whole, strict=True)):
        if again is None:
            first, second = (run(half).object for half in _halves(part, seed))
        else:
            first, second = result.object, run(problem.with_patterns(again[number])).object
        verdicts.append(_verdict(result, first, second, reference, inside))
    fraction = None
    if dose:

        def error(patterns: Array) -> float:
            found = reconstruct(problem.with_patterns(patterns), method, seed=seed, **settings)
            return phase_mse(found.object, reference, inside)

        counts = _all_patterns(problems[0].patterns)
        fraction = dose_equivalent(counts, _all_patterns(problems[1].patterns), error, seed=seed)
    return Judgement(
        original=verdicts[0], stored=verdicts[1], reference=reference, support=inside, dose_equivalent=fraction
    )


def verdicts(
    problem: PtychographyProblem,
    scans: Iterable[Any],
    method: Method = "gradient",
    *,
    seed: int = 0,
    **settings: Any,
) -> Iterator[Verdict]:
    """Reconstruct from several versions of a scan with equal settings, and compare all with the first.

    Parameters
    ----------
    problem : PtychographyProblem
        Positions, probe and mask of the scan; its patterns are not used.
    scans : iterable of patterns
        The scan itself, then what others made of it; see `PatternSource.of`.
    method, seed, **settings
        See `judge`.

    Yields
    ------
    Verdict
        Of each; three reconstructions. The phase MSE is against the object from the first.
    """
    inside = problem.covered()
    reference: Array | None = None
    for patterns in scans:
        part = problem.with_patterns(patterns)
        result = reconstruct(part, method, seed=seed, **settings)
        reference = result.object if reference is None else reference
        first, second = (reconstruct(half, method, seed=seed, **settings).object for half in _halves(part, seed))
        yield _verdict(result, first, second, reference, inside)


def _halves(problem: PtychographyProblem, seed: int) -> tuple[PtychographyProblem, PtychographyProblem]:
    """Random halves of a scan, the same for the same seed."""
    first, second = np.array_split(np.random.default_rng(seed).permutation(problem.count), 2)
    return problem.part(np.sort(first)), problem.part(np.sort(second))


def _verdict(result: Reconstruction, first: Array, second: Array, reference: Array, support: Array) -> Verdict:
    aligned = align_objects(result.object, reference, support)
    frc = fourier_ring_correlation(
        *faded(first, align_objects(second, first, support), support), result.pixel_size or 1.0
    )
    return Verdict(
        reconstruction=result,
        image=aligned,
        frc=frc,
        resolution=half_bit_resolution(frc),
        phase_mse=phase_mse(result.object, reference, support),
        smse=smse(aligned, reference, support),
    )


def faded(first: Array, second: Array, support: Array) -> tuple[Array, Array]:
    """Two images without their means, fading out towards the edges: what wraps around would correlate."""
    window = seen(support)
    fade = np.outer(*(_taper(part.stop - part.start) for part in window)) * support[window]
    faded = []
    for image in (first, second):
        part = image[window]
        faded.append((part - (part * fade).sum() / fade.sum()) * fade)
    return faded[0], faded[1]


def _taper(size: int) -> Array:
    """1 in the middle, a raised cosine down to 0 at both ends."""
    place = np.minimum(np.arange(size), np.arange(size)[::-1]) / max(1.0, _TAPER * size)
    return np.asarray(0.5 - 0.5 * np.cos(np.pi * np.clip(place, 0.0, 1.0)))


def _all_patterns(source: PatternSource) -> Array:
    """All patterns in the order of their numbers."""
    patterns = np.empty((source.count, *source.detector), source.dtype)
    for block in source.blocks():
        patterns[block.numbers] = source.read_block(block)
    return patterns
