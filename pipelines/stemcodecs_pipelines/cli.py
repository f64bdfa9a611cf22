"""The command ``stemcodecs``: mounts the commands of every room.

What a command needs is imported inside it, and neither the commands nor the options of the methods need NumPy: help
and mistyped options are answered before anything heavy is loaded.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

import stemcodecs_pipelines.methods.commands
import stemcodecs_pipelines.pca.commands
import stemcodecs_pipelines.ptychography.commands
import stemcodecs_pipelines.store.commands
import stemcodecs_pipelines.temporal.commands
import stemcodecs_pipelines.tomography.commands
from stemcodecs._version import __version__

# Not by the name of its room, which is that of the public function.
from stemcodecs_pipelines.compare.commands import register as register_compare

__all__ = ["app", "main"]

app = typer.Typer(
    name="stemcodecs",
    help="Compress 4D-STEM scans, ptychography and diffraction stacks into Zarr stores.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    add_completion=False,
)


@app.callback(invoke_without_command=True)
def _options(
    version: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False,
) -> None:
    if version:
        typer.echo(f"stemcodecs {__version__}")
        raise typer.Exit()


stemcodecs_pipelines.store.commands.register(app, stemcodecs_pipelines.methods.commands.with_short_forms)
stemcodecs_pipelines.methods.commands.register(app)
stemcodecs_pipelines.pca.commands.register(app)
stemcodecs_pipelines.ptychography.commands.register(app)
register_compare(app)
stemcodecs_pipelines.temporal.commands.register(app)
stemcodecs_pipelines.tomography.commands.register(app)


def main() -> None:
    """Entry point of the command."""
    from stemcodecs_pipelines.run.memory import share_freed_blocks

    # This process is the command's own, so its allocator may be told what suits blocks.
    share_freed_blocks()
    for stream in (sys.stdout, sys.stderr):
        # A terminal or pipe without UTF-8 must not turn an arrow into a crash.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    app(prog_name="stemcodecs")
