"""What the common HDF5 layouts of electron microscopy say about their main data and its axes."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any

from stemcodecs.readers.calibration import axes_from, axis_from_values, axis_named
from stemcodecs.readers.scan import Axis

__all__ = ["Hdf5Layout", "axes_of", "child", "layout_of", "main_arrays", "nion_axes", "parts_group"]

_Axes = list[Axis | None]

PART = re.compile("data_([0-9]{6,})")
"""Names of the parts of a DECTRIS master file."""


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
    groups = _groups(file)
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
    if parts_group(file) is not None:
        return Hdf5Layout.DECTRIS
    if any(_said(g, "NX_class") for g in groups):
        return Hdf5Layout.NEXUS
    return Hdf5Layout.PLAIN


def parts_group(file: Any) -> str | None:
    """Where a DECTRIS master file has its parts ``data_000001``, …: below ``entry/data``, or older, below ``entry``."""
    for name in ("entry/data", "entry"):
        group = child(file, name)
        if hasattr(group, "keys") and any(PART.fullmatch(key) for key in group):
            return name
    return None


def main_arrays(file: Any, layout: Hdf5Layout) -> list[tuple[Any, str]]:
    """What the layout calls measured data: groups, and the names of the datasets in them.

    They are named even where they cannot be opened: a link to a file that was not copied is measured data too.
    """
    if layout in (Hdf5Layout.PY4DSTEM, Hdf5Layout.EMD):
        return [(g, "data") for g in _groups(file) if _is_emd_array(g) and _has(g, "data")]
    if layout is Hdf5Layout.NEXUS:
        return [(g, name) for g in _groups(file) if _is_nxdata(g) for name in _nexus_signals(g)]
    if layout is Hdf5Layout.HYPERSPY:
        return [(g, "data") for g in _members(child(file, "Experiments")) if _has(g, "data")]
    return []


def child(group: Any, name: str) -> Any:
    """An object in a file or group; None where it is not there, or cannot be opened."""
    try:
        return group[name]
    except (KeyError, OSError, RuntimeError, ValueError, TypeError, AttributeError):
        return None  # no such name, a link that leads nowhere, a damaged object, a dataset in place of a group


def axes_of(path: str, node: Any, layout: Hdf5Layout) -> tuple[Axis, ...]:
    """Calibrated axes of a dataset, in the order of its dimensions."""
    shape = node.shape
    if shape is None or len(shape) < 2:
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
    vectors = [child(group, f"dim{first + i}") for i in range(len(shape))]
    if vectors[-1] is not None and _said(vectors[-1], "name") == "_labels_":
        # A stack of labelled arrays: the last vector labels the first dimension of the data.
        vectors = [None, *vectors[:-1]]
    return [
        None if v is None else axis_from_values(_said(v, "name"), size, v[()], v.attrs.get("units"))
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
    root = group.file[group.name.strip("/").partition("/")[0] or "/"]
    # A damaged object elsewhere in the tree leaves the scan without its calibration.
    with contextlib.suppress(KeyError, OSError, RuntimeError):
        root.visititems(visit)
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
    data = child(file, "data")
    return [] if data is None else [data, *_members(data)]


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
        said = child(group, f"axis-{i}")
        if said is None:
            axes.append(None)
            continue
        name, values = _said(said, "name"), child(said, "axis")
        if values is not None:
            axes.append(axis_from_values(name, size, values[()], said.attrs.get("units")))
        else:
            scale, offset, units = (said.attrs.get(k) for k in ("scale", "offset", "units"))
            axes.append(axis_named(name, size, scale, offset, units))
    return axes


# NeXus: groups NXdata with the attributes signal and axes (or signal=1 on the dataset)


def _is_nxdata(group: Any) -> bool:
    return _said(group, "NX_class") == "NXdata"


def _nexus_signals(group: Any) -> list[str]:
    name = _said(group, "signal")
    if name:
        return [name] if _has(group, name) else []
    return [k for k in group if "signal" in getattr(child(group, k), "attrs", ())]


def _nexus_axes(group: Any, shape: Sequence[int]) -> _Axes:
    names = group.attrs.get("axes")
    if names is None or isinstance(names, str | bytes) or len(names) != len(shape):
        return []
    axes: _Axes = []
    for said, size in zip(names, shape, strict=True):
        name = _text(said).strip(".")
        vector: Any = child(group, name) if name else None
        if getattr(vector, "shape", None) != (size,):
            axes.append(Axis(name=name, size=size) if name else None)
        else:
            axes.append(axis_from_values(name, size, vector[()], vector.attrs.get("units")))
    return axes


# Anything else: HDF5's own dimension scales (netCDF-4, xarray)


def _dimension_scales(node: Any, shape: Sequence[int]) -> _Axes:
    axes: _Axes = []
    for i, size in enumerate(shape):
        try:
            scales = list(node.dims[i].values())
            name = node.dims[i].label or (scales[0].name.rpartition("/")[2] if scales and scales[0].name else "")
        except (KeyError, OSError, RuntimeError):
            scales, name = [], ""  # a reference to a scale that is not there
        if not scales or scales[0].shape != (size,):
            axes.append(Axis(name=name, size=size) if name else None)
        else:
            axes.append(axis_from_values(name, size, scales[0][()], scales[0].attrs.get("units")))
    return axes


def _groups(file: Any) -> list[Any]:
    """All groups below the root by hard links, those that can be opened."""
    import h5py

    found: list[Any] = []
    seen = {h5py.h5o.get_info(file["/"].id).addr}
    pending = [file["/"]]
    while pending:
        group = pending.pop(0)
        for key in _keys(group):
            # Links are left out: what is behind them is somebody else's layout, or not there.
            if not isinstance(group.get(key, getlink=True), h5py.HardLink):
                continue
            node = child(group, key)
            if isinstance(node, h5py.Group) and (address := h5py.h5o.get_info(node.id).addr) not in seen:
                seen.add(address)
                found.append(node)
                pending.append(node)
    return found


def _keys(group: Any) -> list[str]:
    try:
        return list(group)
    except (KeyError, OSError, RuntimeError):
        return []  # a damaged group


def _members(group: Any) -> list[Any]:
    """Objects in a group, those that can be opened."""
    if not hasattr(group, "keys"):
        return []
    return [node for node in (child(group, key) for key in _keys(group)) if node is not None]


def _has(group: Any, name: str) -> bool:
    """Whether a group has a member of this name, even one that cannot be opened."""
    return hasattr(group, "keys") and name.partition("/")[0] in _keys(group)


def _said(node: Any, attribute: str) -> str:
    try:
        return _text(node.attrs.get(attribute))
    except (KeyError, OSError, RuntimeError, TypeError):
        return ""  # an attribute of a type that h5py does not read


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value if isinstance(value, str) else ""
