"""Networks that give back the frames of a measurement, in torch: for training only, decoding runs their export.

Every network takes what :func:`stemcodecs.temporal.network_input.network_input` makes of a measurement, so that the two
sides cannot differ: the measurement over its number of open frames, shifted and scaled, (n, 1, y, x), and the masks,
(1, frames, y, x). It gives the frames in the same units, (n, frames, y, x). Rows and columns are multiples of 4.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["CompactNetwork"]


class _ResidualBlock(nn.Module):
    """Two convolutions beside the identity, which is what it begins as."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(self.second.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.second(nn.functional.gelu(self.first(x)))
        return out


class _UNet(nn.Module):
    """A U-Net of two scales, at a half and at a quarter of the resolution, with the frames as channels."""

    def __init__(self, channels: int, frames: int, width: int, inner: int) -> None:
        super().__init__()
        # As pixels folded into channels and a kernel of 3, in one convolution.
        self.enter = nn.Conv2d(channels, width, 6, stride=2, padding=2)
        self.before, self.after = _ResidualBlock(width), _ResidualBlock(width)
        self.down = nn.Conv2d(width, inner, 2, stride=2)
        self.middle = nn.Sequential(_ResidualBlock(inner), _ResidualBlock(inner))
        self.up = nn.ConvTranspose2d(inner, width, 2, stride=2)
        self.leave = nn.Conv2d(width, 4 * frames, 3, padding=1)
        with torch.no_grad():
            # The first steps then begin near the measurement itself.
            self.leave.weight.mul_(0.1)
            nn.init.zeros_(self.leave.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        high = self.before(nn.functional.gelu(self.enter(x)))
        low = self.middle(nn.functional.gelu(self.down(high)))
        return nn.functional.pixel_shuffle(self.leave(self.after(high + self.up(low))), 2)


class CompactNetwork(nn.Module):
    """Generalised alternating projection, unrolled, with a small U-Net after each projection.

    Parameters
    ----------
    frames : int
        Frames B of a measurement.
    stages : int
        Projections.
    width, inner : int
        Channels at a half and at a quarter of the resolution.
    """

    def __init__(self, frames: int, stages: int = 2, width: int = 48, inner: int = 64) -> None:
        super().__init__()
        self.frames = frames
        self.stages = nn.ModuleList([_UNet(2 * frames + 1, frames, width, inner) for _ in range(stages)])
        self.step = nn.Parameter(torch.ones(stages))

    def forward(self, measured: Tensor, masks: Tensor) -> Tensor:
        opened = masks.sum(1, keepdim=True).clamp(min=1)
        masks = masks.expand(measured.shape[0], -1, -1, -1)
        frames = measured.expand(-1, self.frames, -1, -1)
        for number, stage in enumerate(self.stages):
            # Onto the frames that would have been measured so; all in units of a frame.
            missing = measured - (masks * frames).sum(1, keepdim=True) / opened
            frames = frames + self.step[number] * masks * missing
            frames = frames + stage(torch.cat([frames, measured, masks], 1))
        return frames
