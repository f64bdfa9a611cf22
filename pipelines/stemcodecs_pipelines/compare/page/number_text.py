"""Numbers of a report as text: decimals that line up in a column, sizes in one unit, names that cannot mislead."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Sequence

__all__ = ["NOTHING", "breakable", "column", "count", "percent", "short", "signed", "size_unit", "visible"]

NOTHING = "–"
"""Stands for what was not measured."""

_MINUS = "−"
_EXPONENTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_UNITS = (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3))


def column(values: Sequence[float | None], digits: int = 3, *, sign: bool = False) -> list[str]:
    """Numbers of one column, all with as many decimals, so that they line up.

    The smallest has `digits` of them that mean something, unless the largest got more than ``digits + 1`` then: that
    one is not to look more exact than it is, and the smallest keeps one at least. What five decimals cannot say is
    written with powers of ten; so is a whole column of small numbers.

    Parameters
    ----------
    values : sequence of float or None
        None gives :data:`NOTHING`.
    digits : int
        Significant digits.
    sign : bool
        Write + as well.
    """
    sizes = [abs(v) for v in values if v is not None and math.isfinite(v) and v != 0]
    if not sizes:
        return [_plain(v, 0, sign) for v in values]
    first = [math.floor(math.log10(size)) for size in (min(sizes), max(sizes))]
    decimals = max(0, min(digits - 1 - first[0], max(digits - first[1], -first[0])))
    if first[0] < -4 and first[1] < -2:
        return [_scientific(v, digits, sign) for v in values]
    return [
        _scientific(v, digits, sign) if v is not None and 0 < abs(v) < 1e-5 else _plain(v, min(decimals, 5), sign)
        for v in values
    ]


def _plain(value: float | None, decimals: int, sign: bool) -> str:
    if value is None or math.isnan(value):
        return NOTHING
    if math.isinf(value):
        return "∞" if value > 0 else f"{_MINUS}∞"
    text = f"{value:+,.{decimals}f}" if sign else f"{value:,.{decimals}f}"
    if not any(digit in text for digit in "123456789"):
        text = text.lstrip("+-")  # neither −0 nor +0
    return text.replace("-", _MINUS)


def _scientific(value: float | None, digits: int, sign: bool) -> str:
    if value is None or not math.isfinite(value) or value == 0:
        return _plain(value, 0, sign)
    mantissa, exponent = f"{value:+.{digits - 1}e}".split("e")
    mantissa = mantissa if sign else mantissa.lstrip("+")
    return f"{mantissa} × 10{str(int(exponent)).translate(_EXPONENTS)}".replace("-", _MINUS)


def short(value: float | None, digits: int = 3) -> str:
    """One number with some significant digits; a whole number in full."""
    if value is not None and math.isfinite(value) and value == int(value) and abs(value) < 1e15:
        return count(int(value)).replace("-", _MINUS)
    return column([value], digits)[0]


def signed(value: float | None, digits: int = 2) -> str:
    """One number with its sign."""
    return column([value], digits, sign=True)[0]


def count(number: int) -> str:
    """A whole number with commas: 4,096."""
    return f"{number:,}"


def percent(part: float) -> str:
    """A fraction as per cent, with two digits, and never 100 % for what is less."""
    text = short(100 * part, 2)
    return f"{'more than 99.9' if text == '100' and part < 1 else text} %"


def size_unit(sizes: Sequence[float]) -> tuple[str, float]:
    """Name and number of bytes of the unit in which the largest of some sizes is at least 1."""
    largest = max(sizes, default=0.0)
    return next(((name, unit) for name, unit in _UNITS if largest >= unit), ("bytes", 1.0))


def visible(text: object) -> str:
    """Text from a file or an option in which nothing is invisible.

    Control characters are not allowed in HTML, and marks that turn the direction of writing can make a name look
    like another: each of them becomes its number, as ``\\u202e``.
    """
    return "".join(
        character if unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Zl", "Zp") else _escape(character)
        for character in str(text)
    )


def breakable(text: str) -> list[str]:
    """A long name in the parts between which a line may break; what is read aloud as one word stays one."""
    return re.split(r"(?<=[:,/+\\])(?=[^\s])", text)


def _escape(character: str) -> str:
    return f"\\u{ord(character):04x}"
