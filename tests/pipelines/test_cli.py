"""The command, as a user types it."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from typer.testing import CliRunner

from stemcodecs.store import state
from stemcodecs_pipelines.cli import app


def run(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def refused(result, *parts):
    """One clear line on stderr, exit code 2, no traceback."""
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    lines = [line for line in result.stderr.splitlines() if line.startswith("stemcodecs: ")]
    assert len(lines) == 1
    assert "Traceback" not in result.stderr
    for part in parts:
        assert part in lines[0]


@pytest.mark.slow
def test_a_scan_goes_in_and_comes_out(source, tmp_path):
    store = tmp_path / "scan.zarr"
    done = run("compress", source, store, "--chunk", "4,8", "--workers", 2)
    assert done.exit_code == 0, done.output
    assert "49.9 kB" in done.stdout
    assert "bits per pixel" in done.stdout
    assert "verified: every value was read back" in done.stdout
    assert "memory at most" in done.stderr
    shown = run("info", store)
    assert shown.exit_code == 0
    assert "complete" in shown.stdout
    assert "lossless" in shown.stdout
    assert "all 24,960 values agree with the source" in run("verify", source, store).stdout
    assert "all 24,960 values agree with the digests" in run("verify", store).stdout
    assert run("decompress", store, tmp_path / "out.npy").exit_code == 0
    assert (tmp_path / "out.npy").read_bytes() == source.read_bytes()


@pytest.mark.slow
def test_raw_binary_needs_its_shape(counts, tmp_path):
    counts.tofile(tmp_path / "scan.bin")
    store = tmp_path / "scan.zarr"
    refused(run("compress", tmp_path / "scan.bin", store), "--shape")
    refused(run("compress", tmp_path / "scan.bin", store, "--shape", "10,13,12", "--dtype", "u2"), "bytes")
    refused(run("compress", tmp_path / "scan.bin", store, "--shape", "ten", "--dtype", "u2"), "--shape")
    assert run("compress", tmp_path / "scan.bin", store, "--shape", "10,13,12,16", "--dtype", "uint16").exit_code == 0


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (["--chunk", "a,b"], "--chunk"),
        (["--chunk", "3"], "--chunk"),
        (["--chunk", "4,4", "--shards", "6,6"], "--shards"),
        (["--memory", "lots"], "is not a size"),
        (["--memory", "10MB"], "is not enough"),
        (["--workers", "0"], "at least one"),
        (["--method", "telepathy"], "telepathy"),
        (["--method", "pixel_histogram:colour=red"], "colour"),
        (["--dataset", "nowhere"], "dataset"),
        (["--scheduler", "tcp://127.0.0.1:1"], "scheduler"),
        (["--scheduler", "nonsense"], "scheduler"),
        (["--scheduler", "local", "--slurm"], "exclude"),
    ],
)
def test_unusable_options_are_refused(source, tmp_path, options, part, monkeypatch):
    import dask
    import distributed  # its defaults must be there before one of them is changed

    assert distributed
    with dask.config.set({"distributed.comm.timeouts.connect": "100ms"}):
        refused(run("compress", source, tmp_path / "out.zarr", *options), part)
    assert not (tmp_path / "out.zarr").exists()


def test_unusable_sources_are_refused(tmp_path):
    out = tmp_path / "out.zarr"
    refused(run("compress", tmp_path / "none.npy", out), "no such file")
    np.save(tmp_path / "line.npy", np.zeros(5))
    refused(run("compress", tmp_path / "line.npy", out), "1 dimension")
    np.save(tmp_path / "complex.npy", np.zeros((2, 2, 4, 4), complex))
    refused(run("compress", tmp_path / "complex.npy", out), "complex")
    (tmp_path / "letter.docx").write_bytes(b"Dear Sir," + bytes(100))
    refused(run("compress", tmp_path / "letter.docx", out), "letter.docx")
    np.save(tmp_path / "cut.npy", np.zeros((4, 4, 8, 8)))
    with open(tmp_path / "cut.npy", "r+b") as file:
        file.truncate(1000)
    refused(run("compress", tmp_path / "cut.npy", out), "cut.npy")
    assert not out.exists()


def test_stores_that_are_none_are_refused(source, tmp_path):
    for command in (["info"], ["verify", source], ["verify"], ["repair", source]):
        refused(run(*command, tmp_path / "none.zarr"), "no such store")
        refused(run(*command, tmp_path), "not a store")
    refused(run("decompress", tmp_path / "none.zarr", tmp_path / "out.npy"), "no such store")


@pytest.mark.slow
def test_existing_destination_is_refused(source, store, tmp_path):
    refused(run("compress", source, store), "--overwrite")
    assert run("compress", source, store, "--overwrite", "--chunk", "2,2").exit_code == 0
    (tmp_path / "out.npy").write_text("precious")
    refused(run("decompress", store, tmp_path / "out.npy"), "--overwrite")
    refused(run("decompress", store, tmp_path / "out.xlsx"), ".npy")
    assert (tmp_path / "out.npy").read_text() == "precious"


@pytest.mark.slow
def test_corrupt_chunk_is_named_and_repaired(source, store, tmp_path):
    chunk = store / "data/c/1/0/0/0"
    chunk.write_bytes(chunk.read_bytes()[:-3])
    refused(run("verify", source, store), "1 of 6 blocks failed", "(4, 0, 0, 0)")
    refused(run("verify", store), "(4, 0, 0, 0)")
    refused(run("decompress", store, tmp_path / "out.npy"), "corrupt")
    assert not (tmp_path / "out.npy").exists()
    done = run("repair", source, store)
    assert done.exit_code == 0
    assert "1 of 6 blocks repaired" in done.stdout
    assert run("verify", source, store).exit_code == 0


def test_full_disk_is_one_line(source, tmp_path, monkeypatch):
    from stemcodecs_pipelines.store import compress as module

    def full(handle, index):
        from stemcodecs.location import write_error

        raise write_error("out.zarr", OSError(errno.ENOSPC, "No space left on device"))

    with monkeypatch.context() as patch:
        patch.setattr(module, "compress_block", full)
        refused(run("compress", source, tmp_path / "out.zarr"), "disk is full", "--resume")
    refused(run("info", tmp_path / "out.zarr"), "incomplete", "--resume")
    assert run("compress", source, tmp_path / "out.zarr", "--resume").exit_code == 0


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_stopped_command_leaves_a_store_that_says_so(tmp_path, number, digests):
    source, out = tmp_path / "scan.npy", tmp_path / "out.zarr"
    np.save(source, np.random.default_rng(0).poisson(1, (32, 32, 32, 32)).astype("u2"))
    command = [sys.executable, "-c", "from stemcodecs_pipelines.cli import main; main()"]
    words = ["compress", str(source), str(out), "--chunk", "2,2", "--workers", "1"]
    running = subprocess.Popen(
        [*command, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A test run in the background of a shell ignores interrupts, and so would the command.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    while not list(out.glob(".stemcodecs/records/*/*.npz")) and running.poll() is None:
        time.sleep(0.01)
    os.kill(running.pid, number)
    _, error = running.communicate(timeout=60)
    if number == signal.SIGINT:
        assert running.returncode == 130
        assert error.splitlines()[-1] == "stemcodecs: interrupted; a compression continues with --resume"
        assert "Traceback" not in error
    assert state(out).kind == "incomplete"
    refused(run("info", out), "incomplete", "--resume")
    refused(run("verify", out), "incomplete")
    refused(run("compress", source, out), "--resume")
    done = run("compress", source, out, "--resume")
    assert done.exit_code == 0, done.output
    assert "were finished already and kept" in done.stdout
    assert run("compress", source, tmp_path / "whole.zarr", "--chunk", "2,2").exit_code == 0
    assert digests(out) == digests(tmp_path / "whole.zarr")


@pytest.mark.slow
def test_damaged_root_is_one_line(store):
    (store / "zarr.json").write_text("{")
    refused(run("info", store), "damaged")


@pytest.mark.slow
def test_url_is_a_destination(source):
    import fsspec

    fsspec.filesystem("memory").store.clear()
    assert run("compress", source, "memory://bucket/scan.zarr", "--chunk", "2,4", "--shards", "4,8").exit_code == 0
    assert run("verify", source, "memory://bucket/scan.zarr").exit_code == 0
    assert run("info", "memory://bucket/scan.zarr").exit_code == 0
    refused(run("info", "nosuchprotocol://bucket/scan.zarr"), "nosuchprotocol")


def test_version_and_help():
    from stemcodecs import __version__

    assert run("--version").stdout.strip() == f"stemcodecs {__version__}"
    for command in ("compress", "verify", "info", "decompress", "repair", "methods", "pca", "demo"):
        assert run(command, "--help").exit_code == 0


@pytest.mark.slow
def test_processes_of_this_machine_write_the_same_bytes(source, tmp_path, digests):
    done = run("compress", source, tmp_path / "local.zarr", "--chunk", "4,8", "--scheduler", "local", "--workers", 1)
    assert done.exit_code == 0, done.output
    assert run("compress", source, tmp_path / "threads.zarr", "--chunk", "4,8").exit_code == 0
    assert digests(tmp_path / "local.zarr") == digests(tmp_path / "threads.zarr")


@pytest.mark.slow
def test_a_reader_that_has_read_enough_is_no_error(store):
    """``stemcodecs info STORE | head -1``."""
    reading, writing = os.pipe()
    os.close(reading)
    code = "from stemcodecs_pipelines.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "info", str(store)], stdout=writing, stderr=subprocess.PIPE, text=True
    )
    os.close(writing)
    assert (done.stderr, done.returncode) == ("", 141)
