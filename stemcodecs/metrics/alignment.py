"""What ptychography cannot know is taken out before two objects are compared: constant phase, phase ramp, shift."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from stemcodecs.metrics.arguments import image_pair, support_of

__all__ = ["align_objects", "phase_mse"]

Array = np.ndarray[Any, Any]

_ROUNDS = 12
_ENOUGH = 2e-4
"""A correction below this, in pixels and in cycles per field, ends the rounds."""
_REFINEMENTS = 4
_HALF_GRID = 12
_STEP = 0.1


def align_objects(obj: ArrayLike, reference: ArrayLike, support: ArrayLike | None = None) -> Array:
    """Take constant phase, phase ramp and sub-pixel shift relative to a reference out of an object.

    A scan does not determine them: ``O(r − s) exp(i(φ + k·r))`` with its probe gives the same patterns as O. In turn,
    k is where ``|Σ O R* exp(−i k·r)|`` is largest and s where the cross-correlation of O and R is, both found by a
    discrete Fourier transform that is refined around its peak (Guizar-Sicairos et al. 2008, doi:10.1364/OL.33.000156;
    in the use of Guizar-Sicairos et al. 2011, doi:10.1364/OE.19.021345, for ptychographic phases), until neither
    changes any more.

    Parameters
    ----------
    obj, reference : array_like of complex, (y, x)
        Of one shape. What a shift brings in at an edge comes from the opposite edge.
    support : array_like of bool, optional
        Pixels of the reference that are compared; default: all.

    Returns
    -------
    ndarray of complex128, (y, x)
        The object, aligned. Its modulus is not scaled.

    Raises
    ------
    ConfigurationError
        No two images of one shape, values that are not finite, or an empty support.
    """
    image, truth = (x.astype(np.complex128) for x in image_pair(obj, reference))
    inside = support_of(support, image.shape)
    aligned = image
    shift, ramp = np.zeros(2), np.zeros(2)
    for _ in range(_ROUNDS):
        more_ramp = _peak(np.where(inside, aligned * truth.conj(), 0), sign=-1)
        ramp += more_ramp
        aligned = _corrected(image, shift, ramp)
        # Means are taken off: a large constant correlates equally at every shift.
        rest, target = (_contrast(x, inside) for x in (aligned * _unit_phase(aligned, truth, inside), truth))
        more_shift = _peak(np.fft.fft2(rest) * np.fft.fft2(target).conj(), sign=1)
        shift += more_shift
        aligned = _corrected(image, shift, ramp)
        if max(np.abs(more_ramp).max(), np.abs(more_shift).max()) < _ENOUGH:
            break
    return aligned * _unit_phase(aligned, truth, inside)


def phase_mse(obj: ArrayLike, reference: ArrayLike, support: ArrayLike | None = None) -> float:
    """Mean squared phase error ``mean arg(O R*)²`` over the support, after `align_objects`.

    The image fidelity of Huang et al. (see `diffraction_mse`). Differences are taken modulo 2π, in (−π, π].

    Parameters
    ----------
    obj, reference : array_like of complex, (y, x)
        Object and reference of one shape.
    support : array_like of bool, optional
        Pixels that count; default: all.

    Returns
    -------
    float
        Radian².

    Raises
    ------
    ConfigurationError
        As `align_objects`.
    """
    _, truth = image_pair(obj, reference)
    inside = support_of(support, truth.shape)
    difference = np.angle(align_objects(obj, truth, inside) * truth.conj())[inside]
    return float((difference**2).mean())


def _corrected(image: Array, shift: Array, ramp: Array) -> Array:
    """The image without this ramp (cycles per field) and then moved back by this shift (pixels)."""
    y, x = (np.arange(n) for n in image.shape)
    turned = image * np.exp(-2j * np.pi * (ramp[0] * y[:, None] / len(y) + ramp[1] * x / len(x)))
    ky, kx = (np.fft.fftfreq(n) for n in image.shape)
    moved: Array = np.fft.ifft2(np.fft.fft2(turned) * np.exp(2j * np.pi * (shift[0] * ky[:, None] + shift[1] * kx)))
    return moved


def _unit_phase(image: Array, reference: Array, inside: Array) -> complex:
    """Factor that takes the constant phase away; weighted by the moduli, for the phase of nothing means nothing."""
    return complex(np.exp(-1j * np.angle((image * reference.conj())[inside].sum())))


def _contrast(image: Array, inside: Array) -> Array:
    return np.where(inside, image - image[inside].mean(), 0)


def _peak(values: Array, sign: int) -> Array:
    """Where ``|Σ values exp(sign 2πi (u y / n_y + v x / n_x))|`` is largest: (u, v), to a ten-thousandth."""
    transform = np.fft.fft2(values) if sign < 0 else np.fft.ifft2(values)
    coarse = np.unravel_index(int(np.abs(transform).argmax()), values.shape)
    sizes = np.array(values.shape)
    peak: Array = (np.array(coarse) + sizes // 2) % sizes - sizes // 2 + 0.0
    step = _STEP
    # Frequencies and pixels beyond the middle are negative, as in `fftfreq`: the field wraps around in both spaces.
    places = [np.fft.fftfreq(n, 1 / n) if sign > 0 else np.arange(n) for n in values.shape]
    for _ in range(_REFINEMENTS):
        fine = step * np.arange(-_HALF_GRID, _HALF_GRID + 1)
        rows, columns = (
            np.exp(sign * 2j * np.pi / n * np.outer(p + fine, place))
            for n, p, place in zip(values.shape, peak, places, strict=True)
        )
        local = np.abs(rows @ values @ columns.T)
        best = np.unravel_index(int(local.argmax()), local.shape)
        peak = peak + fine[np.array(best)]
        step *= _STEP
    return peak
