"""MRC under its many extensions, in both byte orders, with every mode."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from stemcodecs.errors import SourceError, UnsupportedDtypeError
from stemcodecs.readers import open_scan
from tests.readers.microscope_files import mrc_header


def write(path, data, mode, *, extended=b"", **header):
    head = mrc_header(data.shape[2], data.shape[1], data.shape[0], mode, **header)
    struct.pack_into(f"{header.get('order', '<')}i", head, 92, len(extended))
    path.write_bytes(bytes(head) + extended + data.tobytes())


@pytest.mark.parametrize("name", ["a.mrc", "a.mrcs", "a.st", "a.rec", "a.map", "a.ali", "a.preali", "a.MRC", "stamped"])
def test_extensions_and_the_stamp(name, tmp_path, stack_3d):
    write(tmp_path / name, stack_3d.astype("<u2"), 6)
    with open_scan(tmp_path / name) as scan:
        assert scan.format == "MRC"
        assert scan.dims == ("frame", "det_y", "det_x")
        assert [a.scale for a in scan.axes] == [None, pytest.approx(0.2), pytest.approx(0.2)]
        assert [a.units for a in scan.axes] == [None, "nm", "nm"]
        np.testing.assert_array_equal(scan.read((slice(2, 9), slice(1, 5))), stack_3d[2:9, 1:5])


@pytest.mark.parametrize(("mode", "dtype"), [(0, "u1"), (1, "i2"), (2, "f4"), (6, "u2"), (12, "f2")])
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("stamp", [True, False])
def test_modes_in_both_byte_orders(mode, dtype, order, stamp, tmp_path, stack_3d):
    data = stack_3d.astype(f"{order}{dtype}")
    write(tmp_path / "a.mrc", data, mode, order=order, stamp=stamp, extended=bytes(640))
    with open_scan(tmp_path / "a.mrc") as scan:
        assert scan.dtype == np.dtype(dtype)
        np.testing.assert_array_equal(scan.read(()), stack_3d)


@pytest.mark.parametrize("mode", [3, 4, 16, 101])
def test_packed_and_complex_modes_are_refused(mode, tmp_path, stack_3d):
    """Mode 101 has two 4-bit values in a byte: read as bytes it would look like half a stack of bright frames."""
    write(tmp_path / "a.mrcs", stack_3d.astype("u1"), mode)
    with pytest.raises(UnsupportedDtypeError, match=f"MRC mode {mode} .* convert it"):
        open_scan(tmp_path / "a.mrcs")


@pytest.mark.parametrize(
    ("at", "content", "dtype"),
    [
        (108, struct.pack("<i", 20140), "i1"),
        (152, struct.pack("<ii", 1146047817, 1), "i1"),
        (152, struct.pack("<ii", 1146047817, 0), "u1"),
        (76, struct.pack("<f", -3.0), "i1"),
    ],
)
def test_signed_bytes_where_the_header_says_so(at, content, dtype, tmp_path, stack_3d):
    data = (stack_3d - 2).astype("i1")
    write(tmp_path / "a.mrc", data, 0)
    whole = bytearray((tmp_path / "a.mrc").read_bytes())
    whole[at : at + len(content)] = content
    (tmp_path / "a.mrc").write_bytes(whole)
    with open_scan(tmp_path / "a.mrc") as scan:
        assert f"read as {np.dtype(dtype).name}" in scan.remarks[0]
        np.testing.assert_array_equal(scan.read(()), data.view(dtype))


def test_pixel_size_of_the_fei_header(tmp_path, stack_3d):
    extended = bytearray(128 * 1024)
    struct.pack_into("<f", extended, 44, 3e-9)
    write(tmp_path / "a.mrc", stack_3d.astype("<u2"), 6, extended=bytes(extended))
    with open_scan(tmp_path / "a.mrc") as scan:
        assert scan.axes[1].scale == pytest.approx(3.0)
        np.testing.assert_array_equal(scan.read(()), stack_3d)


def test_one_section_is_one_pattern(tmp_path, stack_3d):
    write(tmp_path / "a.mrc", stack_3d[:1].astype("<u2"), 6)
    with open_scan(tmp_path / "a.mrc") as scan:
        assert scan.dims == ("det_y", "det_x")


@pytest.mark.filterwarnings("ignore")
def test_what_only_bears_the_extension(tmp_path):
    (tmp_path / "a.map").write_bytes(bytes(range(256)) * 8)
    with pytest.raises(SourceError) as caught:
        open_scan(tmp_path / "a.map")
    assert "\n" not in str(caught.value)


def test_raw_options_go_before_the_header(tmp_path, stack_3d):
    """A way to read what the reader refuses: the values behind any header."""
    write(tmp_path / "a.mrc", stack_3d.astype("<u2"), 101)
    with open_scan(tmp_path / "a.mrc", shape=stack_3d.shape, dtype="<u2", offset=1024) as scan:
        np.testing.assert_array_equal(scan.read(()), stack_3d)


@pytest.mark.filterwarnings("ignore")
def test_movie_of_direct_electron_takes_its_scan_from_the_text_file(tmp_path, scan_4d):
    pytest.importorskip("rsciio.mrc")
    frames = scan_4d.reshape(-1, 7, 8)
    path = tmp_path / "20240101_00001_movie.mrc"
    write(path, frames.astype("<u2"), 6)
    with open_scan(path) as scan:
        assert scan.dims == ("frame", "det_y", "det_x")
    lines = ["Scan - Enable = Enable", "Scan - Type = Raster", "Scan - Size X = 6", "Scan - Size Y = 5"]
    lines += ["Image Size X (pixels) = 8", "Image Size Y (pixels) = 7"]
    (tmp_path / "20240101_00001_info.txt").write_text("\n".join(lines) + "\n")
    with open_scan(path) as scan:
        assert scan.shape == (5, 6, 7, 8)
        np.testing.assert_array_equal(scan.read(()), scan_4d)
    with path.open("ab") as file:
        file.write(bytes(3 * 7 * 8 * 2))
    with pytest.raises(SourceError, match="header says 30 frames, but the file holds 33"):
        open_scan(path)
