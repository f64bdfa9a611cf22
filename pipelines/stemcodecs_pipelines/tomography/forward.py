"""From densities to expected counts, differentiable through the self-absorption.

For voxels v of edge Δ with densities c_e(v), cross sections μ and σ and the beam along z::

    A(v)   = exp(−Δ Σ_{u upstream of v} Σ_e μ_e(E0) c_e(u))                   beam that arrives
    S_l(v) = Σ_p w_p exp(−Σ_{u on the ray from v to p} L(u) Σ_e μ_e(E_l) c_e(u))   share of line l that gets out
    y_l    = I0 Ω/4π Δ Σ_{v on the beam} A(v) c_e(v) σ_l(E0) S_l(v)            counts
    T      = exp(−Δ Σ_v Σ_e μ_e(E0) c_e(v))                                   transmission

The voxel itself counts half in both sums. The model is that of Huang et al. (github.com/hpphappy/XRF_tomography) and of
Di et al. (2017, doi:10.1364/OE.25.013107). Huang et al. take S from the estimate before; here the gradient runs
through it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np

from stemcodecs_pipelines.run.torch_device import import_torch
from stemcodecs_pipelines.tomography.cross_sections import CrossSections
from stemcodecs_pipelines.tomography.geometry import Entries, Geometry, back_from_rays, rotation, to_rays

if TYPE_CHECKING:
    import torch

__all__ = ["KEPT_BYTES", "Projector"]

Array = np.ndarray[Any, Any]

KEPT_BYTES = 256 << 20
"""Rotations that are kept rather than made again."""


class Projector:
    """Expected counts and transmission of rows of a specimen, angle by angle.

    Parameters
    ----------
    geometry : Geometry
        Beam, detector and angles.
    sections : CrossSections
        Elements and lines.
    pixels : int
        Width of a row; a section has that many voxels along x and z.
    self_absorption : bool
        False leaves S out, as if all fluorescence got out.
    dtype : torch.dtype, optional
        Default: float32.
    """

    def __init__(
        self,
        geometry: Geometry,
        sections: CrossSections,
        pixels: int,
        *,
        self_absorption: bool = True,
        dtype: torch.dtype | None = None,
    ) -> None:
        torch = import_torch()
        geometry.check_field(pixels)
        self.geometry, self.sections, self.pixels = geometry, sections, pixels
        self.self_absorption = self_absorption
        self.dtype = torch.float32 if dtype is None else dtype
        self._beam = torch.as_tensor(sections.beam, dtype=self.dtype)
        self._emitted = torch.as_tensor(sections.emitted.T.copy(), dtype=self.dtype)
        self._produced = torch.as_tensor(sections.produced, dtype=self.dtype)
        self._line_elements = torch.as_tensor(sections.line_elements)
        points, shares = geometry.detector()
        self._rays = [self._ray_grid(point, share) for point, share in zip(points, shares, strict=True)]
        entries = 4 * pixels * pixels
        kept = max(1, KEPT_BYTES // (2 * entries * (8 + torch.finfo(self.dtype).bits // 8)))
        # Not a method: with a reference to the projector among them, the tables would outlive it.
        self._rotation = lru_cache(maxsize=kept)(partial(_turned, pixels, geometry.angles, self.dtype))

    def _ray_grid(self, point: float, share: float) -> tuple[Any, Any, Any, float]:
        torch = import_torch()
        along, steps = to_rays(self.geometry, self.pixels, point)
        back = back_from_rays(self.geometry, self.pixels, point)
        lengths = torch.as_tensor(steps, dtype=self.dtype)[:, None]
        return resampling(along, self.dtype), resampling(back, self.dtype), lengths, float(share)

    def __call__(self, density: torch.Tensor, angle: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Expected counts and transmission at one angle.

        Parameters
        ----------
        density : tensor, (x·z, row, element)
            g/cm³, z running fastest in the first dimension.
        angle : int
            Index into the angles of the geometry.

        Returns
        -------
        counts : tensor, (line, row, x)
            Expected photons.
        transmission : tensor, (row, x)
            Fraction of the beam.
        """
        n, step = self.pixels, self.geometry.pixel_size
        rows, elements = density.shape[1:]
        turned = self._rotation(angle)(density.reshape(n * n, rows * elements)).reshape(n, n, rows, elements)
        beam_depth = step * (turned @ self._beam)
        arrived = (beam_depth / 2 - beam_depth.cumsum(1)).exp()  # own voxel: half
        emitted = turned[..., self._line_elements] * self._produced * arrived[..., None]
        if self.self_absorption:
            emitted = emitted * self._escaped(turned @ self._emitted)
        scale = self.geometry.photons * self.geometry.solid_angle * step
        return scale * emitted.sum(1).permute(2, 1, 0), (-beam_depth.sum(1)).exp().T

    def _escaped(self, attenuation: torch.Tensor) -> torch.Tensor:
        """Share of each line that gets out of each voxel; attenuation in 1/cm, (x, z, row, line)."""
        n = self.pixels
        flat = attenuation.reshape(n * n, -1)
        total: Any = 0
        for along, back, lengths, share in self._rays:
            depth = along(flat).reshape(n, -1, flat.shape[1]) * lengths
            # From the far side on: what is left of the whole ray, and half of the voxel itself.
            to_detector = depth.sum(0, keepdim=True) - depth.cumsum(0) + depth / 2
            total = total + share * (-back(to_detector.reshape(-1, flat.shape[1]))).exp()
        escaped: torch.Tensor = total.reshape(attenuation.shape)
        return escaped


def _turned(pixels: int, angles: Array, dtype: torch.dtype, angle: int) -> Callable[[torch.Tensor], torch.Tensor]:
    return resampling(rotation(pixels, float(angles[angle])), dtype)


def resampling(entries: Entries, dtype: torch.dtype) -> Callable[[torch.Tensor], torch.Tensor]:
    """A sparse matrix as a function of tensors of shape (source, column), with a gradient.

    Torch's own gradient of such a gather scatters rows one by one; the transposed matrix, made once, gathers them.
    """
    there = _Bags.of(entries.target, entries.source, entries.weight, entries.shape[0], dtype)
    back = _Bags.of(entries.source, entries.target, entries.weight, entries.shape[1], dtype)
    gather = _gather()

    def function(values: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = gather.apply(values, there, back)
        return result

    return function


@dataclass(frozen=True)
class _Bags:
    """Entries of a sparse matrix sorted by target: sources, where those of each target begin, and weights."""

    source: torch.Tensor
    starts: torch.Tensor
    weight: torch.Tensor

    @classmethod
    def of(cls, target: Array, source: Array, weight: Array, targets: int, dtype: torch.dtype) -> _Bags:
        torch = import_torch()
        order = np.argsort(target, kind="stable")
        starts = np.concatenate([[0], np.cumsum(np.bincount(target, minlength=targets))[:-1]])
        return cls(
            torch.as_tensor(source[order].astype(np.int64)),
            torch.as_tensor(starts.astype(np.int64)),
            torch.as_tensor(weight[order], dtype=dtype),
        )

    def sums(self, values: torch.Tensor) -> torch.Tensor:
        """Weighted sums of rows."""
        functional = import_torch().nn.functional
        result: torch.Tensor = functional.embedding_bag(
            self.source, values.contiguous(), self.starts, mode="sum", per_sample_weights=self.weight
        )
        return result


@cache
def _gather() -> Any:
    """The autograd function of `resampling`: a class that torch must be there for."""
    torch = import_torch()

    class Gather(torch.autograd.Function):  # type: ignore[misc, name-defined]
        @staticmethod
        def forward(context: Any, values: Any, there: _Bags, back: _Bags) -> Any:
            context.back = back
            return there.sums(values)

        @staticmethod
        def backward(context: Any, gradient: Any) -> Any:
            return context.back.sums(gradient), None, None

    return Gather
