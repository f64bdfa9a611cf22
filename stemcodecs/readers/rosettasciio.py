"""Everything else that RosettaSciIO reads lazily: .mib, .dm4, .blo, .ser, Velox .emd, .tvips, ...

RosettaSciIO is GPL and therefore optional (extra ``readers``). It hands out Dask arrays; Dask stays
inside it: a block is computed synchronously in the calling thread.
"""

from __future__ import annotations

import glob
import importlib
import os
from functools import partial
from typing import Any

import numpy as np

from stemcodecs.errors import SourceError, StemcodecsError
from stemcodecs.readers.calibration import axes_from, axis_from_values, axis_named
from stemcodecs.readers.choose import Candidate, choose_array
from stemcodecs.readers.frame_count import Frames
from stemcodecs.readers.identity import Identity
from stemcodecs.readers.mapped_frames import FileMap, file_map_of, open_frames
from stemcodecs.readers.rosettasciio_frames import (
    can_be_lazy,
    interrupted_series,
    mapped_count,
    merlin_frames,
    require_same_frames,
)
from stemcodecs.readers.scan import Axis, Region, Scan, one_line, small_attributes
from stemcodecs.readers.tiff_pages import refuse_truncated_tiff
from stemcodecs.readers.tvips import is_truncated_tvips, open_truncated_tvips, refuse_broken_series, series_files

__all__ = ["open_rosettasciio"]


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
    if frames == "partial" and is_truncated_tvips(path):
        return open_truncated_tvips(path)
    plugin, signals = _signals(path)
    if plugin == "QuantumDetector":
        signals, remarks = merlin_frames(path, signals, frames)
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
        count, remarks = mapped_count(path, plugin, mapped, frames)
        if count != mapped.said:
            require_same_frames(path, mapped, data)
            opener, chunks = partial(open_frames, mapped, count), None
            shape, axes = (count, *mapped.frame), [{}, *axes[-2:]]
    else:
        remarks = interrupted_series(path, signals[index])
    general = signals[index].get("metadata", {}).get("General", {})
    return Scan(
        path=path,
        format=f"{plugin} (RosettaSciIO)",
        opener=opener,
        axes=_axes(path, shape, axes),
        chunks=None if chunks is None else tuple(int(n) for n in chunks),
        metadata={"dataset": chosen.name, "attributes": small_attributes(dict(general))},
        identity=Identity.of(_files(path, plugin, mapped)),
        remarks=remarks,
    )


def _files(path: str, plugin: str, mapped: FileMap | None) -> list[str]:
    """Files that the values depend on, as far as the format says."""
    files = {os.path.abspath(path)}
    if mapped is not None:
        files.add(os.path.abspath(mapped.path))
    if plugin == "TVIPS":
        files.update(os.path.abspath(part) for part in series_files(path))
    if plugin == "TIA":
        files.update(glob.glob(f"{glob.escape(os.path.splitext(os.path.abspath(path))[0])}_*.ser"))
    return sorted(files)


def _open_blocks(path: str, index: int) -> LazyBlocks:
    _, signals = _signals(path)
    return LazyBlocks(_navigation_first(signals[index])[0])


def _open_merlin(path: str, index: int, frames: Frames) -> LazyBlocks:
    _, signals = _signals(path)
    signals, _ = merlin_frames(path, signals, frames)
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
                refuse_broken_series(path)
            return plugin["name"], list(reader(path, lazy=can_be_lazy(path, plugin["name"])))
        except StemcodecsError:
            raise
        except Exception as error:  # each format raises its own kinds
            failures.append(f"{plugin['name']}: {one_line(error)}")
    raise SourceError(
        f"{path}: RosettaSciIO cannot read it lazily ({'; '.join(failures)}); "
        "check the file and the files that belong to it, or export it as .npy or HDF5"
    )


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
