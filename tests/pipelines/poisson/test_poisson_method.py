"""``compress --method poisson``: guarantee in the store, every value checked, and the report of ``verify``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import zarr
from typer.testing import CliRunner

from stemcodecs.errors import ConfigurationError
from stemcodecs.quantize import PoissonQuantizer
from stemcodecs.quantize.guarantee import Deviation
from stemcodecs_pipelines.cli import app
from stemcodecs_pipelines.methods.registry import parse_method


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    values = np.random.default_rng(0).poisson(0.5, (12, 12, 24, 24)).astype(np.uint16)
    values[3, 4, 5, 6] = 65535
    values[7, :, :, :] = 0
    np.save(tmp_path / "scan.npy", values)
    return tmp_path / "scan.npy"


def run(*arguments: str | Path) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    return result.exit_code, result.output


@pytest.mark.slow
def test_compress_and_verify(scan: Path, tmp_path: Path) -> None:
    store = tmp_path / "out.zarr"
    code, output = run("compress", scan, store, "--method", "poisson", "--r", "0.5", "--chunk", "8,8")
    assert code == 0, output
    attributes = zarr.open_group(store, mode="r").attrs["stemcodecs"]
    assert isinstance(attributes, dict)
    assert "≤ 0.5 σ for every value" in str(attributes["guarantee"])
    code, output = run("verify", scan, store)
    assert code == 0
    assert "the bound holds for 82944 values" in output
    assert "1 values kept exactly" in output
    source, decoded = np.load(scan), np.asarray(zarr.open_group(store, mode="r")["data"])
    assert decoded[3, 4, 5, 6] == 65535
    deviation = Deviation.of(source, decoded, PoissonQuantizer(r=0.5))
    assert deviation.violations == 0
    assert abs(deviation.bias) <= 0.002
    assert deviation.summary() in output


def test_verify_finds_a_value_beyond_the_bound(scan: Path, tmp_path: Path) -> None:
    store = tmp_path / "out.zarr"
    run("compress", scan, store, "--method", "poisson:decoder=midpoint", "--preset", "huang-191")
    other = np.load(scan)
    other[9, 8, 7, 6] += 40
    np.save(tmp_path / "other.npy", other)
    code, output = run("verify", tmp_path / "other.npy", store)
    assert code == 2
    assert "(9, 8, 7, 6)" in output
    assert "breaks its bound" in output


@pytest.mark.slow
def test_fixed_width_stream(scan: Path, tmp_path: Path) -> None:
    store = tmp_path / "out.zarr"
    method = "poisson:preset=huang-511,saturation=16384,bits=9"
    code, output = run("compress", scan, store, "--method", method)
    assert code == 0, output
    assert "9.00" in output  # bits per pixel, of 16
    assert "the bound holds" in run("verify", scan, store)[1]


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("poisson:bits=9,decoder=centroid", "leave out decoder"),
        ("poisson:bits=x", "whole number"),
        ("poisson:q=1", "no option 'q'"),
        ("poisson:r=0", "must be positive"),
        ("poisson:offset=a", "whole number"),
        ("poisson:preset=huang-255,r=1", "fixes its bound"),
    ],
)
def test_unusable_options(method: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        parse_method(method)


def test_values_that_are_no_counts_stop_the_run(tmp_path: Path) -> None:
    np.save(tmp_path / "scan.npy", np.random.default_rng(0).normal(9, 1, (4, 4, 8, 8)).astype(np.float32))
    code, output = run("compress", tmp_path / "scan.npy", tmp_path / "out.zarr", "--method", "poisson")
    assert code == 2
    assert "no gain of their pixels makes them counts" in output
