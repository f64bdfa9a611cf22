"""The bytes of a network of architecture ``l3c``: levels by the map coder, weights by the adaptive coder."""

from __future__ import annotations

from collections.abc import Iterator

from stemcodecs.entropy.model.model_bytes import Reader, Writer
from stemcodecs.errors import CorruptChunkError
from stemcodecs.learned.context_model import OUTPUTS
from stemcodecs.learned.l3c_model import (
    MAX_LATENTS,
    MAX_SCALES,
    MAX_WIDTH,
    SUBPIXELS,
    TAPS,
    L3cModel,
    Stack,
    input_channels,
)
from stemcodecs.learned.network_bytes import read_layer, read_levels, write_layers, write_levels

__all__ = ["L3C", "is_l3c", "read_l3c", "write_l3c"]

L3C = 2
"""Architecture of these networks."""


def is_l3c(data: bytes | memoryview) -> bool:
    """Whether a serialised network is of this architecture."""
    return Reader(data).varint() == L3C


def write_l3c(model: L3cModel) -> bytes:
    """Serialise a network."""
    w = Writer()
    w.varint(L3C)
    write_levels(w, model.level_scale, model.levels.reshape(model.detector), model.constants)
    for number in (model.gain, model.level_offset, model.level_gain, model.latents, model.scales, model.width):
        w.varint(number)
    for stack in (*model.encoders, *model.predictors):
        write_layers(w, stack.layers)
    return w.getvalue()


def read_l3c(data: bytes | memoryview, detector: tuple[int, int]) -> L3cModel:
    """Inverse of :func:`write_l3c`.

    Raises
    ------
    CorruptChunkError
        If the bytes are not a network for this detector that the kernels can run.
    """
    r = Reader(data)
    if r.varint() != L3C:
        raise CorruptChunkError("a network of an unknown architecture")
    level_scale, levels, constants = read_levels(r, detector)
    gain, level_offset, level_gain, latents, scales, width = (r.varint() for _ in range(6))
    # Before the stacks, whose sizes follow from these.
    if not (2 <= latents <= MAX_LATENTS and 1 <= scales <= MAX_SCALES and 4 <= width <= MAX_WIDTH):
        raise CorruptChunkError("impossible network: latents or hidden units")
    stacks = [_read_stack(r, width, *shape) for shape in _shapes(latents, scales, width)]
    r.end()
    model = L3cModel(
        detector=detector, level_scale=level_scale, levels=levels, constants=constants, gain=gain,
        level_offset=level_offset, level_gain=level_gain, latents=latents, encoders=tuple(stacks[:scales]),
        predictors=tuple(stacks[scales:]),
    )  # fmt: skip
    # The kernels index by these numbers without looking.
    model.check()
    return model


def _shapes(latents: int, scales: int, width: int) -> Iterator[tuple[int, int]]:
    """Inputs and outputs of every stack."""
    for _ in range(scales):
        yield 2 * SUBPIXELS, latents
    for plane in range(scales + 1):
        yield input_channels(plane, scales, latents, width), SUBPIXELS * OUTPUTS * (latents if plane else 1)


def _read_stack(r: Reader, width: int, inputs: int, outputs: int) -> Stack:
    shapes = ((width, TAPS * inputs), (width, TAPS * width), (outputs, width))
    layers = tuple(read_layer(r, *shape) for shape in shapes)
    return Stack(layers=(layers[0], layers[1], layers[2]))
