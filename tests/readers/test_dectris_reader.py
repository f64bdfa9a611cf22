"""DECTRIS master files: where the parts lie, aborted runs, frames that were announced."""

from __future__ import annotations

import os
import pickle

import h5py
import numpy as np
import pytest

from stemcodecs.errors import SourceError
from stemcodecs.readers import open_scan

FRAMES = np.random.default_rng(0).poisson(1, (10, 8, 8)).astype("u2")
ENDS = (0, 4, 8, 10)


def write_run(folder, group="entry/data", parts=(1, 2, 3), announced=None, written=None, first=1):
    """A master file with links to three parts, of which only some are there."""
    for k in parts:
        with h5py.File(folder / f"x_data_{k:06}.h5", "w") as file:
            frames = FRAMES[ENDS[k - 1] : ENDS[k]]
            data = file.create_dataset("entry/data/data", frames.shape, "u2", chunks=(1, 8, 8))
            data[: (written or {}).get(k, len(frames))] = frames[: (written or {}).get(k, len(frames))]
    with h5py.File(folder / "x_master.h5", "w") as file:
        file.create_group("entry").attrs["NX_class"] = "NXentry"
        for k in (1, 2, 3):
            file[f"{group}/data_{k:06}"] = h5py.ExternalLink(f"x_data_{k:06}.h5", "/entry/data/data")
        file["entry/instrument/detector/detectorSpecific/pixel_mask"] = np.zeros((64, 64), "u4")
        for name, value in (announced or {}).items():
            file[f"entry/instrument/detector/detectorSpecific/{name}"] = value
    return folder / "x_master.h5"


@pytest.mark.parametrize("group", ["entry/data", "entry"])
def test_all_parts_wherever_they_are_linked(group, tmp_path):
    with open_scan(write_run(tmp_path, group, announced={"nimages": 10, "ntrigger": 1})) as scan:
        np.testing.assert_array_equal(scan.read(()), FRAMES)
        np.testing.assert_array_equal(scan.read((slice(3, 9), slice(2, 5))), FRAMES[3:9, 2:5])
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(scan)).read(()), FRAMES)
        assert scan.dataset == group
        assert [os.path.basename(p.path) for p in scan.identity.parts] == [
            *(f"x_data_{k:06}.h5" for k in (1, 2, 3)),
            "x_master.h5",
        ]


@pytest.mark.parametrize("group", ["entry/data", "entry"])
def test_aborted_run_says_what_is_there_and_is_taken_on_request(group, tmp_path):
    path = write_run(tmp_path, group, parts=(1,))
    with pytest.raises(
        SourceError, match=r"data_000002 and .*data_000003 are missing; .* 4 frames .*--partial .*--dataset"
    ):
        open_scan(path)
    with open_scan(path, partial=True) as scan:
        assert "data_000002" in " ".join(scan.remarks)
        np.testing.assert_array_equal(scan.read(()), FRAMES[:4])
    with open_scan(path, dataset=f"{group}/data_000001") as scan:
        np.testing.assert_array_equal(scan.read(()), FRAMES[:4])


def test_part_missing_in_the_middle(tmp_path):
    path = write_run(tmp_path, parts=(1, 3))
    with pytest.raises(SourceError, match="data_000002 is missing; put it next to the master file"):
        open_scan(path)
    with open_scan(path, partial=True) as scan:
        np.testing.assert_array_equal(scan.read(()), np.concatenate([FRAMES[:4], FRAMES[8:]]))
        assert "one after the other" in " ".join(scan.remarks)


def test_part_that_the_master_file_leaves_out(tmp_path):
    path = write_run(tmp_path)
    with h5py.File(path, "a") as file:
        del file["entry/data/data_000002"]
    with pytest.raises(SourceError, match="data_000002 is missing"):
        open_scan(path)


def test_part_that_was_not_written_to_its_end(tmp_path):
    path = write_run(tmp_path, written={3: 1})
    with pytest.raises(SourceError, match=r"data_000003 has 1 of 2 chunks that were never written \(frames 1\)"):
        open_scan(path)
    with open_scan(path, partial=True) as scan:
        np.testing.assert_array_equal(scan.read(()), FRAMES[:9])


@pytest.mark.parametrize("announced", [{"nimages": 12}, {"nimages": 1, "ntrigger": np.array([12])}])
def test_fewer_frames_than_were_announced(announced, tmp_path):
    path = write_run(tmp_path, announced=announced)
    with pytest.raises(
        SourceError, match="was to take 12 frames, and 10 are there; find the rest, or take the 10 frames"
    ):
        open_scan(path)
    with open_scan(path, partial=True) as scan:
        np.testing.assert_array_equal(scan.read(()), FRAMES)
        assert "12 frames" in scan.remarks[0]


def test_nothing_is_there(tmp_path):
    path = write_run(tmp_path, parts=())
    for partial in (False, True):
        with pytest.raises(SourceError, match=r"are missing; put them next to the master file$"):
            open_scan(path, partial=partial)
