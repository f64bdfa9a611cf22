"""``stemcodecs compare`` as a user types it, and the table that he sees."""

from __future__ import annotations

import io
import json
import shlex

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from stemcodecs_pipelines.cli import app
from stemcodecs_pipelines.compare import run as comparison
from stemcodecs_pipelines.compare.report import Group, Loss, Recommendation, Report, Row, Sample, State
from stemcodecs_pipelines.compare.table import print_report
from tests.pipelines.compare.conftest import GZIP


def compared(*words):
    return CliRunner().invoke(app, ["compare", *map(str, words)])


def test_a_comparison_on_the_terminal(disk_file, few, tmp_path):
    few("pixel_histogram", "poisson:r=0.5", "tcs:frames=10", GZIP)
    done = compared(disk_file, "--json", tmp_path / "report.json")
    assert done.exit_code == 0, done.output
    for part in (
        "Smallest without loss: pixel_histogram",
        "bits/value",
        "others, lossless",
        "does not apply",
        "209.7 kB",
    ):
        assert part in done.stdout
    assert "memory at most" in done.stderr
    assert len(json.loads((tmp_path / "report.json").read_text())["rows"]) == 4


def test_the_report_has_the_command_that_was_typed(disk_file, few, tmp_path):
    few(GZIP)
    words = [disk_file, "--sample", "100 kB", "--scan-shape", "14,13", "--json", tmp_path / "report.json"]
    done = compared(*words)
    assert done.exit_code == 0, done.output
    written = json.loads((tmp_path / "report.json").read_text())
    assert shlex.split(written["command"]) == ["stemcodecs", "compare", *map(str, words)]


def test_recommended_commands_say_how_to_open_the_source(disk, few, tmp_path):
    disk.tofile(tmp_path / "a scan.raw")
    few("pixel_histogram", GZIP)
    how = ["--shape", "182,24,24", "--dtype", "uint16", "--scan-shape", "14,13"]
    done = compared(tmp_path / "a scan.raw", *how)
    assert done.exit_code == 0, done.output
    command = shlex.split(done.stdout.partition(": stemcodecs ")[2].partition("\n")[0])
    assert command == ["compress", str(tmp_path / "a scan.raw"), "scan.zarr", *how, "--method", "pixel_histogram"]


def test_ctrl_c_writes_what_is_done_and_says_so(disk_file, few, tmp_path, monkeypatch):
    few(GZIP, "pixel_histogram")
    run = comparison._run

    def interrupted(*arguments):
        yield next(run(*arguments))
        raise KeyboardInterrupt

    monkeypatch.setattr(comparison, "_run", interrupted)
    done = compared(disk_file, "--json", tmp_path / "report.json", "--workers", 1)
    assert done.exit_code == 130
    assert "interrupted: 1 methods were done" in done.stderr
    written = json.loads((tmp_path / "report.json").read_text())
    assert written["finished"] is False
    assert [row["name"] for row in written["rows"]] == ["gzip -6"]


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["no-such.npy"], "no-such.npy"),
        (["SRC", "--sample", "much"], "'much' is not a size"),
        (["SRC", "--workers", "0"], "--workers 0"),
        (["SRC", "--json", "no/such/folder.json"], "does not exist; create it first"),
        (["SRC", "--json", "SRC"], "exists already; give --overwrite"),
        (["SRC", "--json", "."], "is a folder"),
        (["SRC", "--positions", "no-such.npy"], "no-such.npy"),
        (["SRC", "--energy", "300"], "says no positions here"),
    ],
)
def test_bad_input_is_one_line(words, part, disk_file, few):
    few(GZIP)
    done = compared(*(disk_file if word == "SRC" else word for word in words))
    assert done.exit_code == 2, done.output
    assert done.stdout == ""
    lines = [line for line in done.stderr.splitlines() if line.startswith("stemcodecs: ")]
    assert part in lines[-1]
    assert "Traceback" not in done.stderr


def report(rows, **more):
    sample = Sample(positions=100, of_positions=100, raw_bytes=200_000, of_bytes=200_000, blocks=1)
    return Report(
        source="a.npy", shape=(10, 10, 10, 100), dims=("scan_y", "scan_x", "det_y", "det_x"), dtype="uint16",
        **{"sample": sample, "rows": rows, **more},
    )  # fmt: skip


def printed(what, width=80):
    console = Console(file=io.StringIO(), width=width)
    print_report(what, console)
    return console.file.getvalue().splitlines()


def lossy(name, bits):
    loss = Loss(
        largest_error=0.5, total_bias=0.001, added_noise=0.2, dose_equivalent=0.98, ssim_mean_pattern=0.999,
        ssim_images=0.998, diffraction_mse=0.01, resolution=1.23e-9, phase_mse=1e-4,
    )  # fmt: skip
    return Row(
        name=name, group=Group.PEERS_LOSSY, bits_per_value=bits, stored_bytes=9, encode_rate=1, decode_rate=2, loss=loss
    )


@pytest.mark.parametrize("width", [40, 80, 120, 200])
def test_a_table_fits_its_width_and_drops_what_says_least(width):
    rows = [lossy("anscombe-transform + Blosc", 1.5), lossy("isqrt", 1.2)]
    lines = [
        line.rstrip() for line in printed(report(rows), width) if line.startswith((" method", " isqrt", " anscombe"))
    ]
    assert max(map(len, lines)) <= width
    assert "bits/value" in lines[0]
    assert ("MSE √N" in lines[0]) == (width == 200)


def test_rows_stand_in_groups_by_size():
    rows = [lossy("large", 3.0), lossy("small", 1.0), lossy("middle", 2.0)]
    lines = printed(report(rows))
    places = [
        next(i for i, line in enumerate(lines) if name in line)
        for name in ("others, lossy", "small", "middle", "large")
    ]
    assert places == sorted(places)


def test_names_from_files_are_not_markup():
    rows = [Row(name="[red]x[/red]", group=Group.OURS_LOSSLESS, state=State.FAILED, note="[bold]y[/bold]")]
    advice = Recommendation(advice=["compress [blink]scan[/blink].npy"])
    text = "\n".join(printed(report(rows, recommendation=advice)))
    for part in ("[red]x[/red]", "[bold]y[/bold]", "[blink]scan[/blink]"):
        assert part in text


def test_a_sample_states_its_error():
    sample = Sample(positions=10, of_positions=100, raw_bytes=20_000, of_bytes=200_000, blocks=4)
    rows = [Row(name="a", group=Group.OURS_LOSSLESS, bits_per_value=1.5, bits_error=0.0123, stored_bytes=10)]
    text = "\n".join(printed(report(rows, sample=sample)))
    assert "1.500 ±0.012" in text
    assert "10.67" in text
    assert "read in 4 chunks" in text


def test_the_star_with_positions(disk, few, tmp_path, monkeypatch):
    """Reconstructions of what each lossy row gives back; with PyTorch."""
    pytest.importorskip("torch")
    from stemcodecs_pipelines.compare import judged_rows

    monkeypatch.setattr(judged_rows, "ITERATIONS", 2)
    np.save(tmp_path / "scan.npy", disk[:8, :8])
    y, x = np.mgrid[:24, :24] - 12.0
    np.save(tmp_path / "probe.npy", np.exp(-(y**2 + x**2) / 20).astype(np.complex64))
    np.save(tmp_path / "positions.npy", np.stack(np.mgrid[:8, :8], -1).reshape(-1, 2) * 3.0)
    few("pixel_histogram", "poisson:r=1")
    words = ["--positions", tmp_path / "positions.npy", "--probe", tmp_path / "probe.npy"]
    done = compared(tmp_path / "scan.npy", *words, "--json", tmp_path / "report.json")
    assert done.exit_code == 0, done.output
    written = json.loads((tmp_path / "report.json").read_text())
    loss = next(row["loss"] for row in written["rows"] if row["name"] == "poisson:r=1")
    assert loss["phase_mse"] > 0
    assert loss["resolution"] is not None
    assert written["resolution_unit"] == "pixel"


def test_without_torch_the_rest_is_there(disk, few, tmp_path, monkeypatch):
    from stemcodecs_pipelines.compare import judged_rows

    monkeypatch.setattr(judged_rows, "find_spec", lambda name: None)
    np.save(tmp_path / "scan.npy", disk[:8, :8])
    np.save(tmp_path / "probe.npy", np.ones((24, 24), np.complex64))
    np.save(tmp_path / "positions.npy", np.stack(np.mgrid[:8, :8], -1).reshape(-1, 2) * 3.0)
    few("poisson:r=1")
    words = ["--positions", tmp_path / "positions.npy", "--probe", tmp_path / "probe.npy"]
    done = compared(tmp_path / "scan.npy", *words)
    assert done.exit_code == 0, done.output
    assert "need PyTorch" in done.stdout
    assert "poisson:r=1" in done.stdout
