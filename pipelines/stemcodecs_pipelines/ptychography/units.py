"""Units of lengths and angles as files and people spell them."""

from __future__ import annotations

from stemcodecs.errors import ConfigurationError
from stemcodecs.readers.calibration import clean_units

__all__ = ["angle_unit", "length_unit", "reciprocal_unit"]

_LENGTHS = {"m": 1.0, "mm": 1e-3, "um": 1e-6, "nm": 1e-9, "Å": 1e-10, "A": 1e-10, "angstrom": 1e-10, "pm": 1e-12}
_ANGLES = {"rad": 1.0, "mrad": 1e-3, "urad": 1e-6}


def length_unit(units: str | None) -> float | None:
    """A length in metres; None for what is no length."""
    return _LENGTHS.get(_plain(units))


def angle_unit(units: str | None) -> float | None:
    """An angle in radians; None for what is no angle."""
    return _ANGLES.get(_plain(units))


def reciprocal_unit(units: str | None) -> float | None:
    """A reciprocal length in 1/m; None for what is none."""
    text = _plain(units)
    for length in (text.removeprefix("1/"), text.removesuffix("^-1")):
        if length != text and length in _LENGTHS:
            return 1.0 / _LENGTHS[length]
    return None


def require_length(units: str) -> float:
    """A length in metres.

    Raises
    ------
    ConfigurationError
        It is none.
    """
    metres = length_unit(units)
    if metres is None:
        raise ConfigurationError(f"no length is called {units!r}; choose one of {', '.join(_LENGTHS)}, or px")
    return metres


def _plain(units: str | None) -> str:
    return (clean_units(units) or "").replace("\N{MICRO SIGN}", "u")
