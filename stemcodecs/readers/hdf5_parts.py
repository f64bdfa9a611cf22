"""What the values of an HDF5 dataset depend on: every file, at any depth, and whether it is all there.

HDF5 reads fill values without a word where a virtual dataset has no source, where its source file is
missing, where a chunk was never written, and where external raw storage is too short. A scan is stored
as verified; so each of these is found before the first value is read.
"""

from __future__ import annotations

import os
from collections import deque
from contextlib import ExitStack
from dataclasses import replace
from functools import cache, partial
from typing import Any, Self

import numpy as np

from stemcodecs.errors import MissingPartError, SourceError
from stemcodecs.readers.hdf5_contents import (
    Contents,
    note_chunks,
    spelled_intervals,
    spelled_rows,
)
from stemcodecs.readers.hdf5_files import find_beside, is_filter_available, open_file
from stemcodecs.readers.hdf5_raw import RawStorage, has_raw_storage, names_of_raw_storage
from stemcodecs.readers.hdf5_selections import Selection, rows_without
from stemcodecs.readers.hdf5_virtual import mappings_of, number_beyond
from stemcodecs.readers.identity import Identity

__all__ = ["Examination"]

_LINKS = 64
"""Links that one path may go through; more is a circle."""
_SPARE_FILES = 64
"""Files that a process must be able to open beyond those of the scan."""


class Examination:
    """Looks at datasets of a file and at all that they refer to, and keeps the files open meanwhile.

    HDF5 opens the sources of a virtual dataset when they are first read, and reads fill values if it has no file
    descriptor left for one then. Whoever reads the dataset keeps the examination open as well: HDF5 shares its
    handles.

    Parameters
    ----------
    path : str
        The file.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._files: dict[str, None] = {os.path.abspath(path): None}
        self._open: dict[str, Any] = {}
        self._stack = ExitStack()
        self._known: dict[tuple[str, str], Contents | None] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all files."""
        self._open.clear()
        self._stack.close()

    def identity(self) -> Identity:
        """Identity of all files seen so far, as they are now."""
        return Identity.of(self._files)

    def file(self, path: str) -> Any:
        """An open file.

        Raises
        ------
        SourceError
            It cannot be opened, or there are more files than the process may open.
        """
        path = os.path.abspath(path)
        if path not in self._open:
            _require_descriptors(self.path, len(self._open) + 1)
            self._open[path] = self._stack.enter_context(open_file(path))
            self._files[path] = None
        return self._open[path]

    def node(self, path: str, name: str) -> tuple[str, Any]:
        """Follow a path through links of every kind, noting the files on the way.

        Returns
        -------
        str, object
            The file that the object lies in, and the object.

        Raises
        ------
        MissingPartError
            A link leads nowhere.
        SourceError
            A file on the way cannot be opened.
        """
        import h5py

        nowhere = MissingPartError(f"{name} in {os.path.basename(path)}")
        node = self.file(path)["/"]
        todo = deque(_steps(name))
        links = 0
        while todo:
            key = todo.popleft()
            try:
                link = node.get(key, getlink=True)
                if isinstance(link, h5py.HardLink):
                    node = node[key]
                    continue
            except (AttributeError, KeyError, OSError, RuntimeError, TypeError) as error:
                raise nowhere from error
            links += 1
            if link is None or links > _LINKS:
                raise nowhere
            if isinstance(link, h5py.ExternalLink):
                found = find_beside(link.filename, path, "HDF5_EXT_PREFIX")
                if found is None:
                    raise MissingPartError(link.filename)
                path = found
                node = self.file(path)["/"]
            elif link.path.startswith("/"):
                node = node.file["/"]
            todo.extendleft(reversed(_steps(link.path)))
        return path, node

    def dataset(self, name: str) -> Contents:
        """What there is of a dataset.

        Raises
        ------
        MissingPartError
            There is no such dataset.
        SourceError
            A filter is missing, a file cannot be opened, or HDF5 would change values on the way.
        """
        return self._dataset(os.path.abspath(self.path), name, nested=False)

    def reader(self, name: str, *, partial: bool = False) -> Any:
        """A function that reads a region of a dataset.

        Parameters
        ----------
        name : str
            The dataset.
        partial : bool
            Fill values stand for what is not there.

        Raises
        ------
        MissingPartError
            There is no such dataset.
        """
        place, node = self.node(os.path.abspath(self.path), name)
        if not has_raw_storage(node):
            return node.__getitem__
        return replace(RawStorage.of(place, node), partial=partial).read

    def _dataset(self, path: str, name: str, *, nested: bool) -> Contents:
        if (path, name) in self._known:
            known = self._known[path, name]
            if known is None:
                raise SourceError(f"{self.path}: {name} takes values from itself; choose another one with --dataset")
            return known
        self._known[path, name] = None
        contents = self._known[path, name] = self._examine(path, name, nested)
        return contents

    def _examine(self, path: str, name: str, nested: bool) -> Contents:
        import h5py

        place, node = self.node(path, name)
        if not isinstance(node, h5py.Dataset):
            raise MissingPartError(f"{name} in {os.path.basename(path)}")
        contents = Contents.whole(tuple(int(n) for n in node.shape or ()), node.dtype)
        if not contents.shape or 0 in contents.shape:
            return contents
        plist = node.id.get_create_plist()
        self._require_filters(place, node, plist)
        if node.is_virtual:
            self._examine_virtual(place, node, contents)
        elif has_raw_storage(node):
            names = names_of_raw_storage(node)
            if nested and not os.environ.get("HDF5_EXTFILE_PREFIX") and not all(map(os.path.isabs, names)):
                # Nobody can tell HDF5 where to look for the files of a dataset that it opens by itself.
                raise SourceError(
                    f"{self.path} takes values from {names[0]} by way of {place}; HDF5 would look for it in the "
                    "working directory: set HDF5_EXTFILE_PREFIX='${ORIGIN}' before the start"
                )
            storage = RawStorage.of(place, node)
            storage.note_losses(contents)
            self._files.update(dict.fromkeys(storage.files()))
        elif node.chunks is not None:
            note_chunks(node, contents)
        elif plist.get_layout() == h5py.h5d.CONTIGUOUS and node.id.get_storage_size() == 0:
            contents.lose(slice(None), contents.row_size, "was created, but never written")
        return contents

    def _require_filters(self, place: str, node: Any, plist: Any) -> None:
        for i in range(plist.get_nfilters()):
            code, _, _, name = plist.get_filter(i)
            if not is_filter_available(code):
                label = name.decode("utf-8", "replace").split(";")[0] or "unnamed"
                inside = "" if place == os.path.abspath(self.path) else f" in {place}"
                raise SourceError(
                    f"{self.path}: {node.name}{inside} needs the HDF5 filter {code} ({label}), which is not here; "
                    "install it with: pip install 'stemcodecs[readers]'"
                )

    def _examine_virtual(self, path: str, node: Any, contents: Contents) -> None:
        mapped: list[Selection] = []
        look = cache(partial(self._source, path))  # many parts of one file are many entries
        for source in node.virtual_sources():
            for mapping in mappings_of(source, contents.shape, look):
                mapped += mapping.filled
                mapping.carry_losses(contents, self.path)
            # HDF5 counts up to the first file that is missing, and takes the array to end there.
            gap = number_beyond(source, contents.shape, lambda file, name: self._names(path, file, name))
            if gap is not None:
                contents.explain(gap)
        free = rows_without(contents.shape, mapped)
        if free.any():
            rows = np.flatnonzero(free)
            where = f"{len(rows)} of {len(free)} {spelled_rows(contents.shape)} ({spelled_intervals(rows)})"
            contents.lose(slice(None), free, f"has no source for {where}")

    def _source(self, path: str, file_name: str, name: str) -> Contents | str:
        """Contents of a source of a virtual dataset, or what is wrong with it."""
        place = path if file_name == "." else find_beside(file_name, path, "HDF5_VDS_PREFIX")
        if place is None:
            return f"{file_name}, which is missing"
        try:
            self.file(place)
        except SourceError as error:
            return f"{file_name}, which cannot be opened ({error})"
        try:
            return self._dataset(os.path.abspath(place), name, nested=True)
        except MissingPartError as error:
            return f"{error}, which is missing"

    def _names(self, path: str, file_name: str, name: str) -> list[str]:
        """Names of the files, or of the datasets, among which a counted source lies."""
        try:
            if "%b" in file_name:
                folder = os.path.dirname(os.path.abspath(path))
                return os.listdir(os.path.join(folder, os.path.dirname(file_name)))
            place = path if file_name == "." else find_beside(file_name, path, "HDF5_VDS_PREFIX")
            return [] if place is None else list(self.node(place, os.path.dirname(name))[1])
        except (OSError, MissingPartError):
            return []


def _steps(name: str) -> list[str]:
    return [step for step in name.split("/") if step not in ("", ".")]


def _require_descriptors(path: str, files: int) -> None:
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if limit != resource.RLIM_INFINITY and files + _SPARE_FILES > limit:
        raise SourceError(
            f"{path}: its values lie in more files than this process may open at once ({limit}); "
            f"raise the limit with ulimit -n {4 * limit}"
        )
