"""What a source was when it was opened, so that nobody takes another one for it later.

A path is no identity: a file is written again under its name, a data file of a series is replaced, a
chunk of a store is lost. Size, time of the last change and inode are, together, for every file that
the values depend on; they cost one `stat` a file. Contents are not read: that would cost as much as
the scan.
"""

from __future__ import annotations

import datetime
import hashlib
import os
import platform
import stat
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

from stemcodecs.errors import SourceError

__all__ = ["Identity", "Part"]


@dataclass(frozen=True, kw_only=True)
class Part:
    """One file, folder or remote object that values depend on.

    Parameters
    ----------
    path : str
        Where it is: an absolute local path, or a URL.
    size : int or None
        Bytes; of a folder the bytes of all files in it; None where the server does not say.
    modified_ns : int or None
        Last change in nanoseconds since 1970; of a folder that of its newest file.
    inode : int or None
        Number of the local file or folder: another one when the file was replaced and not rewritten.
    machine : str or None
        Who saw this inode: on some network drives every machine gives numbers of its own.
    etag : str or None
        What a server calls the version of the object.
    files : int or None
        Number of files in a folder; None for a file.
    """

    path: str
    size: int | None
    modified_ns: int | None = None
    inode: int | None = None
    machine: str | None = None
    etag: str | None = None
    files: int | None = None

    @classmethod
    def of(cls, path: str) -> Self:
        """Look at a local file or folder, or at a remote object.

        A folder costs one `stat` for each file in it, about 3 µs on a local disk, up to a
        millisecond on a network file system.

        Raises
        ------
        SourceError
            It is not there, or cannot be looked at.
        """
        if "://" in path:
            return cls._remote(path)
        path = os.path.abspath(path)
        try:
            status = os.stat(path)
            if not stat.S_ISDIR(status.st_mode):
                return cls(
                    path=path,
                    size=status.st_size,
                    modified_ns=status.st_mtime_ns,
                    inode=status.st_ino,
                    machine=platform.node(),
                )
            files = size = newest = 0
            folders = [path]
            while folders:
                with os.scandir(folders.pop()) as entries:
                    for entry in entries:
                        if entry.is_dir():
                            folders.append(entry.path)
                            continue
                        found = entry.stat()
                        files += 1
                        size += found.st_size
                        newest = max(newest, found.st_mtime_ns)
        except FileNotFoundError as error:
            raise SourceError(f"{path} is gone; put it back, or start again without it") from error
        except OSError as error:
            reason = error.strerror or str(error)
            raise SourceError(f"{path}: cannot be read ({reason}); check the permissions and the drive") from error
        return cls(path=path, size=size, modified_ns=newest, inode=status.st_ino, machine=platform.node(), files=files)

    @classmethod
    def _remote(cls, url: str) -> Self:
        from fsspec.core import url_to_fs

        try:
            filesystem, place = url_to_fs(url)
            # Listings are kept by some file systems: an old one would hide that the object changed.
            filesystem.invalidate_cache()
            said: Mapping[str, Any] = filesystem.info(place)
            if said.get("type") == "directory":
                return cls._remote_folder(url, filesystem.find(place, detail=True))
        except FileNotFoundError as error:
            raise SourceError(f"{url} is gone; put it back, or start again without it") from error
        except Exception as error:  # every backend has errors of its own
            reason = " ".join(str(error).split()) or type(error).__name__
            raise SourceError(f"{url}: cannot be looked at ({reason}); check the URL and the connection") from error
        size = said.get("size")
        return cls(
            path=url,
            size=None if size is None else int(size),
            modified_ns=_modified(said),
            etag=_etag(said),
        )

    @classmethod
    def _remote_folder(cls, url: str, objects: Mapping[str, Mapping[str, Any]]) -> Self:
        versions = hashlib.sha256()
        for name in sorted(objects):
            versions.update(f"{name} {_etag(objects[name])}\n".encode())
        return cls(
            path=url,
            size=sum(int(said.get("size") or 0) for said in objects.values()),
            modified_ns=max((_modified(said) or 0 for said in objects.values()), default=0) or None,
            etag=versions.hexdigest(),
            files=len(objects),
        )

    def is_same(self, other: Part) -> bool:
        """Whether this is what another machine, or this one at another time, saw as `other`."""
        if self.machine == other.machine:
            return self == other
        return replace(self, inode=None, machine=None) == replace(other, inode=None, machine=None)

    def __str__(self) -> str:
        files = "" if self.files is None else f"{self.files:,} files, "
        size = "unknown size" if self.size is None else f"{self.size:,} bytes"
        return f"{files}{size}{self._time()}"

    def _time(self) -> str:
        if not self.modified_ns:
            return ""
        when = datetime.datetime.fromtimestamp(self.modified_ns / 1e9)
        return f" modified {when:%Y-%m-%d %H:%M:%S}"


def _etag(said: Mapping[str, Any]) -> str | None:
    return next((str(said[key]) for key in ("ETag", "etag", "md5Hash") if said.get(key)), None)


def _modified(said: Mapping[str, Any]) -> int | None:
    keys = ("mtime", "LastModified", "last_modified", "updated", "created")
    time = next((said[key] for key in keys if said.get(key)), None)
    if isinstance(time, datetime.datetime):
        return int(time.timestamp() * 1_000_000) * 1000
    return int(time * 1e9) if isinstance(time, int | float) and time else None


@dataclass(frozen=True)
class Identity:
    """Everything that the values of a source depend on, as it was at one moment.

    Whether two are the same source is what `difference` says; `==` holds inodes of different machines against each
    other as well.

    Parameters
    ----------
    parts : tuple of Part
        Sorted by path, each once.
    """

    parts: tuple[Part, ...]

    @classmethod
    def of(cls, paths: Iterable[str | os.PathLike[str]]) -> Self:
        """Look at files, folders (with everything in them) and URLs as they are now.

        Raises
        ------
        SourceError
            One is not there; it is named.
        """
        parts = {part.path: part for part in map(Part.of, sorted({_plain(path) for path in paths}))}
        return cls(tuple(parts[path] for path in sorted(parts)))

    def now(self) -> Self:
        """The same files as they are now.

        Raises
        ------
        SourceError
            One is gone.
        """
        return type(self).of(part.path for part in self.parts)

    def difference(self, other: Identity) -> str | None:
        """What is different in `other`, which is the later one: one line that names the first file, or None."""
        later = {part.path: part for part in other.parts}
        for part in self.parts:
            found = later.pop(part.path, None)
            if found is None:
                return f"{part.path} is no longer a part of it"
            if part.is_same(found):
                continue
            if str(found) != str(part):
                return f"{part.path} was replaced: {part} → {found}"
            # What a user reads is the same: the change is within the second, or a copy that kept the time.
            return f"{part.path} was replaced by another file of the same size ({part})"
        for path in later:
            return f"{path} was added to it"
        return None

    def to_dict(self) -> list[dict[str, Any]]:
        """For JSON: one dictionary a part, without what is unknown."""
        return [{k: v for k, v in asdict(part).items() if v is not None or k == "size"} for part in self.parts]

    @classmethod
    def from_dict(cls, said: Iterable[Mapping[str, Any]]) -> Self:
        """Read back what `to_dict` gave.

        Raises
        ------
        TypeError
            It has other keys.
        """
        return cls(tuple(Part(**part) for part in said))


def _plain(path: str | os.PathLike[str]) -> str:
    text = os.fspath(path)
    if text.startswith("file://"):
        from urllib.parse import unquote, urlsplit

        text = unquote(urlsplit(text).path)
    return text
