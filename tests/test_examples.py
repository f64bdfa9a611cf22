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
        "movie_in_tenths.py",
        "on_detector_ladder.py",
        "quantize_ladder.py",
        "simulate_and_compress.py",
        "whole_scan.py",
    }


@pytest.mark.slow
def test_simulate_and_compress(tmp_path):
    assert "every value the same" in run("simulate_and_compress.py", tmp_path)


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
def test_quantize_ladder(tmp_path):
    assert "r = 0.1" in run("quantize_ladder.py", tmp_path)


@pytest.mark.campaign
def test_on_detector_ladder(tmp_path):
    pytest.importorskip("matplotlib")
    output = run("on_detector_ladder.py", tmp_path, "ladder.png")
    errors = [float(x) for x in output.split("mismatched training:")[1].splitlines()[0].split(",")]
    assert len(errors) == 5
    assert max(errors) < 0.9
    assert (tmp_path / "ladder.png").stat().st_size > 10_000
