"""Networks of architecture ``l3c`` with random weights, and chunks by them: whatever they predict, it is lossless."""

from __future__ import annotations

from typing import Any

import numpy as np

from stemcodecs.entropy.fit.grouped_counts import GroupedCounts
from stemcodecs.entropy.fit.static import fit_levels
from stemcodecs.entropy.model.group_layout import GroupLayout
from stemcodecs.entropy.model.shared_model import SharedModel
from stemcodecs.entropy.values.plane import to_plane
from stemcodecs.learned.context_model import Dense
from stemcodecs.learned.l3c_encode import encode_plane, write_l3c_chunk
from stemcodecs.learned.l3c_model import L3cModel, Stack, input_channels
from stemcodecs.learned.l3c_model_bytes import write_l3c
from stemcodecs.learned.l3c_unrolled import UnrolledL3c
from tests.learned.random_networks import flags_of

Array = np.ndarray[Any, Any]


def random_l3c(array: Array, seed: int, *, wild: bool = False) -> L3cModel | None:
    """A network with the levels of an array; ``wild``: with weights of any size. None where there are no counts."""
    plane = to_plane(np.ascontiguousarray(array, array.dtype.newbyteorder("="))) if array.size else None
    if plane is None:
        return None
    layout, random = GroupLayout.of_shape(array.shape), np.random.default_rng(seed)
    counts = GroupedCounts(plane.counts.reshape(layout.n_positions, -1), layout, 0)
    level_scale, levels, constants = fit_levels(counts.pixels, layout.detector)
    if seed % 2:  # the network is not told where it is
        level_scale = max(int(counts.pixels.total.mean() / layout.n_positions * 65536), 1)
        levels, constants = np.full(layout.n_pixels, 256, np.int64), np.zeros(layout.n_pixels, np.int64)
    scales, latents = int(random.integers(1, 4)), int(random.choice([2, 4, 6]))
    width = int(random.choice([4, 8, 12]))
    size = int(random.choice([3, 600, 30000])) if wild else 20

    def layer(outputs: int, inputs: int, shift: int) -> Dense:
        return Dense(
            weights=random.integers(-size, size + 1, (outputs, inputs)),
            bias=random.integers(-(2 ** int(random.integers(4, 31))) if wild else -500, 2**10, outputs),
            shift=int(random.integers(0, 31)) if wild else shift,
        )

    def stack(inputs: int, outputs: int) -> Stack:
        return Stack(layers=(layer(width, 9 * inputs, 6), layer(width, 9 * width, 6), layer(outputs, width, 7)))

    return L3cModel(
        detector=layout.detector, level_scale=level_scale, levels=levels, constants=constants,
        gain=int(random.integers(1, 32767 if wild else 2000)), level_offset=int(random.integers(0, 500)),
        level_gain=int(random.integers(1, 2000)), latents=latents,
        encoders=tuple(stack(8, latents) for _ in range(scales)),
        predictors=tuple(
            stack(input_channels(s, scales, latents, width), 20 * (latents if s else 1)) for s in range(scales + 1)
        ),
    )  # fmt: skip


def shared_l3c(model: L3cModel) -> SharedModel:
    """The network as a configuration carries it."""
    return SharedModel(detector=model.detector, mean_frame_sum=0.0, model=write_l3c(model))


def l3c_chunk(array: Array, model: L3cModel) -> bytes | None:
    """A chunk with the network inside; None where the format could not hold its groups."""
    native = np.ascontiguousarray(array, array.dtype.newbyteorder("=")).reshape(array.shape)
    plane = to_plane(native)
    assert plane is not None
    encoded = encode_plane(plane, GroupLayout.of_shape(array.shape), UnrolledL3c(model))
    if not encoded.fits:
        return None
    return write_l3c_chunk(native, flags_of(array), plane, encoded, write_l3c(model), shared=False)
