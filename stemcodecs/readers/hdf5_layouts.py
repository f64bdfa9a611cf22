"""What the common HDF5 layouts of electron microscopy say about their main data and its axes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import Any

from stemcodecs.readers.calibration import axes_from, axis_from_values, axis_named
from stemcodecs.readers.scan import Axis

__all__ = ["Hdf5Layout", "axes_of", "layout_of", "main_arrays", "nion_axes"]

_Axes = list[Axis | None]


class Hdf5Layout(Enum):
    """Layouts that are recognised; the value is what the user reads."""

    PY4DSTEM = "py4DSTEM"
    EMD = "EMD"
    VELOX = "Velox EMD"
    NION = "Nion Swift"
    HYPERSPY = "HyperSpy"
    DECTRIS = "DECTRIS master"
    NEXUS = "NeXus"
    PLAIN = "plain"


def layout_of(file: Any) -> Hdf5Layout:
    """Recognise the layout of an open file by its groups and attributes, not by its name."""
    groups = _groups(file, lambda _: True)
    if "4DSTEM_experiment" in file or any(_said(g, "python_class") == "DataCube" for g in groups):
        return Hdf5Layout.PY4DSTEM
    if "Experiments" in file and "file_format" in file.attrs:
        return Hdf5Layout.HYPERSPY
    if any("properties" in node.attrs for node in _nion_nodes(file)):
        return Hdf5Layout.NION
    if any(_is_emd_array(g) for g in groups):
        return Hdf5Layout.EMD
    if "Data" in file and "Version" in file:
        return Hdf5Layout.VELOX
    if "entry/data" in file and "data_000001" in list(file["entry/data"]):
        return Hdf5Layout.DECTRIS
    if any(_said(g, "NX_class") for g in groups):
        return Hdf5Layout.NEXUS
    return Hdf5Layout.PLAIN


def main_arrays(file: Any, layout: Hdf5Layout) -> list[Any]:
    """Datasets that the layout calls measured data."""
    if layout in (Hdf5Layout.PY4DSTEM, Hdf5Layout.EMD):
        return [g["data"] for g in _groups(file, _is_emd_array) if "data" in g]
    if layout is Hdf5Layout.NEXUS:
        return [d for g in _groups(file, _is_nxdata) for d in _nexus_signals(g)]
    return []


def axes_of(path: str, node: Any, layout: Hdf5Layout) -> tuple[Axis, ...]:
    """Calibrated axes of a dataset, in the order of its dimensions."""
    shape = node.shape
    if not 2 <= len(shape) <= 4:
        return ()
    given: _Axes
    if layout is Hdf5Layout.NION:
        given = nion_axes(_nion_properties(node), shape)
    elif layout is Hdf5Layout.HYPERSPY:
        given = _hyperspy_axes(node.parent, shape)
    elif layout in (Hdf5Layout.PY4DSTEM, Hdf5Layout.EMD):
        given = _emd_axes(node.parent, shape)
        if len(shape) == 4:
            given = _with_pixel_sizes(node.parent, shape, given)
    elif layout is Hdf5Layout.NEXUS:
        given = _nexus_axes(node.parent, shape)
    else:
        given = _dimension_scales(node, shape)
    return axes_from(path, shape, given)


# EMD, Berkeley: emdatasets.com/format; version 1.0 is what emdfile and py4DSTEM write


def _is_emd_array(group: Any) -> bool:
    kind = group.attrs.get("emd_group_type")
    return kind is not None and (_text(kind) == "array" or str(kind) == "1")


def _emd_axes(group: Any, shape: Sequence[int]) -> _Axes:
    # Versions before 1.0 count dim1, dim2, ...; version 1.0 counts dim0, dim1, ...
    first = 0 if "dim0" in group else 1
    vectors = [group.get(f"dim{first + i}") for i in range(len(shape))]
    if vectors[-1] is not None and _said(vectors[-1], "name") == "_labels_":
        # A stack of labelled arrays: the last vector labels the first dimension of the data.
        vectors = [None, *vectors[:-1]]
    return [
        None if v is None else axis_from_values("", size, v[()], v.attrs.get("units"))
        for v, size in zip(vectors, shape, strict=True)
    ]


def _with_pixel_sizes(group: Any, shape: Sequence[int], given: _Axes) -> _Axes:
    """Fill axes from py4DSTEM's pixel sizes in real (R) and diffraction (Q) space."""
    said: dict[str, Any] = {}

    def visit(name: str, node: Any) -> None:
        key = name.rpartition("/")[2]
        if key in ("R_pixel_size", "Q_pixel_size", "R_pixel_units", "Q_pixel_units"):
            said.setdefault(key, node[()])

    # The calibration belongs to the tree that holds the datacube, not to another one in the file.
    group.file[group.name.strip("/").partition("/")[0]].visititems(visit)
    filled: _Axes = []
    for i, (axis, size) in enumerate(zip(given, shape, strict=True)):
        space = "R" if i < 2 else "Q"
        if axis is not None and axis.calibrated:
            filled.append(axis)
        else:
            scale, units = said.get(f"{space}_pixel_size"), said.get(f"{space}_pixel_units")
            filled.append(axis_named("", size, scale, 0.0, units))
    return filled


# Nion Swift: JSON in the attribute "properties" of /data (.h5) or /data/0, /data/1, ... (.nhdf)


def nion_axes(properties: Mapping[str, Any], shape: Sequence[int]) -> _Axes:
    """Axes from Nion Swift's ``dimensional_calibrations``."""
    said = properties.get("dimensional_calibrations", properties.get("spatial_calibrations"))
    if not isinstance(said, list) or len(said) != len(shape):
        return []
    return [
        axis_named("", size, c.get("scale", 1.0), c.get("offset", 0.0), c.get("units"))
        for size, c in zip(shape, said, strict=True)
    ]


def _nion_nodes(file: Any) -> list[Any]:
    if "data" not in file:
        return []
    data = file["data"]
    return [data, *data.values()] if hasattr(data, "values") else [data]


def _nion_properties(node: Any) -> dict[str, Any]:
    try:
        properties = json.loads(_said(node, "properties"))
    except ValueError:
        return {}
    return properties if isinstance(properties, dict) else {}


# HyperSpy .hspy: groups axis-0, axis-1, ... next to the data


def _hyperspy_axes(group: Any, shape: Sequence[int]) -> _Axes:
    axes: _Axes = []
    for i, size in enumerate(shape):
        said = group.get(f"axis-{i}")
        if said is None:
            axes.append(None)
        elif "axis" in said:
            axes.append(axis_from_values("", size, said["axis"][()], said.attrs.get("units")))
        else:
            scale, offset, units = (said.attrs.get(k) for k in ("scale", "offset", "units"))
            axes.append(axis_named("", size, scale, offset, units))
    return axes


# NeXus: groups NXdata with the attributes signal and axes (or signal=1 on the dataset)


def _is_nxdata(group: Any) -> bool:
    return _said(group, "NX_class") == "NXdata"


def _nexus_signals(group: Any) -> list[Any]:
    name = _said(group, "signal")
    if name:
        return [group[name]] if name in group else []
    return [group[k] for k in group if group.get(k) is not None and "signal" in group[k].attrs]


def _nexus_axes(group: Any, shape: Sequence[int]) -> _Axes:
    names = group.attrs.get("axes")
    if names is None or isinstance(names, str | bytes) or len(names) != len(shape):
        return []
    axes: _Axes = []
    for name, size in zip(names, shape, strict=True):
        vector = group.get(_text(name) or ".")
        if getattr(vector, "shape", None) != (size,):
            axes.append(None)
        else:
            axes.append(axis_from_values("", size, vector[()], vector.attrs.get("units")))
    return axes


# Anything else: HDF5's own dimension scales (netCDF-4, xarray)


def _dimension_scales(node: Any, shape: Sequence[int]) -> _Axes:
    axes: _Axes = []
    for i, size in enumerate(shape):
        scales = list(node.dims[i].values())
        if not scales or scales[0].shape != (size,):
            axes.append(None)
        else:
            axes.append(axis_from_values("", size, scales[0][()], scales[0].attrs.get("units")))
    return axes


def _groups(file: Any, wanted: Callable[[Any], bool]) -> list[Any]:
    found: list[Any] = []

    def visit(_name: str, node: Any) -> None:
        if hasattr(node, "keys") and wanted(node):
            found.append(node)

    file.visititems(visit)
    return found


def _said(node: Any, attribute: str) -> str:
    return _text(node.attrs.get(attribute))


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value if isinstance(value, str) else ""
