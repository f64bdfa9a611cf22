"""``compress --method poisson`` of counts in disguise: corrected, scaled, shifted, reversed, of 64 bits, with marks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from typer.testing import CliRunner

from stemcodecs_pipelines.cli import app

Array = np.ndarray[Any, Any]

SCAN, DETECTOR = (14, 16), (16, 16)
RANDOM = np.random.default_rng(5)
DISK = 5.0 * (np.hypot(*(np.mgrid[:16, :16] - 7.5)) < 5) + 0.2
COUNTS = RANDOM.poisson(DISK * (1 + 0.2 * np.sin(np.arange(16) / 5))[:, None, None], (*SCAN, *DETECTOR))
GAIN = RANDOM.normal(0.4, 0.04, DETECTOR).astype(np.float32)
DARK = RANDOM.normal(20, 2, DETECTOR).astype(np.float32)
MONITOR = RANDOM.normal(1, 0.05, (*SCAN, 1, 1)).astype(np.float32)
DOSE = COUNTS.sum((2, 3), keepdims=True)
GAP = np.zeros(DETECTOR, bool)
GAP[3, 2:9], GAP[12, 12] = True, True

DISGUISES: dict[str, tuple[Callable[[], Array], str]] = {
    "gain of each pixel": (lambda: COUNTS.astype("f4") * GAIN, "counts times a gain per pixel"),
    "scalar": (lambda: COUNTS.astype("f4") * np.float32(0.37), "counts times 0.37"),
    "half floats": (lambda: (COUNTS / 4).astype("f2"), "counts times 0.25"),
    "dark reference": (
        lambda: ((COUNTS + np.rint(DARK)).astype("f4") - DARK) * GAIN,
        "(ADU less a dark reference per pixel) times a gain per pixel",
    ),
    "shifted": (lambda: (COUNTS + 30000).astype("u2"), "counts; offset 30000 ADU"),
    "negative": (lambda: (COUNTS - 30000).astype("i2"), "counts; offset -30000 ADU"),
    "scaled": (lambda: (17 * COUNTS + 100).astype("u2"), "counts times 17; offset 100 ADU"),
    "reversed": (lambda: (65535 - COUNTS).astype("u2"), "65535 less counts"),
    "int64": (lambda: (1_000_000 * COUNTS).astype("i8"), "counts times 1000000"),
    "uint64": (lambda: COUNTS.astype("u8"), "counts"),
    "divided by the dose": (
        (lambda: COUNTS.astype("f4") / DOSE.astype("f4")),
        "counts divided by a dose of each pattern",
    ),
    "divided by the dose, float64": ((lambda: COUNTS / DOSE), "counts divided by a dose of each pattern"),
    "times a scale": (lambda: COUNTS.astype("f4") * MONITOR, "counts times a dose of each pattern"),
    "gain and monitor": (lambda: COUNTS.astype("f4") * GAIN / MONITOR, "counts times a gain per pixel"),
    "rounded gains": (lambda: np.rint(COUNTS * (GAIN * 40)).astype("u2"), "counts times a gain per pixel"),
}


def run(*arguments: str | Path) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


def compress(values: Array, folder: Path, method: str = "poisson") -> tuple[Path, Path, str]:
    np.save(folder / "scan.npy", values)
    source, store = folder / "scan.npy", folder / "out.zarr"
    code, output = run("compress", source, store, "--method", method, "--chunk", "6,16")
    assert code == 0, output
    return source, store, output


def data_of(store: Path) -> Any:
    return zarr.open_group(store, mode="r")["data"]


def plain_bytes(folder: Path, method: str = "poisson") -> int:
    folder.mkdir()
    _, store, _ = compress(COUNTS.astype("u2"), folder, method)
    attributes: Any = zarr.open_group(store, mode="r").attrs["stemcodecs"]
    return int(attributes["stored_bytes"])


@pytest.fixture(scope="module")
def size_of_counts(tmp_path_factory: pytest.TempPathFactory) -> int:
    return plain_bytes(tmp_path_factory.mktemp("counts") / "plain")


@pytest.mark.parametrize("name", DISGUISES)
def test_the_bound_is_that_of_the_counts(name: str, tmp_path: Path, size_of_counts: int) -> None:
    values, words = DISGUISES[name][0](), DISGUISES[name][1]
    source, store, output = compress(values, tmp_path)
    assert f"the values are {words}" in output
    assert words in run("info", store)[1]
    code, output = run("verify", source, store)
    assert code == 0, output
    assert f"the bound holds for {values.size} values" in output
    decoded = data_of(store)[:]
    assert decoded.dtype == values.dtype
    # Values stand for counts one to one, pixel by pixel, and pattern by pattern.
    alike = "pixel" not in words and "pattern" not in words
    counts = dict(zip(values.ravel(), COUNTS.ravel(), strict=True)) if alike else None
    if counts is not None:
        known = np.isin(decoded, values)
        behind = np.array([counts[v] for v in decoded[known].ravel()])
        n = COUNTS[known].ravel()
        assert known.mean() > 0.99
        assert (np.abs(behind - n) <= 0.5 * np.sqrt(n)).all()
        assert (behind[n < 5] == n[n < 5]).all()
    attributes: Any = zarr.open_group(store, mode="r").attrs["stemcodecs"]
    # Half of the dark references leave a count more or less than none.
    assert attributes["stored_bytes"] < (1.3 if "dark" in words else 1.1) * size_of_counts + 100


def test_counts_times_a_gain_decode_to_counts_times_the_gain(tmp_path: Path) -> None:
    """To the bit: the decoded array is what a camera would have written for the decoded counts."""
    _, store, _ = compress(COUNTS.astype("f4") * GAIN, tmp_path)
    decoded = data_of(store)[:]
    counts = np.rint(decoded / GAIN).astype(np.int64)
    assert (counts.astype("f4") * GAIN == decoded).all()
    assert (np.abs(counts - COUNTS) <= 0.5 * np.sqrt(COUNTS)).all()


@pytest.mark.parametrize(("dtype", "gained"), [("f4", False), ("f4", True), ("f8", False)])
def test_counts_of_a_dose_decode_to_counts_of_that_dose(dtype: str, gained: bool, tmp_path: Path) -> None:
    """To the bit, and within the noise of the counts, whatever a pattern was divided by."""
    gain = GAIN.astype(dtype) if gained else np.ones(DETECTOR, dtype)
    dose = (MONITOR if gained else DOSE).astype(dtype)
    values = COUNTS.astype(dtype) * gain / dose
    _, store, _ = compress(values, tmp_path, "poisson:r=1")
    decoded = data_of(store)[:]
    counts = np.rint(decoded.astype("f8") * dose / gain).astype(np.int64)
    assert (counts.astype(dtype) * gain / dose == decoded).all()
    assert (np.abs(counts - COUNTS) <= np.sqrt(COUNTS)).all()
    assert (counts != COUNTS).any()
    data = data_of(store)
    for part in (np.s_[2, 3], np.s_[1:9:3, 2, 3:5, 1:9], np.s_[13, :, 3]):
        assert data[part].tobytes() == np.ascontiguousarray(decoded[part]).tobytes()
    # One count more than the noise allows is found.
    y, x = np.unravel_index(int(np.argmax(COUNTS[7, 7])), DETECTOR)
    n = int(COUNTS[7, 7, y, x])
    wrong = values.copy()
    wrong[7, 7, y, x] = np.array(n + 3 * int(np.sqrt(n)) + 3, dtype) * gain[y, x] / dose[7, 7, 0, 0]
    np.save(tmp_path / "other.npy", wrong)
    code, output = run("verify", tmp_path / "other.npy", store)
    assert code == 2
    assert f"(7, 7, {y}, {x})" in output


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("method", ["poisson:r=1", "poisson:preset=huang-191"])
def test_marks_and_what_is_no_count_stay_exact(method: str, scaled: bool, tmp_path: Path) -> None:
    values = COUNTS.astype("f4") * GAIN / (MONITOR if scaled else 1)
    values[..., GAP] = np.nan
    values[..., 6, 6] = 0.123  # a hot pixel that is always the same
    values[2, 3, 4, 5], values[3, 3, 4, 6], values[4, 4, 4, 4] = -7.25, -0.0, np.inf
    source, store, _ = compress(values, tmp_path, method)
    decoded = data_of(store)[:]
    exact = np.broadcast_to(GAP, values.shape).copy()
    exact[..., 6, 6] = True
    for index in ((2, 3, 4, 5), (3, 3, 4, 6), (4, 4, 4, 4)):
        exact[index] = True
    assert (decoded.view("u4")[exact] == values.view("u4")[exact]).all()
    # Parts of the array are read as the whole is.
    data = data_of(store)
    for part in (np.s_[2, 3], np.s_[1:9:3, 2, 3:5, 1:9], np.s_[13, :, 3]):
        assert data[part].tobytes() == np.ascontiguousarray(decoded[part]).tobytes()
    assert data.oindex[[1, 9], :, [3, 4]].tobytes() == np.ascontiguousarray(decoded[[1, 9]][:, :, [3, 4]]).tobytes()
    code, output = run("decompress", store, tmp_path / "again.npy")
    assert code == 0, output
    assert np.load(tmp_path / "again.npy").tobytes() == decoded.tobytes()
    assert run("verify", source, store)[0] == 0


@pytest.mark.parametrize("kind", ["count", "mark", "no count"])
def test_verify_finds_what_breaks_the_bound(kind: str, tmp_path: Path) -> None:
    values = COUNTS.astype("f4") * GAIN
    values[..., GAP] = np.nan
    _, store, _ = compress(values, tmp_path)
    values[9, 8, 7, 6] = {"count": np.float32(60) * GAIN[7, 6], "mark": np.float32(np.nan), "no count": 0.3333}[kind]
    np.save(tmp_path / "other.npy", values)
    code, output = run("verify", tmp_path / "other.npy", store)
    assert code == 2
    assert "(9, 8, 7, 6)" in output
    assert "breaks its bound" in output


def test_verify_finds_an_altered_byte_and_repair_mends_it(tmp_path: Path) -> None:
    source, store, _ = compress(COUNTS.astype("f4") * GAIN, tmp_path)
    chunk = store / "data/c/1/0/0/0"
    whole = chunk.read_bytes()
    chunk.write_bytes(whole[:300] + bytes([whole[300] ^ 1]) + whole[301:])
    assert run("verify", store)[0] == 2
    assert run("repair", source, store)[0] == 0
    assert chunk.read_bytes() == whole
    assert run("verify", source, store)[0] == 0


def test_a_chunk_beyond_the_sample_is_kept_exact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the sample did not show is no reason for wrong values: patterns of other values, multiples of no gain."""
    from stemcodecs_pipelines.run import map_of_scan

    monkeypatch.setattr(map_of_scan, "MOST_PATTERNS", 56)
    values = COUNTS.astype("f4") * GAIN
    values[5, 3:5] = RANDOM.normal(3, 1, (2, *DETECTOR))
    source, store, _ = compress(values, tmp_path)
    assert (data_of(store)[5, 3:5] == values[5, 3:5]).all()
    assert run("verify", source, store)[0] == 0


FEW = RANDOM.poisson(0.05, COUNTS.shape)
REFUSED: dict[str, tuple[Callable[[], Array], str, str]] = {
    "floats": (lambda: RANDOM.normal(3, 1, COUNTS.shape).astype("f4"), "poisson", "no gain of their pixels makes them"),
    "dim doses": (lambda: FEW / np.maximum(FEW.sum((2, 3), keepdims=True), 1), "poisson", "too few counts each"),
    "offset of doses": (lambda: COUNTS / DOSE, "poisson:offset=1", "leave out offset= and saturation="),
    "zero unknown": (
        lambda: (17 * RANDOM.integers(-40, 40, COUNTS.shape)).astype("i8"), "poisson", "say it with offset="
    ),
    "bits": (lambda: COUNTS.astype("f4") * GAIN, "poisson:bits=9,saturation=900", "bits="),
    "auto of floats": (lambda: COUNTS.astype("f4"), "poisson:gain=auto,offset=3", "leave out offset="),
    "no noise": (lambda: np.full(COUNTS.shape, 7, "u2"), "poisson:gain=auto", "different brightness"),
    "no Poisson": (lambda: RANDOM.integers(0, 999, COUNTS.shape).astype("u2"), "poisson:gain=auto", "Poisson counts"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused_in_one_line(name: str, tmp_path: Path) -> None:
    make, method, words = REFUSED[name]
    np.save(tmp_path / "scan.npy", make())
    code, output = run("compress", tmp_path / "scan.npy", tmp_path / "out.zarr", "--method", method)
    assert code == 2
    assert words in output
    assert len([line for line in output.splitlines() if line.startswith("stemcodecs:")]) == 1
    assert not (tmp_path / "out.zarr").exists()


def test_the_offset_can_be_said(tmp_path: Path) -> None:
    values = 3 * RANDOM.poisson(900, (8, 8, 6, 6)).astype("i8") - 1000
    source, store, output = compress(values, tmp_path, "poisson:offset=-1000")
    assert "counts times 3; offset -1000 ADU" in output
    decoded = data_of(store)[:]
    n = (values + 1000) // 3
    assert (np.abs(decoded - values) <= 3 * 0.5 * np.sqrt(n)).all()
    assert np.abs(decoded - values).max() > 0
    assert run("verify", source, store)[0] == 0


@pytest.mark.parametrize("corrected", [False, True])
def test_gain_and_offset_are_measured(corrected: bool, tmp_path: Path) -> None:
    n = RANDOM.poisson(30 * DISK * (1 + 0.2 * np.sin(np.arange(32) / 4))[:, None, None], (32, 32, *DETECTOR))
    adu = np.rint(2.5 * n + 100 + RANDOM.normal(0, 1, n.shape))
    values = (adu.astype("f4") - np.float32(100.25)) * GAIN if corrected else adu.astype("u2")
    source, store, output = compress(values, tmp_path, "poisson:gain=auto")
    line = next(line for line in output.splitlines() if line.startswith("photon transfer: gain"))
    gain, gain_error = (float(line.split()[i]) for i in (3, 5))
    assert abs(gain - 2.5) < 3 * gain_error + 0.02
    assert gain_error < 0.1
    offset, offset_error = (float(line.split()[i]) for i in (10, 12))
    assert abs(offset - (-1 if corrected else 100)) < 3 * offset_error + 0.3
    # A counting step of a camera is its gain: levels are as wide as the noise allows.
    configuration = data_of(store).metadata.codecs[-1].to_dict()["configuration"]
    assert abs(float(configuration["gain"]) - 2.5) < 0.15
    assert run("verify", source, store)[0] == 0


@pytest.mark.parametrize("dtype", ["i2", "i4", "i8", "u8"])
def test_gaps_and_marks_of_integers_stay_exact(dtype: str, tmp_path: Path) -> None:
    """-1 in a gap and here and there, or the largest value of an unsigned dtype."""
    values = COUNTS.astype(dtype)
    mark = np.array(-1).astype(dtype)
    where = GAP | (RANDOM.random(values.shape) < 0.005)
    values[where] = mark
    source, store, _ = compress(values, tmp_path)
    decoded = data_of(store)[:]
    assert (decoded[where] == mark).all()
    n = COUNTS[~where]
    assert (np.abs(decoded[~where].astype("i8") - n) <= 0.5 * np.sqrt(n)).all()
    assert np.abs(decoded[~where].astype("i8") - n).max() > 0
    assert ("map" in data_of(store).metadata.codecs[-1].to_dict()["configuration"]) == (dtype[1] == "8")
    assert run("verify", source, store)[0] == 0


def test_the_mark_of_shifted_counts_stays_exact(tmp_path: Path) -> None:
    """65535 in a chunk is no count, although the map that other patterns told would give it one."""
    _, store, _ = compress((COUNTS + 30000).astype("u2"), tmp_path)
    codec = data_of(store).metadata.codecs[-1]
    assert codec.map is not None
    values = (COUNTS[:2, :3] + 30000).astype("u2")
    values[0, 1, 2:4] = 65535
    decoded = codec.decode_chunk(codec.encode_chunk(values))
    assert (decoded[0, 1, 2:4] == 65535).all()
    assert (decoded != values).any()


def test_plain_counts_take_no_map(tmp_path: Path) -> None:
    _, store, output = compress(COUNTS.astype("u2"), tmp_path)
    assert "the values are" not in output
    assert "map" not in data_of(store).metadata.codecs[-1].to_dict()["configuration"]


def test_pixels_that_the_sample_leaves_dark_are_looked_at_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stemcodecs_pipelines.run import map_of_scan

    monkeypatch.setattr(map_of_scan, "MOST_PATTERNS", 56)
    dim = RANDOM.poisson(0.02, COUNTS.shape) + np.where(DISK > 1, COUNTS, 0)
    source, store, output = compress(dim.astype("f4") * GAIN, tmp_path)
    kept = int(output.split(" values kept exactly")[0].split()[-1])
    assert kept < 0.1 * np.count_nonzero(dim[..., DISK < 1])
    assert run("verify", source, store)[0] == 0


@pytest.mark.slow
@pytest.mark.parametrize("method", ["poisson", "poisson:gain=auto"])
def test_a_cluster_and_a_resumed_run_give_the_same_bytes(method: str, tmp_path: Path) -> None:
    from stemcodecs_pipelines import compress as compress_scan
    from stemcodecs_pipelines.run.engine import DaskEngine, ThreadEngine
    from tests.pipelines.clusters import cluster_of

    rate = 20 * DISK * (1 + 0.2 * np.sin(np.arange(16) / 5))[:, None, None]
    np.save(tmp_path / "scan.npy", RANDOM.poisson(rate, COUNTS.shape).astype("f4") * GAIN)
    source = tmp_path / "scan.npy"
    compress_scan(source, tmp_path / "whole.zarr", method=method, chunk=(4, 8, 16, 16))
    with cluster_of(2) as client:
        compress_scan(source, tmp_path / "dask.zarr", method=method, chunk=(4, 8, 16, 16), engine=DaskEngine(client))

    class Dying(ThreadEngine):
        def map(self, function: Any, common: Any, indices: Any) -> Any:
            for done, result in enumerate(super().map(function, common, indices)):
                if function.__name__ == "compress_block" and done == 3:
                    raise KeyboardInterrupt
                yield result

    with pytest.raises(KeyboardInterrupt):
        compress_scan(source, tmp_path / "died.zarr", method=method, chunk=(4, 8, 16, 16), engine=Dying(1))
    compress_scan(source, tmp_path / "died.zarr", method=method, resume=True)

    def contents(store: Path) -> dict[str, bytes]:
        return {str(p.relative_to(store)): p.read_bytes() for p in sorted(store.rglob("*")) if p.is_file()}

    assert contents(tmp_path / "dask.zarr") == contents(tmp_path / "whole.zarr") == contents(tmp_path / "died.zarr")
