"""Places that fsspec has a URL for, and one line for whatever their backends raise."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

from stemcodecs.errors import DestinationError, SourceError, StemcodecsError

__all__ = ["backend_errors", "local_path", "remote_filesystem"]

_LOCAL_SCHEMES = ("file://", "local://")


def local_path(place: str) -> str:
    """Path of a ``file://`` URL; anything else as it is."""
    for scheme in _LOCAL_SCHEMES:
        if place.startswith(scheme):
            path = place[len(scheme) :].removeprefix("localhost")
            # fsspec takes the rest of such a URL as it is, browsers and pathlib write %20 for a blank.
            spelled_out = unquote(path)
            return spelled_out if os.path.exists(spelled_out) and not os.path.exists(path) else path
    return place


def remote_filesystem(url: str) -> tuple[Any, str]:
    """File system of a URL and the path in it.

    Raises
    ------
    SourceError
        fsspec does not know the scheme, or misses the package for it.
    """
    from fsspec.core import url_to_fs

    try:
        filesystem, path = url_to_fs(url)
    except Exception as error:  # a backend's constructor raises its own kinds: no credentials, no such region
        raise SourceError(f"{url}: {_reason(error)}; check the URL, or install its fsspec package") from error
    return filesystem, path


@contextlib.contextmanager
def backend_errors(url: str, *, writing: bool = False) -> Iterator[None]:
    """Turn what a remote backend raises into one line.

    That an object is not there passes through: it is an answer, and who asks knows what it means.

    Raises
    ------
    SourceError, DestinationError
        Anything else that happened while reading, while writing: no network, no permission, no bucket.
    """
    try:
        yield
    except (StemcodecsError, FileNotFoundError, NotADirectoryError, IsADirectoryError, MemoryError):
        raise
    except Exception as error:  # aiohttp, botocore, gcsfs, paramiko, ...: no common base class
        if writing:
            raise DestinationError(
                f"{url}: cannot be written ({_reason(error)}); check the URL, the network and your permissions"
            ) from error
        raise SourceError(
            f"{url}: cannot be read ({_reason(error)}); check the URL, the network and your permissions"
        ) from error


def _reason(error: BaseException) -> str:
    """The message of an error without its line breaks, after its kind: many backends' messages are only a path."""
    message = " ".join(str(error).split())
    return f"{type(error).__name__}: {message}" if message else type(error).__name__
