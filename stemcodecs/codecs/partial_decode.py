"""Read part of a chunk: what is to be read, apart from how it is read.

Zarr asks a codec for a selection of a chunk in two ways: its usual pipeline waits for the bytes of many chunks at once
(``_decode_partial_single``), its fused one reads them in a thread (``_decode_partial_sync``, Zarr 3.3 and later). A
codec here says in steps which bytes it needs, and this module gets them in either way, or from a file that stays open.
"""

from __future__ import annotations

import asyncio
import os
from abc import abstractmethod
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

from zarr.abc.buffer import Buffer, NDBuffer
from zarr.abc.codec import ArrayBytesCodecPartialDecodeMixin
from zarr.abc.store import ByteGetter, OffsetByteRequest, RangeByteRequest
from zarr.storage import LocalStore, StorePath

from stemcodecs.zarr_private import ArraySpec

__all__ = ["PartialDecode", "Range", "Steps", "behind"]

Range = tuple[int, int | None]
"""First byte, and the one behind the last; None: to the end of the chunk."""
Steps = Generator[list[Range], list[bytes | None], NDBuffer | None]
"""Yields what is to be read next, is sent the bytes (None where there is no chunk, fewer where it ends), and returns
the values."""

_FIRST_READ = 1 << 16
"""Bytes that are read of a chunk at first: most headers are shorter. A file is asked again at no cost."""
_FIRST_READ_OF_FILE = 1 << 13


class PartialDecode(ArrayBytesCodecPartialDecodeMixin):
    """A codec that decodes a selection from parts of a chunk."""

    @abstractmethod
    def decode_in_steps(self, selection: Any, chunk_spec: ArraySpec, first_read: int) -> Steps:
        """``chunk[selection]``, with ``first_read`` bytes to begin with; None if there is no chunk."""

    async def _decode_partial_single(
        self, byte_getter: ByteGetter, selection: Any, chunk_spec: ArraySpec
    ) -> NDBuffer | None:
        file = _local_file(byte_getter)
        if file is not None:
            # One thread does it all: waiting for others would cost more than the reads.
            decoded = await asyncio.to_thread(self._decode_from_file, file, selection, chunk_spec)
            if decoded is not None:
                return decoded
            # Not there: a chunk of fill values, unless the store says that it must be there.
        if not isinstance(byte_getter, StorePath):
            # The chunk lies in a shard, whose part Zarr has in memory; before 3.1.6 it gave no ranges of it.
            whole = await byte_getter.get(chunk_spec.prototype)
            return await asyncio.to_thread(self._decode_from_memory, whole, selection, chunk_spec)
        steps = self.decode_in_steps(selection, chunk_spec, _FIRST_READ)
        wanted, decoded = _next(steps, None)
        while wanted is not None:
            reads = (byte_getter.get(chunk_spec.prototype, _request(one)) for one in wanted)
            got = [_bytes(one) for one in await asyncio.gather(*reads)]
            wanted, decoded = await asyncio.to_thread(_next, steps, got)
        return decoded

    def _decode_partial_sync(self, byte_getter: Any, selection: Any, chunk_spec: ArraySpec) -> NDBuffer | None:
        file = _local_file(byte_getter)
        if file is not None and (decoded := self._decode_from_file(file, selection, chunk_spec)) is not None:
            return decoded
        if not isinstance(byte_getter, StorePath):
            return self._decode_from_memory(byte_getter.get_sync(chunk_spec.prototype), selection, chunk_spec)

        store_path: Any = byte_getter

        def read(one: Range) -> bytes | None:
            return _bytes(store_path.get_sync(prototype=chunk_spec.prototype, byte_range=_request(one)))

        return _run(self.decode_in_steps(selection, chunk_spec, _FIRST_READ), read)

    def _decode_from_memory(self, chunk: Buffer | None, selection: Any, chunk_spec: ArraySpec) -> NDBuffer | None:
        if chunk is None:
            return None
        data = chunk.as_numpy_array().data
        return _run(
            self.decode_in_steps(selection, chunk_spec, _FIRST_READ_OF_FILE), lambda one: bytes(data[slice(*one)])
        )

    def _decode_from_file(self, path: Path, selection: Any, chunk_spec: ArraySpec) -> NDBuffer | None:
        """From one state of the file, if it is replaced meanwhile."""
        try:
            file = path.open("rb")
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            return None
        with file:
            size = os.fstat(file.fileno()).st_size

            def read(one: Range) -> bytes:
                # A damaged header may ask for more than there is, and Python would make room for it.
                start = min(one[0], size)
                file.seek(start)
                return file.read((size if one[1] is None else min(one[1], size)) - start)

            return _run(self.decode_in_steps(selection, chunk_spec, _FIRST_READ_OF_FILE), read)


def behind(steps: Steps, start: int) -> Steps:
    """Steps in a chunk that lies from ``start`` on in another one, as steps in that one."""
    wanted, decoded = _next(steps, None)
    while wanted is not None:
        got = yield [(first + start, None if last is None else last + start) for first, last in wanted]
        wanted, decoded = _next(steps, got)
    return decoded


def _next(steps: Steps, got: list[bytes | None] | None) -> tuple[list[Range] | None, NDBuffer | None]:
    # Not the generator's own `send`: no thread may raise StopIteration into a coroutine.
    try:
        return (next(steps) if got is None else steps.send(got)), None
    except StopIteration as end:
        return None, end.value


def _run(steps: Steps, read: Callable[[Range], bytes | None]) -> NDBuffer | None:
    wanted, decoded = _next(steps, None)
    while wanted is not None:
        wanted, decoded = _next(steps, [read(one) for one in wanted])
    return decoded


def _request(one: Range) -> RangeByteRequest | OffsetByteRequest | None:
    start, stop = one
    if stop is not None:
        return RangeByteRequest(start, stop)
    return OffsetByteRequest(start) if start else None


def _bytes(got: Buffer | None) -> bytes | None:
    return None if got is None else got.to_bytes()


def _local_file(byte_getter: Any) -> Path | None:
    """The file of a chunk in a folder."""
    if type(byte_getter) is StorePath and isinstance(byte_getter.store, LocalStore):
        return byte_getter.store.root / byte_getter.path
    return None
