"""Without torch or xraylib everything else works, and one line says what to install."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from typer.testing import CliRunner

from stemcodecs.errors import ConfigurationError
from stemcodecs_pipelines.cli import app
from stemcodecs_pipelines.tomography.cross_sections import cross_sections
from stemcodecs_pipelines.tomography.problem import simulate
from tests.pipelines.test_cli import refused
from tests.pipelines.tomography.specimens import geometry


def test_without_torch(phantom, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'stemcodecs\[train\]'"):
        simulate(phantom, geometry(), 10.0)


def test_without_xraylib(monkeypatch):
    monkeypatch.setitem(sys.modules, "xraylib", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'stemcodecs\[tomography\]'"):
        cross_sections(["Ca"], 10.0)


@pytest.mark.parametrize(("package", "extra"), [("torch", "train"), ("xraylib", "tomography")])
def test_the_command_says_so_in_one_line(package, extra, tmp_path, monkeypatch):
    if package != "torch":  # which is asked for first
        pytest.importorskip("torch")
    monkeypatch.setitem(sys.modules, package, None)
    np.save(tmp_path / "fe.npy", np.ones((24, 4, 16), np.uint16))
    beam = ("--energy", "10", "--angles", "0:360", "--pixel-size", "3", "--photons", "1e7")
    detector = ("--detector-distance", "16", "--detector-diameter", "9", "--out", str(tmp_path / "out.zarr"))
    done = CliRunner().invoke(app, ["tomography", f"Fe={tmp_path / 'fe.npy'}", *beam, *detector])
    refused(done, f"pip install 'stemcodecs[{extra}]'")
