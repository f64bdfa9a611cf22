"""Files that hold more or fewer frames than their headers say: nothing is dropped or made up without a word."""

from __future__ import annotations

import gc
import pickle

import numpy as np
import pytest

from stemcodecs.errors import SourceError
from stemcodecs.readers import open_scan
from tests.readers.microscope_files import blockfile, empad, mrc, ripple

WRITERS = {"mrc": mrc, "empad": empad, "blo": blockfile, "rpl": ripple}


@pytest.fixture(params=list(WRITERS))
def written(request, tmp_path):
    """A file of 12 frames in one of the formats, a function that makes it hold another number, and all its frames."""
    if request.param != "mrc":
        pytest.importorskip("rsciio.blockfile")
    return WRITERS[request.param](tmp_path, np.random.default_rng(5), said=12, kept=20)


@pytest.mark.filterwarnings("ignore")
def test_as_many_frames_as_the_header_says(written):
    path, hold, frames = written
    hold(12)
    with open_scan(path) as scan:
        assert scan.remarks == ()
        np.testing.assert_array_equal(scan.read(()).reshape(frames[:12].shape), frames[:12])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_more_frames_are_refused_with_their_number_and_both_ways_out(written):
    path, hold, frames = written
    hold(15)
    with pytest.raises(
        SourceError, match=r"header says 12 frames, but the file holds 15; .*--scan-shape 15.*--partial"
    ):
        open_scan(path)
    with open_scan(path, partial=True) as scan:
        np.testing.assert_array_equal(scan.read(()).reshape(frames[:12].shape), frames[:12])
        assert any("3 after the 12 of its header are left out" in remark for remark in scan.remarks)
    with open_scan(path, scan_shape=(3, 5)) as scan:
        assert scan.shape == (3, 5, *frames.shape[1:])
        assert any("all 15 frames" in remark for remark in scan.remarks)
        copy = pickle.loads(pickle.dumps(scan))
        np.testing.assert_array_equal(copy.read(()).reshape(frames[:15].shape), frames[:15])
        np.testing.assert_array_equal(
            scan.read((slice(1, 3), slice(2, 4), slice(1, 5))),
            frames[:15].reshape(3, 5, *frames.shape[1:])[1:3, 2:4, 1:5],
        )
    with open_scan(path, scan_shape=(15,)) as scan:
        assert scan.dims == ("frame", "det_y", "det_x")


@pytest.mark.filterwarnings("ignore")
def test_fewer_frames_are_refused_and_taken_on_request(written):
    path, hold, frames = written
    hold(7.5)
    with pytest.raises(SourceError, match=r"header says 12 frames, but the file holds 7; it is truncated.*--partial"):
        open_scan(path)
    with open_scan(path, partial=True) as scan:
        np.testing.assert_array_equal(scan.read(()), frames[:7])
        assert any("7 whole frames of the 12" in remark for remark in scan.remarks)
    with open_scan(path, partial=True, scan_shape=(7, 1)) as scan:
        assert scan.shape == (7, 1, *frames.shape[1:])
    hold(0.5)
    with pytest.raises(SourceError, match=r"holds 0; it is truncated: restore it$"):
        open_scan(path, partial=True)


@pytest.mark.filterwarnings("ignore")
def test_file_that_shrinks_after_its_frames_were_counted(written):
    path, hold, _ = written
    hold(15)
    with open_scan(path, scan_shape=(15,)) as scan:
        copy = pickle.loads(pickle.dumps(scan))
    hold(14)  # of EMPAD and Lispix the file beside the one that was opened
    with pytest.raises(SourceError, match="is not what it was when it was opened"):
        copy.read(())


@pytest.mark.filterwarnings("ignore")
def test_header_that_says_no_frames_at_all(tmp_path):
    """A program that was killed before it wrote the number into its header."""
    path, _, frames = mrc(tmp_path, np.random.default_rng(5), said=0, kept=6)
    with pytest.raises(
        SourceError, match=r"says 0 frames, but the file holds 6; .*--scan-shape 6 \(or ROWS,COLUMNS\)$"
    ):
        open_scan(path)
    with open_scan(path, scan_shape=(2, 3)) as scan:
        np.testing.assert_array_equal(scan.read(()).reshape(frames.shape), frames)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_missing_part_of_a_tvips_series_is_named(tmp_path, stack_3d):
    tvips = pytest.importorskip("rsciio.tvips")
    from tests.readers.test_rosettasciio_reader import signal_of

    tvips.file_writer(str(tmp_path / "a_000.tvips"), signal_of(stack_3d))
    with open_scan(tmp_path / "a_000.tvips") as scan:
        np.testing.assert_array_equal(scan.read(()), stack_3d)
    (tmp_path / "a_002.tvips").write_bytes((tmp_path / "a_000.tvips").read_bytes())
    with pytest.raises(SourceError, match=r"the part a_001\.tvips of the series is missing"):
        open_scan(tmp_path / "a_000.tvips")
    with pytest.raises(SourceError, match=r"the part a_001\.tvips of the series is missing"):
        open_scan(tmp_path / "a_000.tvips", partial=True)


@pytest.mark.filterwarnings("ignore")
def test_truncated_tvips_series_is_taken_on_request(tmp_path, stack_3d):
    tvips = pytest.importorskip("rsciio.tvips")
    from tests.readers.test_rosettasciio_reader import signal_of

    tvips.file_writer(str(tmp_path / "a_000.tvips"), signal_of(stack_3d))
    whole = (tmp_path / "a_000.tvips").read_bytes()
    record = (len(whole) - int.from_bytes(whole[:4], "little")) // len(stack_3d)
    # The last frames in a second file, which has no header of its own.
    (tmp_path / "a_000.tvips").write_bytes(whole[: -5 * record])
    (tmp_path / "a_001.tvips").write_bytes(whole[-5 * record :])
    with open_scan(tmp_path / "a_000.tvips") as scan:
        np.testing.assert_array_equal(scan.read(()), stack_3d)
    (tmp_path / "a_001.tvips").write_bytes(whole[-5 * record : -7])
    with pytest.raises(SourceError, match="take the 10 whole frames of the series with --partial"):
        open_scan(tmp_path / "a_000.tvips")
    with open_scan(tmp_path / "a_000.tvips", partial=True, scan_shape=(2, 5)) as scan:
        assert "10 whole frames are read" in scan.remarks[0]
        copy = pickle.loads(pickle.dumps(scan))
        np.testing.assert_array_equal(copy.read(()), stack_3d[:10].reshape(2, 5, 7, 8))
        np.testing.assert_array_equal(scan.read((slice(1, 2), slice(0, 4), slice(2, 5))), stack_3d[5:9, 2:5][None])
    (tmp_path / "a_000.tvips").write_bytes(whole[: -5 * record - 7])
    with pytest.raises(SourceError, match="the file is truncated"):
        open_scan(tmp_path / "a_000.tvips", partial=True)


@pytest.mark.filterwarnings("ignore")
def test_truncated_merlin_file_is_taken_on_request(tmp_path, scan_4d):
    pytest.importorskip("rsciio")
    from tests.readers.test_rosettasciio_reader import write_mib

    frames = scan_4d.reshape(-1, 7, 8)[:27]
    write_mib(tmp_path / "a.mib", frames, per_line=6)
    with open_scan(tmp_path / "a.mib") as scan:
        assert "27 frames are read as a stack" in scan.remarks[0]
    whole = (tmp_path / "a.mib").read_bytes()
    (tmp_path / "a.mib").write_bytes(whole[:-9])
    with open_scan(tmp_path / "a.mib", partial=True) as scan:
        assert "26 whole frames" in scan.remarks[0]
        copy = pickle.loads(pickle.dumps(scan))
        np.testing.assert_array_equal(copy.read(()), frames[:26, ::-1])
    with open_scan(tmp_path / "a.mib", partial=True, scan_shape=(2, 13)) as scan:
        np.testing.assert_array_equal(scan.read(()), frames[:26, ::-1].reshape(2, 13, 7, 8))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("dimensions", [1, 2])
def test_interrupted_tia_series(dimensions, tmp_path, monkeypatch, scan_4d):
    """RosettaSciIO fills an interrupted map with zeros, and cuts an interrupted series."""
    from tests.readers.test_rosettasciio_reader import fake_reader, signal_of

    header = {"ValidNumberElements": np.int32(21), "TotalNumberElements": np.int32(30), "NumberDimensions": dimensions}
    signal = {**signal_of(scan_4d), "original_metadata": {"ser_header_parameters": header}}
    fake_reader(monkeypatch, [signal])
    (tmp_path / "a.fake").touch()
    if dimensions == 2:
        with pytest.raises(SourceError, match="after 21 of 30 frames; the rest would be read as zeros"):
            open_scan(tmp_path / "a.fake")
    else:
        with open_scan(tmp_path / "a.fake") as scan:
            assert scan.remarks == ("the run was interrupted: 21 frames of 30 are there",)


def test_a_map_is_found_in_graphs_of_older_dask(tmp_path):
    """They spell a call as nested tuples: (apply, function, arguments, (dict, [[name, value], ...]))."""
    from types import SimpleNamespace

    from stemcodecs.readers.mapped_frames import file_map_of

    def slice_memmap():
        """Stands for the function of RosettaSciIO."""

    spelled = [
        ["file", str(tmp_path / "a.raw")],
        ["dtypes", np.dtype("<u2")],
        ["shape", (tuple, [4, 5, 6, 7])],
        ["offset", 8],
        ["order", "C"],
    ]
    layer = SimpleNamespace(dsk={"a": (print, slice_memmap, ["_0"], (dict, spelled))})
    mapped = file_map_of(SimpleNamespace(dask=SimpleNamespace(layers={"a": layer})))
    assert mapped is not None
    assert (mapped.said, mapped.frame, mapped.offset) == (20, (6, 7), 8)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("options", [{}, {"imagej": True}, {"compression": "zlib"}, {"bigtiff": True}])
@pytest.mark.parametrize("order", "<>")
def test_tiff_that_was_cut_off(options, order, tmp_path, stack_3d):
    """The reader takes it for a file with fewer pages, down to one."""
    tifffile = pytest.importorskip("tifffile")
    pytest.importorskip("rsciio.tiff")
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, stack_3d, byteorder=order, **options)
    with open_scan(path) as scan:
        np.testing.assert_array_equal(scan.read(()), stack_3d)
    gc.collect()  # RosettaSciIO leaves it to the garbage collector to close its files
    with tifffile.TiffFile(path) as tiff:
        last = max(page.offset for page in tiff.pages)
    whole = path.read_bytes()
    for length in (*range(16, last, max(1, last // 37)), last + 1):
        path.write_bytes(whole[:length])
        with pytest.raises(SourceError, match="the file is truncated"):
            open_scan(path)


def test_imagej_stack_with_one_directory_for_all_images(tmp_path):
    """What ImageJ itself writes: the number of images stands in the description only."""
    from stemcodecs.readers.tiff_pages import refuse_truncated_tiff

    text = b"ImageJ=1.54f\nimages=5\nslices=5\n\0"
    tags = [
        (256, 4, 1, 8),
        (257, 4, 1, 8),
        (258, 3, 1, 16),
        (270, 2, len(text), 200),
        (273, 4, 1, 300),
        (279, 4, 1, 128),
    ]
    head = b"II*\0" + np.array([8], "<u4").tobytes() + np.array([len(tags)], "<u2").tobytes()
    head += b"".join(np.array(t[:2], "<u2").tobytes() + np.array(t[2:], "<u4").tobytes() for t in tags) + bytes(4)
    content = head.ljust(200, b"\0") + text
    content = content.ljust(300, b"\0") + bytes(5 * 128)
    (tmp_path / "a.tif").write_bytes(content)
    refuse_truncated_tiff(str(tmp_path / "a.tif"))
    (tmp_path / "a.tif").write_bytes(content[:-1])
    with pytest.raises(SourceError, match="4 of the 5 images are there"):
        refuse_truncated_tiff(str(tmp_path / "a.tif"))
