"""The comparison itself: sizes of ``compress``, every method of the registry, sources of every kind, Ctrl-C."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
import zarr

from stemcodecs.entropy.kernels.threads import get_threads
from stemcodecs.errors import ConfigurationError, SourceError
from stemcodecs_pipelines import compare, compress
from stemcodecs_pipelines.compare import run as comparison
from stemcodecs_pipelines.compare.json_report import read_json, write_json
from stemcodecs_pipelines.compare.our_rows import our_methods
from stemcodecs_pipelines.compare.peer_coders import Peer, as_it_lies
from stemcodecs_pipelines.compare.report import Group, State
from stemcodecs_pipelines.methods.registry import METHODS
from stemcodecs_pipelines.run import plan
from tests.pipelines.compare.conftest import GZIP


@pytest.mark.slow
@pytest.mark.parametrize("chunk_bytes", [1 << 26, 1 << 17], ids=["one chunk", "chunks"])
def test_sizes_are_those_of_compress(chunk_bytes, disk_file, few, tmp_path, monkeypatch):
    """To the byte, models included, of every method that applies."""
    monkeypatch.setattr(plan, "LARGEST_CHUNK", chunk_bytes)
    names = [name for name in our_methods() if not name.startswith("tcs")]
    # A network need not be good to be the same.
    names[names.index("learned")] = "learned:steps=100"
    if chunk_bytes < 1 << 20:
        names = ["pixel_histogram", "poisson:r=0.5", "pca"]
    few(*names)
    report = compare(disk_file)
    assert {row.name for row in report.rows if row.state is State.DONE} == set(names)
    for row in report.rows:
        stored = compress(disk_file, tmp_path / f"{row.name}.zarr".replace(":", "-"), method=row.name, verify=False)
        assert row.stored_bytes == stored.stored_bytes, row.name
        assert row.bits_per_value == pytest.approx(stored.bits_per_pixel)


def test_every_method_of_the_registry_has_a_row():
    assert {name.partition(":")[0] for name in our_methods()} == set(METHODS)


def test_groups_guarantees_and_losses(disk_file, few):
    few("pixel_histogram", "poisson:r=0.5", GZIP)
    exact, lossy, peer = compare(disk_file).rows
    assert [row.group for row in (exact, lossy, peer)] == [Group.OURS_LOSSLESS, Group.OURS_LOSSY, Group.PEERS_LOSSLESS]
    assert "bit by bit" in exact.guarantee
    assert exact.loss is None
    assert "0.5 σ" in lossy.guarantee
    assert 0 < lossy.loss.largest_error <= 0.5
    assert 0.8 < lossy.loss.dose_equivalent < 1
    # A core does not do more: time that Zarr's threads take must count.
    assert 0 < exact.encode_rate < 20_000
    assert 0 < exact.decode_rate < 20_000


def test_what_the_page_draws(disk, disk_file, few):
    few("pixel_histogram", "poisson:r=0.5")
    pictures = compare(disk_file).pictures
    np.testing.assert_allclose(pictures.mean_pattern, disk.mean((0, 1)))
    np.testing.assert_array_equal(pictures.virtual_images["sum_image"], disk.sum((2, 3)))
    assert pictures.bits_map.shape == (24, 24)
    np.testing.assert_array_equal(pictures.original, disk.reshape(-1, 24, 24)[14 * 13 // 2])
    apart = np.abs(pictures.decoded["poisson:r=0.5"] - pictures.original.astype(float))
    assert 0 < apart.max() <= 0.5 * np.sqrt(pictures.original.max())
    edges, errors = pictures.errors["poisson:r=0.5"]
    assert errors.sum() == disk.size
    assert len(edges) == len(errors) + 1


@pytest.mark.parametrize("kind", ["array", "zarr", "store", "stack", "pattern", "series"])
def test_sources_of_every_kind(kind, disk, disk_file, few, tmp_path):
    few("pixel_histogram", GZIP)
    values, how, source = disk[:4, :5], {}, tmp_path / "scan.npy"
    if kind == "store":
        compress(disk_file, source := tmp_path / "scan.zarr")
        values = disk
    elif kind == "zarr":
        zarr.save_array(source := tmp_path / "plain.zarr", values)
    else:
        values = {"array": values, "stack": values[0], "pattern": values[0, 0], "series": values[None]}[kind]
        np.save(source, values)
    report = compare(source, **how)
    assert tuple(report.shape) == values.shape
    assert [row.state for row in report.rows] == [State.DONE, State.DONE]


def test_floats_without_counts_are_compared_without_loss_only(few, tmp_path):
    np.save(tmp_path / "floats.npy", np.random.default_rng(0).normal(size=(8, 9, 12, 12)).astype(np.float32))
    few("pixel_histogram", "poisson:r=0.5", GZIP)
    report = compare(tmp_path / "floats.npy")
    states = {row.name: row.state for row in report.rows}
    assert states == {"pixel_histogram": State.DONE, "poisson:r=0.5": State.UNSUITED, "gzip -6": State.DONE}
    assert "not counts" in report.recommendation.findings[0]
    assert "\n" not in report.rows[-1].note


def test_movies_have_their_methods_and_scans_do_not(few, tmp_path, disk_file):
    few("tcs:frames=10")
    assert compare(disk_file).rows[0].state is State.UNSUITED
    frames = np.random.default_rng(0).poisson(5, (20, 16, 16)).astype(np.uint8)
    np.save(tmp_path / "movie.npy", frames)
    row = compare(tmp_path / "movie.npy").rows[0]
    assert row.state is State.DONE
    assert row.loss.ssim_images is None
    assert row.loss.added_noise > 0


def test_ctrl_c_gives_what_is_done(disk_file, few):
    """At once, though a compressor holds on to its block; and the threads of the encoder are as they were."""
    let_go = threading.Event()

    def encode(values):
        let_go.wait(30)
        return values.tobytes()

    stuck = Peer(name="stuck", settings=[as_it_lies(encode, lambda data, like: like)])
    few(GZIP, "pixel_histogram", stuck)
    before = get_threads()

    def progress(done, total, name):
        if done == 2:
            raise KeyboardInterrupt

    start = time.monotonic()
    report = compare(disk_file, workers=1, progress=progress)
    let_go.set()
    assert time.monotonic() - start < 20
    assert not report.finished
    assert [row.name for row in report.rows] == ["gzip -6"]
    assert report.recommendation.findings is not None
    assert get_threads() == before


def test_speeds_are_those_of_one_core(disk_file, few):
    """Another row that computes at the same time takes nothing away."""
    few(GZIP)
    alone = compare(disk_file, workers=1).rows[0].encode_rate
    few(GZIP, *["pixel_histogram"] * 3, GZIP)
    beside = [row.encode_rate for row in compare(disk_file, workers=3).rows if row.name == GZIP.name]
    assert min(beside) > alone / 5


def test_rows_share_what_they_learn(disk_file, few, monkeypatch):
    """The basis of PCA and the map of the counts are found once, and by each row as `compress` finds them."""
    from stemcodecs_pipelines.pca import fit
    from stemcodecs_pipelines.run import map_of_scan

    calls = []
    for module, name in ((fit, "choose_rank"), (map_of_scan, "find_map")):
        found = getattr(module, name)

        def counted(*arguments, _found=found, _name=name, **how):
            calls.append(_name)
            return _found(*arguments, **how)

        monkeypatch.setattr(module, name, counted)
    few("pca", "pca:residual=bounded", "poisson:r=0.5", "poisson:r=1")
    assert all(row.state is State.DONE for row in compare(disk_file).rows)
    assert sorted(calls) == ["choose_rank", "find_map"]


def test_parts_of_rows_are_progress(disk_file, few, monkeypatch):
    monkeypatch.setattr(plan, "LARGEST_CHUNK", 1 << 16)
    few(GZIP, "pixel_histogram")
    seen = []
    compare(disk_file, workers=1, progress=lambda done, total, name: seen.append((done, total, name)))
    shares = [done for done, _, _ in seen]
    assert shares == sorted(shares)
    assert shares[-1] == 2
    assert 0 < shares[0] < 1
    assert [name for _, _, name in seen if name] == ["gzip -6", "pixel_histogram"]


def test_memory_and_sample_are_said_before_the_run(disk_file, few):
    few(GZIP)
    said = []
    compare(disk_file, start=said.append, workers=2)
    assert said[0].startswith("all of 209.7 kB in 1 chunk of 14×13×24×24, 2 methods at a time, memory at most ")


def test_a_report_comes_back_from_json(disk_file, few, tmp_path):
    few("pixel_histogram", "poisson:r=0.5", "tcs:frames=10", GZIP)
    report = compare(disk_file)
    write_json(report, tmp_path / "report.json")
    again = read_json(tmp_path / "report.json")
    assert again.rows == report.rows
    assert again.sample == report.sample
    assert again.recommendation == report.recommendation
    assert dict(again.versions) == dict(report.versions)
    assert (again.source, again.command, again.date) == (report.source, report.command, report.date)
    assert again.machine["cores"] >= 1
    assert "stemcodecs" in again.versions


@pytest.mark.parametrize("text", ["", "[]", '{"layout": 99}', '{"layout": 1}'])
def test_what_is_no_report_is_refused_in_one_line(text, tmp_path):
    (tmp_path / "broken.json").write_text(text)
    with pytest.raises(SourceError, match="is no report") as refused:
        read_json(tmp_path / "broken.json")
    assert "\n" not in str(refused.value)


def test_what_cannot_be_is_refused(disk_file):
    with pytest.raises(ConfigurationError, match="sample"):
        compare(disk_file, sample=0)
    with pytest.raises(ConfigurationError, match="workers"):
        compare(disk_file, workers=0)


def test_a_reconstruction_needs_the_whole_scan(disk_file, monkeypatch):
    monkeypatch.setattr(plan, "LARGEST_CHUNK", 1 << 14)
    with pytest.raises(ConfigurationError, match=r"needs the whole scan.*--sample 209664"):
        compare(disk_file, sample=1, problem=object())


def test_a_source_that_changes_meanwhile_is_refused(disk, few, tmp_path):
    np.save(tmp_path / "scan.npy", disk)
    few(GZIP)

    def change(done, total, name):
        np.save(tmp_path / "scan.npy", disk[:3])

    with pytest.raises(SourceError, match="not what it was"):
        compare(tmp_path / "scan.npy", progress=change)


def test_what_takes_minutes_is_named(disk_file, few):
    task = dict(comparison._tasks(False))["learned:arch=l3c"]
    few(task)
    (row,) = compare(disk_file).rows
    assert (row.name, row.state, row.group) == ("learned:arch=l3c", State.LEFT_OUT, Group.OURS_LOSSLESS)
    assert "--all" in row.note


def test_slow_compressors_are_asked_for():
    quick, all_of_them = ({name for name, _ in comparison._tasks(slow)} for slow in (False, True))
    assert "xz -9e" in all_of_them - quick
    assert {"gzip -9", "zstd -22 long"} < quick < all_of_them
