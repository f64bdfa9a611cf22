"""``stemcodecs methods``, and the short forms of a method's options: ``--rank 8`` for ``--method pca:rank=8``."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer

from stemcodecs.errors import ConfigurationError
from stemcodecs_pipelines.methods.options import Option, options_of
from stemcodecs_pipelines.methods.registry import METHODS, method_class
from stemcodecs_pipelines.run.terminal import reported

__all__ = ["register", "with_short_forms"]

ShortForms = dict[str, list[tuple[str, Option]]]
"""Options that have a short form, by it, with the names of the methods that have them."""


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(reported(methods))


def methods(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Method; default: all of them.")] = None,
) -> None:
    """List the methods of compress and their options."""
    for known in METHODS if name is None else [name]:
        kind = method_class(known)
        typer.echo(f"{kind.name}: {kind.summary}")
        for found in options_of(kind.Options):
            short = f" (short: {found.flag})" if found.flag else ""
            typer.echo(f"  {found.name}{short}: {found.help}")
            typer.echo(f"      {found.values}; default: {found.default_text}")
        typer.echo("")
    typer.echo("use them as: stemcodecs compress SRC DST --method NAME:option=value,option=value")


def with_short_forms(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command that takes ``method`` the short forms of all methods' options, after it in the help.

    The command gets them inside ``method``, as if they had been written there; so a method that has no such option
    refuses it in its own words.
    """
    forms: ShortForms = {}
    for name in METHODS:
        for known in options_of(method_class(name).Options):
            if known.flag is not None:
                forms.setdefault(known.flag, []).append((name, known))
    keywords = {flag: flag.removeprefix("--").replace("-", "_") for flag in forms}

    @functools.wraps(command)
    def run(*args: Any, method: str | None = None, **kwargs: Any) -> None:
        given = {flag: kwargs.pop(keyword, None) for flag, keyword in keywords.items()}
        given = {flag: value for flag, value in given.items() if value is not None}
        command(*args, method=_joined(method, given, forms), **kwargs)

    signature = inspect.signature(command, eval_str=True)
    parameters = list(signature.parameters.values())
    place = list(signature.parameters).index("method")
    panel = parameters[place].annotation.__metadata__[0].rich_help_panel
    parameters[place + 1 : place + 1] = [
        inspect.Parameter(
            keyword,
            inspect.Parameter.POSITIONAL_OR_KEYWORD,
            default=None,
            annotation=Annotated[
                str | None, typer.Option(flag, metavar="VALUE", help=_help(forms[flag]), rich_help_panel=panel)
            ],
        )
        for flag, keyword in keywords.items()
    ]
    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return run


def _help(takers: list[tuple[str, Option]]) -> str:
    return "; ".join(f"{name}: {known.help} ({known.values})" for name, known in takers)


def _joined(method: str | None, given: dict[str, str], forms: ShortForms) -> str | None:
    """The method with short forms written out."""
    if not given:
        return method
    if method is None:
        flag = next(iter(given))
        raise ConfigurationError(f"{flag} needs --method {' or --method '.join(name for name, _ in forms[flag])}")
    # In the order of the method's own options: the store notes this text.
    own = [known.flag for known in options_of(method_class(method.partition(":")[0]).Options)]
    ordered = sorted(given, key=lambda flag: own.index(flag) if flag in own else len(own))
    options = ",".join(f"{forms[flag][0][1].name}={given[flag]}" for flag in ordered)
    return f"{method}{',' if ':' in method else ':'}{options}"
