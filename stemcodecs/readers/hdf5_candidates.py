"""What in an HDF5 file could be the scan: datasets, and links behind which one should be."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np

from stemcodecs.readers.choose import Candidate
from stemcodecs.readers.hdf5_files import find_beside
from stemcodecs.readers.hdf5_layouts import Hdf5Layout, axes_of, main_arrays, place_of
from stemcodecs.readers.scan import one_line

__all__ = ["hdf5_candidates_in"]


def hdf5_candidates_in(root: Any, prefix: str, path: str, layout: Hdf5Layout) -> list[Candidate]:
    """All that could be the scan below a group, each object once: NeXus links the same data from several places.

    Parameters
    ----------
    root : h5py.Group
        Where to look.
    prefix : str
        Its path, without a slash at the end.
    path : str
        The file.
    layout : Hdf5Layout
        What the file says about itself.
    """
    import h5py

    main = {(place_of(group), name) for group, name in main_arrays(root.file, layout)}
    main_places = {
        place_of(node) for group, name in main_arrays(root.file, layout) if (node := _get(group, name)) is not None
    }
    found: list[Candidate] = []
    seen: set[Any] = {place_of(root)}
    # Objects are kept until the end: a file behind a link that was closed in between would be a new one to HDF5.
    pending, kept = deque([(prefix, root)]), []
    while pending:
        at, group = pending.popleft()
        kept.append(group)
        try:
            keys = list(group)
        except (KeyError, OSError, RuntimeError) as error:
            found.append(Candidate(name=at, shape=None, dtype=None, trouble=f"cannot be listed ({one_line(error)})"))
            continue
        for key in keys:
            name = f"{at}/{key}"
            node, trouble, target = _opened(group, key)
            if node is None:
                if target not in seen:
                    is_main = (place_of(group), key) in main
                    found.append(Candidate(name=name, shape=None, dtype=None, trouble=trouble, is_main=is_main))
                seen.add(target)
                continue
            if place_of(node) in seen:
                continue
            seen.add(place_of(node))
            kept.append(node)
            if isinstance(node, h5py.Group):
                pending.append((name, node))
            elif isinstance(node, h5py.Dataset):
                found.extend(_candidate(name, node, path, layout, place_of(node) in main_places))
    return found


def _candidate(name: str, node: Any, path: str, layout: Hdf5Layout, is_main: bool) -> list[Candidate]:
    """A dataset as a candidate; none for text and references, which are no measurement."""
    import h5py

    try:
        dtype, shape = np.dtype(node.dtype), node.shape
    except (TypeError, ValueError, RuntimeError) as error:
        trouble = f"has a type that NumPy does not have ({one_line(error)})"
        return [Candidate(name=name, shape=node.shape or (), dtype=None, trouble=trouble, is_main=is_main)]
    if shape is None:
        return [Candidate(name=name, shape=(), dtype=dtype, trouble="is empty", is_main=is_main)]
    lists = h5py.check_vlen_dtype(dtype) is not None and h5py.check_string_dtype(dtype) is None
    if dtype.kind in "SU" or (dtype.kind == "O" and not lists):
        return []
    is_named = False
    if len(shape) > 4:
        leading = axes_of(path, node, layout)[: len(shape) - 4]
        is_named = not any(axis.name.startswith("series") for axis in leading)
    shape = tuple(int(n) for n in shape)
    # Who puts parts together to one array of frames says what the measurement is.
    is_main = is_main or (node.is_virtual and len(shape) >= 3)
    return [Candidate(name=name, shape=shape, dtype=dtype, is_main=is_main, is_ragged=lists, is_named=is_named)]


def _opened(group: Any, key: str) -> tuple[Any, str, Any]:
    """A member of a group; or None, why it cannot be opened, and what it is that cannot."""
    import h5py

    try:
        return group[key], "", None
    except (KeyError, OSError, RuntimeError) as error:
        reason = one_line(error)
    try:
        link = group.get(key, getlink=True)
    except (KeyError, OSError, RuntimeError):
        link = None
    if isinstance(link, h5py.ExternalLink):
        target: tuple[str, str] = (link.filename, link.path)
        if find_beside(link.filename, group.file.filename, "HDF5_EXT_PREFIX") is None:
            return None, f"lies in {link.filename}, which is missing; put it next to the file", target
        return None, f"is a link to {link.path} in {link.filename}, which cannot be opened ({reason})", target
    if isinstance(link, h5py.SoftLink):
        return None, f"is a link to {link.path}, which is not there", (group.file.filename, link.path)
    return None, f"cannot be opened ({reason})", (place_of(group), key)


def _get(group: Any, name: str) -> Any:
    return _opened(group, name)[0]
