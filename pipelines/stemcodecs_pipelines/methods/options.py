"""Options of a method, declared once: as fields of a frozen dataclass, which are read from text and told to people.

A field's type says what it takes: ``Literal`` of words, ``int``, ``float``, ``bool``, `Exact`, or one of the numbers
and a word (``int | Literal["auto"]``); ``| None`` leaves the choice to the method. Its metadata, from `option`, says
the rest.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from fractions import Fraction
from types import NoneType
from typing import Any, Literal, NewType, TypeVar, get_args, get_origin, get_type_hints

from stemcodecs.errors import ConfigurationError

__all__ = ["Exact", "Option", "option", "options_of", "read_options", "split_options"]

Options = TypeVar("Options")

Exact = NewType("Exact", str)
"""A number that stays as it was written: 0.1 then means one tenth, not the nearest float."""


def option(
    default: Any,
    help: str,
    *,
    otherwise: str = "",
    flag: str | None = None,
    least: int | None = None,
    above: float | None = None,
    most: float | None = None,
) -> Any:
    """A field of an option dataclass.

    Parameters
    ----------
    default : object
        Value where the option is not given.
    help : str
        One line: what it is, in the words of the field.
    otherwise : str
        What happens where the default is None.
    flag : str, optional
        Short form on the command line, such as ``--rank``; methods may share one.
    least, above, most : number, optional
        Limits: at least, above, at most.
    """
    limits = {"least": least, "above": above, "most": most}
    return field(default=default, metadata={"help": help, "otherwise": otherwise, "flag": flag, "limits": limits})


@dataclass(frozen=True, kw_only=True)
class Option:
    """One option, as its field says it.

    Parameters
    ----------
    name : str
        Its key in ``method:key=value``.
    number : type or None
        ``int``, ``float``, ``bool`` or `Exact`; None where only words are allowed.
    words : tuple of str
        Words that are allowed.
    default : object
        See `option`.
    help, otherwise, flag, limits
        See `option`.
    """

    name: str
    number: Any
    words: tuple[str, ...]
    default: Any
    help: str
    otherwise: str
    flag: str | None
    limits: dict[str, float | None]

    @property
    def values(self) -> str:
        """What is allowed, in words."""
        if self.number is bool:
            return "true or false"
        if self.number is None:
            return _either(self.words)
        number = {int: "a whole number", float: "a number", Exact: "a number, such as 0.5 or 1/3"}[self.number]
        if self.limits["least"] is not None:
            number += f" of at least {self.limits['least']}"
        if self.limits["above"] is not None:
            number += f" above {self.limits['above']}"
        if self.limits["most"] is not None:
            number += f", at most {self.limits['most']}"
        return f"{number}, or {_either(self.words)}" if self.words else number

    @property
    def default_text(self) -> str:
        """The default as a user would write it, or what happens without it."""
        return self.otherwise if self.default is None else str(self.default)

    def read(self, text: str) -> Any:
        """The value that a text stands for.

        Raises
        ------
        ConfigurationError
            It is none that is allowed.
        """
        if text in self.words:
            return text
        try:
            return self._number(text)
        except (ValueError, KeyError, ZeroDivisionError):
            raise ConfigurationError(f"{self.name} {text!r} must be {self.values}") from None

    def _number(self, text: str) -> Any:
        if self.number is bool:
            return {"true": True, "false": False}[text.lower()]
        if self.number is Exact:
            Fraction(text)
            return Exact(text)
        if self.number is None:
            raise ValueError
        value = self.number(text)
        least, above, most = (self.limits[name] for name in ("least", "above", "most"))
        # Written so that NaN is refused where there are limits.
        if not (
            (least is None or value >= least) and (above is None or value > above) and (most is None or value <= most)
        ):
            raise ValueError
        return value


def _either(words: tuple[str, ...]) -> str:
    return " or ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def options_of(kind: type[Any]) -> Iterator[Option]:
    """Options that a dataclass declares, in order."""
    hints = get_type_hints(kind)
    for declared in fields(kind):
        hint = hints[declared.name]
        parts = [hint] if get_origin(hint) is Literal or not get_args(hint) else list(get_args(hint))
        words = tuple(word for part in parts if get_origin(part) is Literal for word in get_args(part))
        numbers = [part for part in parts if get_origin(part) is not Literal and part is not NoneType]
        yield Option(
            name=declared.name,
            number=numbers[0] if numbers else None,
            words=words,
            default=declared.default,
            **declared.metadata,
        )


def split_options(text: str) -> dict[str, str]:
    """Keys and values of ``key=value,key=value``; the last of equal keys counts.

    Raises
    ------
    ConfigurationError
        The text is not of this form.
    """
    found: dict[str, str] = {}
    for part in filter(None, text.split(",")):
        key, equals, value = part.partition("=")
        if not equals or not key or not value:
            raise ConfigurationError(f"cannot read the method option {part!r}; write --method NAME:key=value,key=value")
        found[key] = value
    return found


def read_options(kind: type[Options], method: str, text: str) -> Options:
    """An option dataclass from ``key=value,key=value``.

    Raises
    ------
    ConfigurationError
        An option is unknown, or its value is not allowed.
    """
    known = {found.name: found for found in options_of(kind)}
    given = split_options(text)
    if unknown := sorted(set(given) - set(known)):
        raise ConfigurationError(f"{method} has no option {unknown[0]!r}; it has: {', '.join(known)}")
    return kind(**{name: known[name].read(value) for name, value in given.items()})
