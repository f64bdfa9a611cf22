"""The forward model in PyTorch, through which gradients flow: slices, probe modes and positions to intensities."""

from __future__ import annotations

from typing import Any

import numpy as np

from stemcodecs.errors import ConfigurationError
from stemcodecs_pipelines.ptychography.probe import free_flight, probe_modes
from stemcodecs_pipelines.ptychography.problem import MARGIN, PtychographyProblem
from stemcodecs_pipelines.run.torch_device import import_torch

__all__ = ["TorchModel"]

Array = np.ndarray[Any, Any]
Tensor = Any


class TorchModel:
    """Unknowns of a problem as tensors, and the intensities that follow from them.

    Attributes
    ----------
    slices : tensor, float32, (slice, y, x, 2)
        Real and imaginary part of the object, starting from an empty one.
    probe : tensor, float32, (mode, n, n, 2)
        Probe over `scale`, so that one rate of descent suits all data.
    offsets : tensor, float32, (position, 2)
        Refined minus given positions, in pixels.
    """

    def __init__(
        self,
        problem: PtychographyProblem,
        *,
        mean_counts: float,
        modes: int,
        slices: int,
        slice_thickness: float,
        refine_positions: bool,
        device: Any,
    ) -> None:
        torch = import_torch()
        self._torch = torch
        self.problem, self.device = problem, device
        probe = probe_modes(problem.probe, modes)
        probe = probe * np.sqrt(mean_counts / (np.abs(probe) ** 2).sum())
        self.scale = float(np.abs(probe).max())
        empty = torch.zeros((slices, *problem.object_shape, 2), dtype=torch.float32, device=device)
        empty[..., 0] = 1.0
        self.slices: Tensor = empty.requires_grad_()
        start = torch.as_tensor((probe / self.scale).astype(np.complex64), device=device)
        self.probe: Tensor = torch.view_as_real(start).clone().requires_grad_()
        self.offsets: Tensor = torch.zeros((problem.count, 2), dtype=torch.float32, device=device)
        self.offsets.requires_grad_(refine_positions)
        self.valid: Tensor = torch.as_tensor(np.fft.ifftshift(problem.mask).copy(), device=device)
        self._positions: Tensor = torch.as_tensor(problem.positions, device=device)
        self._line: Tensor = torch.arange(problem.side, device=device)
        self._frequencies: Tensor = torch.fft.fftfreq(problem.side, device=device)
        self._flight: Tensor = None
        if slices > 1:
            flight = free_flight(problem.side, slice_thickness, _known(problem.pixel_size), _known(problem.wavelength))
            self._flight = torch.as_tensor(flight.astype(np.complex64), device=device)

    def intensities(self, numbers: Array) -> Tensor:
        """Modelled counts of some positions, zero frequency in the corner; float32, (position, n, n)."""
        torch = self._torch
        chosen = torch.as_tensor(numbers, device=self.device)
        offsets = torch.nn.functional.embedding(chosen, self.offsets, sparse=self.offsets.requires_grad)
        positions = self._positions[chosen]
        # The window moves in whole pixels, which has no gradient; the rest is a phase ramp, which has.
        corners = torch.floor(positions + offsets.detach())
        fractions = (positions - corners).float() + offsets
        corners = corners.long()
        rows, columns = corners[:, :1] + self._line, corners[:, 1:] + self._line
        angles = -2.0 * torch.pi * fractions[:, :, None] * self._frequencies
        ramps = torch.polar(torch.ones_like(angles), angles)
        probe = torch.fft.fft2(torch.view_as_complex(self.probe) * self.scale)
        ramp = ramps[:, 0, :, None] * ramps[:, 1, None, :]
        waves = torch.fft.ifft2(probe[None] * ramp[:, None])
        for number, layer in enumerate(torch.view_as_complex(self.slices)):
            if number:
                waves = torch.fft.ifft2(torch.fft.fft2(waves) * self._flight)
            waves = waves * layer[rows[:, :, None], columns[:, None, :]][:, None]
        far = torch.fft.fft2(waves, norm="ortho")
        return (far.real.square() + far.imag.square()).sum(dim=1)

    def total_variation(self) -> Tensor:
        """Mean modulus of the differences between neighbouring object pixels."""
        y = self.slices[:, 1:, :-1] - self.slices[:, :-1, :-1]
        x = self.slices[:, :-1, 1:] - self.slices[:, :-1, :-1]
        # The small number keeps the gradient finite where the object is flat.
        return (y.square().sum(-1) + x.square().sum(-1) + 1e-8).sqrt().mean()

    def centre_offsets(self) -> None:
        """Take out the mean of the offsets, which only moves the object, and keep the windows inside it."""
        with self._torch.no_grad():
            self.offsets -= self.offsets.mean(dim=0)
            self.offsets.clamp_(-MARGIN + 1, MARGIN - 1)

    def positions(self) -> Array:
        """Positions with what was refined; float64, (position, 2)."""
        return np.asarray(self.problem.positions + self.offsets.detach().cpu().numpy().astype(np.float64))


def _known(value: float | None) -> float:
    if value is None:
        raise ConfigurationError(
            "several slices need the object pixel and the wavelength; give energy and detector, or both"
        )
    return value
