"""``stemcodecs compare`` and ``stemcodecs demo``."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stemcodecs.errors import DestinationError
from stemcodecs_pipelines.ptychography.problem_options import any_given, with_problem_options
from stemcodecs_pipelines.run.command_options import (
    SectionedCommand,
    Source,
    open_source,
    typed_command,
    with_source_options,
)
from stemcodecs_pipelines.run.source import HowToOpen, source_options
from stemcodecs_pipelines.run.terminal import reported, say

if TYPE_CHECKING:
    from stemcodecs_pipelines.compare.report import Report

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command(cls=SectionedCommand)(reported(with_source_options(with_problem_options(compare))))
    app.command()(reported(demo))


def compare(
    context: typer.Context,
    source: Source,
    how: HowToOpen,
    known: Callable[[], Any],
    sample: Annotated[
        str, typer.Option(help="Size of what is read of a larger scan, in whole chunks spread over it.")
    ] = "256MB",
    everything: Annotated[
        bool, typer.Option("--all", help="Run compressors of others that take minutes, too: JPEG-XL 9, xz, zpaq, ….")
    ] = False,
    workers: Annotated[int | None, typer.Option(help="Methods at a time; default: one per core.")] = None,
    html: Annotated[str | None, typer.Option(metavar="FILE", help="Write a page with figures.")] = None,
    json: Annotated[str | None, typer.Option(metavar="FILE", help="Write all numbers as JSON.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that are there.")] = False,
) -> None:
    """Try every method on a scan, ours and those of others, and say which to use.

    With positions of the scan, loss is judged by reconstructions too.
    """
    from rich.console import Console

    from stemcodecs_pipelines.compare.run import compare
    from stemcodecs_pipelines.compare.table import print_report
    from stemcodecs_pipelines.run.plan import memory_bytes

    size = memory_bytes(sample)
    write_page = _page_writer() if html is not None else None
    for name, place in (("html", html), ("json", json)):
        if place is not None:
            _check_file(name, Path(place), overwrite)
    with open_source(source, how) as scan:
        problem = None
        if any_given(known):
            from stemcodecs_pipelines.ptychography.read_problem import read_problem

            problem = read_problem(scan, known())
        with _rows_bar() as progress:
            report = compare(
                scan,
                sample=size,
                slow=everything,
                workers=workers,
                problem=problem,
                command=typed_command(context),
                options=source_options(how),
                start=say,
                progress=progress,
            )
    print_report(report, Console(highlight=False))
    _write(report, html, json, write_page)
    if not report.finished:
        say(f"interrupted: {len(report.rows)} methods were done, and are all that is here")
        raise typer.Exit(130)


def _page_writer() -> Callable[..., None]:
    """Before anything is measured: what the page needs may be missing."""
    from stemcodecs_pipelines.compare.page.write import require_packages, write_page

    require_packages()
    writer: Callable[..., None] = write_page
    return writer


def _write(report: Report, html: str | None, json: str | None, write_page: Callable[..., None] | None) -> None:
    from stemcodecs_pipelines.compare.json_report import write_json

    if json is not None:
        write_json(report, json)
        typer.echo(f"{json}: all numbers")
    if html is not None and write_page is not None:
        write_page(report, html)
        typer.echo(f"{html}: page with figures")


def _check_file(option: str, place: Path, overwrite: bool) -> None:
    if place.is_dir():
        raise DestinationError(f"--{option} {place} is a folder; give the name of a file")
    if place.exists() and not overwrite:
        raise DestinationError(f"{place} exists already; give --overwrite or another --{option}")
    if not place.absolute().parent.is_dir():
        raise DestinationError(f"the folder {place.parent} does not exist; create it first")


@contextlib.contextmanager
def _rows_bar() -> Iterator[Callable[[float, int, str], None]]:
    """A bar of methods on stderr."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}", markup=False)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("look at the scan", total=None)

        def progress(done: float, total: int, name: str) -> None:
            # A part of a row has no name: that of the row that was finished last stays.
            bar.update(task, completed=done, total=total, description=name or None)

        yield progress


def demo(
    keep: Annotated[
        str | None,
        typer.Option(help="Folder for the simulated scan and its store; default: removed."),
    ] = None,
) -> None:
    """Simulate a small 4D-STEM scan, compress it, verify it, and compare with other compressors."""
    from stemcodecs_pipelines.compare.demo import run_demo

    run_demo(keep, echo=typer.echo)
