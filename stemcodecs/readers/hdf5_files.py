"""HDF5 files as such: opening them, finding the files that they refer to, and the filters that they need."""

from __future__ import annotations

import os
from typing import Any

from stemcodecs.errors import SourceError
from stemcodecs.readers.scan import one_line

__all__ = ["find_beside", "is_filter_available", "open_file"]


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


def find_beside(name: str, path: str, variable: str) -> str | None:
    """File that a name in another HDF5 file means, found as HDF5 finds it; None where there is none.

    The order is HDF5's own (``H5F_prefix_open_file``): an absolute path as it is, and where it is not
    there its last part; then the folders in the environment variable, the folder of the file, the
    working directory, and the folder that the file really lies in, if its path is a link.

    Parameters
    ----------
    name : str
        Name of a file in an external link or a virtual dataset.
    path : str
        The file that refers to it.
    variable : str
        ``HDF5_EXT_PREFIX`` for links, ``HDF5_VDS_PREFIX`` for virtual datasets.
    """
    if os.path.isabs(name):
        if os.path.isfile(name):
            return name
        name = os.path.basename(name)
    origin = os.path.dirname(os.path.abspath(path))
    said = os.environ.get(variable, "").split(os.pathsep)
    folders = [folder.replace("${ORIGIN}", origin, 1) for folder in said if folder]
    folders += [origin, os.getcwd(), os.path.dirname(os.path.realpath(path))]
    for folder in folders:
        place = os.path.abspath(os.path.join(folder, name))
        if os.path.isfile(place):
            return place
    return None


def is_filter_available(code: int) -> bool:
    """Whether HDF5 has a compression filter, after loading those of hdf5plugin where they are needed."""
    import h5py

    if h5py.h5z.filter_avail(code):
        return True
    try:
        import hdf5plugin  # noqa: F401  (importing it registers its filters)
    except ImportError:
        return False
    return bool(h5py.h5z.filter_avail(code))
