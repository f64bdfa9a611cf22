"""Plain files: .npy, raw binary, Nion Swift .ndata."""

from __future__ import annotations

import io
import json
import zipfile

import numpy as np
import pytest

from stemcodecs.errors import SourceError, UnsupportedDtypeError
from stemcodecs.readers import open_scan


@pytest.mark.parametrize("dtype", ["?", "u1", "i1", ">i2", "<u4", ">u8", "f2", ">f4", "f8"])
def test_npy_dtypes_keep_their_values(dtype, tmp_path, stack_3d):
    data = stack_3d.astype(dtype)
    np.save(tmp_path / "a.npy", data)
    with open_scan(tmp_path / "a.npy") as scan:
        assert scan.dtype == data.dtype.newbyteorder("=")
        assert scan.metadata["stored_dtype"] == data.dtype.str
        np.testing.assert_array_equal(scan.read((slice(2, 9),)), data[2:9])


@pytest.mark.parametrize(
    "data",
    [
        np.array([["a", 1], [2.0, None]], object),
        np.zeros((3, 4), [("x", "u2"), ("y", "u2")]),
        np.zeros((3, 4), complex),
        np.full((3, 4), "text"),
    ],
)
def test_npy_without_real_numbers_is_refused(data, tmp_path):
    np.save(tmp_path / "a.npy", data, allow_pickle=True)
    with pytest.raises(UnsupportedDtypeError, match="store"):
        open_scan(tmp_path / "a.npy")


def test_truncated_npy_is_refused_when_opened(tmp_path, scan_4d):
    np.save(tmp_path / "a.npy", scan_4d)
    whole = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "a.npy").write_bytes(whole[:-1])
    with pytest.raises(SourceError, match="truncated: restore it"):
        open_scan(tmp_path / "a.npy")


@pytest.mark.parametrize("length", [6, 9, 20, 60])
def test_broken_npy_header_is_refused(length, tmp_path, scan_4d):
    np.save(tmp_path / "a.npy", scan_4d)
    (tmp_path / "a.npy").write_bytes((tmp_path / "a.npy").read_bytes()[:length])
    with pytest.raises(SourceError):
        open_scan(tmp_path / "a.npy")


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
@pytest.mark.parametrize("order", "CF")
def test_npy_header_versions(version, order, tmp_path, scan_4d):
    header = {"descr": "<u2", "fortran_order": order == "F", "shape": scan_4d.shape}
    text = repr(header).encode() + b"\n"
    length = len(text).to_bytes(2 if version[0] == 1 else 4, "little")
    start = b"\x93NUMPY" + bytes(version) + length + text
    (tmp_path / "a.npy").write_bytes(start + scan_4d.tobytes(order))
    with open_scan(tmp_path / "a.npy") as scan:
        np.testing.assert_array_equal(scan.read((slice(1, 4),)), scan_4d[1:4])


@pytest.mark.parametrize("shape", ["(-3, 4)", "(3, 4", "3", "(3.0, 4)", "__import__('os')"])
def test_npy_headers_that_make_no_sense(shape, tmp_path):
    text = f"{{'descr': '<u2', 'fortran_order': False, 'shape': {shape}}}\n".encode()
    (tmp_path / "a.npy").write_bytes(b"\x93NUMPY\1\0" + len(text).to_bytes(2, "little") + text + bytes(24))
    with pytest.raises(SourceError, match=r"broken \.npy header") as caught:
        open_scan(tmp_path / "a.npy")
    assert "\n" not in str(caught.value)


def test_second_array_behind_the_first_is_not_dropped_without_a_word(tmp_path, scan_4d):
    """Calling numpy.save twice on one open file gives such a file; numpy.load reads the first of them."""
    with open(tmp_path / "a.npy", "wb") as file:
        np.save(file, scan_4d)
        np.save(file, scan_4d[0])
    with pytest.raises(SourceError, match=r"another array uint16\(6, 7, 8\) follows after its array"):
        open_scan(tmp_path / "a.npy")
    with open_scan(tmp_path / "a.npy", partial=True) as scan:
        assert scan.remarks == ("another array uint16(6, 7, 8) follows after the array; left out",)
        np.testing.assert_array_equal(scan.read(()), scan_4d)


@pytest.mark.parametrize(("extra", "refused"), [(7 * 8 * 2, True), (16, False)])
def test_bytes_behind_the_array(extra, refused, tmp_path, scan_4d):
    np.save(tmp_path / "a.npy", scan_4d)
    with open(tmp_path / "a.npy", "ab") as file:
        file.write(bytes(extra))
    if refused:
        with pytest.raises(SourceError, match="112 bytes follow after its array"):
            open_scan(tmp_path / "a.npy")
    else:
        with open_scan(tmp_path / "a.npy") as scan:
            assert scan.remarks == ("16 bytes follow after the array; left out",)


def test_whole_frames_of_a_truncated_npy_file_on_request(tmp_path, scan_4d):
    np.save(tmp_path / "a.npy", scan_4d)
    whole = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "a.npy").write_bytes(whole[: -3 * 112 - 1])
    with pytest.raises(SourceError, match="26 whole frames of 30 are there"):
        open_scan(tmp_path / "a.npy")
    with open_scan(tmp_path / "a.npy", partial=True) as scan:
        assert scan.remarks == ("the file is truncated: 26 whole frames of the 30 of its header are read",)
        np.testing.assert_array_equal(scan.read(()), scan_4d.reshape(30, 7, 8)[:26])
    np.save(tmp_path / "b.npy", np.asfortranarray(scan_4d))
    (tmp_path / "b.npy").write_bytes((tmp_path / "b.npy").read_bytes()[:-300])
    with pytest.raises(SourceError, match="in Fortran order no frame of it is whole"):
        open_scan(tmp_path / "b.npy", partial=True)


def test_raw_of_another_size_on_request(tmp_path, scan_4d):
    scan_4d.tofile(tmp_path / "a.bin")
    with open_scan(tmp_path / "a.bin", shape=(5, 7, 7, 8), dtype="u2", partial=True) as scan:
        np.testing.assert_array_equal(scan.read(()), scan_4d.reshape(30, 7, 8))
    with open_scan(tmp_path / "a.bin", shape=(4, 6, 7, 8), dtype="u2", partial=True) as scan:
        assert scan.remarks == ("672 bytes after the array uint16(4, 6, 7, 8) are left out",)
        np.testing.assert_array_equal(scan.read(()), scan_4d[:4])


def test_raw_with_header_and_byte_order(tmp_path, scan_4d):
    (tmp_path / "a.bin").write_bytes(b"header!" + scan_4d.astype(">u2").tobytes())
    with open_scan(tmp_path / "a.bin", shape=scan_4d.shape, dtype=">u2", offset=7) as scan:
        assert scan.dtype == np.dtype("uint16")
        np.testing.assert_array_equal(scan.read(()), scan_4d)


@pytest.mark.parametrize(
    ("shape", "dtype", "offset"),
    [((5, 6, 7, 7), "u2", 0), ((5, 6, 7, 8), "u1", 0), ((5, 6, 7, 8), "u2", 2)],
)
def test_raw_size_must_match_exactly(shape, dtype, offset, tmp_path, scan_4d):
    scan_4d.tofile(tmp_path / "a.bin")
    with pytest.raises(SourceError, match=r"has 3360 bytes, but .* needs \d+; give the right --shape"):
        open_scan(tmp_path / "a.bin", shape=shape, dtype=dtype, offset=offset)


def test_raw_options_must_be_complete_and_sensible(tmp_path, scan_4d):
    scan_4d.tofile(tmp_path / "a.bin")
    with pytest.raises(SourceError, match="both --shape and --dtype"):
        open_scan(tmp_path / "a.bin", shape=(5, 6, 7, 8))
    with pytest.raises(SourceError, match="positive sizes"):
        open_scan(tmp_path / "a.bin", shape=(5, -6, 7, 8), dtype="u2")
    with pytest.raises(SourceError, match="leave out --dataset"):
        open_scan(tmp_path / "a.bin", dataset="x", shape=(5, 6, 7, 8), dtype="u2")
    with pytest.raises(UnsupportedDtypeError, match="no dtype 'counts'"):
        open_scan(tmp_path / "a.bin", shape=(5, 6, 7, 8), dtype="counts")
    with pytest.raises(UnsupportedDtypeError, match="complex"):
        open_scan(tmp_path / "a.bin", shape=(5, 6, 7, 2), dtype="c8")


NION_PROPERTIES = {
    "title": "4D scan",
    "dimensional_calibrations": [
        {"offset": -2.0, "scale": 0.5, "units": "nm"},
        {"offset": -3.0, "scale": 0.5, "units": "nm"},
        {"offset": -0.01, "scale": 0.002, "units": "rad"},
        {"offset": 0.0, "scale": 1.0, "units": ""},
    ],
    "intensity_calibration": {"offset": 0.0, "scale": 1.0, "units": "counts"},
}


def write_ndata(path, data, compression=zipfile.ZIP_STORED):
    np.save(path.parent / "data.npy", data)
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.write(path.parent / "data.npy", "data.npy")
        archive.writestr("metadata.json", json.dumps(NION_PROPERTIES))


def test_ndata_is_read_in_place_with_its_calibration(tmp_path, scan_4d):
    write_ndata(tmp_path / "a.ndata1", scan_4d.astype(np.float32))
    with open_scan(tmp_path / "a.ndata1") as scan:
        np.testing.assert_array_equal(scan.read((slice(1, 3),)), scan_4d[1:3])
        assert scan.dtype == np.dtype("float32")
        assert [a.units for a in scan.axes] == ["nm", "nm", "rad", None]
        assert [a.scale for a in scan.axes] == [0.5, 0.5, 0.002, None]
        np.testing.assert_allclose(scan.axes[0].coordinates, [-2.0, -1.5, -1.0, -0.5, 0.0])
        assert scan.metadata["attributes"]["title"] == "4D scan"


def test_ndata_packed_with_compression_says_what_to_do(tmp_path, scan_4d):
    write_ndata(tmp_path / "a.ndata1", scan_4d, zipfile.ZIP_DEFLATED)
    with pytest.raises(SourceError, match="unpack it"):
        open_scan(tmp_path / "a.ndata1")


def test_npz_says_what_to_do(tmp_path, scan_4d):
    np.savez(tmp_path / "a.npz", scan_4d)
    with pytest.raises(SourceError, match=r"numpy\.save"):
        open_scan(tmp_path / "a.npz")


def test_ndata_that_ends_before_its_array(tmp_path, scan_4d):
    header = io.BytesIO()
    np.save(header, scan_4d)
    with zipfile.ZipFile(tmp_path / "a.ndata1", "w") as archive:
        archive.writestr("data.npy", header.getvalue()[:-100])
        archive.writestr("metadata.json", json.dumps(NION_PROPERTIES))
    with pytest.raises(SourceError, match=r"data\.npy ends before its array"):
        open_scan(tmp_path / "a.ndata1")
