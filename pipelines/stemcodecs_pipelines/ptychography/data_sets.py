"""Data sets that carry their own geometry: PtychoShelves and cSAXS, CXI, and ptypy's .ptyd, all in HDF5.

What each says is brought into the frame of `PtychographyProblem`; where its writers differ, docs/reconstruction.md says
what is assumed, and the options of the command turn it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stemcodecs.errors import SourceError
from stemcodecs.readers.scan import Region
from stemcodecs_pipelines.ptychography.geometry import AS_STORED, Optics, Orientation, wavelength_of
from stemcodecs_pipelines.ptychography.pattern_source import PatternSource

__all__ = ["DataSet", "read_data_set"]

Array = np.ndarray[Any, Any]

_JOULE = 1.602176634e-19
"""Joules of an electronvolt."""


@dataclass(frozen=True, kw_only=True, eq=False)
class DataSet:
    """What a file says; None for what it leaves open.

    Attributes
    ----------
    format : str
        Name of the format.
    patterns : PatternSource
        Zero frequency in pixel n // 2.
    positions : ndarray or None, (position, 2)
        (y, x) of the probe on the specimen, in metres or pixels.
    metres : bool
        The positions are in metres.
    pixel_size, wavelength : float or None
        Object pixel and wavelength in metres.
    detector_angle : float or None
        Angle of a detector pixel in radians, where the object pixel is not said.
    mask : ndarray of bool or None
        True where the detector measured.
    orientation : Orientation
        What turns the stored patterns into the frame of the positions.
    """

    format: str
    patterns: PatternSource
    positions: Array | None = None
    metres: bool = True
    pixel_size: float | None = None
    wavelength: float | None = None
    detector_angle: float | None = None
    mask: Array | None = None
    orientation: Orientation = AS_STORED


def read_data_set(path: str) -> DataSet | None:
    """A data set that carries its geometry, opened without reading a pattern; None where the file is none of these.

    Raises
    ------
    SourceError
        It is one of these, but a part of it is missing or does not fit.
    """
    import h5py

    if not Path(path).is_file() or not h5py.is_hdf5(path):
        return None
    from stemcodecs.readers.hdf5_files import open_file

    file = open_file(path)
    for reader, marker in (
        (_read_ptyd, "chunks/0/data"),
        (_read_cxi, "entry_1"),
        (_read_csaxs, "measurement/n0/data"),
        (_read_ptychoshelves, "dp"),
    ):
        if marker in file and (marker != "dp" or getattr(file["dp"], "ndim", 0) == 3):
            try:
                return reader(path, file)
            except KeyError as error:
                file.close()
                raise SourceError(f"{path}: a part of it is missing ({error.args[0]}); restore it") from error
            except BaseException:
                file.close()
                raise
    file.close()
    return None


def _read_ptyd(path: str, file: Any) -> DataSet:
    """Ptypy's prepared data: chunks of frames with positions (y, x) in metres, energy in keV."""
    groups = [file["chunks"][key] for key in sorted(file["chunks"], key=int)]
    stacks = [group["data"] for group in groups]
    positions = np.concatenate([np.asarray(group["positions"], np.float64) for group in groups])
    meta = file["meta"]
    energy, distance = (float(np.asarray(meta[key][()])) for key in ("energy", "distance"))
    detector_pixel = float(np.ravel(meta["psize"][()])[0])
    optics = Optics.of(energy_ev=1e3 * energy, particle="photon", distance=distance, detector_pixel=detector_pixel)
    weights = next((node["weight2d"] for node in (meta, file.get("common", {})) if "weight2d" in node), None)
    side = stacks[0].shape[-1]
    has_mask = weights is not None and weights.shape == (side, side)
    return DataSet(
        format="ptypy .ptyd",
        patterns=_stacked(stacks),
        positions=positions,
        pixel_size=optics.object_pixel(side),
        wavelength=optics.wavelength,
        mask=np.asarray(weights) > 0 if has_mask else None,
    )


def _read_cxi(path: str, file: Any) -> DataSet:
    """CXI (Maia 2012, doi:10.1038/nmeth.2110): translations of the sample in metres, energy in joules.

    The probe moves on the sample against the sample's own motion. Translations are taken along the two basis vectors of
    the detector; without them, x points against the columns and y against the rows, as the format has it.
    """
    entry = file["entry_1"]
    detector = entry["instrument_1/detector_1"]
    data = entry["data_1/data"] if "data_1/data" in entry else detector["data"]
    places = ("data_1/translation", "sample_1/geometry_1/translation", "sample_1/geometry/translation")
    translation = next((np.asarray(entry[p], np.float64) for p in places if p in entry), None)
    basis = np.array([[0.0, -1.0, 0.0], [-1.0, 0.0, 0.0]])
    if "basis_vectors" in detector:
        vectors = np.asarray(detector["basis_vectors"], np.float64)
        vectors = vectors[0] if vectors.ndim == 3 else vectors
        vectors = vectors if vectors.shape == (2, 3) else vectors.T
        basis = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    wavelength = wavelength_of(float(entry["instrument_1/source_1/energy"][()]) / _JOULE, "photon")
    angle = float(detector["x_pixel_size"][()]) / float(detector["distance"][()])
    # The bits of the mask say what is wrong with a pixel.
    mask = np.asarray(detector["mask"]) == 0 if "mask" in detector else None
    return DataSet(
        format="CXI",
        patterns=PatternSource.of(data),
        positions=None if translation is None else -translation @ basis.T,
        pixel_size=wavelength / (data.shape[-1] * angle),
        wavelength=wavelength,
        mask=mask if mask is None or mask.ndim == 2 else mask.all(axis=0),
    )


def _read_csaxs(path: str, file: Any) -> DataSet:
    """Prepared data of cSAXS: patterns with the zero frequency in the corner, positions in pixels.

    MATLAB wrote it, so that rows and columns change places here.
    """
    stored = PatternSource.of(file["measurement/n0/data"])

    def read(region: Region) -> Array:
        return np.fft.fftshift(stored.read(region), axes=(-2, -1))

    return DataSet(
        format="cSAXS",
        patterns=PatternSource(
            leading=stored.leading, detector=stored.detector, dtype=stored.dtype, chunk=stored.chunk, read=read
        ),
        positions=np.asarray(file["measurement/n0/positions"], np.float64).reshape(-1, 2),
        metres=False,
        orientation=Orientation(transpose=True),
    )


def _read_ptychoshelves(path: str, file: Any) -> DataSet:
    """PtychoShelves' ``…_dp.hdf5``, with ``ppX`` and ``ppY`` in metres in it or in ``…_para.hdf5`` beside it.

    MATLAB wrote it, so that rows and columns change places here. ``lambda`` and ``dx``, where they are there, are in
    metres.
    """
    from stemcodecs.readers.hdf5_files import open_file

    beside = Path(path).with_name(Path(path).name.replace("_dp.", "_para."))
    said: dict[str, Array] = {}
    for name in (path, str(beside)) if beside.is_file() and beside != Path(path) else (path,):
        with open_file(name) as opened:
            said |= {k: np.ravel(opened[k][()]) for k in ("ppX", "ppY", "lambda", "dx") if k in opened}
    positions = None
    if "ppX" in said and "ppY" in said:
        if len(said["ppX"]) != len(said["ppY"]):
            raise SourceError(f"{path}: {len(said['ppX'])} values of ppX for {len(said['ppY'])} of ppY")
        positions = np.stack([said["ppY"], said["ppX"]], axis=1).astype(np.float64)
    known = {key: float(said[key][0]) if key in said and len(said[key]) else None for key in ("lambda", "dx")}
    return DataSet(
        format="PtychoShelves",
        patterns=PatternSource.of(file["dp"]),
        positions=positions,
        pixel_size=known["dx"],
        wavelength=known["lambda"],
        orientation=Orientation(transpose=True),
    )


def _stacked(stacks: list[Any]) -> PatternSource:
    """Several stacks of patterns as one."""
    starts = np.cumsum([0, *(len(stack) for stack in stacks)])

    def read(region: Region) -> Array:
        first, last = region[0].start, region[0].stop
        parts = [
            stack[max(first - start, 0) : last - start]
            for stack, start in zip(stacks, starts[:-1], strict=True)
            if start < last and start + len(stack) > first
        ]
        return np.concatenate(parts)

    return PatternSource(
        leading=(int(starts[-1]),), detector=stacks[0].shape[1:], dtype=stacks[0].dtype, chunk=(1,), read=read
    )
