"""The page on the disk."""

from __future__ import annotations

import os
from pathlib import Path

from stemcodecs.disk import write_file
from stemcodecs.errors import ConfigurationError
from stemcodecs.location import write_error
from stemcodecs_pipelines.compare.report import Report

__all__ = ["render_page", "require_packages", "write_page"]


def render_page(report: Report) -> str:
    """HTML of a report: one document that loads nothing and runs nothing; the same report gives the same text.

    Parameters
    ----------
    report : Report
        Names, units and notes in it may hold anything: they are text, never markup.

    Raises
    ------
    ConfigurationError
        jinja2 or matplotlib is not installed.
    """
    require_packages()
    import jinja2

    from stemcodecs_pipelines.compare.page.content import content
    from stemcodecs_pipelines.compare.page.number_text import breakable

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("stemcodecs_pipelines.compare", "page"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["breakable"] = breakable
    return environment.get_template("page.html.j2").render(content(report))


def require_packages() -> None:
    """Say at once what is missing, before anything is measured for a page.

    Raises
    ------
    ConfigurationError
        jinja2 or matplotlib is not installed.
    """
    try:
        import jinja2  # noqa: F401
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ConfigurationError(
            f"the page needs {error.name}; install it with: pip install 'stemcodecs[compare]'"
        ) from None


def write_page(report: Report, path: str | os.PathLike[str]) -> None:
    """Write a report as one HTML file, at once: an old file is replaced by a whole new one.

    Raises
    ------
    ConfigurationError
        jinja2 or matplotlib is not installed.
    DestinationError
        The file cannot be written.
    """
    place = Path(path)
    text = render_page(report)
    try:
        write_file(place, place.with_name(f".{place.name}.{os.getpid()}.part"), text.encode("utf-8"))
    except OSError as error:
        raise write_error(str(place), error, advice="free some space, or write the page elsewhere") from error
