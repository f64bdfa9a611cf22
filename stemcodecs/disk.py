"""What is written to a local disk, in an order that survives a power cut.

A file that was written and renamed is in the page cache; after a power cut the new name may be there and the bytes may
not. So a file's bytes are synced before it gets its name, and a folder is synced before anything says that its names
are there. Everything that a compression changes on a local disk goes through this module, so that a test can record
every step and ask of each prefix of them what a power cut would leave.
"""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import Any

__all__ = [
    "make_folders",
    "make_root",
    "remove_file",
    "remove_tree",
    "rename",
    "sync_folder",
    "sync_tree",
    "write_file",
]


def write_file(path: Path, part: Path, data: Any, *, sync: bool = True) -> None:
    """Write a file at once: under its own name there is never a part of it, not after a power cut either.

    Parameters
    ----------
    path : Path
        The file; its name is on the disk after :func:`sync_folder` of its folder.
    part : Path
        Where the bytes go first, on the same file system.
    data : bytes-like
        Its content.
    sync : bool
        False where a reader finds out by itself that the bytes never came, as for what carries a checksum and can be
        made again.
    """
    try:
        with part.open("wb") as file:
            file.write(data)
            if sync:
                file.flush()
                os.fsync(file.fileno())
                _forget(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _forget(descriptor: int) -> None:
    """Let the system drop the file's pages, so that reading it back asks the disk; synced pages only can go."""
    advise = getattr(os, "posix_fadvise", None)
    if advise is None:  # macOS and Windows: what is read back may come from memory there
        return
    try:
        advise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    except OSError:
        # A file system without pages, or one that keeps them: nothing is lost but the stricter check.
        return


def make_folders(path: Path, *, parents: bool = True) -> None:
    """Create a folder and, with `parents`, those above it; see :func:`sync_tree` for their names."""
    path.mkdir(parents=parents, exist_ok=True)


def make_root(path: Path) -> None:
    """Create a folder and those above it, and put the names of new ones on the disk."""
    place, missing = path, []
    while not place.exists() and place != place.parent:
        missing.append(place)
        place = place.parent
    make_folders(path)
    for new in missing:
        sync_folder(new.parent)


def sync_folder(path: Path) -> None:
    """Put the names in a folder on the disk; where folders cannot be opened (Windows) the system does so itself."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except (PermissionError, IsADirectoryError):
        return
    try:
        os.fsync(descriptor)
    except OSError:
        # Some network and user-space file systems refuse to sync a folder.
        return
    finally:
        os.close(descriptor)


def sync_tree(path: Path) -> None:
    """Put the names in a folder and in all folders below it on the disk."""
    for folder, _, _ in os.walk(path, topdown=False):
        sync_folder(Path(folder))


def rename(source: Path, target: Path) -> None:
    """Rename within a file system, and put both names on the disk."""
    os.rename(source, target)
    sync_folder(target.parent)
    if source.parent != target.parent:
        sync_folder(source.parent)


def remove_file(path: Path) -> None:
    """Remove a file, if it is there."""
    path.unlink(missing_ok=True)


def remove_tree(path: Path, *, tries: int = 30) -> None:
    """Remove a folder with everything in it, if it is there.

    A worker that was given up may be writing into it still: what is in its way vanishes or stays, so it is tried
    some times before the last error is raised.
    """
    for number in range(tries):
        shutil.rmtree(path, ignore_errors=True)
        if not os.path.lexists(path):
            return
        # What it writes takes a moment: it finds its folder gone after that.
        time.sleep(0.001 * number)
    shutil.rmtree(path)
