"""Everything else that RosettaSciIO reads lazily: .mib, .dm4, .blo, .ser, Velox .emd, .tvips, ...

RosettaSciIO is GPL and therefore optional (extra ``readers``). It hands out Dask arrays; Dask stays
inside it: a block is computed synchronously in the calling thread.
"""

from __future__ import annotations

import glob
import importlib
import os
import re
from functools import partial
from typing import Any

import numpy as np

from stemcodecs.errors import SourceError, StemcodecsError
from stemcodecs.readers.calibration import axes_from, axis_from_values, axis_named
from stemcodecs.readers.choose import Candidate, choose_array
from stemcodecs.readers.frame_count import Frames, frames_to_read
from stemcodecs.readers.mapped_frames import FileMap, file_map_of, open_frames
from stemcodecs.readers.scan import Axis, Region, Scan, one_line, small_attributes
from stemcodecs.readers.tiff_pages import refuse_truncated_tiff
from stemcodecs.zip_members import zip_members

__all__ = ["open_rosettasciio"]

_LARGEST_IN_MEMORY = 1 << 30
"""Bytes of an array that is read whole, because its format cannot be read in pieces."""
_MORE_FOLLOWS = ("DigitalMicrograph", "PantaRhei", "EDAX")
"""Formats in which tags or a directory follow the values: a file that is longer than its array says nothing there."""


class LazyBlocks:
    """The values of a signal: a Dask array, or a NumPy array where the format is not lazy."""

    def __init__(self, data: Any) -> None:
        self._data = data
        self.shape = tuple(int(n) for n in data.shape)
        self.dtype = np.dtype(data.dtype)

    def read(self, region: Region) -> np.ndarray[Any, Any]:
        """Values of a region with explicit bounds."""
        block = self._data[region]
        if hasattr(block, "compute"):
            block = block.compute(scheduler="synchronous")
        return np.array(block)  # a copy: some formats hand out views of a memory map

    def close(self) -> None:
        """Let go of the array; RosettaSciIO opens its files for each block."""
        self._data = None


def open_rosettasciio(path: str, dataset: str | None = None, *, frames: Frames = "said") -> Scan:
    """Open a file by RosettaSciIO.

    Parameters
    ----------
    path : str
        The file; its format is taken from the extension.
    dataset : str, optional
        Number or title of the signal in a file with several.
    frames : str
        Which frames are read where the file holds more or fewer than its header says.

    Raises
    ------
    SourceError
        RosettaSciIO is not installed, does not know the extension, cannot read the file, or would leave frames of it
        out or make some up.
    """
    plugin, signals = _signals(path)
    if plugin == "QuantumDetector":
        signals, remarks = _merlin_frames(path, signals, frames)
    else:
        remarks = ()
    names = [_title(signal, i) for i, signal in enumerate(signals)]
    candidates = [
        Candidate(name=name, shape=tuple(int(n) for n in s["data"].shape), dtype=np.dtype(s["data"].dtype))
        for name, s in zip(names, signals, strict=True)
        if hasattr(s["data"], "dtype")
    ]
    chosen = choose_array(candidates, path=path, dataset=_chosen_name(names, dataset))
    index = names.index(chosen.name)
    data, axes = _navigation_first(signals[index])
    opener: Any = partial(_open_blocks, path, index)
    chunks = getattr(data, "chunksize", None)
    shape = tuple(int(n) for n in data.shape)
    mapped = file_map_of(signals[index]["data"])
    if plugin == "QuantumDetector":
        opener = partial(_open_merlin, path, index, frames)
    elif mapped is not None:
        count, remarks = _mapped_count(path, plugin, mapped, frames)
        if count != mapped.said:
            _require_same_frames(path, mapped, data)
            opener, chunks = partial(open_frames, mapped, count), None
            shape, axes = (count, *mapped.frame), [{}, *axes[-2:]]
    else:
        remarks = _interrupted_series(path, signals[index])
    general = signals[index].get("metadata", {}).get("General", {})
    return Scan(
        path=path,
        format=f"{plugin} (RosettaSciIO)",
        opener=opener,
        axes=_axes(path, shape, axes),
        chunks=None if chunks is None else tuple(int(n) for n in chunks),
        metadata={"dataset": chosen.name, "attributes": small_attributes(dict(general))},
        remarks=remarks,
    )


def _open_blocks(path: str, index: int) -> LazyBlocks:
    _, signals = _signals(path)
    return LazyBlocks(_navigation_first(signals[index])[0])


def _open_merlin(path: str, index: int, frames: Frames) -> LazyBlocks:
    _, signals = _signals(path)
    signals, _ = _merlin_frames(path, signals, frames)
    return LazyBlocks(_navigation_first(signals[index])[0])


def _signals(path: str) -> tuple[str, list[dict[str, Any]]]:
    extension = os.path.splitext(path)[1].lower().lstrip(".")
    try:
        plugins = importlib.import_module("rsciio").IO_PLUGINS
    except ImportError as error:
        raise SourceError(
            f"{path}: not .npy, HDF5 or Zarr; for microscope formats (.mib, .dm4, .blo, ...) run "
            "pip install 'stemcodecs[readers]'; for raw binary give --shape and --dtype"
        ) from error
    able = [p for p in plugins if extension in p["file_extensions"]]
    if not extension or not able:
        raise SourceError(
            f"{path}: unknown format; give .npy, HDF5, Zarr or a format of RosettaSciIO, "
            "or --shape and --dtype for raw binary"
        )
    failures = []
    for plugin in able:
        try:
            reader = importlib.import_module(plugin["api"]).file_reader
            if plugin["name"] == "TIFF":
                refuse_truncated_tiff(path)
            if plugin["name"] == "TVIPS":
                _refuse_missing_parts(path)
            return plugin["name"], list(reader(path, lazy=_can_be_lazy(path, plugin["name"])))
        except StemcodecsError:
            raise
        except Exception as error:  # each format raises its own kinds
            failures.append(f"{plugin['name']}: {one_line(error)}")
    raise SourceError(
        f"{path}: RosettaSciIO cannot read it lazily ({'; '.join(failures)}); "
        "check the file and the files that belong to it, or export it as .npy or HDF5"
    )


def _can_be_lazy(path: str, plugin: str) -> bool:
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


def _refuse_missing_parts(path: str) -> None:
    """A TVIPS series is x_000.tvips, x_001.tvips, ...; the reader stops at the first that is not there."""
    found = re.fullmatch(r"(.*)(\d{3})(\.\w+)", path)
    if found is None:
        return
    numbers = sorted(
        int(name[len(found[1]) : len(found[1]) + 3])
        for name in glob.glob(f"{glob.escape(found[1])}[0-9][0-9][0-9]{glob.escape(found[3])}")
    )
    missing = sorted(set(range(numbers[-1] + 1)) - set(numbers)) if numbers else []
    if missing:
        part = f"{os.path.basename(found[1])}{missing[0]:03}{found[3]}"
        raise SourceError(f"{path}: the part {part} of the series is missing; put it next to the others")


def _merlin_frames(
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
    if rest and frames == "said":
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
            remarks = (
                f"the scan was interrupted: its {count} frames are read as a stack, as its last line is not full",
            )
    return signals, remarks


def _mapped_count(path: str, plugin: str, mapped: FileMap, frames: Frames) -> tuple[int, tuple[str, ...]]:
    """Frames to read of a mapped file, those of its header where nothing speaks against it."""
    if mapped.countable and not (plugin in _MORE_FOLLOWS and mapped.fits()):
        return frames_to_read(path, said=mapped.said, there=mapped.there(), wanted=frames)
    if not mapped.fits():
        raise SourceError(f"{path}: {os.path.basename(mapped.path)} is shorter than its header says; it is truncated")
    return mapped.said, ()


def _require_same_frames(path: str, mapped: FileMap, data: Any) -> None:
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


def _interrupted_series(path: str, signal: dict[str, Any]) -> tuple[str, ...]:
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


def _title(signal: dict[str, Any], index: int) -> str:
    title = " ".join(str(signal.get("metadata", {}).get("General", {}).get("title", "")).split())
    return f"{index}: {title}" if title else str(index)


def _chosen_name(names: list[str], dataset: str | None) -> str | None:
    """The name that a user means: as it is offered, its number, or its title where only one has it."""
    if dataset is None or dataset in names:
        return dataset
    if dataset.isdecimal() and int(dataset) < len(names):
        return names[int(dataset)]
    titled = [name for name in names if name.partition(": ")[2] == " ".join(dataset.split())]
    return titled[0] if len(titled) == 1 else dataset


def _navigation_first(signal: dict[str, Any]) -> tuple[Any, list[dict[str, Any]]]:
    """Values and axes of a signal with the scan dimensions before those of the detector."""
    data, axes = signal["data"], signal["axes"]
    if len(axes) != len(data.shape):
        return data, []
    indices = [a.get("index_in_array") for a in axes]
    # Some formats number only a part of their axes, or none: then the list is in the order of the array.
    numbered = sorted(i for i in indices if i is not None) == list(range(len(axes)))
    said = sorted(axes, key=lambda a: int(a["index_in_array"])) if numbered else list(axes)
    order = sorted(range(len(said)), key=lambda i: not said[i].get("navigate", False))
    if order != sorted(order):
        data = data.transpose(order)
    return data, [said[i] for i in order]


def _axes(path: str, shape: tuple[int, ...], said: list[dict[str, Any]]) -> tuple[Axis, ...]:
    if not 2 <= len(shape) <= 4:
        return ()
    given: list[Axis | None] = []
    for size, axis in zip(shape, said, strict=False):
        if "axis" in axis:
            given.append(axis_from_values("", size, axis["axis"], axis.get("units")))
        else:
            scale, offset, units = (axis.get(k) for k in ("scale", "offset", "units"))
            given.append(axis_named("", size, scale, offset, units))
    return axes_from(path, shape, given)
