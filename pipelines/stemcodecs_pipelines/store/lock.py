"""One run at a time on a local store."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from stemcodecs.errors import DestinationError
from stemcodecs.location import Location

__all__ = ["locked"]


@contextlib.contextmanager
def locked(place: Location) -> Iterator[bool]:
    """Keep a second run away from a store while this one lives; a killed run keeps nobody away.

    The lock is on the folder itself, which the package filelock cannot do: it locks a file of its own that stays
    behind, one object too many in the store or litter next to it. This lock leaves nothing, and ends with the process
    however it ends.
    Object stores, Windows, and network file systems without locks have none: there the checksums of the journal and
    the digests of the job keep two runs from mixing.

    Parameters
    ----------
    place : Location
        The store; a local folder that is not there is made, and goes again if it is still empty at the end.

    Yields
    ------
    bool
        Whether the folder was made here.

    Raises
    ------
    DestinationError
        Another run holds the lock.
    """
    if not place.local:
        yield False
        return
    folder = Path(place.url)
    created = not folder.exists()
    place.make_folder("")
    with contextlib.ExitStack() as stack:
        descriptor = _open_folder(folder)
        if descriptor is not None:
            stack.callback(os.close, descriptor)
            _take(descriptor, place)
        if created:
            # While the lock is held: nobody else's folder is removed. A refused job leaves nothing behind.
            stack.callback(_remove_if_empty, folder)
        yield created


def _open_folder(folder: Path) -> int | None:
    try:
        return os.open(folder, os.O_RDONLY)
    except PermissionError:  # Windows opens no folders
        return None


def _take(descriptor: int, place: Location) -> None:
    try:
        import fcntl
    except ImportError:  # Windows
        return
    busy = DestinationError(f"{place} is being written by another run; wait for it, or stop it first")
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise busy from error
    except OSError:
        return
    # The other run may have removed or replaced the folder between our opening and our lock.
    held = os.fstat(descriptor)
    try:
        now = os.stat(place.url)
    except FileNotFoundError as error:
        raise busy from error
    if (held.st_ino, held.st_dev) != (now.st_ino, now.st_dev):
        raise busy


def _remove_if_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):
        folder.rmdir()
