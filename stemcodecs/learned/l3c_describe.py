"""What a network of architecture ``l3c`` makes of a chunk: bits of every pixel, and those of its latents."""

from __future__ import annotations

from typing import Any

import numpy as np

from stemcodecs.entropy.chunk.decode import model_bytes
from stemcodecs.entropy.chunk.describe import ChunkDetail, ClassDetail
from stemcodecs.entropy.chunk.header import Header
from stemcodecs.entropy.fit.grouped_counts import GroupedCounts, active_lanes
from stemcodecs.entropy.kernels.kernel_arguments import Patches
from stemcodecs.entropy.kernels.rans import LANES
from stemcodecs.entropy.kernels.scratch import lent_output
from stemcodecs.entropy.model.shared_model import SharedModel
from stemcodecs.entropy.values.plane import to_plane
from stemcodecs.learned.l3c_groups import l3c_intervals
from stemcodecs.learned.l3c_model import L3cModel, half
from stemcodecs.learned.l3c_unrolled import UnrolledL3c, unrolled_l3c
from stemcodecs.learned.mixture_ir import Q_FREQUENCY
from stemcodecs.learned.prefix import LENGTH

__all__ = ["describe_l3c"]

Array = np.ndarray[Any, Any]


def describe_l3c(array: Array, header: Header, size: int, shared: SharedModel | None) -> ChunkDetail:
    """As :func:`stemcodecs.learned.describe.describe_learned`, of a chunk that has been decoded."""
    unrolled = unrolled_l3c(model_bytes(header, shared), header.layout.detector)
    model = unrolled.model
    bits = _bits_of_items(array, header, unrolled)
    last = model.detector[0] * model.detector[1]
    pattern = np.zeros(last)
    pattern[_order(model.detector)] = bits[-last:]
    return ChunkDetail(
        mode=f"L3C-mini of {model.n_weights} weights, {model.scales} planes of {model.latents} latents; latents take "
        f"{bits[:-last].sum() / last:.4f} bits a pixel",
        shape=header.shape, size=size, header=header.length + LENGTH, model=0 if header.shared else len(header.model),
        patches=sum(g.patches for g in header.groups), shared=header.shared, groups=len(header.groups),
        positions_to_read_one=1, neighbours=(), constant_pixels=int((model.levels < 0).sum()),
        classes=_classes(model, pattern), bits=pattern.reshape(model.detector),
    )  # fmt: skip


def _bits_of_items(array: Array, header: Header, unrolled: UnrolledL3c) -> Array:
    """Mean bits of every value of every plane, in the order in which they are decoded."""
    plane, layout = to_plane(array), header.layout
    assert plane is not None
    counts = GroupedCounts(plane.counts.reshape(layout.n_positions, layout.n_pixels), layout, 0)
    total = np.zeros(unrolled.items)
    for chain, _ in counts.groups():
        positions = layout.chains[chain, 0]
        with counts.chain(chain) as rows, lent_output(unrolled.items * LANES) as (_, patch_at, patch_value):
            found = l3c_intervals(unrolled, rows, active_lanes(positions), Patches(patch_at, patch_value))
        held = positions >= 0
        entries, low = (each.reshape(-1, LANES)[:, held] for each in (found.entries, found.low))
        live = entries[:, 0] > 0
        worth = Q_FREQUENCY - np.log2(entries[live] >> 16) + (low[live] >> 16)
        total[live] += worth.sum(axis=1)
    return total / max(layout.n_positions, 1)


def _order(size: tuple[int, int]) -> Array:
    """Pixels in the order in which they are decoded: four under every site."""
    rows, columns = half(size)
    y, x, a, b = np.indices((rows, columns, 2, 2)).reshape(4, -1)
    row, column = 2 * y + a, 2 * x + b
    inside = (row < size[0]) & (column < size[1])
    order: Array = (row * size[1] + column)[inside]
    return order


def _classes(model: L3cModel, bits: Array) -> tuple[ClassDetail, ...]:
    live = model.levels >= 0
    if not live.any():
        return ()
    means = (((model.levels**2 * model.level_scale) >> 16) / 2.0**16)[live]
    pattern = ClassDetail(
        method="L3C", pixels=int(live.sum()), lowest_mean=float(means.min()), highest_mean=float(means.max()),
        histograms=0, bits=float(bits[live].mean()),
    )  # fmt: skip
    return (pattern,)
