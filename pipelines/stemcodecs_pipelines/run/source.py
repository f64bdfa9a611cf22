"""A source as the public functions take it: an open scan, or the path of one."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence

from numpy.typing import DTypeLike

from stemcodecs.errors import ConfigurationError
from stemcodecs.readers import open_scan
from stemcodecs.readers.scan import Scan

__all__ = ["opened"]


@contextlib.contextmanager
def opened(
    source: Scan | str | os.PathLike[str],
    *,
    dataset: str | None = None,
    shape: Sequence[int] | None = None,
    dtype: DTypeLike | None = None,
    offset: int = 0,
) -> Iterator[Scan]:
    """A scan that is open as it is, or one that is opened from a path and closed again.

    Parameters
    ----------
    source : Scan or path
        Source.
    dataset, shape, dtype, offset
        How to open a path, see `stemcodecs.readers.open_scan`.

    Raises
    ------
    ConfigurationError
        The scan is open already, and it was said how to open it.
    """
    if not isinstance(source, Scan):
        with open_scan(source, dataset=dataset, shape=shape, dtype=dtype, offset=offset) as scan:
            yield scan
        return
    if dataset is not None or shape is not None or dtype is not None or offset:
        raise ConfigurationError(
            "dataset, shape, dtype and offset say how to open a path, and this scan is open already; leave them out"
        )
    yield source
