"""The examples run as they are and print what they promise."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


def run(name, folder, *words):
    done = subprocess.run(
        [sys.executable, "-W", "error", EXAMPLES / name, *words], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_example_is_run():
    assert {path.name for path in EXAMPLES.glob("*.py")} == {
        "judge_loss.py",
        "learned_lossless.py",
        "movie_comparison.py",
        "movie_in_tenths.py",
        "on_detector_ladder.py",
        "quantize_ladder.py",
        "rotavirus.py",
        "siemens_star.py",
        "simulate_and_compress.py",
        "tomography_self_absorption.py",
        "whole_scan.py",
    }


@pytest.mark.slow
def test_simulate_and_compress(tmp_path):
    assert "every value the same" in run("simulate_and_compress.py", tmp_path)


@pytest.mark.slow
def test_learned_lossless(tmp_path):
    lines = run("learned_lossless.py", tmp_path).splitlines()
    saved = {line.split(":")[0]: float(line.split()[-3]) for line in lines}
    assert saved.keys() == {"ptychography", "tilt series"}
    assert min(saved.values()) > 0.5


@pytest.mark.slow
def test_whole_scan(tmp_path):
    output = run("whole_scan.py", tmp_path)
    assert "every value agrees: True" in output
    assert "counts in the central pixel: {" in output


@pytest.mark.slow
def test_movie_in_tenths(tmp_path):
    output = run("movie_in_tenths.py", tmp_path)
    assert "bins: 2" in output  # more than twenty times smaller
    assert "what was measured: (4, 96, 96) of uint32" in output


@pytest.mark.slow
def test_movie_comparison(tmp_path):
    pytest.importorskip("matplotlib")
    output = run("movie_comparison.py", tmp_path)
    assert "B = 30: bins, interpolate" in output
    for name in ("movie_frames.png", "movie_quality.png"):
        assert (tmp_path / name).stat().st_size > 10_000


@pytest.mark.slow
def test_quantize_ladder(tmp_path):
    assert "r = 0.1" in run("quantize_ladder.py", tmp_path)


@pytest.mark.campaign
def test_tomography_self_absorption(tmp_path):
    for package in ("torch", "xraylib", "matplotlib"):
        pytest.importorskip(package)
    output = run("tomography_self_absorption.py", tmp_path, "tomogram.png")
    assert "with self-absorption: Fe mass × 0.99" in output
    assert "without: Fe mass × 0.7" in output
    assert (tmp_path / "tomogram.png").stat().st_size > 10_000


@pytest.mark.campaign
def test_siemens_star(tmp_path):
    for package in ("torch", "matplotlib"):
        pytest.importorskip(package)
    output = run("siemens_star.py", tmp_path)
    errors = [float(line.split("error ")[1].split(",")[0]) for line in output.splitlines()]
    assert errors[1] < errors[0] < 0.01
    assert all((tmp_path / f"star_{name}.png").stat().st_size > 10_000 for name in ("epie", "gradient"))


@pytest.mark.campaign
def test_rotavirus(tmp_path):
    for package in ("torch", "matplotlib"):
        pytest.importorskip(package)
    assert "pixel 0.921 nm, amplitude error 0.03" in run("rotavirus.py", tmp_path)
    assert (tmp_path / "rotavirus.png").stat().st_size > 10_000


@pytest.mark.campaign
def test_judge_loss(tmp_path):
    pytest.importorskip("matplotlib")
    assert run("judge_loss.py", tmp_path).count("of the dose") == 3
    assert (tmp_path / "judge_loss.png").stat().st_size > 10_000


@pytest.mark.campaign
def test_on_detector_ladder(tmp_path):
    pytest.importorskip("matplotlib")
    output = run("on_detector_ladder.py", tmp_path, "ladder.png")
    errors = [float(x) for x in output.split("mismatched training:")[1].splitlines()[0].split(",")]
    assert len(errors) == 5
    assert max(errors) < 0.9
    assert (tmp_path / "ladder.png").stat().st_size > 10_000
