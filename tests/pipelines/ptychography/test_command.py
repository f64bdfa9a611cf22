"""``stemcodecs reconstruct``, as a user types it."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import xarray
from typer.testing import CliRunner

from stemcodecs_pipelines.cli import app
from stemcodecs_pipelines.ptychography.plot import level_phase, round_length, spell_length
from tests.pipelines.ptychography.simulated import PIXEL, simulated


def run(*words):
    return CliRunner().invoke(app, ["reconstruct", *(str(word) for word in words)])


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    problem, truth = simulated(rows=6)
    np.save("scan.npy", problem.patterns.read((slice(0, problem.count),)).astype(np.uint16))
    np.save("positions.npy", problem.positions)
    np.save("probe.npy", problem.probe)
    return problem, truth


KNOWN = ("scan.npy", "--positions", "positions.npy", "--probe", "probe.npy", "--pixel-size", 1e9 * PIXEL)


def test_a_scan_becomes_an_object(files):
    pytest.importorskip("matplotlib")
    done = run(*KNOWN, "--method", "epie", "--iterations", 3, "--plot", "object.png")
    assert done.exit_code == 0, done.output
    assert "amplitude error 0." in done.stdout
    assert "MB in all" in done.stderr
    with xarray.open_zarr("object.zarr") as dataset:
        assert dataset["object"].dims == ("y", "x")
        assert dataset["object"].dtype == np.complex64
        assert float(dataset.x[1] - dataset.x[0]) == pytest.approx(0.02)
        assert dataset.x.attrs["units"] == "nm"
        assert dataset.sizes["iteration"] == 3
        assert np.isfinite(dataset["probe"].values).all()
        assert dataset.attrs["error"] < 0.5
    with open("object.png", "rb") as picture:
        assert picture.read(4) == b"\x89PNG"
    assert run(*KNOWN, "--method", "epie", "--iterations", 1).exit_code == 2
    again = run(*KNOWN, "--method", "epie", "--iterations", 1, "--overwrite")
    assert again.exit_code == 0, again.output


@pytest.mark.slow
def test_gradients_with_a_checkpoint(files):
    pytest.importorskip("torch")
    words = (*KNOWN, "--checkpoint", "state", "--batch", 8, "--modes", 2, "--refine-positions")
    first = run(*words, "--iterations", 2)
    assert first.exit_code == 0, first.output
    done = run(*words, "--iterations", 2, "--resume", "--overwrite")
    assert done.exit_code == 0, done.output
    assert done.stdout == first.stdout
    with xarray.open_zarr("object.zarr") as dataset:
        assert dataset.sizes["mode"] == 2


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ("no such file", ("none.npy", "--method", "epie")),
        ("no probe", ("scan.npy", "--positions", "positions.npy", "--method", "epie")),
        ("says no positions", ("scan.npy", "--probe", "probe.npy", "--method", "epie")),
        ("no method", (*KNOWN, "--method", "magic")),
        ("epie has no batch", (*KNOWN, "--method", "epie", "--batch", 4)),
        ("--scan-step x", (*KNOWN, "--scan-step", "x")),
        ("must be a picture", (*KNOWN, "--method", "epie", "--plot", "object.doc")),
        ("does not exist", (*KNOWN, "--method", "epie", "--out", "nowhere/object.zarr")),
        ("choose electron or photon", (*KNOWN, "--particle", "proton")),
        ("--energy nan", (*KNOWN, "--energy", "nan")),
        ("--memory 0.0", (*KNOWN, "--memory", 0)),
        ("not written by stemcodecs reconstruct", (*KNOWN, "--method", "epie", "--out", "scan.npy", "--overwrite")),
    ],
)
def test_refusals_are_one_line(files, message, words):
    result = run(*words)
    assert result.exit_code == 2, result.output
    lines = [line for line in result.stderr.splitlines() if line.startswith("stemcodecs: ")]
    assert message in lines[-1]
    assert result.stdout == ""


def test_without_torch(files, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    result = run(*KNOWN)
    assert result.exit_code == 2
    assert "pip install 'stemcodecs[train]'" in result.stderr


def test_scale_bars_have_round_lengths():
    assert round_length(7.3e-9) == pytest.approx(5e-9)
    assert round_length(1e-6) == pytest.approx(1e-6)
    assert spell_length(2e-9) == "2 nm"
    assert spell_length(5e-7) == "500 nm"
    assert spell_length(2e-10) == "2 Å"
    assert spell_length(5e-12) == "5 pm"


def test_slopes_are_taken_out_of_a_phase():
    y, x = np.mgrid[:20, :30]
    bump = 0.3 * np.exp(-((y - 10.0) ** 2 + (x - 15.0) ** 2) / 8)
    found = level_phase(np.exp(1j * (bump + 0.4 * y - 0.2 * x + 1)), np.ones((20, 30), bool))
    assert np.allclose(found - found.mean(), bump - bump.mean(), atol=0.02)
