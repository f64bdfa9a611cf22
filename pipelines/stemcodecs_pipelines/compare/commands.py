"""``stemcodecs demo``."""

from __future__ import annotations

from typing import Annotated

import typer

from stemcodecs_pipelines.run.terminal import reported

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(reported(demo))


def demo(
    keep: Annotated[
        str | None,
        typer.Option(help="Folder for the simulated scan and its store; default: removed."),
    ] = None,
) -> None:
    """Simulate a small 4D-STEM scan, compress it, verify it, and compare with other compressors."""
    from stemcodecs_pipelines.compare.demo import run_demo

    run_demo(keep, echo=typer.echo)
