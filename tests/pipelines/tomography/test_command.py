"""The command, as a user types it: counts are compressed, come back, and become densities."""

from __future__ import annotations

import numpy as np
import pytest
from typer.testing import CliRunner

from stemcodecs_pipelines.cli import app
from stemcodecs_pipelines.tomography.volume import open_volume
from tests.pipelines.test_cli import refused

pytest.importorskip("torch")
pytest.importorskip("xraylib")


def run(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


BEAM = ("--energy", 10, "--angles", "0:360", "--pixel-size", 50 / 16, "--photons", 1e7)
DETECTOR = ("--detector-distance", 16, "--detector-diameter", 9)


@pytest.fixture
def files(problem, tmp_path):
    """The measurement as .npy."""
    for name, values in zip(("ca", "fe", "t"), [*problem.counts, problem.transmission], strict=True):
        np.save(tmp_path / f"{name}.npy", values)
    return tmp_path


def words(files, *more):
    maps = (f"Ca={files / 'ca.npy'}", f"Fe-K={files / 'fe.npy'}")
    where = ("--transmission", files / "t.npy", "--out", files / "out.zarr")
    return ("tomography", *maps, *BEAM, *DETECTOR, *where, *more)


@pytest.mark.slow
def test_maps_become_densities_and_a_picture(files, phantom):
    done = run(*words(files, "--epochs", 6, "--workers", 2, "--plot", files / "out.png"))
    assert done.exit_code == 0, done.output
    assert "memory at most" in done.stderr
    assert "Ca " in done.stdout
    assert "per count after 6 epochs" in done.stdout
    fe = open_volume(files / "out.zarr").density()[1]
    assert fe.sum() == pytest.approx(phantom.density[1].sum(), rel=0.05)
    assert (files / "out.png").stat().st_size > 10_000


@pytest.mark.slow
def test_maps_that_were_compressed_do_as_well(files):
    """Stacks (angle, y, x) go through compress, and the store is a map like any other."""
    for name in ("ca", "fe"):
        done = run("compress", files / f"{name}.npy", files / f"{name}.zarr", "--method", "poisson:r=0.5")
        assert done.exit_code == 0, done.output
    maps = (f"Ca={files / 'ca.zarr'}", f"Fe={files / 'fe.zarr'}")
    where = ("--transmission", files / "t.npy", "--out", files / "out.zarr")
    done = run("tomography", *maps, *BEAM, *DETECTOR, *where, "--epochs", 1)
    assert done.exit_code == 0, done.output


def test_angles_from_files(files):
    from stemcodecs_pipelines.tomography.commands import _angles

    degrees = np.linspace(0, 360, 24, endpoint=False)
    np.save(files / "angles.npy", degrees)
    np.savetxt(files / "angles.txt", degrees)
    for text in ("0:360", str(files / "angles.npy"), str(files / "angles.txt")):
        np.testing.assert_allclose(_angles(text, 24), np.deg2rad(degrees))


@pytest.mark.parametrize(
    ("more", "parts"),
    [
        (("--angles", "nowhere.txt"), ("--angles nowhere.txt", "no list of angles")),
        (("--angles", "0:all"), ("give a range in degrees",)),
        (("--energy", 5), ("does not excite Fe-K",)),
        (("--elements", "Xx"), ("no element 'Xx'",)),
        (("--epochs", 0), ("0 epochs",)),
        (("--tv", -1), ("total_variation",)),
        (("--photons", -1), ("photons",)),
        (("--workers", 0), ("0 workers",)),
        (("--plot", "out.doc"), ("must be a picture",)),
        (("--transmission", "nothing.npy"), ("no such file",)),
    ],
)
def test_mistakes_are_one_line(files, more, parts):
    refused(run(*words(files, *more)), *parts)


def test_maps_must_be_named_and_fit(files, problem):
    refused(run("tomography", files / "ca.npy", *BEAM, *DETECTOR), "name the line that it holds")
    twice = (f"Ca={files / 'ca.npy'}", f"Ca={files / 'fe.npy'}")
    refused(run("tomography", *twice, *BEAM, *DETECTOR), "named twice")
    np.save(files / "fe.npy", problem.counts[1][:, 1:])
    refused(run(*words(files)), "give maps of one shape")
    np.save(files / "few.npy", problem.counts[1][:5])
    few = ("tomography", f"Fe={files / 'few.npy'}", *BEAM, *DETECTOR, "--out", files / "out.zarr")
    refused(run(*few), "5 angles are too few")
    assert not (files / "out.zarr").exists()
