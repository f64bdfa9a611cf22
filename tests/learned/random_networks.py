"""Chunks whose network is random: whatever it predicts, what goes in comes out."""

from __future__ import annotations

from typing import Any

import numpy as np

from stemcodecs.entropy.fit.grouped_counts import GroupedCounts
from stemcodecs.entropy.fit.static import fit_levels
from stemcodecs.entropy.model.group_layout import GroupLayout
from stemcodecs.entropy.values.plane import Plane, to_plane
from stemcodecs.learned.context_model import ContextModel, Dense, lane_features, may_be_seen
from stemcodecs.learned.context_model_bytes import write_network
from stemcodecs.learned.encode_groups import encode_groups, write_chunk
from stemcodecs.learned.image_chain import UnrolledImages
from stemcodecs.learned.image_model import IMAGE_FEATURES, ImageModel, write_image_network
from stemcodecs.learned.prefix import NETWORK, with_prefix
from stemcodecs.learned.unrolled_network import UnrolledNetwork

Array = np.ndarray[Any, Any]


def random_network(
    counts: GroupedCounts, layout: GroupLayout, random: np.random.Generator, means: int = 0, normal: bool = False
) -> ContextModel:
    """A network of random size, neighbours, maps, weights and so many means, with the levels of these counts."""
    level_scale, levels, constants = fit_levels(counts.pixels, layout.detector)
    before = [(0, dy, dx) for dy in range(-8, 1) for dx in range(-8, 9) if (dy, dx) < (0, 0)]
    scan = [(r, dy, dx) for r in range(1, 5 + means) for dy in range(-8, 9) for dx in range(-8, 9)]
    pool = before + (scan if layout.chain_length > 1 else [])
    pool = [neighbour for neighbour in pool if may_be_seen(neighbour, layout.detector, means)]
    chosen = random.choice(len(pool), min(len(pool), int(random.integers(0, 14))), replace=False)
    neighbours = tuple(pool[i] for i in chosen)
    hidden = int(random.choice([4, 8, 12]))
    maps = tuple(random.integers(-50, 51, layout.detector) * 16 for _ in range(random.integers(0, 4)))
    size = int(random.choice([3, 60, 30000]))

    def layer(units: int, inputs: int) -> Dense:
        return Dense(
            weights=random.integers(-size, size + 1, (units, inputs)),
            bias=random.integers(-(2 ** int(random.integers(4, 31))), 2**10, units),
            shift=int(random.integers(0, 14)),
        )

    inputs = lane_features(neighbours) + 5 + len(maps)
    return ContextModel(
        detector=layout.detector, level_scale=level_scale, levels=levels, constants=constants, maps=maps,
        neighbours=neighbours, layers=(layer(hidden, inputs), layer(hidden, hidden), layer(5, hidden)),
        means=tuple((int(random.choice([0, 3, 64, 1023])), int(random.integers(1, 65))) for _ in range(means)),
        normal=normal,
    )  # fmt: skip


def random_image_network(layout: GroupLayout, random: np.random.Generator) -> ImageModel:
    """A network for images of random size, neighbours and weights."""
    pool = [(0, dy, dx) for dy in range(-8, 1) for dx in range(-8, 9)]
    if layout.chain_length > 1:
        pool += [(r, dy, dx) for r in range(1, 5) for dy in range(-8, 9) for dx in range(-8, 9)]
    pool = [neighbour for neighbour in pool if may_be_seen(neighbour, layout.detector)]
    chosen = random.choice(len(pool), min(len(pool), int(random.integers(0, 14))), replace=False)
    neighbours = tuple(pool[i] for i in chosen)
    hidden, size = int(random.choice([4, 8, 12])), int(random.choice([3, 60, 30000]))

    def layer(units: int, inputs: int) -> Dense:
        return Dense(
            weights=random.integers(-size, size + 1, (units, inputs)),
            bias=random.integers(-(2 ** int(random.integers(4, 31))), 2**10, units),
            shift=int(random.integers(0, 14)),
        )

    layers = (layer(hidden, lane_features(neighbours) + IMAGE_FEATURES), layer(hidden, hidden), layer(5, hidden))
    first = int(random.integers(0, 65536))
    return ImageModel(detector=layout.detector, first=first, neighbours=neighbours, layers=layers)


def random_image_chunk(array: Array, seed: int, tile: tuple[int, int] = (1, 1)) -> bytes | None:
    """A chunk by a random network for images; None where the array has no counts."""
    native = np.ascontiguousarray(array, array.dtype.newbyteorder("=")).reshape(array.shape)
    plane = to_plane(native) if native.size else None
    if plane is None:
        return None
    layout = GroupLayout.of_shape(native.shape, tile)
    counts = GroupedCounts(plane.counts.reshape(layout.n_positions, layout.n_pixels), layout, 0)
    model = random_image_network(layout, np.random.default_rng(seed))
    model.check()
    encoded = encode_groups(counts, UnrolledImages(model), plane)
    written = write_image_network(model)
    return with_prefix(NETWORK, write_chunk(native, flags_of(array), plane, counts, encoded, written, shared=False))


def random_chunk(
    array: Array, seed: int, tile: tuple[int, int] = (1, 1), means: int = 0, normal: bool = False, blocks: int = 1
) -> bytes | None:
    """A chunk by a random network; None where the array has no counts."""
    native = np.ascontiguousarray(array, array.dtype.newbyteorder("=")).reshape(array.shape)
    plane = to_plane(native) if native.size else None
    return None if plane is None else chunk_of(
        native, plane, seed, tile, flags_of(array), means, normal, blocks
    )  # fmt: skip


def flags_of(array: Array) -> int:
    column_major = array.flags.f_contiguous and not array.flags.c_contiguous
    return int(column_major) + 2 * (array.dtype.str[0] == ">")


def chunk_of(
    array: Array, plane: Plane, seed: int, tile: tuple[int, int], flags: int, means: int = 0, normal: bool = False,
    blocks: int = 1,
) -> bytes:  # fmt: skip
    layout = GroupLayout.of_shape(array.shape, tile)
    patterns = plane.counts.reshape(layout.n_positions, layout.n_pixels)
    counts = GroupedCounts(patterns, layout, 0)
    model = random_network(counts, layout, np.random.default_rng(seed), means, normal)
    model.check()
    encoded = encode_groups(counts, UnrolledNetwork(model), plane, blocks)
    return with_prefix(NETWORK, write_chunk(array, flags, plane, counts, encoded, write_network(model), shared=False))
