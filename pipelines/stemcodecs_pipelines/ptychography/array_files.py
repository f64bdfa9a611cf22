"""Small arrays from files: positions, probes and masks in .npy, .npz, .csv and HDF5."""

from __future__ import annotations

import csv
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from stemcodecs.errors import SourceError

__all__ = ["load_array", "load_positions"]

Array = np.ndarray[Any, Any]


def load_array(place: str) -> Array:
    """An array of a file.

    Parameters
    ----------
    place : str
        ``file.npy``, ``file.csv``, ``file.npz`` or HDF5; ``file::name`` chooses an array where there are several.

    Raises
    ------
    SourceError
        No such file, no such array, several of them, or text that is no number.
    """
    name, _, wanted = place.partition("::")
    path = Path(name)
    if not path.is_file():
        raise SourceError(f"{name}: no such file; check the path")
    try:
        if path.suffix == ".npy":
            return np.asarray(np.load(path, allow_pickle=False))
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as archive:
                return np.asarray(archive[_choose(name, wanted, list(archive))])
        if path.suffix in (".csv", ".txt", ".dat"):
            return _load_table(path)[0]
        return _load_hdf5(name, wanted)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise SourceError(f"{name}: cannot be read ({' '.join(str(error).split())[:120]}); check the file") from error


def load_positions(place: str) -> Array:
    """Positions (y, x) of a file, (position, 2) or (scan_y, scan_x, 2), in the units of the file.

    Columns of a table that are called x and y, or end in _x and _y, are taken by their names; otherwise y comes first.

    Raises
    ------
    SourceError
        The file cannot be read, or has no two columns.
    """
    path = Path(place)
    if path.suffix in (".csv", ".txt", ".dat") and path.is_file():
        table, names = _load_table(path)
        y, x = (_column(names, axis) for axis in ("y", "x"))
        if y is not None and x is not None:
            table = table[:, [y, x]]
    else:
        table = load_array(place)
    if table.ndim not in (2, 3) or table.shape[-1] != 2:
        raise SourceError(f"{place}: an array of shape {table.shape} holds no positions; give columns y and x")
    return np.asarray(table, np.float64)


def _column(names: list[str], axis: str) -> int | None:
    plain = [name.split("(")[0].split("[")[0].strip().lower() for name in names]
    found = [i for i, name in enumerate(plain) if name == axis or name.endswith(f"_{axis}")]
    return found[0] if len(found) == 1 else None


def _load_table(path: Path) -> tuple[Array, list[str]]:
    """Numbers of a table, with commas, semicolons, tabs or spaces, and the names in its first line if it has any."""
    with open(path, encoding="utf-8-sig", newline="") as file:
        lines = [line for line in file if line.strip()]
    if not lines:
        raise SourceError(f"{path}: the table is empty")
    separator = next((s for s in (",", ";", "\t") if any(s in line for line in lines)), None)
    if separator:
        rows = [[cell.strip() for cell in row] for row in csv.reader(lines, delimiter=separator)]
    else:
        rows = [line.split() for line in lines]
    rows[0] = [cell for cell in rows[0] if cell != "#"]
    names: list[str] = []
    if not _is_number(rows[0][0].lstrip("#")):
        names = [cell.lstrip("# ") for cell in rows.pop(0)]
    if not rows or len({len(row) for row in rows}) != 1:
        raise SourceError(f"{path}: its lines have different numbers of columns, or there is none; mend the table")
    try:
        return np.array(rows, np.float64), names
    except ValueError as error:
        raise SourceError(f"{path}: a cell is no number ({error}); mend the table") from error


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _load_hdf5(name: str, wanted: str) -> Array:
    import h5py

    from stemcodecs.readers.hdf5_files import open_file

    with open_file(name) as file:
        if not wanted:
            found: list[str] = []
            file.visititems(lambda key, item: found.append(key) if isinstance(item, h5py.Dataset) else None)
            wanted = _choose(name, "", found)
        if not isinstance(file.get(wanted), h5py.Dataset):
            raise SourceError(f"{name}: there is no dataset {wanted} in it")
        return np.asarray(file[wanted][()])


def _choose(name: str, wanted: str, found: list[str]) -> str:
    if wanted and wanted not in found:
        raise SourceError(f"{name}: there is no {wanted} in it; it has {', '.join(found)}")
    if not wanted and len(found) != 1:
        raise SourceError(f"{name} holds {', '.join(found[:8]) or 'nothing'}; choose one as {name}::NAME")
    return wanted or found[0]
