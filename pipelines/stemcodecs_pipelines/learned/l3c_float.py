"""The network of architecture ``l3c`` in floating point, in torch: for training only, decoding runs its integers.

What it computes is what :mod:`stemcodecs.learned.l3c_model` states in integers, in units of 2**-10 there: inputs,
features and latents have the same scale here and there, so that a weight becomes an integer by one shift a layer.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from stemcodecs.learned.l3c_model import LATENT_LEVELS, MIDDLE_LATENT, SUBPIXELS, input_channels

__all__ = ["FloatL3c", "FloatStack", "bias_of", "bits_of", "weight_shift"]

ONE = 1024
"""A feature of 1 in integers."""
MOST_FEATURE = 32767 / ONE
LATENT_UNIT = 8
"""Levels of a latent to one unit of the feature that it is."""
OUTPUTS = 5
JITTER = 0.3
LOWEST_SCALE, HIGHEST_SCALE = -6.0, 7.98
_FLOOR = 2.0**-30
"""Below what the coder gives the least likely count, so that a count that was not expected still has a gradient."""


class FloatStack(nn.Module):
    """Two convolutions of 3×3 and one of 1×1."""

    def __init__(self, inputs: int, width: int, outputs: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        self.last = nn.Conv2d(width, outputs, 1)
        self.weight_bits: int | None = None

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs, and the features before them."""
        for layer in (self.first, self.second):
            weight = layer.weight if self.weight_bits is None else _rounded(layer.weight, self.weight_bits)
            x = nn.functional.conv2d(x, weight, layer.bias, padding=1).clamp(0, MOST_FEATURE)
        return self.last(x), x


def bias_of(layer: nn.Conv2d) -> Tensor:
    """Bias of a layer; all have one."""
    assert layer.bias is not None
    return layer.bias


def weight_shift(weight: Tensor, bits: int) -> int:
    """Fraction bits of the weights of a layer: as many as fit."""
    largest = float(weight.detach().abs().max())
    return int(min(max(math.floor(math.log2((2 ** (bits - 1) - 1) / max(largest, 1e-6))), 0), 15))


def _rounded(weight: Tensor, bits: int) -> Tensor:
    """The weights as the integers will have them; the gradient passes as if they were not."""
    one = 2.0 ** weight_shift(weight, bits)
    return weight + (torch.round(weight * one) / one - weight).detach()


class FloatL3c(nn.Module):
    """The pyramid.

    Parameters
    ----------
    scales, latents, width : int
        Latent planes, channels of each, and hidden units of every stack.
    spread : float
        Standard deviation of the residuals in units of the root of a count: locations are predicted in units of it.
    """

    def __init__(self, scales: int, latents: int, width: int, spread: float) -> None:
        super().__init__()
        self.scales, self.latents, self.width, self.spread = scales, latents, width, spread
        self.rounds = False
        self._encoders = nn.ModuleList(FloatStack(2 * SUBPIXELS, width, latents) for _ in range(scales))
        self._predictors = nn.ModuleList(
            FloatStack(input_channels(s, scales, latents, width), width, SUBPIXELS * OUTPUTS * (latents if s else 1))
            for s in range(scales + 1)
        )
        middle = math.sqrt(MIDDLE_LATENT + 0.375)
        with torch.no_grad():
            for s, stack in enumerate(self.predictors):
                stack.last.weight *= 0.1
                # Two logistics of different widths around what is expected.
                start = [0.0, -0.05, 0.05, -1.1, -0.4] if s == 0 else [0.0, middle, middle, -3.0, -2.0]
                bias_of(stack.last).copy_(torch.tensor(start).repeat(stack.last.out_channels // OUTPUTS))
            for stack in self.encoders:
                _begin_with_means(stack)

    @property
    def encoders(self) -> list[FloatStack]:
        """Of planes 1 to S."""
        return [stack for stack in self._encoders if isinstance(stack, FloatStack)]

    @property
    def predictors(self) -> list[FloatStack]:
        """Of planes 0 to S."""
        return [stack for stack in self._predictors if isinstance(stack, FloatStack)]

    def stacks(self) -> Iterator[FloatStack]:
        """All stacks."""
        yield from self.encoders
        yield from self.predictors

    def forward(self, residual: Tensor, level: Tensor, base: Tensor, counts: Tensor) -> list[Tensor]:
        """Bits of every value of every plane, the pattern first.

        Parameters
        ----------
        residual, level, base, counts : Tensor[batch, 1, y, x]
            Residuals and levels as inputs, root of what is expected, and counts; y and x are multiples of 2**(S + 1).
        """
        levels = [level]
        symbols, told = [counts], [counts]
        x = residual
        for stack in self.encoders:
            below = torch.cat([_fold(x), _fold(levels[-1])], 1)
            z = (stack(below)[0] * LATENT_UNIT).clamp(0, LATENT_LEVELS - 1)
            noise = torch.rand_like(z) - 0.5
            # A little noise stays while they move: a latent left where rounding turns would be another one in integers.
            rounded = torch.round(z if self.rounds else z + JITTER * noise)
            # Finer planes are told rounded latents from the start. What latents take is counted with noise as wide as
            # a level, which has a slope; in the end by what they are, and then they stay (Minnen and Singh 2020,
            # doi:10.1109/ICIP40778.2020.9190935).
            symbols.append(rounded.detach() if self.rounds else z + noise)
            told.append(rounded.detach() if self.rounds else z + (rounded - z).detach())
            x = nn.functional.avg_pool2d(x, 2)
            levels.append(nn.functional.avg_pool2d(levels[-1], 2))
        bits: list[Tensor] = []
        features = None
        for s in range(self.scales, -1, -1):
            inputs = _fold(levels[s])
            if features is not None:
                latent = (told[s + 1] - MIDDLE_LATENT) / LATENT_UNIT
                above = nn.functional.interpolate(features, scale_factor=2, mode="nearest")
                inputs = torch.cat([latent, inputs, above], 1)
            out, features = self.predictors[s](inputs)
            mixture = _unfold(out, self.latents if s else 1)
            bits.append(bits_of(symbols[s], mixture, base if s == 0 else None, self.spread))
        return bits[::-1]


def _begin_with_means(stack: FloatStack) -> None:
    """The first latent of a plane starts as the mean of the four values below it, in quarters: it pays from the start.

    Latents that said nothing at first went on saying nothing.
    """
    stack.last.weight *= 0.2
    bias_of(stack.last).fill_(MIDDLE_LATENT / LATENT_UNIT)
    stack.last.weight[0] = 0
    for unit, sign in ((0, 1.0), (1, -1.0)):
        for layer, inputs, weight in ((stack.first, slice(SUBPIXELS), 0.25 * sign), (stack.second, unit, 1.0)):
            layer.weight[unit], bias_of(layer)[unit] = 0, 0
            layer.weight[unit, inputs, 1, 1] = weight
        stack.last.weight[0, unit] = 4 * sign / LATENT_UNIT


def _fold(x: Tensor) -> Tensor:
    """Four channels of a grid half as fine: the places (0, 0), (0, 1), (1, 0), (1, 1)."""
    return torch.cat([x[:, :, a::2, b::2] for a in (0, 1) for b in (0, 1)], 1)


def _unfold(out: Tensor, channels: int) -> Tensor:
    """Units (place, channel, output) to [batch, 5, channels, y, x] of the finer plane."""
    n, _, height, width = out.shape
    out = out.reshape(n, 2, 2, channels, OUTPUTS, height, width)
    return out.permute(0, 4, 3, 5, 1, 6, 2).reshape(n, OUTPUTS, channels, 2 * height, 2 * width)


def bits_of(symbols: Tensor, mixture: Tensor, base: Tensor | None, spread: float) -> Tensor:
    """Bits that counts take: a mixture of two logistics in the root of the count, as the coder has it."""
    weight = torch.sigmoid(mixture[:, 0])
    lower, upper = torch.sqrt((symbols - 0.125).clamp(min=1e-4)), torch.sqrt((symbols + 0.875).clamp(min=1e-4))
    # Nothing lies below 0.
    first = symbols < 0.5
    total = torch.zeros_like(upper)
    for k, share in enumerate((weight, 1 - weight)):
        location = mixture[:, 1 + k]
        if base is not None:
            location = base + location * spread
        steep = torch.exp2(-mixture[:, 3 + k].clamp(LOWEST_SCALE, HIGHEST_SCALE))
        low, high = (lower - location) * steep, (upper - location) * steep
        # In the upper tail both are nearly 1, and their difference is lost: it is the same in the lower one.
        turn = 1 - 2 * (low > 0).to(low.dtype)
        inside = turn * (torch.sigmoid(turn * high) - torch.sigmoid(turn * low))
        total = total + share * torch.where(first, torch.sigmoid(high), inside)
    return -torch.log2(total.clamp(min=0) + _FLOOR)
