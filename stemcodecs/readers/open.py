"""One door to all readers: looks at the content first, at the file name second."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from numpy.typing import DTypeLike

from stemcodecs.errors import SourceError
from stemcodecs.readers.frame_count import Frames
from stemcodecs.readers.scan import Scan
from stemcodecs.remote import backend_errors, local_path
from stemcodecs.zip_members import zip_members

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
    scan_shape: Sequence[int] | None = None,
    drop_flyback: int = 0,
    partial: bool = False,
) -> Scan:
    """Open a scan without reading it.

    Parameters
    ----------
    path : path or str
        .npy, HDF5 (EMD, py4DSTEM, Nion Swift, HyperSpy .hspy, NeXus, DECTRIS, stempy, any other), Nion
        Swift .ndata, MRC, Zarr (folder, .zip or URL; also .zspy), raw binary with `shape` and `dtype`,
        and with the extra ``readers`` what RosettaSciIO reads lazily (.mib, .dm4, .blo, ...).
    dataset : str, optional
        Which array of a file with several; not needed where one of them stands out.
    shape : sequence of int, optional
        Shape of raw binary.
    dtype : dtype, optional
        Dtype of raw binary, with byte order.
    offset : int
        Bytes of header in raw binary.
    scan_shape : sequence of int, optional
        Rows and columns of the scan in which a stack of frames was taken, line by line from left to right; one number
        for a plain stack. Every frame of the file is read, whatever its header says. The odd lines of a snake scan
        come out mirrored: turn them around before, or after.
    drop_flyback : int
        Frames at the end of each line, beyond the columns of `scan_shape`, that are left out.
    partial : bool
        Take what is there of an aborted run, a truncated file or a copy that was interrupted, and only the frames of
        the header where the file holds more. `Scan.remarks` says what is missing or left out.

    Returns
    -------
    Scan
        Usable as a context manager, from several threads, and picklable. Its `remarks` say what was left out.

    Raises
    ------
    SourceError
        No such file, no known format, no scan in it, frames that do not fit its header or `scan_shape`, or a package
        is missing that reads it.
    IncompleteStoreError
        The source is a stemcodecs store that was never finished.
    UnsupportedDtypeError
        The array holds no real numbers.
    """
    if drop_flyback and scan_shape is None:
        raise SourceError("--drop-flyback needs --scan-shape ROWS,COLUMNS to know where the lines end")
    frames: Frames = "partial" if partial else "said" if scan_shape is None else "all"
    scan = _open(os.fspath(path), dataset, shape, dtype, offset, frames)
    if scan_shape is None:
        return scan
    from stemcodecs.readers.frames_as_scan import frames_as_scan

    try:
        return frames_as_scan(scan, scan_shape, drop_flyback)
    except BaseException:
        scan.close()
        raise


def _open(
    name: str,
    dataset: str | None,
    shape: Sequence[int] | None,
    dtype: DTypeLike | None,
    offset: int,
    frames: Frames,
) -> Scan:
    name = local_path(name)
    if "://" in name:
        from stemcodecs.readers.zarr_array import open_zarr

        _require_zarr_url(name)
        _refuse_raw_options(name, "Zarr", shape, dtype, offset)
        return open_zarr(name, dataset, partial=frames == "partial")
    place = Path(name)
    try:
        if not place.exists():
            raise SourceError(f"{name}: no such file; check the path")
        kind = _kind_of_folder(place) if place.is_dir() else _kind_of_file(place)
    except OSError as error:
        raise SourceError(
            f"{name}: cannot be read ({error.strerror or error}); check the permissions and the drive"
        ) from error
    if kind in ("unknown", "MRC") and shape is not None and dtype is not None:
        from stemcodecs.readers.raw import open_raw

        if dataset is not None:
            raise SourceError(f"{name}: raw binary holds one array; leave out --dataset {dataset}")
        return open_raw(name, shape, dtype, offset, partial=frames == "partial")
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
        return open_rosettasciio(name, dataset, frames=frames)
    _refuse_raw_options(name, kind, shape, dtype, offset)
    return _open_known(kind, name, dataset, frames)


def _open_known(kind: str, name: str, dataset: str | None, frames: Frames) -> Scan:
    if kind == "HDF5":
        return _open_hdf5(name, dataset, partial=frames == "partial")
    if kind == "Zarr":
        from stemcodecs.readers.zarr_array import open_zarr

        return open_zarr(name, dataset, partial=frames == "partial")
    if dataset is not None:
        raise SourceError(f"{name}: {kind} holds one array; leave out --dataset {dataset}")
    if kind == ".npy":
        from stemcodecs.readers.npy import open_npy

        return open_npy(name, partial=frames == "partial")
    if kind == "MRC":
        from stemcodecs.readers.mrc import open_mrc

        return open_mrc(name, frames=frames)
    from stemcodecs.readers.ndata import open_ndata

    return open_ndata(name)


def _open_hdf5(name: str, dataset: str | None, *, partial: bool) -> Scan:
    from stemcodecs.readers.electron_events import is_electron_events, open_electron_events
    from stemcodecs.readers.hdf5 import open_hdf5
    from stemcodecs.readers.hdf5_files import open_file

    if dataset is None:
        with open_file(name) as file:
            events = is_electron_events(file)
        if events:
            return open_electron_events(name)
    return open_hdf5(name, dataset, partial=partial)


def _require_zarr_url(url: str) -> None:
    """Only Zarr is read from URLs: in a single file every block would be a request, and nobody holds it still."""
    from stemcodecs.location import Location
    from stemcodecs.store import require_complete, state

    location = Location.of(url)
    if location.is_zarr():
        if state(location).kind == "incomplete":
            require_complete(location)
        return
    with backend_errors(url):
        there = location.exists()
    if not there:
        raise SourceError(f"{url}: nothing is there; check the URL")
    raise SourceError(f"{url}: only Zarr stores are read from URLs; download the file and give its path")


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
    from stemcodecs.readers.mrc import is_mrc

    return "MRC" if is_mrc(str(place)) else "unknown"


def _kind_of_zip(place: Path) -> str:
    from stemcodecs.location import JOURNAL
    from stemcodecs.store import require_complete

    names = set(zip_members(str(place)))
    if names & set(_ZARR_DOCUMENTS):
        return "Zarr"
    if "data.npy" in names and "metadata.json" in names:
        return ".ndata"
    if place.suffix.lower() == ".npz":
        raise SourceError(
            f"{place}: .npz cannot be read block by block; it is a .zip of .npy files: "
            "unpack it and give one of them, or save the array with numpy.save"
        )
    if f"{JOURNAL}/job.json" in names:
        require_complete(place)
    if any(name.endswith(f"/{document}") for name in names for document in _ZARR_DOCUMENTS):
        raise SourceError(
            f"{place}: the Zarr store lies in a folder inside this .zip file; unpack it, or pack its content"
        )
    return "unknown"


def _refuse_raw_options(name: str, kind: str, shape: object, dtype: object, offset: int) -> None:
    if shape is not None or dtype is not None or offset:
        raise SourceError(f"{name} is {kind} and says its own shape and dtype; leave out --shape, --dtype and --offset")
