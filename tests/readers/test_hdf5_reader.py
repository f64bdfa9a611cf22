"""HDF5: layouts built as their programs write them, choice of the dataset, what cannot be read."""

from __future__ import annotations

import json
import subprocess
import sys

import h5py
import numpy as np
import pytest

from stemcodecs.errors import SourceError, UnsupportedDtypeError
from stemcodecs.readers import open_scan


def add_emd_array(group, data, dims, *, first, kind):
    """An EMD array group: `dims` are (values, name, units) for each dimension."""
    group.attrs["emd_group_type"] = kind
    group.create_dataset("data", data=data)
    for i, (values, name, units) in enumerate(dims):
        vector = group.create_dataset(f"dim{first + i}", data=values)
        vector.attrs["name"] = name
        vector.attrs["units"] = units


def test_emd_of_the_first_version(tmp_path, scan_4d):
    with h5py.File(tmp_path / "a.emd", "w") as file:
        file.attrs["version_major"] = 0
        dims = [
            (np.arange(5) * 0.4 + 1.0, "y", "[n_m]"),
            (np.arange(6) * 0.4, "x", "[n_m]"),
            (np.linspace(-0.7, 0.7, 7), "ky", "[n_m^-1]"),
            (np.arange(8), "kx", "[px]"),
        ]
        add_emd_array(file.create_group("data/cube"), scan_4d, dims, first=1, kind=np.int64(1))
    with open_scan(tmp_path / "a.emd") as scan:
        assert scan.format == "HDF5 (EMD)"
        assert scan.metadata["dataset"] == "/data/cube/data"
        assert [a.units for a in scan.axes] == ["nm", "nm", "nm^-1", None]
        np.testing.assert_allclose([a.scale for a in scan.axes[:3]], [0.4, 0.4, 1.4 / 6])
        assert scan.axes[0].offset == 1.0
        assert scan.axes[3].scale is None
        np.testing.assert_array_equal(scan.read(()), scan_4d)


def write_py4dstem(path, data, *, calibrated_dims):
    """A datacube as py4DSTEM 0.14 writes it: EMD 1.0, linear dims as their first two values."""
    with h5py.File(path, "w") as file:
        file.attrs["emd_group_type"] = "file"
        root = file.create_group("datacube_root")
        root.attrs["emd_group_type"] = "root"
        root.attrs["python_class"] = "Root"
        cube = root.create_group("datacube")
        cube.attrs["python_class"] = "DataCube"
        real = ([0, 2.5], "A") if calibrated_dims else ([0, 1], "pixels")
        reciprocal = ([0, 0.02], "A^-1") if calibrated_dims else ([0, 1], "pixels")
        dims = [(real[0], "Rx", real[1]), (real[0], "Ry", real[1])]
        dims += [(reciprocal[0], "Qx", reciprocal[1]), (reciprocal[0], "Qy", reciprocal[1])]
        add_emd_array(cube, data, dims, first=0, kind="array")
        calibration = root.create_group("metadatabundle/calibration")
        for key, value in {
            "R_pixel_size": 2.5,
            "Q_pixel_size": 0.02,
            "R_pixel_units": b"A",
            "Q_pixel_units": b"A^-1",
        }.items():
            calibration.create_dataset(key, data=value)


@pytest.mark.parametrize("calibrated_dims", [True, False])
def test_py4dstem_datacube(calibrated_dims, tmp_path, scan_4d):
    write_py4dstem(tmp_path / "a.h5", scan_4d, calibrated_dims=calibrated_dims)
    with open_scan(tmp_path / "a.h5") as scan:
        assert scan.format == "HDF5 (py4DSTEM)"
        assert scan.metadata["dataset"] == "/datacube_root/datacube/data"
        assert [a.scale for a in scan.axes] == [2.5, 2.5, 0.02, 0.02]
        assert [a.units for a in scan.axes] == ["A", "A", "A^-1", "A^-1"]
        np.testing.assert_array_equal(scan.read((slice(0, 2),)), scan_4d[:2])


def test_emd_datacube_goes_before_a_larger_array_of_another_kind(tmp_path, scan_4d):
    write_py4dstem(tmp_path / "a.h5", scan_4d, calibrated_dims=True)
    with h5py.File(tmp_path / "a.h5", "a") as file:
        file.create_dataset("scratch", data=np.zeros((9, 9, 9, 9), np.uint8))
    with open_scan(tmp_path / "a.h5") as scan:
        assert scan.shape == scan_4d.shape


def test_stack_of_labelled_emd_arrays_keeps_its_axes_apart(tmp_path, stack_3d):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        dims = [([0, 0.1], "Qx", "A^-1"), ([0, 0.1], "Qy", "A^-1")]
        add_emd_array(file.create_group("root/stack"), stack_3d, dims, first=0, kind="array")
        labels = file["root/stack"].create_dataset("dim2", data=[b"l%d" % i for i in range(11)])
        labels.attrs["name"] = "_labels_"
    with open_scan(tmp_path / "a.h5") as scan:
        assert [a.scale for a in scan.axes] == [None, 0.1, 0.1]


NION_PROPERTIES = {
    "dimensional_calibrations": [
        {"offset": -8.0, "scale": 4.0, "units": "nm"},
        {"offset": -8.0, "scale": 4.0, "units": "nm"},
        {"offset": -0.03, "scale": 0.01, "units": "rad"},
        {"offset": -0.04, "scale": 0.01, "units": "rad"},
    ],
    "collection_dimension_count": 2,
    "datum_dimension_count": 2,
}


@pytest.mark.parametrize("place", ["data", "data/0"])
def test_nion_swift(place, tmp_path, scan_4d):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        dataset = file.create_dataset(place, data=scan_4d.astype(np.float32))
        dataset.attrs["properties"] = json.dumps(NION_PROPERTIES)
    with open_scan(tmp_path / "a.h5") as scan:
        assert scan.format == "HDF5 (Nion Swift)"
        assert scan.dtype == np.dtype("float32")
        assert [(a.scale, a.offset, a.units) for a in scan.axes] == [
            (c["scale"], c["offset"], c["units"]) for c in NION_PROPERTIES["dimensional_calibrations"]
        ]
        np.testing.assert_array_equal(scan.read(()), scan_4d)
        assert json.loads(scan.metadata["attributes"]["properties"]) == NION_PROPERTIES


def test_nion_swift_with_broken_properties_is_read_uncalibrated(tmp_path, scan_4d):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("data", data=scan_4d).attrs["properties"] = "{not json"
    with open_scan(tmp_path / "a.h5") as scan:
        assert not any(a.calibrated for a in scan.axes)


def test_hyperspy(tmp_path, scan_4d):
    with h5py.File(tmp_path / "a.hspy", "w") as file:
        file.attrs["file_format"] = "HyperSpy"
        group = file.create_group("Experiments/__unnamed__")
        group.create_dataset("data", data=scan_4d, chunks=(1, 2, 7, 8))
        for i, (name, size, scale, units) in enumerate(
            [
                ("y", 5, 0.3, "nm"),
                ("x", 6, 0.4, "nm"),
                ("ky", 7, 0.01, "$A^{-1}$"),
                ("kx", 8, 1.0, ""),
            ]
        ):
            axis = group.create_group(f"axis-{i}")
            axis.attrs.update({"name": name, "scale": scale, "offset": 0.0, "size": size, "units": units})
    with open_scan(tmp_path / "a.hspy") as scan:
        assert scan.format == "HDF5 (HyperSpy)"
        assert scan.chunks == (1, 2, 7, 8)
        assert [a.scale for a in scan.axes] == [0.3, 0.4, 0.01, None]
        assert scan.axes[2].units == "$A^{-1}$"


def test_nexus_signal_and_axes_through_links(tmp_path, stack_3d):
    with h5py.File(tmp_path / "a.nxs", "w") as file:
        entry = file.create_group("entry")
        entry.attrs["NX_class"] = "NXentry"
        detector = entry.create_group("instrument/detector")
        detector.create_dataset("data", data=stack_3d)
        data = entry.create_group("data")
        data.attrs.update({"NX_class": "NXdata", "signal": "data", "axes": ["t", ".", "x"]})
        data["data"] = detector["data"]  # a hard link, as NeXus writers make it
        data.create_dataset("t", data=np.arange(11) * 0.1).attrs["units"] = "s"
        data.create_dataset("x", data=np.arange(8) * 55.0).attrs["units"] = "um"
        entry.create_dataset("flat_field", data=np.ones((20, 70, 80), np.float32))
    with open_scan(tmp_path / "a.nxs") as scan:
        assert scan.format == "HDF5 (NeXus)"
        assert scan.shape == stack_3d.shape
        np.testing.assert_array_equal(scan.read(()), stack_3d)
    with open_scan(tmp_path / "a.nxs", dataset="entry/data/data") as scan:
        assert [(a.scale, a.units) for a in scan.axes] == [(0.1, "s"), (None, None), (55.0, "um")]
    with open_scan(tmp_path / "a.nxs", dataset="entry/flat_field") as scan:
        assert scan.dtype == np.dtype("float32")


def test_dectris_master_file_is_one_stack(tmp_path, stack_3d):
    for i, part in enumerate((stack_3d[:4], stack_3d[4:9], stack_3d[9:]), start=1):
        with h5py.File(tmp_path / f"s_data_{i:06}.h5", "w") as file:
            file.create_dataset("entry/data/data", data=part, chunks=(1, 7, 8))
    with h5py.File(tmp_path / "s_master.h5", "w") as file:
        group = file.create_group("entry/data")
        for i in range(1, 4):
            group[f"data_{i:06}"] = h5py.ExternalLink(f"s_data_{i:06}.h5", "/entry/data/data")
    with open_scan(tmp_path / "s_master.h5") as scan:
        assert scan.format == "HDF5 (DECTRIS master)"
        assert scan.shape == stack_3d.shape
        assert scan.dims[0] == "frame"
        assert scan.chunks == (1, 7, 8)
        for start in range(11):
            for stop in range(start, 12):
                block = scan.read((slice(start, stop), slice(2, 5)))
                np.testing.assert_array_equal(block, stack_3d[start:stop, 2:5])
    (tmp_path / "s_data_000002.h5").unlink()
    with pytest.raises(SourceError, match="data_000002 is missing; put it next to"):
        open_scan(tmp_path / "s_master.h5")


def test_netcdf_dimension_scales(tmp_path, stack_3d):
    with h5py.File(tmp_path / "a.nc", "w") as file:
        data = file.create_dataset("counts", data=stack_3d)
        x = file.create_dataset("x", data=np.arange(8) * 0.25)
        x.attrs["units"] = "mrad"
        x.make_scale("x")
        data.dims[2].attach_scale(x)
    with open_scan(tmp_path / "a.nc") as scan:
        assert [(a.scale, a.units) for a in scan.axes][2] == (0.25, "mrad")
        assert scan.metadata["dataset"] == "/counts"


def test_scan_goes_before_larger_stacks(tmp_path, scan_4d):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("b/scan", data=scan_4d)
        file.create_dataset("a/frames", data=np.zeros((40, 70, 80), np.uint8))
        file.create_dataset("c/probe", data=np.zeros((9, 9, 9, 9), complex))
        file.create_dataset("names", data=[b"x", b"y"])
    with open_scan(tmp_path / "a.h5") as scan:
        assert scan.metadata["dataset"] == "/b/scan"
    with open_scan(tmp_path / "a.h5", dataset="a/frames") as scan:
        assert scan.dims == ("frame", "det_y", "det_x")
    with open_scan(tmp_path / "a.h5", dataset="/a") as scan:
        assert scan.metadata["dataset"] == "/a/frames"
    with pytest.raises(UnsupportedDtypeError, match="complex"):
        open_scan(tmp_path / "a.h5", dataset="c/probe")
    with pytest.raises(SourceError, match="no array nonsense; give --dataset one of: /a/frames"):
        open_scan(tmp_path / "a.h5", dataset="nonsense")


def test_equally_plausible_datasets_are_listed(tmp_path, scan_4d):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("first", data=scan_4d)
        file.create_dataset("second", data=scan_4d)
    with pytest.raises(SourceError, match=r"choose one with --dataset: /first .*, /second "):
        open_scan(tmp_path / "a.h5")


def test_file_without_a_scan(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("line", data=np.arange(5))
    with pytest.raises(SourceError, match=r"no array with 2 to 4 dimensions .*found: /line"):
        open_scan(tmp_path / "a.h5")
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file.create_dataset("z", data=np.zeros((3, 4), complex))
    with pytest.raises(UnsupportedDtypeError, match="no array of real numbers"):
        open_scan(tmp_path / "b.h5")


@pytest.mark.parametrize("dtype", ["bool", "i1", ">u2", ">f4", "u8"])
def test_dtypes(dtype, tmp_path, stack_3d):
    data = stack_3d.astype(dtype)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("data", data=data)
    with open_scan(tmp_path / "a.h5") as scan:
        assert scan.dtype == data.dtype.newbyteorder("=")
        np.testing.assert_array_equal(scan.read(()), data)


def test_truncated_file(tmp_path, scan_4d):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("data", data=scan_4d)
    (tmp_path / "a.h5").write_bytes((tmp_path / "a.h5").read_bytes()[:-100])
    with pytest.raises(SourceError, match="cannot be opened as HDF5"):
        open_scan(tmp_path / "a.h5")


def test_damaged_chunk_is_an_error_with_its_place(tmp_path, scan_4d):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        data = file.create_dataset("data", data=scan_4d, chunks=(1, 6, 7, 8), fletcher32=True)
        place = data.id.get_chunk_info(3).byte_offset
    with open(tmp_path / "a.h5", "r+b") as file:
        file.seek(place + 5)
        file.write(b"\xff\xff\xff")
    with open_scan(tmp_path / "a.h5") as scan:
        scan.read((slice(0, 3),))
        with pytest.raises(SourceError, match=r"cannot read the block at \[3:4, 0:6"):
            scan.read((slice(3, 4),))


@pytest.mark.slow
def test_file_that_another_process_writes_is_refused(tmp_path, scan_4d):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("data", data=scan_4d)
    program = (
        "import h5py, sys; f = h5py.File(sys.argv[1], 'a', locking=True);print('open', flush=True); sys.stdin.read()"
    )
    writer = subprocess.Popen(
        [sys.executable, "-c", program, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert writer.stdout.readline() == "open\n"
        with pytest.raises(SourceError, match="open for writing in another program"):
            open_scan(path)
    finally:
        writer.communicate("")


def test_missing_filter_says_what_to_install(tmp_path, monkeypatch, scan_4d):
    from stemcodecs.readers import hdf5_parts

    monkeypatch.setattr(hdf5_parts, "is_filter_available", lambda code: False)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("data", data=scan_4d, compression="gzip")
    with pytest.raises(SourceError, match=r"HDF5 filter 1 \(deflate\).*stemcodecs\[readers\]"):
        open_scan(tmp_path / "a.h5")


@pytest.mark.slow
def test_bitshuffle_is_read_with_the_readers_extra(tmp_path, scan_4d):
    hdf5plugin = pytest.importorskip("hdf5plugin")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("data", data=scan_4d, **hdf5plugin.Bitshuffle())
    program = (
        "import sys; from stemcodecs.readers import open_scan;"
        "print(int(open_scan(sys.argv[1]).read(()).sum()))"
    )  # a fresh process, where nobody imported hdf5plugin
    out = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "a.h5")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(out.stdout) == scan_4d.sum()


def test_virtual_dataset_with_a_missing_part_is_refused(tmp_path, scan_4d):
    for i in range(2):
        with h5py.File(tmp_path / f"part{i}.h5", "w") as file:
            file.create_dataset("data", data=scan_4d[i])
    layout = h5py.VirtualLayout((2, *scan_4d.shape[1:]), scan_4d.dtype)
    for i in range(2):
        layout[i] = h5py.VirtualSource(f"part{i}.h5", "data", scan_4d.shape[1:])
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_virtual_dataset("data", layout)
    with open_scan(tmp_path / "a.h5") as scan:
        np.testing.assert_array_equal(scan.read(()), scan_4d[:2])
    (tmp_path / "part1.h5").unlink()
    with pytest.raises(SourceError, match=r"takes values from part1.h5, which is missing"):
        open_scan(tmp_path / "a.h5")
