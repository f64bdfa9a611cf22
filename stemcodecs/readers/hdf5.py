"""HDF5 files of any layout: finds the scan, checks that it can be read, reads blocks."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from stemcodecs.errors import SourceError
from stemcodecs.readers.choose import Candidate, choose_array
from stemcodecs.readers.hdf5_layouts import Hdf5Layout, axes_of, layout_of, main_arrays
from stemcodecs.readers.scan import Region, Scan, one_line, small_attributes

__all__ = ["check_readable", "open_file", "open_hdf5"]


class Hdf5Blocks:
    """An open HDF5 dataset; h5py serialises the threads that read it."""

    def __init__(self, file: Any, dataset: Any) -> None:
        self._file = file
        self._dataset = dataset
        self.shape = tuple(int(n) for n in dataset.shape)
        self.dtype = np.dtype(dataset.dtype)

    def read(self, region: Region) -> np.ndarray[Any, Any]:
        """Values of a region with explicit bounds."""
        return np.asarray(self._dataset[region])

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def open_hdf5(path: str, dataset: str | None = None) -> Scan:
    """Open the scan in an HDF5 file.

    Parameters
    ----------
    path : str
        The file: EMD (Berkeley, py4DSTEM), Nion Swift, HyperSpy .hspy, NeXus, DECTRIS master file,
        or any other, of which the largest 4D, else 3D, else 2D dataset is taken.
    dataset : str, optional
        Path in the file of the dataset, or of a group that holds it.

    Raises
    ------
    SourceError
        The file is broken or open for writing elsewhere, no or several scans are in it, a
        compression filter is missing, or files that it refers to are.
    UnsupportedDtypeError
        The dataset holds no real numbers.
    """
    with open_file(path) as file:
        layout = layout_of(file)
        if layout is Hdf5Layout.VELOX and dataset is None:
            from stemcodecs.readers.rosettasciio import open_rosettasciio

            return open_rosettasciio(path)
        if layout is Hdf5Layout.DECTRIS and dataset is None:
            from stemcodecs.readers.dectris import open_dectris

            return open_dectris(path)
        name = _find(file, path, layout, dataset)
        node = file[name]
        check_readable(node, path)
        axes = axes_of(path, node, layout)
        chunks = None if node.chunks is None else tuple(int(n) for n in node.chunks)
        attributes = small_attributes({**dict(node.parent.attrs), **dict(node.attrs)})
    return Scan(
        path=path,
        format=f"HDF5 ({layout.value})",
        opener=partial(_open_blocks, path, name),
        axes=axes,
        chunks=chunks,
        metadata={"dataset": name, "attributes": attributes},
    )


def _find(file: Any, path: str, layout: Hdf5Layout, dataset: str | None) -> str:
    """Path of the dataset that is the scan, or that the user means."""
    import h5py

    root, prefix = file, ""
    if dataset is not None:
        prefix = "/" + dataset.strip("/")
        node = file.get(prefix)
        if isinstance(node, h5py.Dataset):
            return prefix
        if isinstance(node, h5py.Group):
            root, dataset = node, None
        else:
            prefix = ""
    main = {_identity(d) for d in main_arrays(file, layout)}
    candidates = [
        Candidate(name=name, shape=d.shape, dtype=d.dtype, is_main=_identity(d) in main)
        for name, d in _datasets(root, prefix)
    ]
    return choose_array(candidates, path=path, dataset=dataset).name


def _datasets(root: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    """All datasets under a group, each once: NeXus links the same data from several places."""
    import h5py

    seen = {_identity(root)}
    pending = deque([(prefix, root)])
    while pending:
        place, group = pending.popleft()
        for key in group:
            try:
                node = group[key]
            except (KeyError, OSError):
                continue  # a link to a file or a place that is not there
            if _identity(node) in seen:
                continue
            seen.add(_identity(node))
            if isinstance(node, h5py.Group):
                pending.append((f"{place}/{key}", node))
            elif isinstance(node, h5py.Dataset) and node.shape is not None:
                yield f"{place}/{key}", node


def _identity(node: Any) -> tuple[str, int]:
    import h5py

    return node.file.filename, h5py.h5o.get_info(node.id).addr


def _open_blocks(path: str, name: str) -> Hdf5Blocks:
    file = open_file(path)
    try:
        node = file[name]
        check_readable(node, path)
        return Hdf5Blocks(file, node)
    except BaseException:
        file.close()
        raise


def open_file(path: str) -> Any:
    """Open an HDF5 file for reading.

    Raises
    ------
    SourceError
        It is broken, or another program writes to it.
    """
    import h5py

    try:
        # Locks are respected where the file system has them: a file that is being written is not
        # read half-finished. Many cluster file systems have none.
        return h5py.File(path, "r", locking="best-effort")
    except OSError as error:
        reason = one_line(error)
        if "unable to lock file" in reason:
            raise SourceError(f"{path} is open for writing in another program; close it there first") from error
        raise SourceError(f"{path}: cannot be opened as HDF5 ({reason}); restore the file from another copy") from error


def check_readable(node: Any, path: str) -> None:
    """Refuse what HDF5 would fail to read, or would read as fill values without a word.

    Raises
    ------
    SourceError
        A filter plugin is missing, or a file with a part of the values.
    """
    plist = node.id.get_create_plist()
    for i in range(plist.get_nfilters()):
        code, _, _, name = plist.get_filter(i)
        if not _filter_available(code):
            label = name.decode("utf-8", "replace").split(";")[0] or "unnamed"
            raise SourceError(
                f"{path}: {node.name} needs the HDF5 filter {code} ({label}), which is not here; "
                "install it with: pip install 'stemcodecs[readers]'"
            )
    parts = {source.file_name for source in node.virtual_sources()} if node.is_virtual else set()
    for i in range(plist.get_external_count()):
        parts.add(os.fsdecode(plist.get_external(i)[0]))
    folder = os.path.dirname(os.path.abspath(node.file.filename))
    for part in sorted(parts):
        # %b in a name stands for a number that HDF5 counts up as far as files exist.
        if part != "." and "%b" not in part and not os.path.exists(os.path.join(folder, part)):
            raise SourceError(
                f"{path}: {node.name} takes values from {part}, which is missing; put it next to the file"
            )


def _filter_available(code: int) -> bool:
    import h5py

    if h5py.h5z.filter_avail(code):
        return True
    try:
        import hdf5plugin  # noqa: F401  (importing it registers its filters)
    except ImportError:
        return False
    return bool(h5py.h5z.filter_avail(code))
