"""Where a store may be written, and how an old one is replaced without a moment of loss."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from stemcodecs import disk
from stemcodecs.errors import DestinationError
from stemcodecs.location import JOURNAL, Location, write_error
from stemcodecs.store import state
from stemcodecs_pipelines.store.lock import locked

__all__ = ["Destination"]

REPLACES_KEY = f"{JOURNAL}/replaces"
"""Object of an unfinished store that will replace another one: the name of that one."""


@dataclass(frozen=True, kw_only=True)
class Destination:
    """The place of a new store.

    Parameters
    ----------
    target : Location
        What the user asked for.
    working : Location
        Where the store grows: the target itself, or a folder beside it while the old store must be kept.
    """

    target: Location
    working: Location

    @classmethod
    @contextlib.contextmanager
    def held(cls, target: Location, *, source: str, overwrite: bool, resume: bool) -> Iterator[Self]:
        """Choose a destination and keep other runs away from it.

        Raises
        ------
        DestinationError
            Something is at the target that may not be replaced, or another run writes there.
        """
        chosen = cls.choose(target, source=source, overwrite=overwrite, resume=resume)
        with locked(chosen.working) as created:
            # What was absent or unfinished may have been finished by a run that ended before the lock was ours.
            again = cls.choose(target, source=source, overwrite=overwrite, resume=resume, made_here=created)
            if again != chosen:
                raise DestinationError(f"{target} was changed by another run just now; look at it, then start again")
            yield chosen

    @classmethod
    def choose(cls, target: Location, *, source: str, overwrite: bool, resume: bool, made_here: bool = False) -> Self:
        """Decide where to write, and refuse what could lose data.

        Parameters
        ----------
        target : Location
            What the user asked for.
        source : str
            Path or URL of the source.
        overwrite, resume : bool
            What may happen to what is there.
        made_here : bool
            The working folder was made by the lock, and is empty for that alone.

        Raises
        ------
        DestinationError
            Something is at the target that may not be replaced.
        """
        _refuse_overlap(target, source)
        if target.zipped:
            raise DestinationError(
                f"{target} is a file, not a Zarr store that can be replaced; "
                "choose another destination, or remove it yourself"
            )
        found = state(target).kind
        sibling = _sibling(target)
        if found == "other" and (overwrite or made_here) and _is_empty_folder(target):
            found = "absent"
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
        _refuse_what_we_did_not_begin(sibling, target, resume)
        return cls(target=target, working=sibling)

    def clear(self) -> None:
        """Empty the working folder, which is an unfinished store or nothing, and note what it will replace."""
        if not self.working.local:
            self.working.remove()
            return
        for name in os.listdir(self.working.url):
            path = Path(self.working.url, name)
            if path.is_dir() and not path.is_symlink():
                self.working.remove(name)
            else:
                disk.remove_file(path)
        if self.working != self.target:
            self.working.make_folder(JOURNAL)
            self.working.write(REPLACES_KEY, Path(self.target.url).name.encode())

    def publish(self) -> None:
        """Put the finished store at the target; the old one goes when the new one is there."""
        if self.working == self.target:
            return
        target = Path(self.target.url)
        try:
            if self.target.exists():
                disk.rename(target, _set_aside(self.target))
            disk.rename(Path(self.working.url), target)
        except OSError as error:
            raise write_error(self.target.url, error) from error
        # Also what a run that was killed here has left; its name tells that it is a store which was set aside.
        for old in target.parent.glob(f"{glob.escape(target.name)}.*.old"):
            if old == _set_aside(self.target, Location(str(old))):
                with contextlib.suppress(OSError):
                    disk.remove_tree(old)


def _sibling(target: Location) -> Location:
    """Where a store grows that will replace the target: always the same place, so that ``--resume`` finds it."""
    if not target.local:
        return target
    digest = hashlib.sha256(os.fsencode(target.url)).hexdigest()[:12]
    return Location(f"{target.url}.{digest}.partial")


def _set_aside(target: Location, store: Location | None = None) -> Path:
    """Name of a replaced store until it is removed: with the digest of its own root, which no folder of a user has."""
    store = store or target
    root = next(filter(None, map(store.read, ("zarr.json", ".zgroup", ".zarray", ".zmetadata"))), b"")
    return Path(f"{target.url}.{hashlib.sha256(root).hexdigest()[:16]}.old")


def _refuse_what_we_did_not_begin(sibling: Location, target: Location, resume: bool) -> None:
    found = state(sibling).kind
    if found == "absent" or (found == "other" and _is_empty_folder(sibling)):
        return
    if found == "incomplete" and sibling.read(REPLACES_KEY) == Path(target.url).name.encode():
        return
    if found == "complete":
        if resume:
            return
        raise DestinationError(
            f"{sibling} is a finished store that was about to become {target}; "
            "put it there with --overwrite --resume, or remove it"
        )
    raise DestinationError(f"{sibling} is in the way; remove it, then start again")


def _is_empty_folder(place: Location) -> bool:
    return place.local and os.path.isdir(place.url) and not os.listdir(place.url)


def _refuse_overlap(target: Location, source: str) -> None:
    if not target.local or "://" in source:
        return
    here, there = Path(target.url), Path(os.path.realpath(source))
    if here == there or here in there.parents or there in here.parents:
        raise DestinationError(
            f"{target} and the source {source} lie inside each other; choose a destination elsewhere"
        )
