"""What a command shows on the terminal: the plan as a line, then a bar, and errors as one line each."""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, ParamSpec

import typer

from stemcodecs.errors import StemcodecsError

if TYPE_CHECKING:
    from stemcodecs_pipelines.run.plan import Plan

__all__ = ["Bar", "bar_of", "reported", "say"]

P = ParamSpec("P")
READER_LEFT = 128 + 13
"""Exit code of a command whose reader left, as shells show it: 128 and the number of SIGPIPE."""


def reported(command: Callable[P, None]) -> Callable[P, None]:
    """Turn what the user can act on into one line and exit code 2 (130 after Ctrl-C).

    A reader that has read enough (``stemcodecs info … | head -1``) ends the command without a word, with the 141 that a
    shell shows for any tool whose pipe was closed.
    """

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except StemcodecsError as error:
            _fail(str(error))
        except KeyboardInterrupt:
            typer.echo("stemcodecs: interrupted; a compression continues with --resume", err=True)
            raise typer.Exit(130) from None
        except MemoryError:
            _fail("not enough memory; give --memory, fewer --workers or a smaller --chunk")
        except OSError as error:
            if isinstance(error, BrokenPipeError) and _reader_left():
                raise typer.Exit(READER_LEFT) from None
            _fail(" ".join(str(error).split()) or type(error).__name__)

    return run


def _reader_left() -> bool:
    """Whether nobody reads the output any more; what is still buffered then goes nowhere."""
    import select

    try:
        output = sys.stdout.fileno()
    except (OSError, ValueError):  # not a file: nobody can have closed it
        return False
    if hasattr(select, "poll"):
        asked = select.poll()
        asked.register(output, select.POLLERR)
        if not asked.poll(0):
            return False  # some other pipe, say to a server, is broken
    # Python flushes once more when it ends, and would complain then.
    os.dup2(os.open(os.devnull, os.O_WRONLY), output)
    return True


def say(message: str) -> None:
    """One line on stderr."""
    typer.echo(f"stemcodecs: {' '.join(message.split())}", err=True)


def _fail(message: str) -> None:
    say(message)
    raise typer.Exit(2) from None


class Bar:
    """A progress bar in raw bytes on stderr, and the plan above it."""

    def __init__(self, title: str) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )

        self.console = Console(stderr=True, highlight=False, soft_wrap=True)
        self.progress = Progress(
            TextColumn(title),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        )
        self.task: Any = None
        self.fit: Any = None
        self.fit_text = ""

    def start(self, plan: Plan) -> None:
        """Show the plan; called before the first block."""
        self.console.print(plan.describe(), markup=False)
        self.task = self.progress.add_task("", total=plan.raw_bytes)
        self.progress.start()

    def learn(self, text: str, done: int, total: int) -> None:
        """Steps of a method that looks at the whole scan before the first block."""
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        if text != self.fit_text:
            self._stop_fit()
            self.fit_text = text
            self.console.print(text, markup=False)
            columns = TextColumn("fit"), BarColumn(), TimeRemainingColumn()
            self.fit = Progress(*columns, console=self.console, transient=True, disable=not self.console.is_terminal)
            self.fit.add_task("")
            self.fit.start()
        self.fit.update(self.fit.task_ids[0], completed=done, total=total)
        if done >= total:
            self._stop_fit()

    def _stop_fit(self) -> None:
        if self.fit is not None:
            self.fit.stop()

    def stop(self) -> None:
        """Leave the terminal tidy."""
        self._stop_fit()
        self.progress.stop()

    def advance(self, count: int) -> None:
        """Raw bytes done."""
        self.progress.advance(self.task, count)


@contextlib.contextmanager
def bar_of(title: str) -> Iterator[Bar]:
    """A bar that leaves the terminal tidy however the run ends."""
    bar = Bar(title)
    try:
        yield bar
    finally:
        bar.stop()
