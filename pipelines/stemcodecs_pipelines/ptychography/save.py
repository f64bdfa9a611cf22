"""A reconstruction as a Zarr store with calibrated coordinates, which xarray opens."""

from __future__ import annotations

import os
import shutil
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from stemcodecs._version import __version__
from stemcodecs.errors import DestinationError
from stemcodecs_pipelines.ptychography.reconstruction import Reconstruction

__all__ = ["check_destination", "save_reconstruction"]

Array = np.ndarray[Any, Any]

_OURS = "stemcodecs_reconstruction"


def check_destination(out: str | os.PathLike[str], *, overwrite: bool) -> Path:
    """The place of a reconstruction, before anything is computed for it.

    Raises
    ------
    DestinationError
        It is taken, or its folder does not exist.
    """
    place = Path(out)
    if not place.absolute().parent.is_dir():
        raise DestinationError(f"the folder {place.parent} does not exist; create it first")
    if place.exists():
        if not overwrite:
            raise DestinationError(f"{out} exists already; give --overwrite or another place")
        if not _is_ours(place):
            raise DestinationError(f"{out} was not written by stemcodecs reconstruct; remove it yourself")
    return place


def save_reconstruction(result: Reconstruction, out: str | os.PathLike[str], *, overwrite: bool = False) -> None:
    """Write a reconstruction.

    The group holds ``object`` (y, x), ``object_slices`` (slice, y, x) of a thick object, ``probe`` (mode, probe_y,
    probe_x), ``positions`` (position, axis), ``covered`` (y, x) and ``errors`` (iteration). Coordinates are in nm, or
    in pixels where the object pixel is not known.

    Parameters
    ----------
    result : Reconstruction
        What was found.
    out : path
        Folder of the store. It appears when it is complete.
    overwrite : bool
        Replace a reconstruction that is there.

    Raises
    ------
    DestinationError
        The place is taken by something else, or cannot be written.
    """
    place = check_destination(out, overwrite=overwrite)
    try:
        part = Path(tempfile.mkdtemp(prefix=f".{place.name}.", dir=place.absolute().parent))
    except OSError as error:
        raise DestinationError(f"{out}: cannot be written ({error.strerror or error})") from error
    try:
        _write(result, part)
        part.chmod(0o755)
        if place.exists():
            shutil.rmtree(place)
        part.rename(place)
    except OSError as error:
        raise DestinationError(f"{out}: cannot be written ({error.strerror or error}); free some space") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _write(result: Reconstruction, place: Path) -> None:
    import zarr

    pixel, units = (1.0, "pixel") if result.pixel_size is None else (1e9 * result.pixel_size, "nm")
    root = zarr.create_group(
        place,
        attributes={
            _OURS: __version__,
            "method": result.method,
            "error": result.error,
            "object_pixel": pixel,
            "units": units,
        },
    )

    def add(name: str, values: Array, dims: tuple[str, ...], **attributes: Any) -> None:
        root.create_array(name, data=np.ascontiguousarray(values), dimension_names=dims, attributes=attributes)

    add("object", result.object, ("y", "x"), long_name="transmission function")
    if len(result.slices) > 1:
        add("object_slices", result.slices, ("slice", "y", "x"), long_name="transmission function of each slice")
    add("covered", result.covered, ("y", "x"), long_name="where the probe was")
    add("probe", result.probe, ("mode", "probe_y", "probe_x"), long_name="probe", units="sqrt(counts)")
    add("positions", result.positions * pixel, ("position", "axis"), long_name="corners (y, x) of windows", units=units)
    add("errors", result.errors, ("iteration",), long_name="amplitude error")
    side = result.probe.shape[-1]
    sizes = {"y": result.covered.shape[0], "x": result.covered.shape[1], "probe_y": side, "probe_x": side}
    for name, size in sizes.items():
        add(name, pixel * np.arange(size, dtype=np.float64), (name,), units=units)
    with warnings.catch_warnings():
        # Zarr 3 warns that consolidated metadata is not in its specification yet; xarray warns where it is missing.
        warnings.simplefilter("ignore")
        zarr.consolidate_metadata(place)


def _is_ours(place: Path) -> bool:
    import zarr

    try:
        return _OURS in zarr.open_group(place, mode="r").attrs
    except (OSError, ValueError, KeyError):
        return False
