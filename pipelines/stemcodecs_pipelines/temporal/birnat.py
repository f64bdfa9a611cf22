"""BIRNAT: the network of TCS-DL, in torch. A CNN makes the first frame, two recurrent networks all others from it.

Cheng et al. 2020 (doi:10.1007/978-3-030-58586-0_16), as TCS-DL (Patterns 2, 100292, 2021,
doi:10.1016/j.patter.2021.100292) uses it; its equations are named below. Here they are in the units of
:mod:`stemcodecs.temporal.network_input`, in which the sum Y of masked frames is the measurement times its number of
open frames.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["Birnat"]

SLOPE = 0.2
"""Of the leaky rectifier for negative values."""


def _activated(*layers: nn.Module) -> nn.Sequential:
    """Layers with a leaky rectifier behind each."""
    return nn.Sequential(*(part for layer in layers for part in (layer, nn.LeakyReLU(SLOPE))))


class _ResidualBlock(nn.Module):
    """Two convolutions beside the identity, which is what it begins as."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(self.second.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.second(nn.functional.leaky_relu(self.first(x), SLOPE))
        return out


class _SelfAttention(nn.Module):
    """Every pixel sees every other one (Zhang et al. 2019, arXiv:1805.08318); begins as the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query, self.key = (nn.Conv2d(width, max(1, width // 8), 1) for _ in range(2))
        self.value = nn.Conv2d(width, width, 1)
        self.gate = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (part(x).flatten(2) for part in (self.query, self.key, self.value))
        alike = torch.softmax(query.transpose(1, 2) @ key, dim=-1)
        out: Tensor = x + self.gate * (value @ alike.transpose(1, 2)).view_as(x)
        return out


class _FirstFrame(nn.Module):
    """CNN of twelve layers: four, a residual block of three, self-attention at half the resolution, four."""

    def __init__(self, frames: int, width: int) -> None:
        super().__init__()
        self.enter = _activated(
            nn.Conv2d(frames + 1, width, 5, padding=2),
            nn.Conv2d(width, 2 * width, 3, padding=1),
            nn.Conv2d(2 * width, 2 * width, 1),
            nn.Conv2d(2 * width, 4 * width, 3, stride=2, padding=1),
        )
        self.middle = nn.Sequential(*(_ResidualBlock(4 * width) for _ in range(3)), _SelfAttention(4 * width))
        self.leave = nn.Sequential(
            _activated(
                nn.ConvTranspose2d(4 * width, 2 * width, 2, stride=2),
                nn.Conv2d(2 * width, width, 3, padding=1),
                nn.Conv2d(width, width // 2, 1),
            ),
            nn.Conv2d(width // 2, 1, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.leave(self.middle(self.enter(x)))
        return out


class _Cell(nn.Module):
    """The frame before, the measurement with what is left of it, and hidden units: to the next frame and such units."""

    def __init__(self, width: int) -> None:
        super().__init__()
        part = width // 2
        self.of_frame = _activated(nn.Conv2d(1, part, 3, padding=1), nn.Conv2d(part, part, 1))
        self.of_measured = _activated(nn.Conv2d(2, part, 3, padding=1), nn.Conv2d(part, part, 1))
        self.of_hidden = _activated(nn.Conv2d(part, part, 3, padding=1), nn.Conv2d(part, part, 1))
        self.middle = nn.Sequential(_ResidualBlock(3 * part), _ResidualBlock(3 * part))
        self.to_hidden = nn.Conv2d(3 * part, part, 3, padding=1)
        self.to_frame = nn.Sequential(
            _activated(nn.Conv2d(3 * part, part, 3, padding=1)), nn.Conv2d(part, 1, 3, padding=1)
        )

    def forward(self, before: Tensor, measured: Tensor, rest: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        seen = torch.cat([measured, rest], 1)
        parts = [self.of_frame(before), self.of_measured(seen), self.of_hidden(hidden)]
        out = self.middle(torch.cat(parts, 1))
        return self.to_frame(out), self.to_hidden(out)


class Birnat(nn.Module):
    """Bidirectional recurrent network with adversarial training left out, as in TCS-DL.

    Parameters
    ----------
    frames : int
        Frames B of a measurement.
    width : int
        Channels of the first layer; 32 is about the network of the paper.
    """

    def __init__(self, frames: int, width: int = 32) -> None:
        super().__init__()
        self.frames = frames
        self.hidden = width // 2
        self.first = _FirstFrame(frames, width)
        self.forwards, self.backwards = _Cell(width), _Cell(width)

    def estimates(self, measured: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        """Frames of the forward and of the backward network; the loss is the mean of theirs."""
        # Equation 2: the measurement over the number of open frames is what is given; these are the masked frames,
        # about.
        coded = measured * masks
        first = self.first(torch.cat([measured, coded], 1))
        total = measured * masks.sum(1, keepdim=True)
        n = self.frames
        hidden = measured.new_zeros(1).expand(measured.shape[0], self.hidden, *measured.shape[2:])
        forward = [first]
        # Equation 3: what is left of the sum when the frames before, as they were found, and those behind, as the
        # measurement has them, are taken off.
        rest = total - coded.sum(1, keepdim=True) + coded[:, :1]
        for k in range(1, n):
            rest = rest - masks[:, k - 1 : k] * forward[-1] + coded[:, k : k + 1]
            frame, hidden = self.forwards(forward[-1], measured, rest, hidden)
            forward.append(frame)
        found = torch.cat(forward, 1)
        # Equation 4: as the forward network has found all others. The last hidden units go on from there.
        masked = masks * found
        left = total - masked.sum(1, keepdim=True)
        backward = [forward[-1]]
        for k in range(n - 2, -1, -1):
            frame, hidden = self.backwards(backward[-1], measured, left + masked[:, k : k + 1], hidden)
            backward.append(frame)
        return found, torch.cat(backward[::-1], 1)

    def forward(self, measured: Tensor, masks: Tensor) -> Tensor:
        return self.estimates(measured, masks)[1]
