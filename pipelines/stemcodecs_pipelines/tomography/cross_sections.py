"""Cross sections of elements and of their fluorescence lines, from xraylib."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stemcodecs.errors import ConfigurationError

__all__ = ["CrossSections", "Line", "cross_sections"]

Array = np.ndarray[Any, Any]

_LINES = {
    "K": ("KL3", "KL2", "KM3", "KM2"),
    "L": ("L3M5", "L3M4", "L2M4", "L3N5", "L2N4", "L3M1"),
}
"""Transitions that a line group holds: those that an energy-dispersive detector counts into one peak or two."""
_LOWEST, _HIGHEST = 0.1, 800.0
"""Energies in keV for which there are data."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """A measured group of fluorescence lines of one element.

    Parameters
    ----------
    element : str
        Symbol.
    group : str
        ``K`` or ``L``.
    energy : float
        Mean energy of its lines in keV, weighted by their cross sections.
    cross_section : float
        Sum of their production cross sections at the beam's energy, cm²/g.
    """

    element: str
    group: str
    energy: float
    cross_section: float

    @property
    def name(self) -> str:
        """Such as ``Fe-K``."""
        return f"{self.element}-{self.group}"


@dataclass(frozen=True, kw_only=True)
class CrossSections:
    """What the forward model knows of the elements.

    Parameters
    ----------
    beam_energy : float
        keV.
    elements : tuple of str
        All that attenuate; concentrations are sought for each of them.
    lines : tuple of Line
        Measured line groups, in the order of the counts; an element without one is seen in transmission only.
    beam : ndarray, (element,)
        Total cross sections at the beam's energy, cm²/g.
    emitted : ndarray, (line, element)
        Total cross sections at the energy of each line, cm²/g.
    """

    beam_energy: float
    elements: tuple[str, ...]
    lines: tuple[Line, ...]
    beam: Array
    emitted: Array

    @property
    def line_elements(self) -> list[int]:
        """Index of the element of each line."""
        return [self.elements.index(line.element) for line in self.lines]

    @property
    def produced(self) -> Array:
        """Production cross section of each line, cm²/g, float64 of shape (line,)."""
        return np.array([line.cross_section for line in self.lines])


def cross_sections(elements: Sequence[str], beam_energy: float, lines: Sequence[str] | None = None) -> CrossSections:
    """Look cross sections up.

    Totals are those of photoionisation, Rayleigh and Compton scattering together; production cross sections those of
    Kissel with the full cascade (Schoonjans et al. 2011, doi:10.1016/j.sab.2011.09.011).

    Parameters
    ----------
    elements : sequence of str
        Symbols of all elements of the specimen that attenuate noticeably.
    beam_energy : float
        keV, 0.1 to 800.
    lines : sequence of str, optional
        Measured line groups, such as ``["Ca-K", "Fe-K"]`` or ``["Au-L"]``; an element alone means the group below.
        Default: for each element K where the beam excites it, else L.

    Raises
    ------
    ConfigurationError
        xraylib is missing, an element or line is unknown, named twice, or not excited by the beam.
    """
    xraylib = _xraylib()
    symbols = tuple(elements)
    if not symbols:
        raise ConfigurationError("there are no elements; name those of the specimen, e.g. Ca,Fe")
    if len(set(symbols)) < len(symbols):
        raise ConfigurationError(f"an element is named twice in {', '.join(symbols)}; name each once")
    if not _LOWEST <= beam_energy <= _HIGHEST:
        raise ConfigurationError(f"a beam of {beam_energy:g} keV is out of range; give {_LOWEST:g} to {_HIGHEST:g} keV")
    numbers = {symbol: _atomic_number(xraylib, symbol) for symbol in symbols}
    measured = tuple(
        _line(xraylib, name, numbers, float(beam_energy)) for name in (symbols if lines is None else lines)
    )
    names = [line.name for line in measured]
    if not names or len(set(names)) < len(names):
        raise ConfigurationError(f"lines {', '.join(names) or 'none'}: name each measured line once, e.g. Ca-K,Fe-K")
    return CrossSections(
        beam_energy=float(beam_energy),
        elements=symbols,
        lines=measured,
        beam=np.array([xraylib.CS_Total(z, float(beam_energy)) for z in numbers.values()]),
        emitted=np.array([[xraylib.CS_Total(z, line.energy) for z in numbers.values()] for line in measured]),
    )


def _xraylib() -> Any:
    try:
        import xraylib
    except ImportError:
        raise ConfigurationError(
            "cross sections need xraylib; install it with: pip install 'stemcodecs[tomography]'"
        ) from None
    return xraylib


def _atomic_number(xraylib: Any, symbol: str) -> int:
    try:
        return int(xraylib.SymbolToAtomicNumber(symbol))
    except (ValueError, TypeError):
        raise ConfigurationError(f"no element {symbol!r}; give symbols such as Ca or Fe") from None


def _line(xraylib: Any, name: str, numbers: dict[str, int], beam_energy: float) -> Line:
    symbol, _, group = name.partition("-")
    if symbol not in numbers:
        raise ConfigurationError(f"line {name}: {symbol!r} is not among the elements {', '.join(numbers)}; add it")
    if group not in ("", *_LINES):
        raise ConfigurationError(f"no line group {name!r}; choose {symbol}-K or {symbol}-L")
    for candidate in (group,) if group else tuple(_LINES):
        parts = [_transition(xraylib, numbers[symbol], label, beam_energy) for label in _LINES[candidate]]
        total = sum(cross_section for cross_section, _ in parts)
        if total > 0:
            energy = sum(cross_section * energy for cross_section, energy in parts) / total
            if energy >= _LOWEST:
                return Line(element=symbol, group=candidate, energy=energy, cross_section=total)
    wanted = f"{symbol}-{group}" if group else f"a line of {symbol}"
    raise ConfigurationError(
        f"a beam of {beam_energy:g} keV does not excite {wanted}; name the measured lines (an element without one is "
        "seen in transmission only)"
    )


def _transition(xraylib: Any, number: int, label: str, beam_energy: float) -> tuple[float, float]:
    """Production cross section in cm²/g and energy in keV of one line; nothing where it does not exist."""
    line = getattr(xraylib, f"{label}_LINE")
    try:
        return float(xraylib.CS_FluorLine_Kissel_Cascade(number, line, beam_energy)), float(
            xraylib.LineEnergy(number, line)
        )
    except ValueError:
        return 0.0, 0.0
