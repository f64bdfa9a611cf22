"""Everything else that RosettaSciIO reads lazily: .mib, .dm4, .blo, .ser, Velox .emd, .tvips, ...

RosettaSciIO is GPL and therefore optional (extra ``readers``). It hands out Dask arrays; Dask stays
inside it: a block is computed synchronously in the calling thread.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from stemcodecs.errors import SourceError, StemcodecsError
from stemcodecs.readers.calibration import axes_from, axis_from_values, axis_named
from stemcodecs.readers.choose import Candidate, choose_array
from stemcodecs.readers.scan import Axis, Region, Scan, one_line, small_attributes

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


def open_rosettasciio(path: str, dataset: str | None = None) -> Scan:
    """Open a file by RosettaSciIO.

    Parameters
    ----------
    path : str
        The file; its format is taken from the extension.
    dataset : str, optional
        Number or title of the signal in a file with several.

    Raises
    ------
    SourceError
        RosettaSciIO is not installed, does not know the extension, or cannot read the file.
    """
    plugin, signals = _signals(path)
    titles = [_title(signal, i) for i, signal in enumerate(signals)]
    if dataset is not None and dataset.isdigit() and int(dataset) < len(titles):
        dataset = titles[int(dataset)]
    candidates = [
        Candidate(name=title, shape=tuple(s["data"].shape), dtype=np.dtype(s["data"].dtype))
        for title, s in zip(titles, signals, strict=True)
    ]
    chosen = choose_array(candidates, path=path, dataset=dataset)
    index = titles.index(chosen.name)
    data, axes = _navigation_first(signals[index])
    chunks = getattr(data, "chunksize", None)
    general = signals[index].get("metadata", {}).get("General", {})
    return Scan(
        path=path,
        format=f"{plugin} (RosettaSciIO)",
        opener=partial(_open_blocks, path, index),
        axes=_axes(path, tuple(int(n) for n in data.shape), axes),
        chunks=None if chunks is None else tuple(int(n) for n in chunks),
        metadata={"dataset": chosen.name, "attributes": small_attributes(dict(general))},
    )


def _open_blocks(path: str, index: int) -> LazyBlocks:
    _, signals = _signals(path)
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
            signals = list(reader(path, lazy=True))
            if plugin["name"] == "QuantumDetector":
                signals = _all_merlin_frames(path, reader, signals)
            return plugin["name"], signals
        except StemcodecsError:
            raise
        except Exception as error:  # each format raises its own kinds
            failures.append(f"{plugin['name']}: {one_line(error)}")
    raise SourceError(
        f"{path}: RosettaSciIO cannot read it lazily ({'; '.join(failures)}); "
        "check the file and the files that belong to it, or export it as .npy or HDF5"
    )


def _all_merlin_frames(path: str, reader: Callable[..., Any], signals: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Make sure that no frame of a .mib file is left out.

    RosettaSciIO drops the last, incomplete line of an interrupted scan, and what follows the last
    complete frame. The first is read as a plain stack of all frames here, the second refused.
    """
    said = signals[0]["original_metadata"]["mib_properties"]
    rows, columns = said["merlin_size"]
    frame_bytes = said["head_size"] + rows * columns * np.dtype(said["dtype"]).itemsize
    frames, rest = divmod(said["file_size"], frame_bytes)
    if rest:
        raise SourceError(
            f"{path}: the last frame has {rest} of {frame_bytes} bytes; the file is truncated: "
            f"copy it again, or cut it to {frames} frames"
        )
    if signals[0]["data"].size != frames * rows * columns:
        return list(reader(path, lazy=True, navigation_shape=(frames,)))
    return signals


def _title(signal: dict[str, Any], index: int) -> str:
    title = str(signal.get("metadata", {}).get("General", {}).get("title", "")).strip()
    return f"{index}: {title}" if title else str(index)


def _navigation_first(signal: dict[str, Any]) -> tuple[Any, list[dict[str, Any]]]:
    """Values and axes of a signal with the scan dimensions before those of the detector."""
    data, axes = signal["data"], signal["axes"]
    if len(axes) != len(data.shape):
        return data, []
    said = sorted(axes, key=lambda a: a.get("index_in_array") or 0)
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
