"""Where a store may be written, and how an old one is replaced without a moment of loss."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from stemcodecs.errors import DestinationError
from stemcodecs.store import Location, state, write_error

__all__ = ["Destination"]


@dataclass(frozen=True, kw_only=True)
class Destination:
    """The place of a new store.

    Parameters
    ----------
    target : Location
        What the user asked for.
    working : Location
        Where the store grows: the target itself, or a sibling while the old store must be kept.
    """

    target: Location
    working: Location

    @classmethod
    def choose(cls, target: Location, *, source: str, overwrite: bool, resume: bool) -> Self:
        """Decide where to write, and refuse what could lose data.

        Raises
        ------
        DestinationError
            Something is at the target that may not be replaced.
        """
        _refuse_overlap(target, source)
        found = state(target).kind
        sibling = _sibling(target, "partial")
        if found == "absent":
            if target.local and state(sibling).kind == "complete":
                if not resume:
                    raise DestinationError(
                        f"{sibling} is a finished store that was about to become {target}; "
                        "move it there with --resume, or remove it"
                    )
                return cls(target=target, working=sibling)
            return cls(target=target, working=target)
        if found == "incomplete":
            if not (resume or overwrite):
                raise DestinationError(
                    f"{target} is an unfinished store; continue it with --resume, or start again with --overwrite"
                )
            return cls(target=target, working=target)
        if found == "other":
            if overwrite and target.local and Path(target.url).is_dir() and not os.listdir(target.url):
                return cls(target=target, working=target)
            raise DestinationError(
                f"{target} exists and is not a Zarr store; choose another destination, or remove it yourself"
            )
        if resume and not overwrite and found == "complete":
            return cls(target=target, working=target)
        if not overwrite:
            raise DestinationError(f"{target} exists; choose another destination, or replace it with --overwrite")
        if not target.local:
            raise DestinationError(
                f"{target} exists and an object store cannot replace it at once; "
                "write to a new URL, then remove the old one"
            )
        if state(sibling).kind not in ("absent", "incomplete", "complete"):
            raise DestinationError(f"{sibling} is in the way; remove it, then start again")
        return cls(target=target, working=sibling)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Keep a second run away from the same store while this one lives (local folders only)."""
        if not self.working.local:
            yield
            return
        folder = Path(self.working.url)
        created = not folder.exists()
        self.working.make_folder("")
        descriptor = None
        with contextlib.suppress(PermissionError):  # Windows opens no folder
            descriptor = os.open(folder, os.O_RDONLY)
        try:
            if descriptor is not None:
                _flock(descriptor, self.working)
            yield
        finally:
            if descriptor is not None:
                os.close(descriptor)
            if created:
                # Nothing was begun: a refused job should leave nothing behind.
                with contextlib.suppress(OSError):
                    folder.rmdir()

    def clear(self) -> None:
        """Empty the working folder, which is an unfinished store or nothing."""
        if not self.working.local:
            self.working.remove()
            return
        for name in os.listdir(self.working.url):
            path = Path(self.working.url, name)
            if path.is_dir() and not path.is_symlink():
                self.working.remove(name)
            else:
                path.unlink()

    def publish(self) -> None:
        """Put the finished store at the target; the old one goes when the new one is there."""
        if self.working == self.target:
            return
        old = _sibling(self.target, "old")
        try:
            shutil.rmtree(old.url, ignore_errors=True)
            if self.target.exists():
                os.rename(self.target.url, old.url)
            os.rename(self.working.url, self.target.url)
        except OSError as error:
            raise write_error(self.target.url, error) from error
        shutil.rmtree(old.url, ignore_errors=True)


def _sibling(target: Location, kind: str) -> Location:
    if not target.local:
        return target
    path = Path(target.url)
    return Location(str(path.with_name(f"{path.name}.{kind}")))


def _refuse_overlap(target: Location, source: str) -> None:
    if not target.local or "://" in source:
        return
    here, there = Path(target.url), Path(os.path.realpath(source))
    if here == there or here in there.parents or there in here.parents:
        raise DestinationError(
            f"{target} and the source {source} lie inside each other; choose a destination elsewhere"
        )


def _flock(descriptor: int, place: Location) -> None:
    try:
        import fcntl
    except ImportError:  # Windows
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise DestinationError(f"{place} is being written by another run; wait for it, or stop it first") from error
    except OSError:
        # Some network file systems have no locks; the journal's checksums still hold.
        return
