"""Where stores lie: folders, .zip files and URLs as named objects, written so that nobody sees half of one."""

from __future__ import annotations

import errno
import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stemcodecs import disk
from stemcodecs.errors import DestinationError, SourceError, StemcodecsError
from stemcodecs.remote import backend_errors, local_path, remote_filesystem
from stemcodecs.zip_members import zip_members

__all__ = ["JOURNAL", "Location", "write_error"]

JOURNAL = ".stemcodecs"
"""Folder inside an unfinished store; removed when the store is complete."""

_ZARR_MARKERS = ("zarr.json", ".zgroup", ".zarray", ".zmetadata")


@dataclass(frozen=True)
class Location:
    """A folder of named objects: a local folder, a .zip file, or anything that fsspec has a URL for.

    A .zip file is only read: what is in it would have to be written again to change one object.

    Parameters
    ----------
    url : str
        Local path, or a URL such as ``s3://bucket/scan.zarr``, ``memory://scan.zarr``, ``https://…``.
    """

    url: str

    @classmethod
    def of(cls, place: str | os.PathLike[str]) -> Location:
        """Location of a path or URL; ``file://`` URLs become local paths."""
        text = local_path(os.fspath(place))
        if "://" not in text:
            # A trailing slash or a link would make the sibling names of a replacement wrong.
            text = os.path.realpath(os.path.expanduser(text))
        return cls(text.rstrip("/") if "://" in text else text)

    @property
    def local(self) -> bool:
        """Whether this is a folder or a .zip file of this machine."""
        return "://" not in self.url

    @property
    def zipped(self) -> bool:
        """Whether this is a .zip file, or at least a file where a folder should be."""
        return self.local and os.path.isfile(self.url)

    def zarr_store(self) -> Any:
        """What Zarr and xarray open: the path, the URL, or an open .zip store."""
        if not self.zipped:
            return self.url
        from zarr.storage import ZipStore

        return ZipStore(self.url, mode="r")

    def child(self, key: str) -> Path:
        """Local path of an object."""
        return Path(self.url, *key.split("/"))

    def _remote(self, key: str = "") -> tuple[Any, str]:
        filesystem, path = remote_filesystem(self.url)
        return filesystem, f"{path.rstrip('/')}/{key}" if key else path

    def read(self, key: str) -> bytes | None:
        """Bytes of an object, None where it does not exist."""
        try:
            if self.zipped:
                member = zip_members(self.url).get(key)
                return None if member is None else member.read()
            if self.local:
                return self.child(key).read_bytes()
            filesystem, path = self._remote(key)
            with backend_errors(self.url):
                return bytes(filesystem.cat_file(path))
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None
        except OSError as error:
            raise _read_error(self.url, error) from error

    def read_first(self, key: str, count: int) -> bytes:
        """The first bytes of an object, fewer where it is shorter, none where it does not exist."""
        try:
            if self.zipped:
                return (self.read(key) or b"")[:count]
            if self.local:
                with self.child(key).open("rb") as file:
                    return file.read(count)
            filesystem, path = self._remote(key)
            with backend_errors(self.url):
                return bytes(filesystem.cat_file(path, start=0, end=count))[:count]
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return b""
        except OSError as error:
            raise _read_error(self.url, error) from error

    def write(self, key: str, data: Any, *, parts: str = JOURNAL, sync: bool = True) -> None:
        """Write an object; in a local folder nobody ever sees half of it, not after a power cut either.

        Locally the bytes go to a file in the folder `parts` first, which is synced and then renamed, so that a
        killed process leaves no debris among the chunks, and one that lives too long cannot write
        when that folder has gone. Object stores take an object whole; what a server of another kind (sftp, smb,
        webdav) shows of a write that was cut off is its own affair, and reading back finds it.

        Without `sync` a power cut may leave a local object without its bytes.
        """
        self._refuse_zip()
        try:
            if not self.local:
                filesystem, path = self._remote(key)
                # In an object store it appears when its upload is complete; sftp, smb and webdav show it while it
                # grows, and there only the root, which comes last, tells that a store is whole.
                with backend_errors(self.url, writing=True):
                    filesystem.pipe_file(path, bytes(data))
                return
            target = self.child(key)
            # In the same store, hence on the same file system: only there a rename is one step.
            part = self.child(f"{parts}/{uuid.uuid4().hex}.part")
            # Inside the journal one level only: a late writer must not make a removed journal again.
            disk.make_folders(target.parent, parents=not key.startswith(f"{JOURNAL}/"))
            disk.write_file(target, part, data, sync=sync)
        except OSError as error:
            raise write_error(self.url, error) from error

    def size(self, key: str) -> int | None:
        """Size of an object in bytes, None where it does not exist."""
        try:
            if self.zipped:
                member = zip_members(self.url).get(key)
                return None if member is None else member.full_size
            if self.local:
                return self.child(key).stat().st_size
            filesystem, path = self._remote(key)
            with backend_errors(self.url):
                # A server that sends a page in pieces says no size: the object is there all the same.
                return int(filesystem.info(path)["size"] or 0)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise _read_error(self.url, error) from error

    def names(self, folder: str) -> Iterator[str]:
        """Keys of all objects below a folder, in no particular order."""
        if self.zipped:
            prefix = f"{folder.rstrip('/')}/" if folder else ""
            yield from (name for name in zip_members(self.url) if name.startswith(prefix))
            return
        if self.local:
            for parent, _, files in os.walk(self.child(folder)):
                # Keys have slashes on every system.
                base = os.path.relpath(parent, self.url).replace(os.sep, "/")
                yield from (f"{base}/{name}" for name in files)
            return
        filesystem, root = self._remote()
        prefix = f"{root.rstrip('/')}/{folder}"
        with backend_errors(self.url):
            found = list(filesystem.find(prefix)) if filesystem.exists(prefix) else []
        yield from (path[len(root.rstrip("/")) + 1 :] for path in found)

    def remove(self, folder: str = "") -> None:
        """Remove a folder of objects, or the whole location, with everything in it, if it is there."""
        if self.zipped:
            if not folder or any(True for _ in self.names(folder)):
                self._refuse_zip()
            return
        if self.local:
            place = self.child(folder) if folder else Path(self.url)
            try:
                disk.remove_tree(place)
            except OSError as error:
                raise write_error(self.url, error) from error
            return
        filesystem, path = self._remote(folder)
        with backend_errors(self.url, writing=True):
            if filesystem.exists(path):
                filesystem.rm(path, recursive=True)

    def make_folder(self, folder: str) -> None:
        """Create a folder; object stores have none."""
        self._refuse_zip()
        if self.local:
            try:
                disk.make_root(self.child(folder))
            except OSError as error:
                raise write_error(self.url, error) from error

    def sync(self) -> None:
        """Put all names of a local folder on the disk; what was written has its bytes there already."""
        if self.local:
            disk.sync_tree(Path(self.url))

    def sync_root(self) -> None:
        """Put the names at the root of a local folder on the disk."""
        if self.local:
            disk.sync_folder(Path(self.url))

    def exists(self) -> bool:
        """Whether anything is there."""
        if self.local:
            return os.path.lexists(self.url)
        filesystem, path = self._remote()
        with backend_errors(self.url):
            return bool(filesystem.exists(path))

    def is_zarr(self) -> bool:
        """Whether this is the root of a Zarr store, complete or begun by stemcodecs."""
        return any(self.size(name) is not None for name in (*_ZARR_MARKERS, f"{JOURNAL}/job.json"))

    def _refuse_zip(self) -> None:
        if self.zipped:
            raise DestinationError(f"{self.url} is a file, and a .zip file is only read; unpack it, or choose a folder")

    def __str__(self) -> str:
        return self.url


def _read_error(url: str, error: OSError) -> SourceError:
    reason = error.strerror or str(error) or type(error).__name__
    return SourceError(f"{url}: cannot be read ({reason}); check the path, its permissions and the drive")


def write_error(url: str, error: OSError, *, advice: str | None = None) -> StemcodecsError:
    """One line for an operating system's refusal to write.

    Parameters
    ----------
    url : str
        What was to be written.
    error : OSError
        The refusal.
    advice : str, optional
        What to do about a full disk; default what a compression can do, which is to be resumed.
    """
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        resume = "free some space and continue with --resume (the store is not complete)"
        return DestinationError(f"{url}: the disk is full; {advice or resume}")
    if isinstance(error, FileNotFoundError) and advice is None:
        return DestinationError(f"{url}: its folder {JOURNAL} has gone; another run finished or removed this store")
    reason = error.strerror or str(error) or type(error).__name__
    return DestinationError(f"{url}: cannot be written ({reason}); check the path and its permissions")
