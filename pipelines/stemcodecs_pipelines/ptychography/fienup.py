"""Coherent diffraction of one isolated object: Fienup's algorithms with a support that shrinks around it.

Error reduction and hybrid input-output of Fienup (1982, doi:10.1364/AO.21.002758); the support is found by shrink-wrap
(Marchesini et al. 2003, doi:10.1103/PhysRevB.68.140101). Object, its twin (turned around and conjugated) and their
shifts give the same pattern: which of them comes out depends on the seed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from stemcodecs.errors import ConfigurationError

__all__ = ["FienupResult", "FienupSettings", "fienup"]

Array = np.ndarray[Any, Any]

_AUTOCORRELATION = 0.04
"""Share of the autocorrelation's peak above which the first support lies."""


@dataclass(frozen=True, kw_only=True)
class FienupSettings:
    """How the pattern is phased.

    Attributes
    ----------
    iterations : int
        Of hybrid input-output.
    error_reduction : int
        Iterations of error reduction at the end, which settle what was found.
    feedback : float
        β of hybrid input-output.
    shrink_every : int
        Iterations between two looks at the support; 0 keeps the support that is given.
    threshold : float
        Share of the largest modulus of the blurred object above which the support lies.
    blur, least_blur : float
        Width (standard deviation in pixels) of the blur at first, and where it stops getting narrower.
    positive : bool
        The object is real and not negative.
    seed : int
        Chooses the phases to start from.
    """

    iterations: int = 600
    error_reduction: int = 50
    feedback: float = 0.9
    shrink_every: int = 20
    threshold: float = 0.2
    blur: float = 3.0
    least_blur: float = 1.0
    positive: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.iterations, self.error_reduction, self.shrink_every) < 0:
            raise ConfigurationError("iterations must not be negative")
        if not 0 < self.feedback <= 1 or not 0 < self.threshold < 1 or min(self.blur, self.least_blur) <= 0:
            raise ConfigurationError("the feedback must lie in (0, 1], the threshold in (0, 1), and blurs above 0")


@dataclass(frozen=True, kw_only=True, eq=False)
class FienupResult:
    """What one pattern gives.

    Attributes
    ----------
    object : ndarray, complex64, (n, n)
        Exit wave of the object, zero outside the support; |object|² sums to the counts.
    support : ndarray of bool, (n, n)
        Where the object is.
    errors : ndarray, float64, (iteration,)
        Σ(√I − √N)² / ΣN over measured pixels, I from the object within its support.
    """

    object: Array
    support: Array
    errors: Array


def fienup(pattern: Any, support: Any = None, mask: Any = None, settings: FienupSettings | None = None) -> FienupResult:
    """Phase one diffraction pattern.

    Parameters
    ----------
    pattern : array_like, (n, n)
        Counts of an object that is smaller than half the field, zero frequency in pixel n // 2.
    support : array_like of bool, (n, n), optional
        Where the object may be; by default half of where the pattern's autocorrelation is.
    mask : array_like of bool, (n, n), optional
        True where the detector measured; behind a beam stop the object decides.
    settings : FienupSettings
        How.

    Raises
    ------
    ConfigurationError
        Shapes that do not fit, counts that are negative or no numbers, an empty mask or support, or a support that
        shrank to nothing.
    """
    settings = settings or FienupSettings()
    counts = np.asarray(pattern, np.float64)
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1]:
        raise ConfigurationError(f"a pattern of shape {counts.shape} is not square; crop or pad it")
    valid = np.ones(counts.shape, bool) if mask is None else np.asarray(mask, bool)
    inside = None if support is None else np.asarray(support, bool)
    for name, given in (("mask", valid), ("support", inside)):
        if given is not None and (given.shape != counts.shape or not given.any()):
            raise ConfigurationError(f"the {name} is empty, or of another shape than the pattern")
    counts = np.where(valid, counts, 0.0)
    if not (np.isfinite(counts).all() and counts.min() >= 0 and counts.max() > 0):
        raise ConfigurationError("a pattern must hold counts that are not negative; give a mask of measured pixels")
    measured, valid = np.fft.ifftshift(np.sqrt(counts)), np.fft.ifftshift(valid)
    inside = _first_support(measured) if inside is None else inside
    return _iterate(measured, valid, inside, settings)


def _iterate(measured: Array, valid: Array, support: Array, settings: FienupSettings) -> FienupResult:
    phases = np.random.default_rng(settings.seed).uniform(-np.pi, np.pi, measured.shape)
    wave = np.fft.ifft2(measured * np.exp(1j * phases), norm="ortho")
    width, errors = settings.blur, []
    for iteration in range(settings.iterations + settings.error_reduction):
        far = np.fft.fft2(wave, norm="ortho")
        fitted = np.fft.ifft2(np.where(valid, measured * np.exp(1j * np.angle(far)), far), norm="ortho")
        hybrid = iteration < settings.iterations
        if hybrid and settings.shrink_every and iteration and iteration % settings.shrink_every == 0:
            support = _shrunk(fitted, width, settings.threshold)
            width = max(settings.least_blur, 0.99 * width)
        kept = support & (fitted.real > 0) if settings.positive else support
        value = fitted.real if settings.positive else fitted
        wave = np.where(kept, value, wave - settings.feedback * fitted if hybrid else 0.0)
        far = np.abs(np.fft.fft2(np.where(kept, value, 0.0), norm="ortho"))
        errors.append(float(np.square((far - measured)[valid]).sum() / np.square(measured).sum()))
    result = np.where(support, wave, 0.0)
    return FienupResult(object=result.astype(np.complex64), support=support, errors=np.asarray(errors))


def _first_support(measured: Array) -> Array:
    """The autocorrelation is twice as large as the object: its middle half, in the middle of the field."""
    autocorrelation = np.fft.fftshift(np.abs(np.fft.ifft2(measured**2)))
    rows, columns = np.nonzero(autocorrelation >= _AUTOCORRELATION * autocorrelation.max())
    side = len(measured)
    # Rounded up, so that an object that is a pixel larger is not cut.
    half_y, half_x = (int(np.abs(a - side // 2).max()) // 2 + 1 for a in (rows, columns))
    y, x = np.abs(np.mgrid[:side, :side] - side // 2)
    return np.asarray((y <= half_y) & (x <= half_x))


def _shrunk(wave: Array, width: float, threshold: float) -> Array:
    """Where the blurred modulus is large."""
    k = np.fft.fftfreq(len(wave))
    kernel = np.exp(-2 * (np.pi * width) ** 2 * (k[:, None] ** 2 + k**2))
    blurred = np.fft.ifft2(np.fft.fft2(np.abs(wave)) * kernel).real
    return np.asarray(blurred >= threshold * blurred.max())
