"""What RosettaSciIO's readers do not say: frames that they drop, make up, or read from compressed bytes."""

from __future__ import annotations

import importlib
import os
from typing import Any

import numpy as np

from stemcodecs.errors import SourceError
from stemcodecs.readers.frame_count import Frames, frames_to_read
from stemcodecs.readers.mapped_frames import FileMap, open_frames
from stemcodecs.zip_members import zip_members

__all__ = [
    "can_be_lazy",
    "interrupted_series",
    "mapped_count",
    "merlin_frames",
    "require_same_frames",
]

_LARGEST_IN_MEMORY = 1 << 30
"""Bytes of an array that is read whole, because its format cannot be read in pieces."""
_MORE_FOLLOWS = ("DigitalMicrograph", "PantaRhei", "EDAX")
"""Formats in which tags or a directory follow the values: a file that is longer than its array says nothing there."""


def can_be_lazy(path: str, plugin: str) -> bool:
    """Whether the lazy reader gives the values: those that map a file map compressed bytes as well.

    Raises
    ------
    SourceError
        It does not, and the array is too large to be read whole.
    """
    if plugin == "MRCZ":
        return False
    if plugin != "PantaRhei":
        return True
    data = zip_members(path).get("data.npy")
    if data is None:
        raise SourceError(f"{path}: there is no data.npy in it; restore the file")
    with open(path, "rb") as file:
        file.seek(data.offset())
        header = file.read(128)
    # The lazy reader takes every array for one in C order.
    if data.stored and b"'fortran_order': False" in header:
        return True
    if data.full_size > _LARGEST_IN_MEMORY:
        raise SourceError(
            f"{path}: its array of {data.full_size} bytes is compressed as one piece; "
            "a .prz is a .zip file: unpack it and give its data.npy"
        )
    return False


def merlin_frames(
    path: str, signals: list[dict[str, Any]], frames: Frames
) -> tuple[list[dict[str, Any]], tuple[str, ...]]:
    """Make sure that no frame of a .mib file is left out.

    RosettaSciIO drops the last, incomplete line of an interrupted scan, and what follows the last
    complete frame. The first is read as a plain stack of all frames here, the second refused.
    """
    said = signals[0]["original_metadata"]["mib_properties"]
    rows, columns = said["merlin_size"]
    frame_bytes = said["head_size"] + rows * columns * np.dtype(said["dtype"]).itemsize
    count, rest = divmod(said["file_size"], frame_bytes)
    remarks: tuple[str, ...] = ()
    if rest and frames != "partial":
        raise SourceError(
            f"{path}: the last frame has {rest} of {frame_bytes} bytes; the file is truncated: "
            f"copy it again, or take its {count} whole frames with --partial"
        )
    if rest:
        remarks = (f"the last frame has {rest} of {frame_bytes} bytes and is left out; {count} whole frames are read",)
    if signals[0]["data"].size != count * rows * columns:
        reader = importlib.import_module("rsciio.quantumdetector").file_reader
        signals = list(reader(path, lazy=True, navigation_shape=(count,)))
        if not rest:
            remarks = (f"its {count} frames are read as a stack: they do not fill the scan that its header says",)
    return signals, remarks


def mapped_count(path: str, plugin: str, mapped: FileMap, frames: Frames) -> tuple[int, tuple[str, ...]]:
    """Frames to read of a mapped file, those of its header where nothing speaks against it."""
    if mapped.countable and not (plugin in _MORE_FOLLOWS and mapped.fits()):
        return frames_to_read(path, said=mapped.said, there=mapped.there(), wanted=frames)
    if not mapped.fits():
        raise SourceError(f"{path}: {os.path.basename(mapped.path)} is shorter than its header says; it is truncated")
    return mapped.said, ()


def require_same_frames(path: str, mapped: FileMap, data: Any) -> None:
    """Refuse to read frames past the reader of a format that does more than to map them."""
    # A file that is too short cannot be mapped at all, and its first frame not be asked of the reader.
    if not mapped.fits():
        return
    first = np.asarray(data[(0,) * (data.ndim - 2)].compute(scheduler="synchronous"))
    frame = open_frames(mapped, 1).read((slice(0, 1), *(slice(0, n) for n in mapped.frame)))[0]
    if not np.array_equal(first, frame, equal_nan=first.dtype.kind == "f"):
        raise SourceError(
            f"{path}: its format changes frames when they are read, so that only those of the header can be taken; "
            "take them with --partial"
        )


def interrupted_series(path: str, signal: dict[str, Any]) -> tuple[str, ...]:
    """What to say about a TIA series that was interrupted.

    Raises
    ------
    SourceError
        It is a map: RosettaSciIO fills the rest of it with zeros or NaN.
    """
    said = dict(signal.get("original_metadata", {})).get("ser_header_parameters", {})
    names = ("ValidNumberElements", "TotalNumberElements", "NumberDimensions")
    if any(name not in said for name in names):
        return ()
    valid, total, dimensions = (int(np.ravel(said[name])[0]) for name in names)
    if valid >= total:
        return ()
    if dimensions > 1:
        raise SourceError(
            f"{path}: the run was interrupted after {valid} of {total} frames; the rest would be read as zeros: "
            "export the frames that are there as .npy or HDF5"
        )
    return (f"the run was interrupted: {valid} frames of {total} are there",)
