"""A source as the public functions take it: an open scan, or the path of one."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, TypedDict, Unpack

from stemcodecs.errors import ConfigurationError

if TYPE_CHECKING:
    from numpy.typing import DTypeLike

    from stemcodecs.readers.scan import Scan

__all__ = ["HowToOpen", "opened", "source_options"]


class HowToOpen(TypedDict, total=False):
    """How to open a path, see `stemcodecs.readers.open_scan`."""

    dataset: str | None
    shape: Sequence[int] | None
    dtype: DTypeLike | None
    offset: int
    scan_shape: Sequence[int] | None
    drop_flyback: int
    partial: bool


def source_options(how: HowToOpen) -> list[str]:
    """The words by which a command is told how to open a path."""
    words: list[str] = []
    for name, value in how.items():
        if not value:
            continue
        words.append(f"--{name.replace('_', '-')}")
        if name in ("shape", "scan_shape"):
            words.append(",".join(map(str, value)))  # type: ignore[call-overload]
        elif name != "partial":
            words.append(str(value))
    return words


@contextlib.contextmanager
def opened(source: Scan | str | os.PathLike[str], **how: Unpack[HowToOpen]) -> Iterator[Scan]:
    """A scan that is open as it is, or one that is opened from a path and closed again.

    Parameters
    ----------
    source : Scan or path
        Source.
    **how
        How to open a path, see `stemcodecs.readers.open_scan`.

    Raises
    ------
    ConfigurationError
        The scan is open already, and it was said how to open it.
    """
    # Not above: commands name HowToOpen, and their help must not wait for NumPy.
    from stemcodecs.readers import open_scan
    from stemcodecs.readers.scan import Scan

    if not isinstance(source, Scan):
        with open_scan(source, **how) as scan:
            yield scan
        return
    if any(how.values()):
        raise ConfigurationError(
            f"{', '.join(name for name, value in how.items() if value)}: this scan is open already; "
            "say how to open it where it is opened"
        )
    yield source
