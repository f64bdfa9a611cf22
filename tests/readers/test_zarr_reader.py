"""Zarr: arrays and groups of both formats, calibration, stores that cannot be read."""

from __future__ import annotations

import json
import pickle
import shutil

import numpy as np
import pytest
import zarr

from stemcodecs.codecs import PixelHistogram
from stemcodecs.errors import SourceError, StemcodecsError, UnsupportedDtypeError
from stemcodecs.readers import open_scan

DIMS = ("scan_y", "scan_x", "det_y", "det_x")


def write_stemcodecs_store(path, data):
    """A store as the design lays it out: `data`, coordinates, virtual images."""
    group = zarr.create_group(path, attributes={"source": "microscope"})
    array = group.create_array(
        "data",
        shape=data.shape,
        dtype=data.dtype,
        chunks=(2, 6, 7, 8),
        serializer=PixelHistogram(),
        compressors=None,
        dimension_names=DIMS,
    )
    array[...] = data
    for name, size, scale, offset, units in [
        ("scan_y", 5, 0.3, -1.0, "nm"),
        ("scan_x", 6, 0.4, 0.0, "nm"),
        ("det_y", 7, 1e-3, -3e-3, "rad"),
    ]:
        axis = group.create_array(name, data=offset + scale * np.arange(size))
        axis.attrs["units"] = units
    group.create_array("mean_pattern", data=data.mean((0, 1)))
    group.create_array("sum_image", data=data.sum((2, 3), dtype=np.uint64))


def test_stemcodecs_store(tmp_path, scan_4d):
    write_stemcodecs_store(tmp_path / "a.zarr", scan_4d)
    with open_scan(tmp_path / "a.zarr") as scan:
        assert scan.format == "Zarr v3"
        assert scan.metadata["dataset"] == "data"
        assert scan.metadata["attributes"] == {"source": "microscope"}
        assert scan.chunks == (2, 6, 7, 8)
        np.testing.assert_allclose([a.scale for a in scan.axes[:3]], [0.3, 0.4, 1e-3])
        np.testing.assert_allclose([a.offset for a in scan.axes[:3]], [-1.0, 0.0, -3e-3])
        assert [a.units for a in scan.axes] == ["nm", "nm", "rad", None]
        copy = pickle.loads(pickle.dumps(scan))
        np.testing.assert_array_equal(copy.read((slice(1, 4),)), scan_4d[1:4])
    with open_scan(tmp_path / "a.zarr", dataset="sum_image") as scan:
        assert scan.shape == (5, 6)
    with open_scan(tmp_path / "a.zarr" / "data") as scan:
        np.testing.assert_array_equal(scan.read(()), scan_4d)


def test_damaged_chunk_of_a_store_is_an_error_of_ours(tmp_path, scan_4d):
    write_stemcodecs_store(tmp_path / "a.zarr", scan_4d)
    chunk = tmp_path / "a.zarr" / "data" / "c" / "1" / "0" / "0" / "0"
    chunk.write_bytes(chunk.read_bytes()[:40])
    with open_scan(tmp_path / "a.zarr") as scan:
        scan.read((slice(0, 2),))
        with pytest.raises(StemcodecsError):
            scan.read((slice(2, 3),))


def test_shard_is_the_natural_block(tmp_path, scan_4d):
    array = zarr.create_array(
        tmp_path / "a.zarr",
        shape=scan_4d.shape,
        dtype="u2",
        chunks=(1, 6, 7, 8),
        shards=(5, 6, 7, 8),
    )
    array[...] = scan_4d
    with open_scan(tmp_path / "a.zarr") as scan:
        assert scan.chunks == (5, 6, 7, 8)


def test_zspy_and_xarray_conventions_of_format_2(tmp_path, scan_4d):
    group = zarr.create_group(tmp_path / "a.zspy", zarr_format=2)
    place = group.create_group("Experiments/scan")
    place.create_array("data", data=scan_4d)
    for i, (size, scale) in enumerate(zip(scan_4d.shape, (0.5, 0.5, 0.02, 0.03), strict=True)):
        axis = place.create_group(f"axis-{i}")
        axis.attrs.update({"scale": scale, "offset": 1.0, "size": size, "units": "nm"})
    with open_scan(tmp_path / "a.zspy") as scan:
        assert scan.format == "Zarr v2"
        assert scan.metadata["dataset"] == "Experiments/scan/data"
        assert [a.scale for a in scan.axes] == [0.5, 0.5, 0.02, 0.03]
        assert scan.axes[0].offset == 1.0

    group = zarr.create_group(tmp_path / "b.zarr", zarr_format=2)
    group.create_array("counts", data=scan_4d).attrs["_ARRAY_DIMENSIONS"] = list("abcd")
    group.create_array("b", data=np.arange(6) * 2.0).attrs["units"] = "nm"
    with open_scan(tmp_path / "b.zarr") as scan:
        assert [(a.scale, a.units) for a in scan.axes][1] == (2.0, "nm")
        assert not scan.axes[0].calibrated


def test_zip_and_url(tmp_path, scan_4d):
    write_stemcodecs_store(tmp_path / "a.zarr", scan_4d)
    shutil.make_archive(str(tmp_path / "packed"), "zip", tmp_path / "a.zarr")
    for place in (tmp_path / "packed.zip", (tmp_path / "a.zarr").as_uri()):
        with open_scan(place) as scan:
            np.testing.assert_array_equal(pickle.loads(pickle.dumps(scan)).read((slice(0, 3),)), scan_4d[:3])
    with pytest.raises(SourceError, match=r"missing\.zarr: no such file; check the path"):
        open_scan((tmp_path / "missing.zarr").as_uri())


def test_several_arrays(tmp_path, scan_4d):
    group = zarr.create_group(tmp_path / "a.zarr")
    group.create_array("one", data=scan_4d)
    group.create_array("deep/two", data=scan_4d)
    with pytest.raises(SourceError, match="choose one with --dataset: "):
        open_scan(tmp_path / "a.zarr")
    with open_scan(tmp_path / "a.zarr", dataset="/deep/two") as scan:
        np.testing.assert_array_equal(scan.read(()), scan_4d)
    with pytest.raises(SourceError, match="no array three"):
        open_scan(tmp_path / "a.zarr", dataset="three")
    with pytest.raises(SourceError, match="leave out --dataset"):
        open_scan(tmp_path / "a.zarr" / "one", dataset="x")


def test_stores_that_hold_no_scan(tmp_path):
    zarr.create_group(tmp_path / "empty.zarr")
    with pytest.raises(SourceError, match="found: nothing"):
        open_scan(tmp_path / "empty.zarr")
    zarr.create_array(tmp_path / "c.zarr", shape=(3, 4), dtype="c8")
    with pytest.raises(UnsupportedDtypeError, match="complex64"):
        open_scan(tmp_path / "c.zarr")


@pytest.mark.parametrize("damage", [lambda text: text[:50], lambda text: text.replace('"bytes"', '"no.such.codec"')])
def test_broken_metadata_and_missing_codec_are_one_line(damage, tmp_path, scan_4d):
    zarr.create_array(tmp_path / "a.zarr", data=scan_4d)
    document = tmp_path / "a.zarr" / "zarr.json"
    assert json.loads(document.read_text())["codecs"][0]["name"] == "bytes"
    document.write_text(damage(document.read_text()))
    with pytest.raises(SourceError, match="cannot be opened as Zarr") as caught:
        open_scan(tmp_path / "a.zarr")
    assert "\n" not in str(caught.value)
