"""The decoder once more in plain Python integers, as literal as FORMAT.md: what the kernels are held against."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from stemcodecs.entropy.chunk.header import Header, read_header
from stemcodecs.entropy.kernels.pixel_methods import ABSOLUTE, CONTEXT, PACKED2, PACKED4, STATIC
from stemcodecs.entropy.model.histogram_model import HistogramModel, PixelClass
from stemcodecs.entropy.model.model_bytes import Reader, read_histogram_model

Array = np.ndarray[Any, Any]

LANES = 64
STATE_LOW = 1 << 15


def int32(value: int) -> int:
    """Two's complement of the low 32 bits."""
    return (value + 2**31) % 2**32 - 2**31


@dataclass
class Coded:
    """One step of the coder: a symbol from a table of frequencies, or raw bits, in some lanes of a block."""

    block: int
    mask: int
    total_bits: int
    start: list[int]
    frequency: list[int]


@dataclass
class RansDecoder:
    """Interleaved rANS: 64 states, 16-bit words."""

    words: list[int]
    lanes: int
    position: int = 0
    states: list[int] = field(default_factory=lambda: [STATE_LOW] * LANES)
    history: list[Coded] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Read the states of the lanes in use."""
        for lane in range(LANES):
            if self.lanes >> lane & 1:
                self.states[lane] = self._word() | self._word() << 16

    def _word(self) -> int:
        self.position += 1
        return self.words[self.position - 1]

    def _refill(self, block: int, mask: int) -> None:
        for i in range(16):
            if mask >> i & 1 and self.states[16 * block + i] < STATE_LOW:
                self.states[16 * block + i] = self.states[16 * block + i] << 16 | self._word()

    def symbols(self, block: int, mask: int, bits: int, frequencies: list[list[int]]) -> list[int]:
        """One symbol per lane of a block, by frequencies of sum ``2**bits`` each; 0 in lanes outside the mask."""
        out, starts, widths = [0] * 16, [0] * 16, [1] * 16
        for i in range(16):
            if mask >> i & 1:
                state = self.states[16 * block + i]
                slot = state % 2**bits
                start = symbol = 0
                while slot >= start + frequencies[i][symbol]:
                    start += frequencies[i][symbol]
                    symbol += 1
                self.states[16 * block + i] = frequencies[i][symbol] * (state >> bits) + slot - start
                out[i], starts[i], widths[i] = symbol, start, frequencies[i][symbol]
        self._refill(block, mask)
        self.history.append(Coded(block, mask, bits, starts, widths))
        return out

    def raw(self, block: int, mask: int, width: int) -> list[int]:
        """Equally likely bits per lane of a block."""
        out = [0] * 16
        for i in range(16):
            if mask >> i & 1:
                out[i] = self.states[16 * block + i] % 2**width
                self.states[16 * block + i] >>= width
        self._refill(block, mask)
        self.history.append(Coded(block, mask, width, out, [1] * 16))
        return out

    @property
    def finished(self) -> bool:
        """Whether all words are read and every state is back where the encoder began."""
        return self.position == len(self.words) and set(self.states) == {STATE_LOW}


def rans_encode(history: list[Coded], lanes: int) -> list[int]:
    """Words of the steps that a decoder took; Duda's encoder, one division at a time."""
    states = [STATE_LOW] * LANES
    backwards: list[int] = []
    for step in reversed(history):
        for i in range(15, -1, -1):
            if step.mask >> i & 1:
                lane = 16 * step.block + i
                frequency, start = step.frequency[i], step.start[i]
                if states[lane] >= frequency << (31 - step.total_bits):
                    backwards.append(states[lane] & 0xFFFF)
                    states[lane] >>= 16
                quotient, remainder = divmod(states[lane], frequency)
                states[lane] = (quotient << step.total_bits) + start + remainder
    for lane in range(LANES - 1, -1, -1):
        if lanes >> lane & 1:
            backwards += [states[lane] >> 16, states[lane] & 0xFFFF]
    return backwards[::-1]


def steps_of(method: int, active: int) -> list[tuple[int, int]]:
    """(first lane, mask) of every step of a pixel."""
    quarters = [active >> (16 * b) & 0xFFFF for b in range(4)]
    if method == PACKED4:
        masks = [quarters[0] | quarters[1] | quarters[2] | quarters[3]]
    elif method == PACKED2:
        masks = [quarters[0] | quarters[1], quarters[2] | quarters[3]]
    else:
        masks = quarters
    return [(16 * b, mask) for b, mask in enumerate(masks) if mask]


def mean_of_level(model: HistogramModel, pixel: int) -> int:
    """Mean count in units of 2**-16."""
    level = max(int(model.levels[pixel]), 0)
    return level * level * model.level_scale >> 16


def coefficients(model: HistogramModel, pixel: int, c: PixelClass, weights: tuple[int, ...]) -> list[int]:
    """Constant, slope with the dose, and one factor per neighbour, for one pixel and weight set."""
    height, width = model.detector
    y, x = divmod(pixel, width)
    mean = mean_of_level(model, pixel)
    own, constant, factors = weights[0], 0, []
    for (_, oy, ox), weight in zip(model.neighbours, weights[1:], strict=True):
        inside = 0 <= y + oy < height and 0 <= x + ox < width
        if not inside or model.levels[(y + oy) * width + x + ox] < 0:
            own += weight
            factors.append(0)
            continue
        other = mean_of_level(model, (y + oy) * width + x + ox)
        ratio = min((mean << 20) // (other + (1 << 14)), 32 << 20)
        factor = (weight * ratio) >> (32 - c.rate_bits)
        factors.append(min(max(factor, -(2**31)), 2**31 - 1))
        constant += factors[-1] >> 2
    slope = (own * mean) >> (40 - c.rate_bits)
    return [min(max(v, -(2**31)), 2**31 - 1) for v in (constant, slope)] + factors


def read_patches(section: memoryview) -> dict[int, int]:
    """Values written again after decoding, by ``pixel * 64 + lane``."""
    if not len(section):
        return {}
    count = Reader(section).varint()
    numbers = Reader(section).numbers(count, np.repeat([0, 1], count // 2))
    return dict(zip(np.cumsum(numbers[: count // 2]).tolist(), numbers[count // 2 :].tolist(), strict=True))


@dataclass
class Group:
    """A decoded group, and what the coder went through."""

    values: Array
    words: list[int]
    decoder: RansDecoder


class ReferenceDecoder:
    """Decode the counts of a chunk, group by group."""

    def __init__(self, data: bytes, shared: bytes = b"") -> None:
        self.data = memoryview(data)
        self.header: Header = read_header(data)
        self.layout = self.header.layout
        self.model = read_histogram_model(shared if self.header.shared else self.header.model, self.layout.detector)
        self.class_of: list[PixelClass | None] = []
        self.first_table: list[int] = []
        firsts = np.cumsum([0, *(c.n_tables for c in self.model.classes)])
        for level in self.model.levels.tolist():
            k = sum(c.first_level <= level for c in self.model.classes) - 1 if level >= 0 else -1
            self.class_of.append(self.model.classes[k] if k >= 0 else None)
            self.first_table.append(int(firsts[k]) if k >= 0 else -1)
        self._coefficients: dict[tuple[int, int], list[int]] = {}

    def groups(self) -> Iterator[tuple[Array, Group]]:
        """Positions int64[64] and the group's values int64[n_pixels, 64], for every group."""
        entries = iter(enumerate(self.header.groups))
        for chain in self.layout.chains:
            before: list[Array] = []
            for step, positions in enumerate(chain):
                if (positions < 0).all():
                    before.append(np.zeros((self.layout.n_pixels, LANES), np.int64))
                    continue
                index, entry = next(entries)
                payload = self.data[entry.offset : entry.offset + entry.size]
                group = self._group(payload, entry, index, step, positions, before)
                before.append(group.values)
                yield positions, group

    def plane(self) -> Array:
        """Counts of the whole chunk, int64[n_positions, n_pixels]."""
        out = np.zeros((self.layout.n_positions, self.layout.n_pixels), np.int64)
        for positions, group in self.groups():
            held = positions >= 0
            out[positions[held]] = group.values.T[held]
        return out

    def _group(
        self, payload: memoryview, entry: Any, index: int, step: int, positions: Array, before: list[Array]
    ) -> Group:
        active = sum(1 << j for j in range(LANES) if positions[j] >= 0)
        words = np.frombuffer(payload[: entry.words], "<u2").tolist()
        patches = read_patches(payload[entry.words + entry.low :][: entry.patches])
        second = np.zeros(LANES, bool)
        if self.model.n_sets == 2 and step > 0 and self.header.selections.size:
            second = np.unpackbits(self.header.selections[index], bitorder="little").astype(bool)
        blocks = self.header.blocks
        lanes = number = 0
        for c in self.class_of:
            for _, mask in steps_of(c.method, active) if c else []:
                lanes |= mask << 16 * (number % blocks)
                number += 1
        decoder = RansDecoder(words, lanes)
        number = 0
        values = np.zeros((self.layout.n_pixels, LANES), np.int64)
        for pixel, c in enumerate(self.class_of):
            if c is None:
                values[pixel] = self.model.constants[pixel]
            else:
                tables, centre = self._tables(pixel, c, step, positions, second, values, before)
                symbols, low = [0] * LANES, [0] * LANES
                for first, mask in steps_of(c.method, active):
                    block = number % blocks
                    number += 1
                    frequencies = [self.model.frequencies[t].tolist() for t in tables[first : first + 16]]
                    symbols[first : first + 16] = decoder.symbols(block, mask, c.bits, frequencies)
                    if c.shift:
                        low[first : first + 16] = decoder.raw(block, mask, c.shift)
                values[pixel] = self._values(c, symbols, low, centre)
            for j in range(LANES):
                if pixel * LANES + j in patches:
                    values[pixel, j] = patches[pixel * LANES + j]
            values[pixel, positions < 0] = 0
        return Group(values, words, decoder)

    @staticmethod
    def _values(c: PixelClass, symbols: list[int], low: list[int], centre: list[int]) -> list[int]:
        if c.method == PACKED4:
            return [symbols[j % 16] >> 2 * (j // 16) & 3 for j in range(LANES)]
        if c.method == PACKED2:
            return [symbols[16 * (j // 32) + j % 16] >> 4 * (j // 16 % 2) & 15 for j in range(LANES)]
        bias = 128 << c.shift if c.method == CONTEXT and c.residual else 0
        return [((symbols[j] << c.shift | low[j]) + centre[j] - bias) % 65536 for j in range(LANES)]

    def _tables(
        self, pixel: int, c: PixelClass, step: int, positions: Array, second: Array, values: Array, before: list[Array]
    ) -> tuple[list[int], list[int]]:
        """Histogram and zero of the symbols, of every lane."""
        first = self.first_table[pixel]
        if c.method != CONTEXT:
            return [first] * LANES, [c.base if c.method == STATIC else 0] * LANES
        tables, centre = [], []
        for j in range(LANES):
            rate = self._rate(pixel, c, step, int(second[j]), int(positions[j]), j, values, before)
            index = min(max(int32(rate - c.index_base) >> c.index_shift, 0), 127)
            tables.append(first + sum(t <= index for t in c.thresholds))
            residual = c.residual and c.rate_bits != ABSOLUTE
            centre.append(min(max(rate, 0) >> c.rate_bits, 65535) if residual else c.base)
        return tables, centre

    def references(self, step: int) -> list[int]:
        """Steps that references 0, 1, ... 4 of a step stand for; only 0 at the first step."""
        columns = self.header.tile[1]
        y, x = divmod(step, columns)

        def distance(other: int) -> tuple[int, int]:
            return (other // columns - y) ** 2 + (other % columns - x) ** 2, -other

        nearest = sorted(range(step), key=distance)[:4]
        return [step, *nearest, *nearest[:1] * (4 - len(nearest))]

    def _rate(
        self,
        pixel: int,
        c: PixelClass,
        step: int,
        chosen: int,
        position: int,
        j: int,
        values: Array,
        before: list[Array],
    ) -> int:
        if (pixel, chosen) not in self._coefficients:
            self._coefficients[pixel, chosen] = coefficients(self.model, pixel, c, c.weights[chosen])
        constant, slope, *factors = self._coefficients[pixel, chosen]
        dose = int(self.header.doses[position]) if position >= 0 and self.header.doses.size else 0
        rate = constant + slope * dose
        width = self.model.detector[1]
        steps = self.references(step)
        for (k, y, x), factor in zip(self.model.neighbours, factors, strict=True):
            if k == 0 or step:
                source, at = (values if k == 0 else before[steps[k]]), pixel + y * width + x
            else:
                source, at = values, pixel - 1
            # Without a factor the pixel may lie outside the detector.
            rate += factor * int(source[at, j]) if factor and at >= 0 else 0
        return int32(rate)
