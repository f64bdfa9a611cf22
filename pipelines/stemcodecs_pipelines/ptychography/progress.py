"""A progress bar that shows the error beside it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

__all__ = ["error_bar"]


@contextlib.contextmanager
def error_bar(title: str) -> Iterator[Callable[[int, int, float], None]]:
    """A bar on stderr, where that is a terminal; the function that it gives takes done, total and error."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True, highlight=False, soft_wrap=True)
    columns = TextColumn(title), BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}")
    with Progress(*columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("")

        def advance(done: int, total: int, error: float) -> None:
            bar.update(task, completed=done, total=total, description=f"error {error:.4f}")

        yield advance
