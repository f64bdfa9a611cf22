"""Stacks of frames read as scans, with and without the frames of the flyback."""

from __future__ import annotations

import pickle

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stemcodecs.errors import SourceError
from stemcodecs.readers import open_scan
from stemcodecs.readers.frames_as_scan import ScanOfFrames
from stemcodecs.readers.scan import explicit_region


class Counted:
    """A source that counts how often it is read, and how many frames."""

    def __init__(self, data):
        self.data, self.shape, self.dtype = data, data.shape, data.dtype
        self.reads, self.frames = 0, 0

    def read(self, region):
        self.reads += 1
        block = self.data[region]
        self.frames += int(np.prod(block.shape[:-2]))
        return block

    def close(self):
        """Nothing to release."""


@st.composite
def views(draw):
    """A source, the positions of a view of it, its flyback frames, and a region."""
    rows, columns, flyback = draw(st.integers(1, 5)), draw(st.integers(1, 5)), draw(st.integers(0, 3))
    frames = rows * (columns + flyback)
    splits = [(frames,)] + [(n, frames // n) for n in range(1, frames + 1) if frames % n == 0]
    splits += [(2, n, frames // (2 * n)) for n in range(1, frames) if frames % (2 * n) == 0]
    source = draw(st.sampled_from(splits))
    shape = (rows, columns, 3, 2)
    bounds = [sorted(draw(st.tuples(st.integers(0, n), st.integers(0, n)))) for n in shape]
    return source, (rows, columns), flyback, tuple(slice(*b) for b in bounds)


@pytest.mark.slow
@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(views())
def test_any_region_of_any_arrangement_equals_numpy(case):
    source_shape, scan, flyback, region = case
    frames = np.arange(int(np.prod(source_shape)) * 6, dtype="u2").reshape(-1, 3, 2)
    expected = frames.reshape(scan[0], scan[1] + flyback, 3, 2)[:, : scan[1]]
    view = ScanOfFrames(source=Counted(frames.reshape(*source_shape, 3, 2)), scan=scan, flyback=flyback)
    np.testing.assert_array_equal(view.read(explicit_region(region, view.shape)), expected[region])


def test_neighbouring_frames_come_in_one_read():
    source = Counted(np.zeros((60, 3, 2), "u1"))
    whole = ScanOfFrames(source=source, scan=(6, 10), flyback=0)
    whole.read(explicit_region((slice(1, 4),), whole.shape))
    assert (source.reads, source.frames) == (1, 30)
    source.reads = source.frames = 0
    lines = ScanOfFrames(source=source, scan=(6, 8), flyback=2)
    lines.read(explicit_region((slice(1, 4), slice(2, 7)), lines.shape))
    assert (source.reads, source.frames) == (3, 15)


def test_stack_as_scan(tmp_path, scan_4d):
    np.save(tmp_path / "a.npy", scan_4d.reshape(30, 7, 8))
    with open_scan(tmp_path / "a.npy", scan_shape=(5, 6)) as scan:
        assert scan.dims == ("scan_y", "scan_x", "det_y", "det_x")
        assert scan.remarks == ("30 frames are read as a scan of 5 × 6, line by line from left to right",)
        copy = pickle.loads(pickle.dumps(scan))
        np.testing.assert_array_equal(copy.read(()), scan_4d)
        assert scan.metadata["scan_shape"] == [5, 6]


def test_flyback_is_dropped_and_counted(tmp_path, scan_4d):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("frames", data=scan_4d.reshape(30, 7, 8), chunks=(1, 7, 8))
    with open_scan(tmp_path / "a.h5", scan_shape=(5, 4), drop_flyback=2) as scan:
        assert scan.shape == (5, 4, 7, 8)
        assert scan.chunks == (1, 1, 7, 8)
        assert scan.remarks[-1] == "10 flyback frames, the last 2 of each line, are left out"
        np.testing.assert_array_equal(scan.read((slice(1, 4), slice(1, 3))), scan_4d[1:4, 1:3])


def test_chunks_of_several_frames_stay_whole(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("frames", data=np.zeros((64, 4, 4), "u2"), chunks=(16, 4, 4))
    with open_scan(tmp_path / "a.h5", scan_shape=(8, 8)) as scan:
        assert scan.chunks == (2, 8, 4, 4)


@pytest.mark.parametrize(
    ("shape", "flyback", "message"),
    [
        ((5, 5), 0, r"30 frames do not make a scan of 5 × 5 \(25 frames\); 30 is 5 × 6, 3 × 10"),
        ((5, 5), 2, r"5 × 5 with 2 flyback frames a line \(35 frames\)"),
        ((0, 6), 0, "cannot be"),
        ((2, 3, 5), 0, "cannot be"),
        ((5, 6), -1, "cannot be"),
        ((30,), 1, "needs lines"),
        (None, 1, "needs --scan-shape"),
    ],
)
def test_numbers_that_do_not_fit(shape, flyback, message, tmp_path, scan_4d):
    np.save(tmp_path / "a.npy", scan_4d.reshape(30, 7, 8))
    with pytest.raises(SourceError, match=message):
        open_scan(tmp_path / "a.npy", scan_shape=shape, drop_flyback=flyback)


def test_one_pattern_is_no_stack(tmp_path, scan_4d):
    np.save(tmp_path / "a.npy", scan_4d[0, 0])
    with pytest.raises(SourceError, match="is no stack of frames"):
        open_scan(tmp_path / "a.npy", scan_shape=(1, 1))


def test_wrong_scan_shape_of_a_file_is_corrected(tmp_path, scan_4d):
    np.save(tmp_path / "a.npy", scan_4d.reshape(3, 10, 7, 8))
    with open_scan(tmp_path / "a.npy", scan_shape=(5, 6)) as scan:
        np.testing.assert_array_equal(scan.read((slice(1, 5), slice(2, 6))), scan_4d[1:5, 2:6])


def test_detector_keeps_its_calibration(tmp_path, scan_4d):
    from stemcodecs.readers.frames_as_scan import frames_as_scan
    from stemcodecs.readers.scan import Axis

    np.save(tmp_path / "a.npy", scan_4d.reshape(30, 7, 8))
    scan = open_scan(tmp_path / "a.npy")
    scan.axes = (
        Axis(name="frame", size=30, scale=0.1, units="s"),
        Axis(name="det_y", size=7, scale=0.5, units="1/nm"),
        Axis(name="det_x", size=8, scale=0.5, units="1/nm"),
    )
    with frames_as_scan(scan, (5, 6)) as view:
        assert [a.scale for a in view.axes] == [None, None, 0.5, 0.5]
        assert [a.name for a in view.axes] == list(view.dims)
