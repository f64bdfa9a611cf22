"""Formats read through RosettaSciIO, and what is said where it is not installed."""

from __future__ import annotations

import pickle
import subprocess
import sys

import numpy as np
import pytest

from stemcodecs.errors import SourceError
from stemcodecs.readers import open_scan


def signal_of(data):
    """A HyperSpy signal as RosettaSciIO's writers take it."""
    names = ("y", "x", "ky", "kx")[-data.ndim :]
    scales = (2.0, 2.0, 0.5, 0.5)[-data.ndim :]
    axes = [
        {
            "name": name,
            "size": size,
            "scale": scale,
            "offset": 0.0,
            "units": "nm" if "k" not in name else "cm",
            "navigate": "k" not in name,
            "index_in_array": i,
        }
        for i, (name, size, scale) in enumerate(zip(names, data.shape, scales, strict=True))
    ]
    return {
        "data": data,
        "axes": axes,
        "metadata": {"General": {"title": "scan"}, "Signal": {"signal_type": ""}},
        "original_metadata": {},
        "attributes": {"_lazy": False},
    }


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("plugin", ["blockfile", "ripple"])
def test_formats_that_rosettasciio_writes(plugin, tmp_path, scan_4d):
    module = pytest.importorskip(f"rsciio.{plugin}")
    data = scan_4d[..., :7].astype(np.uint8)
    path = tmp_path / {"blockfile": "a.blo", "ripple": "a.rpl"}[plugin]
    if plugin == "ripple":
        data = data[0]
    module.file_writer(str(path), signal_of(data))
    with open_scan(path) as scan:
        assert "RosettaSciIO" in scan.format
        assert scan.shape == data.shape
        assert scan.dtype == np.dtype("uint8")
        np.testing.assert_array_equal(scan.read((slice(1, 3),)), data[1:3])
        if plugin == "blockfile":
            assert scan.axes[0].scale == pytest.approx(2.0)
            assert scan.axes[0].units == "nm"
        copy = pickle.loads(pickle.dumps(scan))
        np.testing.assert_array_equal(copy.read(()), data)


def fake_reader(monkeypatch, signals):
    from stemcodecs.readers import rosettasciio

    monkeypatch.setattr(rosettasciio, "_signals", lambda path: ("Fake", signals))


@pytest.mark.filterwarnings("ignore")
def test_scan_dimensions_come_first_whatever_the_order_in_the_file(tmp_path, monkeypatch, scan_4d):
    """Gatan writes some 4D-STEM scans with the detector dimensions first."""
    dask_array = pytest.importorskip("dask.array")
    signal = signal_of(scan_4d)
    swapped = [dict(signal["axes"][i], index_in_array=n) for n, i in enumerate((2, 3, 0, 1))]
    data = dask_array.from_array(scan_4d.transpose(2, 3, 0, 1), chunks=(3, 3, 2, 2))
    fake_reader(monkeypatch, [{**signal, "data": data, "axes": swapped}])
    (tmp_path / "a.fake").touch()
    with open_scan(tmp_path / "a.fake") as scan:
        assert scan.shape == scan_4d.shape
        assert [a.units for a in scan.axes] == ["nm", "nm", "cm", "cm"]
        assert scan.chunks == (2, 2, 3, 3)
        np.testing.assert_array_equal(scan.read((slice(2, 5), slice(1, 2))), scan_4d[2:5, 1:2])


@pytest.mark.parametrize("numbers", [(0, 1, None, None), (None, None, None, 2), (0, 1, 0, 1), (None,) * 4])
def test_axes_of_which_only_some_are_numbered_are_in_the_order_of_the_list(numbers, tmp_path, monkeypatch, scan_4d):
    """TIA numbers the positions or the energy, PantaRhei nothing."""
    signal = signal_of(scan_4d)
    for axis, number in zip(signal["axes"], numbers, strict=True):
        axis["index_in_array"] = number
        if number is None:
            del axis["index_in_array"]
    fake_reader(monkeypatch, [signal])
    (tmp_path / "a.fake").touch()
    with open_scan(tmp_path / "a.fake") as scan:
        assert [a.units for a in scan.axes] == ["nm", "nm", "cm", "cm"]
        np.testing.assert_array_equal(scan.read(()), scan_4d)


def test_one_of_several_signals_by_number_or_title(tmp_path, monkeypatch, scan_4d):
    other = signal_of(scan_4d + 1)
    other["metadata"] = {"General": {"title": "second"}}
    fake_reader(monkeypatch, [signal_of(scan_4d), other])
    (tmp_path / "a.fake").touch()
    with pytest.raises(SourceError, match=r"choose one with --dataset: 0: scan .*, 1: second "):
        open_scan(tmp_path / "a.fake")
    for name in ("1", "1: second"):
        with open_scan(tmp_path / "a.fake", dataset=name) as scan:
            np.testing.assert_array_equal(scan.read(()), scan_4d + 1)


def test_images_with_one_title_are_told_apart_by_their_numbers(tmp_path, monkeypatch, stack_3d):
    signals = [signal_of(stack_3d + i) for i in range(3)]
    for signal, title in zip(signals, ["HAADF", "  HAADF ", "BF\nupper"], strict=True):
        signal["metadata"] = {"General": {"title": title}}
    fake_reader(monkeypatch, signals)
    (tmp_path / "a.fake").touch()
    with pytest.raises(SourceError) as caught:
        open_scan(tmp_path / "a.fake")
    offered = ["0: HAADF", "1: HAADF", "2: BF upper"]
    assert all(f"{name} uint16" in str(caught.value) for name in offered)
    for names in (offered, ["0", "1", "BF upper"]):
        for i, name in enumerate(names):
            with open_scan(tmp_path / "a.fake", dataset=name) as scan:
                np.testing.assert_array_equal(scan.read(()), stack_3d + i)
                assert scan.metadata["dataset"] == offered[i if name != "2" else 2]
    for name in ("HAADF", "3", "3: BF"):
        with pytest.raises(SourceError, match="give --dataset one of: 0: HAADF"):
            open_scan(tmp_path / "a.fake", dataset=name)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("order", "CF")
@pytest.mark.parametrize("shape", [(16, 16), (40, 64, 64)])
def test_prz_gives_its_values_however_it_is_packed(packed, order, shape, tmp_path):
    """The lazy reader maps the bytes in the .zip file as if they were values in C order."""
    pytest.importorskip("rsciio.pantarhei")
    data = np.random.default_rng(0).poisson(5000, shape).astype("u2")
    with open(tmp_path / "a.prz", "wb") as file:
        save = np.savez_compressed if packed else np.savez
        said = {"meta_data_json": np.array("[{}]"), "meta_data": np.array([{}]), "note": np.zeros(5000)}
        save(file, data=np.asarray(data, order=order), **said)
    with open_scan(tmp_path / "a.prz") as scan:
        copy = pickle.loads(pickle.dumps(scan))
        np.testing.assert_array_equal(copy.read(()), data)


def test_large_packed_prz_says_what_to_do(tmp_path, monkeypatch):
    pytest.importorskip("rsciio.pantarhei")
    from stemcodecs.readers import rosettasciio_frames

    monkeypatch.setattr(rosettasciio_frames, "_LARGEST_IN_MEMORY", 1000)
    with open(tmp_path / "a.prz", "wb") as file:
        np.savez_compressed(file, data=np.ones((40, 64), "u2"), meta_data_json=np.array("[{}]"))
    with pytest.raises(SourceError, match=r"unpack it and give its data\.npy"):
        open_scan(tmp_path / "a.prz")


@pytest.mark.filterwarnings("ignore")
def test_file_that_rosettasciio_cannot_read(tmp_path):
    pytest.importorskip("rsciio")
    (tmp_path / "a.dm4").write_bytes(b"not a Gatan file at all")
    with pytest.raises(SourceError, match="RosettaSciIO cannot read it lazily") as caught:
        open_scan(tmp_path / "a.dm4")
    assert "\n" not in str(caught.value)


def test_without_rosettasciio_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "rsciio", None)
    (tmp_path / "a.mib").write_bytes(b"MQ1,000001,00384")
    with pytest.raises(SourceError, match=r"pip install 'stemcodecs\[readers\]'"):
        open_scan(tmp_path / "a.mib")


def test_readers_do_not_import_what_they_do_not_need(tmp_path, scan_4d):
    np.save(tmp_path / "a.npy", scan_4d)
    program = (
        "import sys; from stemcodecs.readers import open_scan;"
        "open_scan(sys.argv[1]).read(());"
        "print(*{'dask', 'h5py', 'zarr', 'rsciio', 'xarray'}.intersection(sys.modules))"
    )
    out = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "a.npy")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert out.stdout.split() == []


def write_mib(path, frames, *, per_line):
    """A Merlin file of one chip; a longer pause before each line tells the scan shape."""
    with open(path, "wb") as file:
        seconds = 0.0
        for i, frame in enumerate(frames):
            seconds += 0.5 if i % per_line == 0 else 0.001
            fields = ["MQ1", f"{i + 1:06}", "00384", "01", f"{frame.shape[1]:04}"]
            fields += [f"{frame.shape[0]:04}", "U16", "   1x1", "01"]
            fields += [f"2024-01-01T10:00:{seconds:09.6f}Z", "990000ns", "12", ""]
            file.write(",".join(fields).encode().ljust(384))
            file.write(frame.astype(">u2").tobytes())


@pytest.mark.filterwarnings("ignore")
def test_merlin_scan(tmp_path, scan_4d):
    pytest.importorskip("rsciio")
    frames = scan_4d.reshape(-1, 7, 8)
    write_mib(tmp_path / "a.mib", frames, per_line=6)
    with open_scan(tmp_path / "a.mib") as scan:
        assert scan.shape == scan_4d.shape
        assert scan.dtype == np.dtype("uint16")
        # RosettaSciIO turns Merlin frames upside down, as HyperSpy users know them.
        np.testing.assert_array_equal(scan.read((slice(1, 4),)), scan_4d[1:4, :, ::-1])


@pytest.mark.filterwarnings("ignore")
def test_interrupted_merlin_scan_keeps_every_frame(tmp_path, scan_4d):
    pytest.importorskip("rsciio")
    frames = scan_4d.reshape(-1, 7, 8)[:27]
    write_mib(tmp_path / "a.mib", frames, per_line=6)
    with open_scan(tmp_path / "a.mib") as scan:
        assert scan.dims == ("frame", "det_y", "det_x")
        np.testing.assert_array_equal(scan.read(()), frames[:, ::-1])
    whole = (tmp_path / "a.mib").read_bytes()
    (tmp_path / "a.mib").write_bytes(whole[:-9])
    with pytest.raises(SourceError, match="the file is truncated: copy it again"):
        open_scan(tmp_path / "a.mib")


def test_velox_files_go_to_rosettasciio(tmp_path, monkeypatch, stack_3d):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "a.emd", "w") as file:
        file.create_dataset("Version", data=["{}"])
        file.create_dataset("Data/Image/0/Data", data=stack_3d.transpose(1, 2, 0))
    fake_reader(monkeypatch, [signal_of(stack_3d)])
    with open_scan(tmp_path / "a.emd") as scan:
        assert scan.shape == stack_3d.shape
    with open_scan(tmp_path / "a.emd", dataset="Data/Image/0/Data") as scan:
        assert scan.format == "HDF5 (Velox EMD)"
    fake_reader(monkeypatch, [signal_of(stack_3d), signal_of(stack_3d + 1)])
    for name in ("1: scan", "1"):
        with open_scan(tmp_path / "a.emd", dataset=name) as scan:
            np.testing.assert_array_equal(scan.read(()), stack_3d + 1)
