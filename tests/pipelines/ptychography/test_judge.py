"""The judge tells what loss costs."""

from __future__ import annotations

import numpy as np
import pytest
import zarr

from stemcodecs.codecs.poisson_histogram import PoissonHistogram
from stemcodecs.errors import ConfigurationError
from stemcodecs_pipelines import judge
from tests.pipelines.ptychography.simulated import SIDE, simulated


@pytest.fixture(scope="module")
def case():
    problem, truth = simulated(dose=3e4, rows=7)
    return problem, truth, problem.patterns.read((slice(0, problem.count),)).astype(np.uint16)


def test_what_is_lossless_costs_nothing(case):
    problem, truth, counts = case
    steps = []
    verdict = judge(
        counts, counts.copy(), problem, "epie", iterations=5, truth=truth, progress=lambda *s: steps.append(s)
    )
    assert verdict.original.phase_mse == verdict.stored.phase_mse
    assert np.array_equal(verdict.original.image, verdict.stored.image)
    assert verdict.original.resolution == verdict.stored.resolution
    assert steps == [(i + 1, 6) for i in range(6)]
    plain = judge(counts, counts, problem, "epie", iterations=2)
    assert plain.stored.phase_mse < 1e-9
    assert plain.stored.smse < 1e-9


@pytest.mark.slow
def test_loss_costs_what_dose_costs(case, tmp_path):
    problem, truth, counts = case
    codec = PoissonHistogram(r=2)
    store = zarr.create_array(
        tmp_path / "scan.zarr", shape=counts.shape, dtype="u2", chunks=counts.shape, serializer=codec, compressors=None
    )
    store[:] = counts
    verdict = judge(counts, tmp_path / "scan.zarr", problem, "epie", iterations=5, truth=truth, dose=True)
    assert verdict.stored.phase_mse > verdict.original.phase_mse
    assert 0.05 < verdict.dose_equivalent < 0.98
    # A period of two pixels is the finest there is.
    assert 2 * problem.pixel_size <= verdict.original.resolution < 12 * problem.pixel_size
    assert verdict.original.frc.correlation[2] > 0.9
    text = verdict.describe()
    assert text.splitlines()[0].startswith("original  resolution 0.0")
    assert "the loss costs as much as measuring with" in text
    pytest.importorskip("matplotlib")
    verdict.draw(tmp_path / "judge.png")
    assert (tmp_path / "judge.png").stat().st_size > 20_000


def test_two_measurements_are_correlated_with_each_other(case):
    problem, _, counts = case
    second, _ = simulated(dose=3e4, rows=7, noise_seed=9)
    again = second.patterns.read((slice(0, problem.count),))
    whole = judge(counts, counts, problem, "epie", iterations=5, again=(again, again))
    halves = judge(counts, counts, problem, "epie", iterations=5)
    # Twice the dose and all positions.
    middle = slice(4, 20)
    assert whole.original.frc.correlation[middle].mean() > halves.original.frc.correlation[middle].mean()


def test_refusals(case):
    problem, truth, counts = case
    for message, given in (
        ("support is empty", {"support": np.zeros(problem.object_shape)}),
        ("truth of shape", {"truth": truth[1:]}),
        ("support of shape", {"support": np.ones(3)}),
    ):
        with pytest.raises(ConfigurationError, match=message):
            judge(counts, counts, problem, "epie", **given)
    with pytest.raises(ConfigurationError, match="patterns of the same scan"):
        judge(counts, counts[:, : SIDE // 2], problem, "epie")
