"""Members of .zip files, read in place without keeping the archive open."""

from __future__ import annotations

import functools
import os
import zipfile
import zlib
from dataclasses import dataclass
from typing import Any

from stemcodecs.errors import SourceError

__all__ = ["ZipMember", "zip_members"]

_LOCAL_HEADER = 30
_ENCRYPTED = 0x1
_DIRECTORIES_KEPT = 8


@dataclass(frozen=True, kw_only=True)
class ZipMember:
    """One file inside a .zip file.

    Parameters
    ----------
    path : str
        The .zip file.
    name : str
        Name inside it.
    header : int
        Position of its local header, in bytes.
    size : int
        Bytes that it takes in the archive.
    full_size : int
        Bytes that it has when it is unpacked.
    method : int
        How it is compressed, ``zipfile.ZIP_STORED`` where it is not.
    crc : int
        CRC-32 of the unpacked bytes.
    """

    path: str
    name: str
    header: int
    size: int
    full_size: int
    method: int
    crc: int

    @property
    def stored(self) -> bool:
        """Whether its bytes lie in the archive as they are."""
        return self.method == zipfile.ZIP_STORED

    def offset(self) -> int:
        """Position of its first byte in the archive.

        Only the local header says it: name and extra field there may be longer than in the directory.

        Raises
        ------
        SourceError
            There is no local header at that position.
        """
        with open(self.path, "rb") as file:
            file.seek(self.header)
            header = file.read(_LOCAL_HEADER)
        if len(header) < _LOCAL_HEADER or header[:4] != b"PK\x03\x04":
            raise SourceError(f"{self.path}: broken .zip file at {self.name}; restore it from another copy")
        lengths = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
        return self.header + _LOCAL_HEADER + lengths

    def read(self) -> bytes:
        """Its unpacked bytes, held against their CRC.

        Raises
        ------
        SourceError
            The archive is damaged, or packed in a way that is not read.
        """
        offset = self.offset()
        with open(self.path, "rb") as file:
            file.seek(offset)
            packed = file.read(self.size)
        if self.stored:
            content = packed
        elif self.method == zipfile.ZIP_DEFLATED:
            unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
            try:
                # No further than the directory says: a damaged one must not ask for all memory.
                content = unpacker.decompress(packed, self.full_size + 1)
            except zlib.error as error:
                raise SourceError(f"{self.path}: {self.name} is damaged ({error}); restore the .zip file") from error
        else:
            raise SourceError(f"{self.path}: {self.name} is packed by method {self.method}; unpack the .zip file")
        if len(content) != self.full_size or zlib.crc32(content) != self.crc:
            raise SourceError(f"{self.path}: {self.name} is damaged (its CRC differs); restore the .zip file")
        return content


def zip_members(path: str) -> dict[str, ZipMember]:
    """Members of a .zip file by their names, folders left out.

    Raises
    ------
    SourceError
        It is no .zip file, a broken one, or encrypted.
    FileNotFoundError
        It is not there.
    """
    found = os.stat(path)
    return _directory(path, (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns))


@functools.lru_cache(maxsize=_DIRECTORIES_KEPT)
def _directory(path: str, identity: tuple[Any, ...]) -> dict[str, ZipMember]:
    """Read a directory once: a store has thousands of chunks; `identity` tells a replaced file from the old one."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise SourceError(f"{path}: broken .zip file ({error}); restore it from another copy") from error
    if any(entry.flag_bits & _ENCRYPTED for entry in entries):
        raise SourceError(f"{path}: encrypted .zip file; unpack it and give what is in it")
    return {
        entry.filename: ZipMember(
            path=path,
            name=entry.filename,
            header=entry.header_offset,
            size=entry.compress_size,
            full_size=entry.file_size,
            method=entry.compress_type,
            crc=entry.CRC,
        )
        for entry in entries
        if not entry.is_dir()
    }
