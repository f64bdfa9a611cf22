"""One door to all readers: looks at the content first, at the file name second."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from numpy.typing import DTypeLike

from stemcodecs.errors import SourceError
from stemcodecs.readers.scan import Scan

__all__ = ["open_scan"]

_HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_OWN_EXTENSIONS = (".npy", ".h5", ".hdf5", ".hspy", ".nxs", ".nhdf", ".ndata", ".ndata1")
_ZARR_DOCUMENTS = ("zarr.json", ".zarray", ".zgroup")


def open_scan(
    path: str | os.PathLike[str],
    dataset: str | None = None,
    shape: Sequence[int] | None = None,
    dtype: DTypeLike | None = None,
    offset: int = 0,
    *,
    partial: bool = False,
) -> Scan:
    """Open a scan without reading it.

    Parameters
    ----------
    path : path or str
        .npy, HDF5 (EMD, py4DSTEM, Nion Swift, HyperSpy .hspy, NeXus, DECTRIS, any other), Nion
        Swift .ndata, Zarr (folder, .zip or URL; also .zspy), raw binary with `shape` and `dtype`,
        and with the extra ``readers`` what RosettaSciIO reads lazily (.mib, .dm4, .blo, ...).
    dataset : str, optional
        Which array of a file with several; not needed where one of them stands out.
    shape : sequence of int, optional
        Shape of raw binary.
    dtype : dtype, optional
        Dtype of raw binary, with byte order.
    offset : int
        Bytes of header in raw binary.
    partial : bool
        Take what is there of a source of which parts are missing: an aborted run, or a copy that was interrupted.
        `Scan.remarks` says what is missing.

    Returns
    -------
    Scan
        Usable as a context manager, from several threads, and picklable.

    Raises
    ------
    SourceError
        No such file, no known format, no scan in it, or a package is missing that reads it.
    IncompleteStoreError
        The source is a stemcodecs store that was never finished.
    UnsupportedDtypeError
        The array holds no real numbers.
    """
    name = os.fspath(path)
    if "://" in name:
        from stemcodecs.readers.zarr_array import open_zarr

        _refuse_raw_options(name, "Zarr", shape, dtype, offset)
        return open_zarr(name, dataset, partial=partial)
    place = Path(name)
    if not place.exists():
        raise SourceError(f"{name}: no such file; check the path")
    try:
        kind = _kind_of_folder(place) if place.is_dir() else _kind_of_file(place)
    except OSError as error:
        raise SourceError(
            f"{name}: cannot be read ({error.strerror or error}); check the permissions and the drive"
        ) from error
    if kind == "unknown" and shape is not None and dtype is not None:
        from stemcodecs.readers.raw import open_raw

        if dataset is not None:
            raise SourceError(f"{name}: raw binary holds one array; leave out --dataset {dataset}")
        return open_raw(name, shape, dtype, offset)
    if kind == "unknown":
        from stemcodecs.readers.rosettasciio import open_rosettasciio

        if shape is not None or dtype is not None:
            raise SourceError(f"{name}: raw binary needs both --shape and --dtype")
        promised = place.suffix.lower()
        if promised in _OWN_EXTENSIONS:
            raise SourceError(
                f"{name}: its first bytes are not those of a {promised} file; it is damaged, or "
                "named wrongly: restore or rename it"
            )
        return open_rosettasciio(name, dataset)
    _refuse_raw_options(name, kind, shape, dtype, offset)
    return _open_known(kind, name, dataset, partial)


def _open_known(kind: str, name: str, dataset: str | None, partial: bool) -> Scan:
    if kind == "HDF5":
        from stemcodecs.readers.hdf5 import open_hdf5

        return open_hdf5(name, dataset, partial=partial)
    if kind == "Zarr":
        from stemcodecs.readers.zarr_array import open_zarr

        return open_zarr(name, dataset, partial=partial)
    if dataset is not None:
        raise SourceError(f"{name}: {kind} holds one array; leave out --dataset {dataset}")
    if kind == ".npy":
        from stemcodecs.readers.npy import open_npy

        return open_npy(name)
    from stemcodecs.readers.ndata import open_ndata

    return open_ndata(name)


def _kind_of_folder(place: Path) -> str:
    from stemcodecs.store import require_complete, state

    if any((place / document).is_file() for document in _ZARR_DOCUMENTS):
        return "Zarr"
    if state(place).kind == "incomplete":
        require_complete(place)
    raise SourceError(
        f"{place}: this folder is no Zarr store (no zarr.json, .zarray or .zgroup in it); "
        "give a file, or the folder of the store itself"
    )


def _kind_of_file(place: Path) -> str:
    with open(place, "rb") as file:
        start = file.read(8)
        if start[:6] == b"\x93NUMPY":
            return ".npy"
        # HDF5 allows a user block of 512 bytes, 1024, 2048, ... before its signature.
        position, size = 0, place.stat().st_size
        while position + 8 <= size and position <= 1 << 20:
            file.seek(position)
            if file.read(8) == _HDF5_SIGNATURE:
                return "HDF5"
            position = max(512, position * 2)
    if start[:4] == b"PK\x03\x04":
        return _kind_of_zip(place)
    return "unknown"


def _kind_of_zip(place: Path) -> str:
    import zipfile

    try:
        with zipfile.ZipFile(place) as archive:
            names = set(archive.namelist())
    except zipfile.BadZipFile as error:
        raise SourceError(f"{place}: broken .zip file ({error}); restore it") from error
    if names & set(_ZARR_DOCUMENTS):
        return "Zarr"
    if "data.npy" in names and "metadata.json" in names:
        return ".ndata"
    if place.suffix.lower() == ".npz":
        raise SourceError(f"{place}: .npz cannot be read block by block; save the array with numpy.save")
    return "unknown"


def _refuse_raw_options(name: str, kind: str, shape: object, dtype: object, offset: int) -> None:
    if shape is not None or dtype is not None or offset:
        raise SourceError(f"{name} is {kind} and says its own shape and dtype; leave out --shape, --dtype and --offset")
