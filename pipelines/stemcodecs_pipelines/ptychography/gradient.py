"""Reconstruction by gradient descent, the gradients by automatic differentiation.

After Kandel et al. 2019 (arXiv:1902.03920) and Adorym (Du et al. 2021, doi:10.1364/OE.418296): the forward model is
written down once, PyTorch differentiates it, Adam descends. Needs the extra ``train``.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from stemcodecs.errors import ConfigurationError
from stemcodecs_pipelines.ptychography.amplitudes import Amplitudes
from stemcodecs_pipelines.ptychography.checkpoint import load_checkpoint, save_checkpoint
from stemcodecs_pipelines.ptychography.problem import MARGIN, PtychographyProblem
from stemcodecs_pipelines.ptychography.reconstruction import Reconstruction
from stemcodecs_pipelines.ptychography.torch_model import TorchModel
from stemcodecs_pipelines.run.torch_device import choose_device, import_torch

__all__ = ["GradientSettings", "gradient_descent"]

Array = np.ndarray[Any, Any]
Progress = Callable[[int, int, float], None]
Loss = Literal["amplitude", "poisson"]

FINAL_RATE = 0.175
"""Rates at the end over those at the start."""


@dataclass(frozen=True, kw_only=True)
class GradientSettings:
    """How the descent runs.

    Attributes
    ----------
    iterations : int
        Passes over all patterns.
    modes : int
        Probe modes.
    loss : {"amplitude", "poisson"}
        Mean of (√I − √N)², or of I − N ln I, over measured pixels.
    batch : int
        Patterns a step.
    object_rate, probe_rate : float
        Steps of Adam at the start, in units of an empty object and of the probe's largest value.
    refine_positions : bool
        Let the positions move, by up to seven pixels.
    position_rate : float
        Step of Adam in pixels.
    slices : int
        Slices of a thick object.
    slice_thickness : float
        Distance of slices in metres.
    total_variation : float
        Weight of the mean modulus of the object's differences, in counts.
    seed : int
        Fixes the order of the patterns.
    device : str, optional
        Such as ``"cpu"`` or ``"cuda:1"``; by default CUDA where PyTorch finds it.
    """

    iterations: int = 24
    modes: int = 1
    loss: Loss = "amplitude"
    batch: int = 32
    object_rate: float = 0.05
    probe_rate: float = 0.01
    refine_positions: bool = False
    position_rate: float = 0.1
    slices: int = 1
    slice_thickness: float = 0.0
    total_variation: float = 0.0
    seed: int = 0
    device: str | None = None

    def __post_init__(self) -> None:
        if self.loss not in ("amplitude", "poisson"):
            raise ConfigurationError(f"no loss {self.loss!r}; choose amplitude or poisson")
        if min(self.iterations, self.modes, self.batch, self.slices) < 1:
            raise ConfigurationError("iterations, modes, batch and slices must be at least 1")
        if min(self.object_rate, self.position_rate) <= 0 or min(self.probe_rate, self.total_variation) < 0:
            raise ConfigurationError("rates must be positive, and the weight of the total variation not negative")
        if (self.slices > 1) != (self.slice_thickness > 0):
            raise ConfigurationError("several slices need their distance, and a distance needs several slices")


def gradient_descent(
    problem: PtychographyProblem,
    settings: GradientSettings | None = None,
    *,
    amplitudes: Amplitudes | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    resume: bool = False,
    progress: Progress = lambda done, total, error: None,
) -> Reconstruction:
    """Reconstruct object, probe modes and, where asked for, positions.

    The same settings on the same machine give the same result on a CPU, interrupted and resumed or not.

    Parameters
    ----------
    problem : PtychographyProblem
        What was measured.
    settings : GradientSettings
        How.
    amplitudes : Amplitudes, optional
        The problem's patterns where they have been read already.
    checkpoint : path, optional
        File in which the state after each iteration is kept.
    resume : bool
        Go on from the checkpoint.
    progress : callable
        Called after each iteration with the iterations done, all of them, and the error.

    Raises
    ------
    ConfigurationError
        PyTorch is not installed, or the checkpoint belongs to other settings.
    """
    settings = settings or GradientSettings()
    torch = import_torch("reconstruction by gradients", "choose --method epie")
    device = choose_device(settings.device)
    _check_room(problem, settings)
    amplitudes = amplitudes or Amplitudes(problem)
    model = TorchModel(
        problem,
        mean_counts=amplitudes.mean_counts(),
        modes=settings.modes,
        slices=settings.slices,
        slice_thickness=settings.slice_thickness,
        refine_positions=settings.refine_positions,
        device=device,
    )
    adam = torch.optim.Adam(
        [
            {"params": [model.slices], "lr": settings.object_rate},
            {"params": [model.probe], "lr": settings.probe_rate},
        ]
    )
    optimizers = [adam]
    if settings.refine_positions:
        # Each position is met once in a pass: only then may its averages move.
        optimizers.append(torch.optim.SparseAdam([model.offsets], lr=settings.position_rate))
    errors: list[float] = []
    what = {**asdict(settings), "problem": [*problem.object_shape, problem.side, problem.count]}
    if resume:
        errors = load_checkpoint(checkpoint, what, model, optimizers)
    for iteration in range(len(errors), settings.iterations):
        rate = FINAL_RATE ** (iteration / settings.iterations)
        for optimizer, rates in zip(
            optimizers, ([settings.object_rate, settings.probe_rate], [settings.position_rate]), strict=False
        ):
            for group, first in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = first * rate
        generator = np.random.default_rng([settings.seed, iteration])
        misfit = sum(
            _step(torch, model, optimizers, settings, numbers, measured)
            for numbers, measured in _batches(amplitudes, generator, settings.batch)
        )
        if settings.refine_positions:
            model.centre_offsets()
        errors.append(misfit / amplitudes.total_counts)
        if checkpoint is not None:
            save_checkpoint(checkpoint, what, model, optimizers, errors)
        progress(iteration + 1, settings.iterations, errors[-1])
    with torch.no_grad():
        final = sum(
            _misfit(torch, model, numbers, torch.as_tensor(measured, device=device))
            for numbers, measured in _batches(amplitudes, np.random.default_rng(0), settings.batch)
        )
    return Reconstruction.of(
        problem,
        torch.view_as_complex(model.slices.detach()).cpu().numpy(),
        torch.view_as_complex(model.probe.detach()).cpu().numpy() * np.float32(model.scale),
        model.positions(),
        errors,
        final / amplitudes.total_counts,
        f"gradient descent, {settings.loss} loss, {settings.iterations} iterations, {settings.modes} modes",
    )


def working_bytes(problem: PtychographyProblem, settings: GradientSettings) -> int:
    """Memory of unknowns, Adam's averages and one step, beside the patterns; measured on the CPU."""
    unknowns = settings.slices * problem.object_shape[0] * problem.object_shape[1] + settings.modes * problem.side**2
    wave = 8 * settings.batch * settings.modes * problem.side**2
    return 6 * 8 * unknowns + (11 + 5 * settings.slices) * wave


def _check_room(problem: PtychographyProblem, settings: GradientSettings) -> None:
    if not settings.refine_positions:
        return
    last = np.floor(problem.positions).astype(int) + problem.side + MARGIN
    if (problem.positions < MARGIN).any() or (last > np.array(problem.object_shape)).any():
        raise ConfigurationError(
            f"refined positions need {MARGIN} object pixels around the scan; enlarge the object, or leave out its shape"
        )


def _batches(amplitudes: Amplitudes, generator: np.random.Generator, size: int) -> Any:
    for numbers, measured in amplitudes.segments(generator):
        order = generator.permutation(len(numbers))
        for chosen in np.array_split(order, max(1, round(len(order) / size))):
            yield numbers[chosen], measured[chosen]


def _step(
    torch: Any, model: TorchModel, optimizers: list[Any], settings: GradientSettings, numbers: Array, batch: Array
) -> float:
    """One batch: its error before the step."""
    measured = torch.as_tensor(batch, device=model.device)
    intensities = model.intensities(numbers)
    # The root has no finite slope at zero.
    difference = (torch.sqrt(intensities + 1e-6) - measured) * model.valid
    squares = difference.square()
    if settings.loss == "amplitude":
        loss = squares.mean()
    else:
        loss = ((intensities - measured.square() * torch.log(intensities + 1e-2)) * model.valid).mean()
    if settings.total_variation:
        loss = loss + settings.total_variation * model.total_variation()
    for optimizer in optimizers:
        optimizer.zero_grad()
    loss.backward()
    for optimizer in optimizers:
        optimizer.step()
    return float(squares.detach().sum(dtype=torch.float64))


def _misfit(torch: Any, model: TorchModel, numbers: Array, measured: Any) -> float:
    difference = (model.intensities(numbers).sqrt() - measured) * model.valid
    return float(difference.square().sum(dtype=torch.float64))
