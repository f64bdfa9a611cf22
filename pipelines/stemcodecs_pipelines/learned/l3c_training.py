"""Train a network of architecture ``l3c`` on the patterns of a scan, for as long as there is time, to integers."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stemcodecs.entropy.fit.grouped_counts import GroupedCounts
from stemcodecs.entropy.fit.static import fit_levels
from stemcodecs.entropy.model.group_layout import GroupLayout
from stemcodecs.learned.context_model import Dense, pixel_roots
from stemcodecs.learned.l3c_model import L3cModel, Stack
from stemcodecs_pipelines.learned.l3c_float import (
    LATENT_UNIT,
    ONE,
    OUTPUTS,
    FloatL3c,
    FloatStack,
    bias_of,
    weight_shift,
)
from stemcodecs_pipelines.run.torch_device import choose_device

__all__ = ["TrainingOptions", "train_l3c"]

Array = np.ndarray[Any, Any]

CROP = 128
"""Rows and columns of a pattern that a step sees, at most."""
VALUES = {"cpu": 1 << 14, "cuda": 1 << 18}
"""Values of a step: few, for many steps are what a processor has time for; a graphics card takes more in the same."""
RATE, LAST_RATE = 2e-3, 2e-5
WARM_UP = 0.02
ROUNDED_FROM = 0.75
"""Share of the time from which on latents stay as they are, and weights are rounded: all else learns to code them."""
LAST_BITS = 14
"""Bits of the weights of the last layers: few, and locations want them exact."""
MOST_NORM = 1.0
ROOT_ONE = 1024
"""Root of a count of 1 in ``L3cModel.roots``."""
_LEAST_SPREAD = 0.05
_NEVER = 1e-3


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """How a network is trained.

    Attributes
    ----------
    seconds : float
        Time that it may take.
    location : bool
        Whether it is told the mean of every pixel.
    scales, latents, width : int
        Its latent planes, their channels, and the hidden units of every stack.
    weight_bits : int
        Of the weights of the convolutions.
    seed : int
        Of the first weights and the patterns of every step.
    steps : int, optional
        Steps at most, whatever time is left: for tests.
    device : str, optional
        ``cpu`` or ``cuda``; by default CUDA where torch finds it.
    progress : callable
        Called with the share of the time that has passed, and the bits a value of late.
    """

    seconds: float = 300.0
    location: bool = True
    scales: int = 3
    latents: int = 2
    width: int = 16
    weight_bits: int = 8
    seed: int = 0
    steps: int | None = None
    device: str | None = None
    progress: Callable[[float, float], None] = lambda share, bits: None


@dataclass(frozen=True, kw_only=True, eq=False)
class _Pixels:
    """What is known of the pixels before there is a network: as in ``L3cModel``, and what training takes of it."""

    level_scale: int
    levels: Array
    constants: Array
    gain: int
    level_offset: int
    level_gain: int
    spread: float
    base: Array
    live: Array


def train_l3c(patterns: Array, options: TrainingOptions) -> tuple[L3cModel, float]:
    """Train a network.

    Parameters
    ----------
    patterns : uint8 or uint16[n, det_y, det_x]
        Counts.
    options : TrainingOptions

    Returns
    -------
    model, bits
        The network in integers, and the bits a value that the floating-point one took in the last tenth of the time.
    """
    # Small convolutions gain nothing by threads, and lose much where others want the processors too.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _trained(patterns, options)
    finally:
        torch.set_num_threads(threads)


def _trained(patterns: Array, options: TrainingOptions) -> tuple[L3cModel, float]:
    torch.manual_seed(options.seed)
    device = choose_device(options.device)
    pixels = _pixels(patterns, options.location)
    network = FloatL3c(options.scales, options.latents, options.width, pixels.spread)
    network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.Adam(network.parameters(), RATE)
    batches = _Batches(patterns, pixels, options, device)
    begin, share, count = time.monotonic(), 0.0, 0
    recent: list[tuple[float, float]] = []
    while share < 1:
        for group in optimizer.param_groups:
            group["lr"] = _rate(share)
        if share >= ROUNDED_FROM:
            network.rounds = True
            for stack in network.stacks():
                stack.weight_bits = options.weight_bits
        inputs, live = batches.draw()
        planes = network(*inputs)
        # The sum, not the mean: what latents want is limited in bits.
        loss = (planes[0] * live).sum() + sum(plane.sum() for plane in planes[1:])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(network.parameters(), MOST_NORM * float(live.sum()))
        optimizer.step()
        count += 1
        share = (time.monotonic() - begin) / options.seconds
        if options.steps is not None:
            share = count / options.steps
        recent = [one for one in recent if one[0] > share - 0.1] + [(share, float(loss.detach() / live.sum()))]
        options.progress(min(share, 1.0), sum(bits for _, bits in recent) / len(recent))
    bits = sum(bits for _, bits in recent) / len(recent) * pixels.live.mean()
    return _in_integers(network.cpu(), pixels, patterns.shape[1:], options), float(bits)


def _rate(share: float) -> float:
    if share < WARM_UP:
        return RATE * max(share / WARM_UP, 0.05)
    return LAST_RATE + (RATE - LAST_RATE) * 0.5 * (1 + math.cos(math.pi * min(share, 1.0)))


def _pixels(patterns: Array, location: bool) -> _Pixels:
    n, *detector = patterns.shape
    layout = GroupLayout.of_shape(patterns.shape)
    flat = np.ascontiguousarray(patterns.reshape(n, -1))
    size = flat.shape[1]
    if location:
        level_scale, levels, constants = fit_levels(GroupedCounts(flat, layout, 0).pixels, layout.detector)
    else:
        # One level for all: their mean, in units of 2**-16.
        level_scale = max(round(float(flat.mean()) * 65536), 1)
        levels, constants = np.full(size, 256, np.int64), np.zeros(size, np.int64)
    roots = pixel_roots(levels, level_scale)
    live = levels >= 0
    sample = flat[:: max(n // 256, 1)][:, live]
    root = np.sqrt(sample.astype(np.float32) + 0.375)
    spread = max(float((root - roots[live] / np.float32(ROOT_ONE)).std()), _LEAST_SPREAD)
    level = (roots >> 4)[live]
    level_spread = max(float(level.std()) / 64, _LEAST_SPREAD)
    return _Pixels(
        level_scale=level_scale, levels=levels, constants=constants,
        # Both come to one standard deviation at 1, which is 1024 in integers; residuals have six fraction bits.
        gain=int(np.clip(round(ONE / 64 * 256 / spread), 1, 32767)),
        level_offset=int(np.clip(round(float(level.mean())), 0, 32767)),
        level_gain=int(np.clip(round(ONE / 64 * 256 / level_spread), 1, 32767)),
        spread=spread,
        base=(roots / ROOT_ONE).astype(np.float32).reshape(detector),
        live=live.reshape(detector),
    )  # fmt: skip


class _Batches:
    """Parts of patterns at random, as the network takes them."""

    def __init__(self, patterns: Array, pixels: _Pixels, options: TrainingOptions, device: torch.device) -> None:
        self.random = np.random.default_rng(options.seed)
        self.limit, self.gain = 32767 / ONE, pixels.gain * 64 / 256 / ONE
        step = 2 ** (options.scales + 1)
        sides = patterns.shape[1:]
        self.crop = [min(CROP // step * step, size + -size % step) for size in sides]
        # Beyond the edge there is nothing: no residual, no level, and no bits.
        padding = [(0, -size % step) for size in sides]
        # Cut off as integers are: a level that all pixels have is then nothing in both.
        level = (np.floor(pixels.base * 64) - pixels.level_offset) * (pixels.level_gain / 256 / ONE)
        self.live, self.base, self.level = (
            torch.from_numpy(np.pad(plane, padding).astype(np.float32)).to(device)
            for plane in (pixels.live, pixels.base, level)
        )
        wide = np.int32 if patterns.dtype.itemsize > 1 else np.uint8
        self.patterns = torch.from_numpy(np.pad(patterns, [(0, 0), *padding]).astype(wide)).to(device)
        self.batch = max(VALUES[device.type] // math.prod(self.crop), 1)

    def draw(self) -> tuple[tuple[Tensor, Tensor, Tensor, Tensor], Tensor]:
        """Residuals, levels, bases and counts; and which pixels are coded."""
        parts: list[tuple[Tensor, ...]] = []
        for i in self.random.integers(0, len(self.patterns), self.batch):
            # Side by side, so that no pixel is seen more often than others; the last ones end where the pattern ends.
            y, x = (
                min(int(self.random.integers(0, -(-size // crop))) * crop, size - crop)
                for size, crop in zip(self.live.shape, self.crop, strict=True)
            )
            at = np.s_[y : y + self.crop[0], x : x + self.crop[1]]
            parts.append((self.patterns[(int(i), *at)], self.live[at], self.base[at], self.level[at]))
        counts, live, base, level = (torch.stack(planes)[:, None].float() for planes in zip(*parts, strict=True))
        residual = (torch.sqrt(counts + 0.375) - base) * self.gain
        return (residual.clamp(-self.limit, self.limit) * live, level, base, counts), live


def _in_integers(network: FloatL3c, pixels: _Pixels, detector: tuple[int, ...], options: TrainingOptions) -> L3cModel:
    def predictor(plane: int, stack: FloatStack) -> Stack:
        spread = 1.0 if plane else pixels.spread
        # Units of the coder: logits, roots of counts and octaves, with 7, 10 and 6 fraction bits.
        units = np.array([128.0, ROOT_ONE * spread, ROOT_ONE * spread, 64.0, 64.0]) / ONE
        return _stack(stack, options.weight_bits, np.tile(units, stack.last.out_channels // OUTPUTS), 0)

    model = L3cModel(
        detector=(detector[0], detector[1]), level_scale=pixels.level_scale, levels=pixels.levels,
        constants=pixels.constants, gain=pixels.gain, level_offset=pixels.level_offset, level_gain=pixels.level_gain,
        latents=options.latents,
        # From features of 1024 to levels of a latent.
        encoders=tuple(
            _stack(stack, options.weight_bits, np.ones(options.latents), (ONE // LATENT_UNIT).bit_length() - 1)
            for stack in network.encoders
        ),
        predictors=tuple(predictor(plane, stack) for plane, stack in enumerate(network.predictors)),
    )  # fmt: skip
    model.check()
    return model


def _stack(stack: FloatStack, bits: int, units: Array, further_shift: int) -> Stack:
    layers = []
    for layer in (stack.first, stack.second):
        shift = weight_shift(layer.weight, bits)
        weights = layer.weight.detach().permute(0, 2, 3, 1).reshape(layer.out_channels, -1).numpy().astype(np.float64)
        layers.append(_dense(weights, bias_of(layer).detach().numpy(), shift, shift))
    weights = stack.last.weight.detach()[:, :, 0, 0].numpy().astype(np.float64) * units[:, None]
    bias = bias_of(stack.last).detach().numpy() * units
    shift = weight_shift(torch.from_numpy(weights), LAST_BITS)
    layers.append(_dense(weights, bias, shift, shift + further_shift))
    return Stack(layers=(layers[0], layers[1], layers[2]))


def _dense(weights: Array, bias: Array, fraction: int, shift: int) -> Dense:
    whole = np.rint(weights * 2.0**fraction).astype(np.int64)
    # Half of what is cut off, so that sums are rounded.
    half = (1 << shift) >> 1
    offsets = np.rint(bias.astype(np.float64) * 2.0**fraction * ONE).astype(np.int64) + half
    return Dense(weights=whole, bias=np.clip(offsets, -(2**31) + 1, 2**31 - 1), shift=shift)
