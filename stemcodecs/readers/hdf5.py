"""HDF5 files of any layout: finds the scan, checks that all of it is there, reads blocks."""

from __future__ import annotations

import contextlib
from functools import partial as bound
from typing import Any

import numpy as np

from stemcodecs.errors import MissingPartError, SourceError, StemcodecsError
from stemcodecs.readers.choose import choose_array
from stemcodecs.readers.dectris import open_dectris
from stemcodecs.readers.hdf5_candidates import hdf5_candidates_in
from stemcodecs.readers.hdf5_contents import taken_rows
from stemcodecs.readers.hdf5_files import open_file
from stemcodecs.readers.hdf5_layouts import Hdf5Layout, axes_of, child, layout_of
from stemcodecs.readers.hdf5_parts import Examination
from stemcodecs.readers.scan import Region, Scan, one_line, small_attributes

__all__ = ["open_hdf5"]


class Hdf5Blocks:
    """An open HDF5 dataset; h5py serialises the threads that read it.

    Parameters
    ----------
    path : str
        The file.
    name : str
        Path of the dataset in it.
    partial : bool
        Take what is there of a dataset that is not whole.
    """

    def __init__(self, path: str, name: str, *, partial: bool = False) -> None:
        self._examination = Examination(path)
        try:
            try:
                contents = self._examination.dataset(name)
                self._read = self._examination.reader(name, partial=partial)
            except MissingPartError as error:
                raise SourceError(
                    f"{path}: {name} leads to {error}, which is missing; put it next to the file"
                ) from error
            self.identity = self._examination.identity()
            if not contents.shape:
                raise SourceError(f"{path}: {name} holds no array; choose another one with --dataset")
            rows, self.remarks = taken_rows(contents, path=path, name=name, partial=partial)
            self.shape = (rows, *contents.shape[1:])
            self.dtype = np.dtype(contents.dtype)
        except BaseException:
            self._examination.close()
            raise

    def read(self, region: Region) -> np.ndarray[Any, Any]:
        """Values of a region with explicit bounds."""
        return np.asarray(self._read(region))

    def close(self) -> None:
        """Close the file and all that it refers to."""
        self._read = None
        self._examination.close()


def open_hdf5(path: str, dataset: str | None = None, *, partial: bool = False) -> Scan:
    """Open the scan in an HDF5 file.

    Everything that its values depend on is looked at first, see `stemcodecs.readers.hdf5_parts`.

    Parameters
    ----------
    path : str
        The file: EMD (Berkeley, py4DSTEM), Nion Swift, HyperSpy .hspy, NeXus, DECTRIS master file,
        or any other, of which the largest dataset of 4 dimensions or more, else 3D, else 2D is taken.
    dataset : str, optional
        Path in the file of the dataset, or of a group that holds it.
    partial : bool
        Take what is there where parts are missing: an aborted run.

    Raises
    ------
    SourceError
        The file is broken or open for writing elsewhere, no or several scans are in it, a
        compression filter is missing, or a part of the values.
    UnsupportedDtypeError
        The dataset holds no real numbers.
    """
    try:
        return _open(path, dataset, partial)
    except StemcodecsError:
        raise
    except Exception as error:  # h5py raises many kinds where a file is damaged
        raise SourceError(
            f"{path}: cannot be read as HDF5 ({one_line(error)}); restore the file from another copy, "
            "or give a dataset that can be read as --dataset"
        ) from error


def _open(path: str, dataset: str | None, partial: bool) -> Scan:
    with open_file(path) as file:
        layout = layout_of(file)
        # Images of Velox are not arrays of the file as they lie there; RosettaSciIO knows them by number and title.
        if layout is Hdf5Layout.VELOX and (dataset is None or child(file, dataset) is None):
            from stemcodecs.readers.rosettasciio import open_rosettasciio

            return open_rosettasciio(path, dataset)
        if layout is Hdf5Layout.DECTRIS and dataset is None:
            return open_dectris(path, partial=partial)
        name, remarks = _find(file, path, layout, dataset)
        node = file[name]
        axes = axes_of(path, node, layout)
        chunks = None if node.chunks is None else tuple(int(n) for n in node.chunks)
        attributes = small_attributes({**_attributes(node.parent), **_attributes(node)})
    return Scan(
        path=path,
        format=f"HDF5 ({layout.value})",
        opener=bound(Hdf5Blocks, path, name, partial=partial),
        axes=axes,
        chunks=chunks,
        metadata={"dataset": name, "attributes": attributes},
        remarks=remarks,
    )


def _find(file: Any, path: str, layout: Hdf5Layout, dataset: str | None) -> tuple[str, tuple[str, ...]]:
    """Path of the dataset that is the scan, or that the user means, and what to say about the others."""
    import h5py

    root, prefix = file, ""
    if dataset is not None:
        prefix = "/" + dataset.strip("/")
        node = child(file, prefix)
        if isinstance(node, h5py.Dataset):
            return prefix, ()
        if isinstance(node, h5py.Group):
            root, dataset = node, None
        else:
            prefix = ""
    candidates = hdf5_candidates_in(root, prefix, path, layout)
    name = choose_array(candidates, path=path, dataset=dataset).name
    return name, tuple(f"{c.name} {c.trouble}" for c in candidates if c.trouble and c.shape is None)


def _attributes(node: Any) -> dict[str, Any]:
    """Attributes of an object, those that can be read."""
    found: dict[str, Any] = {}
    with contextlib.suppress(OSError, RuntimeError):  # damaged
        for key in node.attrs:
            with contextlib.suppress(KeyError, OSError, RuntimeError, TypeError, ValueError):  # of an unknown type
                found[key] = node.attrs[key]
    return found
