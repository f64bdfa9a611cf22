"""A compact network for tiled masks, computed in less time: all masks are one channel.

Tiled masks are the same for every measurement and repeat every four pixels. What a convolution of stride 2 gives of
them depends on nothing but the place within 2 × 2 of its outputs, and on the edges of the frame. So do its values for a
single channel that is 1 at the corners of the tile and 0 elsewhere: with other weights they are the same.
"""

from __future__ import annotations

from copy import deepcopy
from typing import cast

import torch
from torch import Tensor, nn

from stemcodecs.temporal.masks import TILE
from stemcodecs.temporal.sampling import Sampling
from stemcodecs_pipelines.temporal.networks import ALIGNED, CompactNetwork, UNet

__all__ = ["TiledNetwork"]


class TiledNetwork(nn.Module):
    """What a `CompactNetwork` gives, but for rounding, of one movie behind tiled masks.

    Parameters
    ----------
    network : CompactNetwork
        As trained.
    sampling : Sampling
        Of the measurements: tiled masks.
    """

    def __init__(self, network: CompactNetwork, sampling: Sampling) -> None:
        super().__init__()
        tile = torch.from_numpy(sampling.masks((TILE, TILE)).astype("f4"))
        self.opened = float(tile[:, 0, 0].sum())
        self.step = network.step
        self.stages = nn.ModuleList(
            [
                _of_one_mask(cast(UNet, stage), tile, 0 if k == 0 else network.frames)
                for k, stage in enumerate(network.stages)
            ]
        )
        corners = torch.zeros(1, 1, TILE, TILE)
        corners[..., :: TILE - 1, :: TILE - 1] = 1
        self.register_buffer("corners", corners)

    def forward(self, measured: Tensor, masks: Tensor) -> Tensor:
        """The frames: (1, frames, y, x)."""
        height, width = measured.shape[2:]
        corners = self.get_buffer("corners").repeat(1, 1, height // TILE, width // TILE)
        frames: Tensor = measured + self.stages[0](measured, corners)
        for step, stage in zip(self.step, self.stages[1:], strict=True):
            missing = measured - (masks * frames).sum(1, keepdim=True) / self.opened
            frames = frames + step * masks * missing
            frames = frames + stage(measured, frames, corners)
        return frames


@torch.no_grad()
def _of_one_mask(stage: UNet, tile: Tensor, frames: int) -> UNet:
    """A U-Net that is given (``frames``, corners, measurement) instead of (``frames``, masks, measurement …)."""
    old = stage.enter
    # A measurement and a mask need no channels to fill up a step of the processor: such a convolution is a short one.
    spare = -(frames + 2) % ALIGNED if frames else 0
    kernel = old.weight.new_zeros(len(old.weight), frames + 2 + spare, 6, 6)
    masks = old.weight[:, frames : frames + len(tile)]
    kernel[:, :frames] = old.weight[:, :frames]
    # Rows 2a + y of the kernel lie on rows y of cells of 2 × 2 pixels, (p, q) of the two by two that repeat.
    of_cells = torch.einsum(
        "oiaybx,ipyqx->oapbq",
        masks.reshape(*masks.shape[:2], 3, 2, 3, 2),
        tile.reshape(len(tile), 2, 2, 2, 2),
    )
    # Of the corners, pixel (p, q) of a cell is 1 where the cell is in row p and column q of its two by two.
    kernel[:, frames] = of_cells.reshape(len(masks), 6, 6)
    kernel[:, frames + 1] = old.weight[:, frames + len(tile) :].sum(1)
    new = deepcopy(stage)
    new.spare = spare
    new.enter = nn.Conv2d(kernel.shape[1], len(kernel), 6, stride=2, padding=2)
    new.enter.weight, new.enter.bias = nn.Parameter(kernel), old.bias
    return new
