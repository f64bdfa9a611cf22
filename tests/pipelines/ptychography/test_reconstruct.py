"""Both methods find the object; what else they promise."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest

from stemcodecs.errors import ConfigurationError, SourceError
from stemcodecs.metrics import phase_mse
from stemcodecs_pipelines.ptychography import pattern_source
from stemcodecs_pipelines.ptychography.forward import diffraction_patterns, thick_patterns
from stemcodecs_pipelines.ptychography.probe import free_flight, probe_modes
from stemcodecs_pipelines.ptychography.problem import PtychographyProblem
from stemcodecs_pipelines.ptychography.reconstruct import describe_memory, reconstruct
from tests.pipelines.ptychography.simulated import PIXEL, SIDE, WAVELENGTH, first_probe, phantom, simulated


def error_of(result, truth, problem):
    return phase_mse(result.object, truth, problem.covered(0.5))


def noise_error(problem, truth):
    """Amplitude error of the true object: that of the noise."""
    energy = problem.patterns.read((slice(0, problem.count),)).reshape(problem.count, -1).sum(1).mean()
    model = diffraction_patterns(truth, problem.probe[0] * np.sqrt(energy), problem.positions)
    counts = problem.patterns.read((slice(0, problem.count),))
    return float(np.square(np.sqrt(model) - np.sqrt(counts)).sum() / counts.sum())


def test_epie_finds_the_object():
    problem, truth = simulated()
    seen = []
    result = reconstruct(problem, "epie", iterations=15, progress=lambda *step: seen.append(step))
    assert error_of(result, truth, problem) < 2e-3
    assert result.error < 2 * noise_error(problem, truth)
    assert [step[:2] for step in seen] == [(i + 1, 15) for i in range(15)]
    assert np.array_equal([step[2] for step in seen], result.errors)
    assert np.abs(result.object[result.covered]).mean() == pytest.approx(1, abs=1e-3)
    assert np.array_equal(result.object, reconstruct(problem, "epie", iterations=15).object)


@pytest.mark.parametrize("loss", ["amplitude", "poisson"])
def test_gradients_find_the_object(loss):
    pytest.importorskip("torch")
    problem, truth = simulated()
    result = reconstruct(problem, "gradient", loss=loss, batch=8)
    assert error_of(result, truth, problem) < 1e-3
    assert result.error < 1.3 * noise_error(problem, truth)
    assert result.errors[-1] < result.errors[0] / 10


def test_the_torch_model_is_the_numpy_one():
    torch = pytest.importorskip("torch")
    from stemcodecs_pipelines.ptychography.torch_model import TorchModel

    problem, truth = simulated(noise_seed=None)
    problem = replace(problem, probe=probe_modes(problem.probe, 2))
    made = {"modes": 2, "slices": 2, "slice_thickness": 3e-9, "refine_positions": False, "device": "cpu"}
    model = TorchModel(problem, mean_counts=1e5, **made)
    layers = np.stack([truth, phantom(problem.object_shape, seed=1)]).astype(np.complex64)
    model.slices = torch.view_as_real(torch.as_tensor(layers))
    probe = problem.probe * np.sqrt(1e5 / (np.abs(problem.probe) ** 2).sum())
    flight = free_flight(SIDE, 3e-9, PIXEL, WAVELENGTH)
    numbers = np.array([0, 7, 33])
    expected = thick_patterns(layers, probe, problem.positions[numbers], flight)
    found = np.fft.fftshift(model.intensities(numbers).detach().numpy(), axes=(1, 2))
    assert np.allclose(found, expected, rtol=1e-3, atol=1e-3 * expected.max())


def test_gradients_are_those_of_finite_differences():
    torch = pytest.importorskip("torch")
    from stemcodecs_pipelines.ptychography.torch_model import TorchModel

    problem, _ = simulated()
    made = {"modes": 1, "slices": 1, "slice_thickness": 0.0, "refine_positions": True, "device": "cpu"}
    model = TorchModel(problem, mean_counts=1.0, **made)
    with torch.no_grad():
        model.slices.copy_(
            torch.view_as_real(torch.as_tensor(phantom(problem.object_shape)[None].astype(np.complex64)))
        )
    weight = torch.as_tensor(np.random.default_rng(0).random((1, SIDE, SIDE)))

    def loss():
        return (model.intensities(np.array([40])).double() * weight).sum()

    loss().backward()
    offsets = model.offsets.grad.to_dense()
    for unknown, gradient, place in (
        (model.slices, model.slices.grad, (0, 36, 35, 1)),
        (model.probe, model.probe.grad, (0, 12, 11, 0)),
        (model.offsets, offsets, (40, 1)),
    ):
        with torch.no_grad():
            step = 0.02
            unknown[place] += step
            up = loss()
            unknown[place] -= 2 * step
            down = loss()
            unknown[place] += step
        assert float(gradient[place]) == pytest.approx(float((up - down) / (2 * step)), rel=0.03, abs=1e-5)


@pytest.mark.parametrize("method", ["epie", "gradient"])
def test_masked_pixels_do_not_count(method):
    if method == "gradient":
        pytest.importorskip("torch")
    problem, truth = simulated()
    mask = np.ones((SIDE, SIDE), bool)
    mask[10] = mask[14, 6] = False
    counts = np.where(mask, problem.patterns.read((slice(0, problem.count),)), 65535)
    given = {"pixel_size": PIXEL, "wavelength": WAVELENGTH, "mask": mask}
    masked = PtychographyProblem.of(counts, problem.positions, problem.probe, **given)
    settings = {"batch": 8} if method == "gradient" else {}
    result = reconstruct(masked, method, **settings)
    assert phase_mse(result.object, truth, problem.covered(0.5)) < 5e-3


@pytest.mark.slow
def test_several_modes_explain_a_partly_coherent_beam():
    pytest.importorskip("torch")
    problem, truth = simulated()
    beam = probe_modes(first_probe()[None], 2)
    rate = diffraction_patterns(truth, beam * np.sqrt(1e5), problem.positions)
    counts = np.random.default_rng(1).poisson(rate)
    mixed = problem.with_patterns(counts)
    one, two = (reconstruct(mixed, "gradient", modes=m, batch=8) for m in (1, 2))
    assert two.error < 0.6 * one.error
    assert two.probe_shares[1] == pytest.approx(0.09 / 1.09, rel=0.3)
    assert error_of(two, truth, problem) < error_of(one, truth, problem)
    # Orthogonal, as modes are made to be.
    assert np.abs((two.probe[0] * two.probe[1].conj()).sum()) < 1e-3 * (np.abs(two.probe[0]) ** 2).sum()
    assert reconstruct(mixed, "epie", modes=2, iterations=10).error < reconstruct(mixed, "epie", iterations=10).error


@pytest.mark.slow
def test_positions_are_found():
    pytest.importorskip("torch")
    problem, _ = simulated()
    wrong = np.random.default_rng(5).normal(0, 1 / np.sqrt(2), problem.positions.shape)
    start = PtychographyProblem.of(problem.patterns, problem.positions + wrong, problem.probe)
    result = reconstruct(start, "gradient", refine_positions=True, iterations=40, batch=8)
    rest = result.positions - problem.positions
    rest -= rest.mean(axis=0)
    assert np.sqrt((rest**2).sum(axis=1).mean()) < 0.15
    assert result.error < 0.5 * reconstruct(start, "gradient", iterations=40, batch=8).error


@pytest.mark.slow
def test_two_slices_explain_a_thick_object():
    pytest.importorskip("torch")
    problem, _ = simulated()
    layers = np.stack([phantom(problem.object_shape, 0.4, seed=s) for s in (1, 2)])
    rate = 1e5 * thick_patterns(layers, first_probe(), problem.positions, free_flight(SIDE, 5e-9, PIXEL, WAVELENGTH))
    thick = problem.with_patterns(np.random.default_rng(0).poisson(rate))
    one = reconstruct(thick, "gradient", batch=8)
    two = reconstruct(thick, "gradient", batch=8, slices=2, slice_thickness=5e-9)
    assert two.error < one.error / 3
    support = problem.covered(0.5)
    assert phase_mse(two.object, layers.prod(0), support) < phase_mse(one.object, layers.prod(0), support) / 10
    assert all(phase_mse(found, layer, support) < 0.01 for found, layer in zip(two.slices, layers, strict=True))


@pytest.mark.slow
def test_total_variation_smooths():
    pytest.importorskip("torch")
    problem, _ = simulated(dose=300.0)
    rough, smooth = (reconstruct(problem, "gradient", batch=8, total_variation=w).object for w in (0.0, 5.0))

    def variation(image):
        return np.abs(np.diff(image, axis=0)).mean()

    assert variation(smooth) < 0.8 * variation(rough)


def test_a_resumed_run_is_the_same_run(tmp_path):
    torch = pytest.importorskip("torch")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        problem, _ = simulated()
        settings = {"iterations": 4, "batch": 8, "refine_positions": True}
        whole = reconstruct(problem, "gradient", **settings)

        class Killed(Exception):
            pass

        def kill(done, total, error):
            if done == 2:
                raise Killed

        place = tmp_path / "state"
        with pytest.raises(Killed):
            reconstruct(problem, "gradient", checkpoint=place, progress=kill, **settings)
        resumed = reconstruct(problem, "gradient", checkpoint=place, resume=True, **settings)
        assert np.array_equal(whole.object, resumed.object)
        assert np.array_equal(whole.positions, resumed.positions)
        assert np.array_equal(whole.errors, resumed.errors)
        with pytest.raises(ConfigurationError, match="made with another batch"):
            reconstruct(problem, "gradient", checkpoint=place, resume=True, **{**settings, "batch": 4})
        place.write_bytes(b"nothing")
        with pytest.raises(SourceError, match="not a checkpoint"):
            reconstruct(problem, "gradient", checkpoint=place, resume=True, **settings)
        with pytest.raises(ConfigurationError, match="no checkpoint"):
            reconstruct(problem, "gradient", checkpoint=tmp_path / "none", resume=True, **settings)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.slow
def test_a_scan_larger_than_memory_gives_as_good_an_object(monkeypatch):
    pytest.importorskip("torch")
    monkeypatch.setattr(pattern_source, "BLOCK_BYTES", 4 * 4 * SIDE**2)
    problem, truth = simulated()
    whole = reconstruct(problem, "gradient", batch=8)
    parts = reconstruct(problem, "gradient", batch=8, memory=24 * 4 * SIDE**2)
    assert parts.error < 1.1 * whole.error
    assert error_of(parts, truth, problem) < 1.5e-3


def test_without_torch_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    problem, _ = simulated()
    with pytest.raises(ConfigurationError, match=r"pip install 'stemcodecs\[train\]'"):
        reconstruct(problem, "gradient")
    assert reconstruct(problem, "epie", iterations=1).error < 1


def test_refusals():
    problem, _ = simulated()
    for message, method, settings in (
        ("choose gradient or epie", "magic", {}),
        ("epie has no batch", "epie", {"batch": 3}),
        ("at least 1", "epie", {"iterations": 0}),
        ("choose amplitude or poisson", "gradient", {"loss": "l1"}),
        ("several slices need their distance", "gradient", {"slices": 2}),
        ("keeps no checkpoint", "epie", {"checkpoint": "x"}),
        ("rates must be positive", "gradient", {"object_rate": 0.0}),
    ):
        with pytest.raises(ConfigurationError, match=message):
            reconstruct(problem, method, **settings)
    assert "MB in all" in describe_memory(problem, "gradient", 1 << 30)


def test_refined_positions_need_room():
    pytest.importorskip("torch")
    counts = np.ones((4, SIDE, SIDE))
    positions = [[0, 0], [0, 5], [5, 0], [5, 5]]
    problem = PtychographyProblem.of(counts, positions, first_probe(), object_shape=(40, 40))
    with pytest.raises(ConfigurationError, match="8 object pixels around"):
        reconstruct(problem, "gradient", refine_positions=True)
    with pytest.raises(ConfigurationError, match="object pixel and the wavelength"):
        reconstruct(problem, "gradient", slices=2, slice_thickness=1e-9)
    with pytest.raises(ConfigurationError, match="no device"):
        reconstruct(problem, "gradient", device="abacus")
