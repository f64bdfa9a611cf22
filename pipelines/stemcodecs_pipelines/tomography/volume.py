"""Densities as a Zarr store with calibrated coordinates, written in blocks of rows, which xarray opens."""

from __future__ import annotations

import contextlib
import os
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from stemcodecs.disk import remove_tree, rename, sync_tree
from stemcodecs.errors import DestinationError, SourceError
from stemcodecs_pipelines.tomography.problem import TomographyProblem

__all__ = ["MICROMETRES", "Volume", "growing_volume", "open_volume", "write_rows"]

Array = np.ndarray[Any, Any]

MICROMETRES = 1e4
"""Micrometres in a centimetre: coordinates are in µm, the forward model computes in cm."""
_MARK = "stemcodecs_tomography"
_DIMS = ("y", "x", "z")


@contextlib.contextmanager
def growing_volume(
    out: str | os.PathLike[str], problem: TomographyProblem, block: int, *, overwrite: bool = False
) -> Iterator[Path]:
    """A hidden folder with empty arrays, that becomes `out` at the end of the context; on an error it is removed.

    Parameters
    ----------
    out : path
        Local folder of the store.
    problem : TomographyProblem
        Gives shape, elements and calibration.
    block : int
        Rows of a chunk.
    overwrite : bool
        Replace densities that are there.

    Raises
    ------
    DestinationError
        The place is taken, is a URL, or cannot be written.
    """
    target = check_free(out, overwrite=overwrite)
    try:
        part = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".part", dir=target.absolute().parent))
    except OSError as error:
        raise DestinationError(f"{out}: cannot be written ({error.strerror or error})") from error
    try:
        _create(part / "whole", problem, block)
        yield part / "whole"
        sync_tree(part / "whole")
        if target.exists():
            check_free(out, overwrite=overwrite)
            rename(target, part / "old")
        rename(part / "whole", target)
    finally:
        remove_tree(part)


def check_free(out: str | os.PathLike[str], *, overwrite: bool) -> Path:
    """The place of a volume, before anything is computed for it."""
    text = os.fspath(out)
    if "://" in text:
        raise DestinationError(f"{text}: densities are written to a local folder; copy it afterwards")
    target = Path(text)
    if not target.absolute().parent.is_dir():
        raise DestinationError(f"the folder {target.parent} does not exist; create it first")
    if target.exists():
        if not overwrite:
            raise DestinationError(f"{text} exists already; give --overwrite or another --out")
        if not _is_ours(target):
            raise DestinationError(f"{text} was not written by stemcodecs tomography; remove it yourself")
    return target


def _is_ours(place: Path) -> bool:
    import zarr

    try:
        return _MARK in zarr.open_group(place, mode="r").attrs
    except (OSError, ValueError, KeyError):
        return False


def _create(place: Path, problem: TomographyProblem, block: int) -> None:
    import zarr

    sections = problem.sections
    root = zarr.create_group(place, zarr_format=3)
    root.attrs.update(
        {
            _MARK: 1,
            "elements": list(sections.elements),
            "lines": [line.name for line in sections.lines],
            "beam_energy_kev": sections.beam_energy,
        }
    )
    shape = (problem.rows, problem.pixels, problem.pixels)
    for symbol in sections.elements:
        root.create_array(
            symbol,
            shape=shape,
            dtype="f4",
            chunks=(block, *shape[1:]),
            dimension_names=_DIMS,
            attributes={"units": "g/cm3", "long_name": f"density of {symbol}"},
        )
    step = problem.geometry.pixel_size * MICROMETRES
    for name, size in zip(_DIMS, shape, strict=True):
        centred = step * (np.arange(size, dtype=np.float64) - (size - 1) / 2)
        root.create_array(name, data=centred, dimension_names=(name,), attributes={"units": "um"})


def write_rows(place: Path, elements: tuple[str, ...], rows: slice, density: Array) -> None:
    """Write some rows, (element, row, x, z): whole chunks, so that tasks never share one."""
    import zarr

    root: Any = zarr.open_group(place, mode="r+")
    for symbol, values in zip(elements, density, strict=True):
        root[symbol][rows] = values


def finish(place: Path, attributes: Mapping[str, Any], deviance: Array, epochs: Array) -> None:
    """Add what is known at the end, and gather the metadata."""
    import zarr

    with warnings.catch_warnings():
        # Consolidated metadata is outside Zarr's specification so far.
        warnings.simplefilter("ignore", zarr.errors.ZarrUserWarning)
        root = zarr.open_group(place, mode="r+")
        root.create_array(
            "deviance",
            data=deviance,
            dimension_names=("epoch",),
            attributes={"long_name": "mean Poisson deviance per count; 1 is the noise of many counts"},
        )
        root.create_array(
            "epochs", data=epochs, dimension_names=("y",), attributes={"long_name": "epochs until the row was left"}
        )
        root.attrs.update(attributes)
        zarr.consolidate_metadata(root.store)


class Volume:
    """Densities in a store, read when they are asked for.

    Attributes
    ----------
    elements : tuple of str
        Symbols.
    rows : int
        Sections along y.
    step : float
        Edge of a voxel, µm.
    deviance : ndarray
        Mean Poisson deviance of each epoch.
    """

    def __init__(self, root: Any) -> None:
        self._root = root
        self.elements: tuple[str, ...] = tuple(root.attrs["elements"])
        self.rows = int(root["y"].shape[0])
        self.step = float(root["x"][1] - root["x"][0])
        self.deviance: Array = np.asarray(root["deviance"][:])

    def section(self, element: str, row: int) -> Array:
        """Densities of one row in g/cm³, (x, z)."""
        return np.asarray(self._root[element][row])

    def density(self) -> Array:
        """All densities, (element, y, x, z)."""
        return np.stack([np.asarray(self._root[symbol][:]) for symbol in self.elements])


def open_volume(place: str | os.PathLike[str]) -> Volume:
    """Open what `growing_volume` wrote.

    Raises
    ------
    SourceError
        It is something else.
    """
    import zarr

    if not _is_ours(Path(place)):
        raise SourceError(f"{place} holds no densities of stemcodecs tomography; check the path")
    return Volume(zarr.open_group(Path(place), mode="r"))
