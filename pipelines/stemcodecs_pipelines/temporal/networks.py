"""Networks that give back the frames of a measurement, in torch: for training only, decoding runs their export.

Every network takes what :func:`stemcodecs.temporal.network_input.network_input` makes of a measurement, so that the two
sides cannot differ: the measurement over how many values it sums, shifted and scaled, (n, planes, rows, columns), and
of masked frames the masks, (1, frames, y, x). It gives the frames in the same units, (n, frames, y, x). Rows and
columns of frames are multiples of 4. ``estimates`` gives what the loss is the mean of.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from stemcodecs.temporal.interpolate import between_bins
from stemcodecs.temporal.sampling import Sampling

__all__ = ["ALIGNED", "BinsNetwork", "CompactNetwork", "UNet"]

ALIGNED = 8
"""Channels that onnxruntime takes at once: where they are no multiple of it, a convolution takes twice the time."""


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


class UNet(nn.Module):
    """A U-Net of two scales, at a half and at a quarter of the resolution, with the frames as channels.

    Parameters
    ----------
    channels : int
        Of what is given; they are filled up to a multiple of ``ALIGNED`` by more of the measurement.
    frames : int
        Channels of what comes out.
    width, inner : int
        Channels at a half and at a quarter of the resolution.
    """

    def __init__(self, channels: int, frames: int, width: int, inner: int) -> None:
        super().__init__()
        # As pixels folded into channels and a kernel of 3, in one convolution.
        self.spare = -channels % ALIGNED
        self.enter = nn.Conv2d(channels + self.spare, width, 6, stride=2, padding=2)
        self.before, self.after = _ResidualBlock(width), _ResidualBlock(width)
        self.down = nn.Conv2d(width, inner, 2, stride=2)
        self.middle = nn.Sequential(_ResidualBlock(inner), _ResidualBlock(inner))
        self.up = nn.ConvTranspose2d(inner, width, 2, stride=2)
        self.leave = nn.Conv2d(width, 4 * frames, 3, padding=1)
        with torch.no_grad():
            # The first steps then begin near the measurement itself.
            self.leave.weight.mul_(0.1)
            nn.init.zeros_(self.leave.bias)  # type: ignore[arg-type]

    def forward(self, measured: Tensor, *others: Tensor) -> Tensor:
        x = torch.cat([*others, *[measured] * (1 + self.spare)], 1)
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
        given = [frames + 1] + [2 * frames + 1] * (stages - 1)
        self.stages = nn.ModuleList([UNet(channels, frames, width, inner) for channels in given])
        self.step = nn.Parameter(torch.ones(stages - 1))

    def estimates(self, measured: Tensor, masks: Tensor) -> tuple[Tensor]:
        """The frames."""
        return (self(measured, masks),)

    def forward(self, measured: Tensor, masks: Tensor) -> Tensor:
        opened = masks.sum(1, keepdim=True).clamp(min=1)
        masks = masks.expand(measured.shape[0], -1, -1, -1)
        # The measurement as every frame would have been measured so: the first projection is done.
        frames: Tensor = measured + self.stages[0](measured, masks)
        for step, stage in zip(self.step, self.stages[1:], strict=True):
            # Onto the frames that would have been measured so; all in units of a frame.
            missing = measured - (masks * frames).sum(1, keepdim=True) / opened
            frames = frames + step * masks * missing
            frames = frames + stage(measured, frames, masks)
        return frames


class BinsNetwork(nn.Module):
    """Interpolation of bins, and a U-Net at the resolution of the bins that adds what it misses.

    Parameters
    ----------
    sampling : Sampling
        Bins; those of 2 × 2 pixels only.
    width, inner : int
        Channels at a half and at a quarter of the resolution of the frames.
    """

    def __init__(self, sampling: Sampling, width: int = 48, inner: int = 64) -> None:
        super().__init__()
        planes, channels = sampling.time_bins, 4 * sampling.frames
        self.base = nn.Conv2d(planes, channels, 5, padding=2, padding_mode="replicate", bias=False)
        with torch.no_grad():
            self.base.weight.copy_(_interpolation(sampling))
        self.enter = nn.Conv2d(planes, width, 3, padding=1)
        self.before, self.after = _ResidualBlock(width), _ResidualBlock(width)
        self.down = nn.Conv2d(width, inner, 2, stride=2)
        self.middle = nn.Sequential(_ResidualBlock(inner), _ResidualBlock(inner))
        self.up = nn.ConvTranspose2d(inner, width, 2, stride=2)
        self.leave = nn.Conv2d(width, channels, 3, padding=1)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)  # type: ignore[arg-type]

    def estimates(self, measured: Tensor) -> tuple[Tensor]:
        """The frames."""
        return (self(measured),)

    def forward(self, measured: Tensor) -> Tensor:
        high = self.before(nn.functional.gelu(self.enter(measured)))
        low = self.middle(nn.functional.gelu(self.down(high)))
        return nn.functional.pixel_shuffle(self.base(measured) + self.leave(self.after(high + self.up(low))), 2)


def _interpolation(sampling: Sampling) -> Tensor:
    """Kernels of 5 × 5 bins that do what `between_bins` does in the middle of a frame."""
    side = 2 * 9
    answers = []
    for plane in range(sampling.time_bins):
        means = torch.zeros(sampling.time_bins, 9, 9)
        means[plane, 4, 4] = 1
        frames = between_bins(means.numpy(), sampling.bin_edges, sampling.space_bins, (side, side))
        # What one bin adds to the pixels of the bins around it is what those take of it, seen from the other side.
        around = nn.functional.pixel_unshuffle(torch.from_numpy(frames), 2)[:, 2:7, 2:7]
        answers.append(around.flip(1, 2))
    return torch.stack(answers, 1)
