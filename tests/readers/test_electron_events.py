"""Sparse electron counting files: what stempy writes becomes counts, what others write is refused with a way on."""

from __future__ import annotations

import pickle

import h5py
import numpy as np
import pytest

from stemcodecs.errors import SourceError, UnsupportedDtypeError
from stemcodecs.readers import open_scan

SCAN, FRAME = (4, 5), (6, 8)


@pytest.fixture
def counts():
    """Few electrons: some patterns have none, some pixels two."""
    return np.random.default_rng(2).poisson(0.08, (*SCAN, *FRAME)).astype(np.uint16)


def write(path, lists, positions, *, version=None, sizes=True, scan=SCAN):
    with h5py.File(path, "w") as file:
        if version is not None:
            file.attrs["version"] = version
        group = file.create_group("electron_events")
        frames = group.create_dataset("frames", (len(lists),), dtype=h5py.special_dtype(vlen=np.uint32))
        for i, hits in enumerate(lists):
            frames[i] = np.asarray(hits, np.uint32)
        where = group.create_dataset("scan_positions", data=np.asarray(positions, np.int32))
        where.attrs["Nx"], where.attrs["Ny"] = scan[1], scan[0]
        if sizes:
            frames.attrs["Nx"], frames.attrs["Ny"] = FRAME


def repeated(counts):
    """Version 1: a pixel that was hit twice stands in the list twice."""
    return [np.repeat(np.arange(c.size), c.ravel()) for c in counts.reshape(-1, *FRAME)]


def layers(counts):
    """The k-th frame of a position has the pixels with more than k electrons."""
    flat = counts.reshape(-1, FRAME[0] * FRAME[1])
    return [[np.flatnonzero(c > k) for k in range(int(counts.max()))] for c in flat]


def test_one_list_for_each_position(tmp_path, counts):
    write(tmp_path / "a.h5", repeated(counts), np.arange(20))
    with open_scan(tmp_path / "a.h5") as scan:
        assert scan.shape == (*SCAN, *FRAME)
        assert scan.dtype == np.dtype("uint16")
        assert scan.format == "HDF5 (stempy electron events)"
        assert scan.remarks == (
            "lists of electron hits are read as counts (uint16), as electron_events/frames has them",
        )
        copy = pickle.loads(pickle.dumps(scan))
        np.testing.assert_array_equal(copy.read(()), counts)
        region = (slice(1, 4), slice(2, 5), slice(0, 3), slice(4, 8))
        np.testing.assert_array_equal(scan.read(region), counts[region])
        assert scan.read((slice(2, 2),)).shape == (0, 5, 6, 8)


def test_frames_at_one_position_add_up_in_any_order(tmp_path, counts):
    counts[2, 3] = 0
    lists = [(position, hits) for position, frames in enumerate(layers(counts)) for hits in frames if len(hits)]
    np.random.default_rng(0).shuffle(lists)
    positions = [p for p, _ in lists]
    write(tmp_path / "a.h5", [hits for _, hits in lists], positions, version=2)
    with open_scan(tmp_path / "a.h5") as scan:
        np.testing.assert_array_equal(scan.read(()), counts)
        np.testing.assert_array_equal(scan.read((slice(1, 3), slice(1, 4))), counts[1:3, 1:4])
        assert any(f"{20 - len(set(positions))} scan positions have no frame" in r for r in scan.remarks)
        assert any("several frames, which are added up" in r for r in scan.remarks)


def test_flattened_frames_of_version_3(tmp_path, counts):
    lists = [hits for frames in layers(counts) for hits in frames]
    write(tmp_path / "a.h5", lists, np.arange(20), version=3)
    with open_scan(tmp_path / "a.h5") as scan:
        np.testing.assert_array_equal(scan.read(()), counts)


def test_more_electrons_than_16_bits_are_an_error(tmp_path):
    lists = [np.zeros(0)] * 19 + [np.full(65_536, 3)]
    write(tmp_path / "a.h5", lists, np.arange(20))
    with open_scan(tmp_path / "a.h5") as scan:
        assert scan.read((slice(0, 3),)).sum() == 0
        with pytest.raises(SourceError, match=r"a pixel at position \(3, 4\) has 65536 electrons"):
            scan.read(())
    write(tmp_path / "b.h5", [*lists[:-1], np.arange(70_000) % 48], np.arange(20))
    with open_scan(tmp_path / "b.h5") as scan:
        assert scan.read(()).sum(dtype=np.int64) == 70_000


def test_hits_beyond_the_detector_are_an_error(tmp_path, counts):
    write(tmp_path / "a.h5", [*repeated(counts)[:-1], [48]], np.arange(20))
    with open_scan(tmp_path / "a.h5") as scan, pytest.raises(SourceError, match="hits pixel 48 of 48"):
        scan.read(())


@pytest.mark.parametrize(
    ("options", "positions", "message"),
    [
        ({"sizes": False}, range(20), "do not say the size"),
        ({}, range(1, 21), "do not fit a scan"),
        ({}, range(19), "do not fit a scan"),
        ({"scan": (0, 5)}, range(20), "a scan"),
    ],
)
def test_lists_that_do_not_fit(options, positions, message, tmp_path, counts):
    write(tmp_path / "a.h5", repeated(counts), list(positions), **options)
    with pytest.raises(SourceError, match=message):
        open_scan(tmp_path / "a.h5")


@pytest.mark.parametrize(
    "where", ["4DSTEM/electron_counted_data/data", "4DSTEM_experiment/data/counted_datacubes/c/data"]
)
def test_point_lists_of_py4dstem_are_refused_with_a_way_on(where, tmp_path):
    record = np.dtype([("qx", "f8"), ("qy", "f8")])
    with h5py.File(tmp_path / "a.h5", "w") as file:
        lists = file.create_dataset(where, (4, 5), dtype=h5py.special_dtype(vlen=record))
        lists[0, 0] = np.zeros(3, record)
        file["4DSTEM/mean"] = np.ones((6, 8))  # never taken in place of what was measured
    with pytest.raises(UnsupportedDtypeError, match="holds lists of different lengths; count them into frames first"):
        open_scan(tmp_path / "a.h5")
    with open_scan(tmp_path / "a.h5", dataset="4DSTEM/mean") as scan:
        assert scan.shape == (6, 8)


def test_peaks_beside_a_datacube_do_not_matter(tmp_path, scan_4d):
    record = np.dtype([("qx", "f8"), ("qy", "f8")])
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("braggpeaks", (5, 6), dtype=h5py.special_dtype(vlen=record))
        file["cube"] = scan_4d
    with open_scan(tmp_path / "a.h5") as scan:
        np.testing.assert_array_equal(scan.read(()), scan_4d)
