"""Which array of a file is taken, and that nothing smaller is taken in place of one that cannot be stored."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
import zarr

from stemcodecs.errors import SourceError, StemcodecsError, UnsupportedDtypeError
from stemcodecs.readers import open_scan

MASK = np.ones((16, 16), "u1")
SCAN = np.ones((3, 4, 16, 16), "u2")
STACK = np.ones((5, 16, 16), "u2")


def write(path, **arrays):
    with h5py.File(path, "w") as file:
        for name, value in arrays.items():
            file[name.replace("__", "/")] = value


def ragged(file, name, count):
    file.create_dataset(name, (count,), dtype=h5py.vlen_dtype("u4"))[:] = [np.arange(3, dtype="u4")] * count


@pytest.mark.parametrize("beside", [MASK, np.ones((2, 3, 4), "f4"), np.eye(3)])
@pytest.mark.parametrize(
    ("measurement", "said"),
    [
        (SCAN.astype("c8"), "does not hold real numbers"),
        (STACK.astype("c16"), "does not hold real numbers"),
        (np.zeros((3, 4, 8, 8), [("re", "i2"), ("im", "i2")]), "does not hold real numbers"),
        (np.zeros(5000, [("x", "u2"), ("y", "u2"), ("t", "u8")]), "does not hold real numbers"),
        (np.zeros(5000, "u4"), "has 1 dimension"),
        (np.zeros((0, 3, 16, 16), "u2"), "is empty"),
        (h5py.ExternalLink("not_copied.h5", "/data"), r"lies in not_copied\.h5, which is missing"),
        (h5py.SoftLink("/instrument/detector/data"), "is a link to /instrument/detector/data, which is not there"),
    ],
)
def test_measurement_that_cannot_be_stored_is_named(measurement, said, beside, tmp_path):
    write(tmp_path / "a.h5", measurement=measurement, beside=beside)
    with pytest.raises(StemcodecsError, match=rf"/measurement.* {said}.*not taken in its place: /beside"):
        open_scan(tmp_path / "a.h5")
    with open_scan(tmp_path / "a.h5", dataset="beside") as scan:
        assert scan.dataset == "/beside"


def test_lists_of_electrons_are_named(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        ragged(file, "events/frames", 12)
        file["images"] = np.ones((2, 3, 4))
    with pytest.raises(UnsupportedDtypeError, match=r"/events/frames .*lists of different lengths"):
        open_scan(tmp_path / "a.h5")


def test_main_signal_that_was_not_copied(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        data = file.create_group("entry/data")
        data.attrs["NX_class"], data.attrs["signal"] = "NXdata", "counts"
        data["counts"] = h5py.ExternalLink("not_copied.h5", "/data")
        file["scratch"] = SCAN
    with pytest.raises(SourceError, match=r"/entry/data/counts lies in not_copied\.h5, which is missing"):
        open_scan(tmp_path / "a.h5")


@pytest.mark.parametrize(
    "beside",
    [
        {"link": h5py.ExternalLink("not_copied.h5", "/data")},
        {"entry__data": h5py.ExternalLink("not_copied.h5", "/data")},
        {"data": h5py.ExternalLink("not_copied.h5", "/data")},
        {"data__a": h5py.SoftLink("/nowhere")},
        {"probe": np.ones((4, 4, 16, 16), "c8")},
        {"entry__data": h5py.Empty("u2")},
        {"data": h5py.Empty("f4"), "none": np.zeros((0, 4), "u2")},
        {"names": [b"a", b"b"], "events": np.zeros(9, [("x", "u2")])},
        {"4DSTEM_experiment__note": 1},
        {"entry__data": STACK},
    ],
)
def test_scan_is_found_beside_what_cannot_be_stored(beside, tmp_path):
    write(tmp_path / "a.h5", x=SCAN, **beside)
    with open_scan(tmp_path / "a.h5") as scan:
        assert scan.dataset == "/x"
        np.testing.assert_array_equal(scan.read(()), SCAN)
        links = [link for link in beside.values() if isinstance(link, h5py.ExternalLink | h5py.SoftLink)]
        assert len(scan.remarks) == len(links)


def test_link_that_leads_nowhere_can_be_asked_for(tmp_path):
    write(tmp_path / "a.h5", x=SCAN, link=h5py.ExternalLink("not_copied.h5", "/data"))
    with pytest.raises(SourceError, match=r"/link lies in not_copied\.h5, which is missing; put it next to the file"):
        open_scan(tmp_path / "a.h5", dataset="link")
    with pytest.raises(SourceError, match=r"/x .*; give --dataset one of|no array nothing; give --dataset one of: /x"):
        open_scan(tmp_path / "a.h5", dataset="nothing")


def test_one_dataset_under_several_spellings(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write("x.h5", data=SCAN, raw__counts=h5py.ExternalLink("x.h5", "/data"), soft=h5py.SoftLink("/raw/counts"))
    (tmp_path / "link.h5").symlink_to("x.h5")
    write("other.h5", a=h5py.ExternalLink("x.h5", "/data"), b=h5py.ExternalLink("link.h5", "/raw/counts"))
    for path in ("x.h5", "./x.h5", "link.h5", "other.h5", tmp_path / "x.h5"):
        with open_scan(path) as scan:
            np.testing.assert_array_equal(scan.read(()), SCAN)


def test_group_that_cannot_be_opened(tmp_path):
    """The header of one group is overwritten; the others are read."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"] = SCAN
        place = h5py.h5o.get_info(file.create_group("entry/data").id).addr
    with open(tmp_path / "a.h5", "r+b") as file:
        file.seek(place)
        file.write(b"\xff" * 32)
    with open_scan(tmp_path / "a.h5") as scan:
        assert scan.dataset == "/x"
        assert any("/entry/data cannot be opened" in remark for remark in scan.remarks)


# Series of scans

SERIES = np.random.default_rng(0).poisson(2, (2, 3, 4, 16, 16)).astype("u2")


def test_series_with_named_axes_is_taken_whole(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["data"], file["mask"] = SERIES, MASK
        file["data"].dims[0].label = "Tilt angle"
    with open_scan(tmp_path / "a.h5") as scan:
        assert scan.dims == ("tilt_angle", "scan_y", "scan_x", "det_y", "det_x")
        np.testing.assert_array_equal(scan.read(()), SERIES)


def test_series_of_hyperspy_and_nexus_and_emd(tmp_path):
    with h5py.File(tmp_path / "a.hspy", "w") as file:
        file.attrs["file_format"] = "HyperSpy"
        group = file.create_group("Experiments/x")
        group["data"] = SERIES
        group.create_group("axis-0").attrs.update(
            {"name": "time", "scale": 0.5, "offset": 1.0, "units": "s", "size": 2}
        )
    with h5py.File(tmp_path / "a.nxs", "w") as file:
        group = file.create_group("entry/data")
        group.attrs.update({"NX_class": "NXdata", "signal": "data", "axes": ["time", ".", ".", ".", "."]})
        group["data"] = SERIES
        group.create_dataset("time", data=[1.0, 1.5]).attrs["units"] = "s"
    with h5py.File(tmp_path / "a.emd", "w") as file:
        group = file.create_group("cube")
        group.attrs["emd_group_type"] = "array"
        group["data"] = SERIES
        group.create_dataset("dim0", data=[1.0, 1.5]).attrs.update({"name": "time", "units": "s"})
    for name in ("a.hspy", "a.nxs", "a.emd"):
        with open_scan(tmp_path / name) as scan:
            first = scan.axes[0]
            assert (first.name, first.size, first.scale, first.offset, first.units) == ("time", 2, 0.5, 1.0, "s")


def test_series_without_names(tmp_path):
    """Alone it is a series of scans; beside another array the user says so."""
    np.save(tmp_path / "a.npy", SERIES)
    with open_scan(tmp_path / "a.npy") as scan:
        assert scan.dims == ("series", "scan_y", "scan_x", "det_y", "det_x")
    np.save(tmp_path / "b.npy", SERIES[None])
    with open_scan(tmp_path / "b.npy") as scan:
        assert scan.dims == ("series_0", "series_1", "scan_y", "scan_x", "det_y", "det_x")
    write(tmp_path / "a.h5", data=SERIES, mask=MASK)
    with pytest.raises(SourceError, match="store it whole with --dataset /data; there is also /mask"):
        open_scan(tmp_path / "a.h5")
    with open_scan(tmp_path / "a.h5", dataset="data") as scan:
        np.testing.assert_array_equal(scan.read(()), SERIES)


@pytest.mark.parametrize("said", ["data", "scan_y", "sum_image", "  ", "+-"])
def test_names_that_a_store_has_for_something_else(said, tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["data"] = SERIES
        file["data"].dims[0].label = said
    with open_scan(tmp_path / "a.h5") as scan:
        assert scan.dims[0] == "series"


# Zarr


def test_zarr_measurement_that_cannot_be_stored(tmp_path):
    for name, data in (("a", SERIES), ("b", SCAN.astype("c8"))):
        group = zarr.create_group(tmp_path / name, zarr_format=3)
        group.create_array("data", data=data)
        group.create_array("mask", data=MASK)
        with pytest.raises(StemcodecsError, match=r"data .*mask"):
            open_scan(tmp_path / name)
    group.create_array("series", data=SERIES, dimension_names=["tilt", "y", "x", "ky", "kx"])
    with open_scan(tmp_path / "b", dataset="series") as scan:
        assert scan.dims == ("tilt", "scan_y", "scan_x", "det_y", "det_x")


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("damage", ["codec", "json"])
@pytest.mark.parametrize("consolidated", [False, True])
def test_zarr_member_that_cannot_be_read(zarr_format, damage, consolidated, tmp_path, recwarn):
    group = zarr.create_group(tmp_path / "a.zarr", zarr_format=zarr_format)
    group.create_array("scan", data=SCAN)
    group.create_array("deep/bad", data=STACK, compressors="auto")
    (tmp_path / "a.zarr" / "stray").mkdir()
    if consolidated:
        zarr.consolidate_metadata(tmp_path / "a.zarr")
    recwarn.clear()
    for document in (tmp_path / "a.zarr").rglob("*"):
        if document.name in ("zarr.json", ".zarray", ".zmetadata") and document.parent.name != "scan":
            text = document.read_text()
            if document.parent.name == "bad" and damage == "json":
                text = text[:30]
            elif damage == "codec":
                at = text.find("bad") if document.parent.name != "bad" else 0
                name = '"blosc"' if '"blosc"' in text[at:] else '"zstd"'
                text = text[:at] + text[at:].replace(name, '"no.such"', 1) if at >= 0 else text
            document.write_text(text)
    with open_scan(tmp_path / "a.zarr") as scan:
        assert scan.dataset == "scan"
        np.testing.assert_array_equal(scan.read(()), SCAN)
        if damage == "codec" or not consolidated:
            assert any("deep/bad cannot be read" in remark for remark in scan.remarks)


def test_zarr_scan_that_cannot_be_read_is_not_replaced_by_a_mask(tmp_path):
    group = zarr.create_group(tmp_path / "a.zarr")
    group.create_array("counts", data=SCAN)
    group.create_array("mask", data=MASK)
    document = tmp_path / "a.zarr" / "counts" / "zarr.json"
    document.write_text(document.read_text().replace('"zstd"', '"no.such"'))
    with pytest.raises(SourceError, match=r"counts .*cannot be read .*no\.such.*not taken in its place: mask"):
        open_scan(tmp_path / "a.zarr")
