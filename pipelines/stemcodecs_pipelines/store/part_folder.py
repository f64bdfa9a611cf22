"""Where a file grows before it has its name: a hidden folder beside it, that does not outlive the run."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

from stemcodecs.errors import DestinationError
from stemcodecs_pipelines.store.file_lock import lock_file

__all__ = ["part_folder"]

_LOCK = "lock"


@contextlib.contextmanager
def part_folder(target: Path, source: str) -> Iterator[Path]:
    """A hidden folder for what will become `target`, removed at the end.

    A process that is killed cannot remove it. Its name tells what it was for, and a lock in it whether that process
    still lives: the next run of the same kind takes the folder over and empties it.

    Parameters
    ----------
    target : Path
        File or folder to be written.
    source : str
        What it is made from.

    Raises
    ------
    DestinationError
        Another process is writing the same.
    """
    digest = hashlib.sha256(f"{source}\n{target.absolute()}".encode()).hexdigest()[:12]
    folder = target.with_name(f".{target.name}.{digest}.part")
    descriptor = _locked(folder, target)
    if descriptor is None:
        # Without locks nobody knows whether a folder of that name is in use.
        folder = folder.with_name(f".{target.name}.{uuid.uuid4().hex[:12]}.part")
        folder.mkdir(parents=True)
    try:
        _empty(folder)
        yield folder
    finally:
        if descriptor is not None and os.name == "nt":
            # Windows removes no open file.
            os.close(descriptor)
            descriptor = None
        shutil.rmtree(folder, ignore_errors=True)
        if descriptor is not None:
            os.close(descriptor)


def _locked(folder: Path, target: Path) -> int | None:
    """Descriptor of the locked file in the folder, both made if need be; None where there are no locks."""
    while True:
        made = not folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
        lock = folder / _LOCK
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
        got = lock_file(descriptor)
        if got and lock.exists() and os.path.samestat(os.fstat(descriptor), os.stat(lock)):
            return descriptor
        os.close(descriptor)
        if got is False:
            raise DestinationError(f"{target} is being written by another run; wait for it, or stop it first")
        if got is None:
            if made:
                shutil.rmtree(folder, ignore_errors=True)
            return None
        # The run that had the folder finished and removed it a moment ago.


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != _LOCK:
            path.unlink()
