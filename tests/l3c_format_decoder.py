"""A decoder of chunks whose network is of architecture *l3c*, written from FORMAT.md alone, without the package.

Section numbers are those of ``stemcodecs/learned/FORMAT.md``.
"""

from __future__ import annotations

import math
import struct
from typing import Any

import numpy as np

from tests.format_decoder import Adaptive, Counts, Sections

Array = np.ndarray[Any, Any]


def clip(v: Array, low: int, high: int) -> Array:
    return np.clip(v, low, high)


def i32(v: Array) -> Array:
    return (v + 2**31) % 2**32 - 2**31


class L3cNetwork:
    """7.1"""

    def __init__(self, data: bytes, height: int, width: int) -> None:
        s = Sections(data)
        assert s.varint() == 2
        scale = s.varint()
        self.levels = [v for line in Adaptive(s.section()).map(height, width) for v in line]
        constants, total = iter(s.numbers()), 0
        self.constants = []
        for level in self.levels:
            total += next(constants) if level < 0 else 0
            self.constants.append(total)
        self.gain, self.offset, self.level_gain, self.c, self.scales, self.h = (s.varint() for _ in range(6))
        self.sizes = [(height, width)]
        for _ in range(self.scales + 1):
            self.sizes.append(((self.sizes[-1][0] + 1) // 2, (self.sizes[-1][1] + 1) // 2))
        shapes = [(8, self.c)] * self.scales
        shapes += [
            (4 + (self.c + self.h) * (p < self.scales), 20 * (self.c if p else 1)) for p in range(self.scales + 1)
        ]
        stacks = []
        for inputs, outputs in shapes:
            layers = []
            for units, n in ((self.h, 9 * inputs), (self.h, 9 * self.h), (outputs, self.h)):
                shift, weights, bias = s.varint(), s.numbers(), s.numbers()
                layers.append((np.array(weights).reshape(units, n), np.array(bias), shift))
            stacks.append(layers)
        assert s.at == len(data)
        self.predictors = stacks[self.scales :]
        means = [max(level, 0) ** 2 * scale >> 16 for level in self.levels]
        self.roots = [math.isqrt((m + 24576) * 16) for m in means]

    def level_plane(self, plane: int) -> Array:
        """7.2"""
        e = np.minimum(np.array(self.roots) >> 4, 32767) - self.offset
        out = clip(e * self.level_gain >> 8, -32767, 32767).reshape(self.sizes[0])
        for _ in range(plane):
            out = sum(self.folded(out)) + 2 >> 2
        return out

    @staticmethod
    def folded(plane: Array) -> list[Array]:
        padded = np.pad(plane, [(0, size % 2) for size in plane.shape])
        return [padded[a::2, b::2] for a in (0, 1) for b in (0, 1)]

    def hidden(self, layer: Any, x: Array) -> Array:
        """7.3: x is [channel, y, x, lane]"""
        weights, bias, shift = layer
        _, ny, nx, _ = x.shape
        padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        window = np.concatenate([padded[:, dy : dy + ny, dx : dx + nx] for dy in range(3) for dx in range(3)])
        total = i32(np.einsum("ui,iyxl->uyxl", weights, window) + bias[:, None, None, None])
        return clip(total >> shift, 0, 32767)


class L3cCounts(Counts):
    """7.4: groups of a chunk whose network is of this architecture."""

    distribution: Any

    def values(
        self, payload: bytes, group: int, step: int, positions: list[int], earlier: list[list[list[int]]]
    ) -> list[list[int]]:
        net: Any = self.model
        assert not self.doses
        assert self.tile == (1, 1)
        words_size, low_size, patch_size, _ = self.sizes[group]
        words = iter(struct.unpack(f"<{words_size // 2}H", payload[:words_size]))
        patches = self.patches(payload[words_size + low_size :][:patch_size])
        active = [int(p >= 0) for p in positions]
        used = [0] * 64
        for j in range(64):
            used[16 * (j // 16 % self.blocks) + j % 16] |= active[j]
        states = [next(words) | next(words) << 16 if u else 2**16 for u in used]
        item, planes, features = 0, {}, np.zeros(0)
        for plane in range(net.scales, -1, -1):
            channels = net.c if plane else 1
            rows, columns = net.sizes[plane + 1]
            x = np.stack(net.folded(net.level_plane(plane)))[..., None].repeat(64, axis=3)
            if plane < net.scales:
                latents = clip((planes[plane + 1] - 12) * 128, -32767, 32767).transpose(2, 0, 1, 3)
                above = features.repeat(2, axis=1).repeat(2, axis=2)[:, :rows, :columns]
                x = np.concatenate([latents, x, above])
            first, second, (weights, bias, shift) = net.predictors[plane]
            features = net.hidden(second, net.hidden(first, x))
            height, width = net.sizes[plane]
            values = np.zeros((height, width, channels, 64), np.int64)
            places = [(y, x, 2 * y + a, 2 * x + b, 2 * a + b) for y in range(rows) for x in range(columns)
                      for a in (0, 1) for b in (0, 1)]  # fmt: skip
            for y, x, row, column, place in places:
                if row >= height or column >= width:
                    continue
                out = i32(np.einsum("ui,il->ul", weights, features[:, y, x]) + bias[:, None]) >> shift
                for c in range(channels):
                    pixel = row * width + column
                    unit = 5 * (place * channels + c)
                    if plane == 0 and net.levels[pixel] < 0:
                        found = [net.constants[pixel]] * 64
                    else:
                        base = 0 if plane else net.roots[pixel]
                        found = self.item(out[unit : unit + 5].tolist(), base, active, states, words)
                    for j in range(64):
                        values[row, column, c, j] = patches.get(64 * item + j, found[j] % 65536) * active[j]
                    item += 1
            planes[plane] = values
        assert states == [2**16] * 64
        assert next(words, None) is None
        counts: list[list[int]] = planes[0].reshape(-1, 64).tolist()
        return counts

    def item(self, out: list[list[int]], base: int, active: list[int], states: list[int], words: Any) -> list[int]:
        """4, of one value in all lanes."""
        row = [0] * 64
        for b in range(4):
            lanes = [i for i in range(16) if active[16 * b + i]]
            first, found = 16 * (b % self.blocks), {}
            for i in lanes:
                j = 16 * b + i
                d = found[i] = self.distribution([o[j] for o in out], base)
                x, slot, z = states[first + i], states[first + i] % 2**15, 0
                while d.cumulative(z + 1) <= slot:
                    z += 1
                states[first + i] = (d.cumulative(z + 1) - d.cumulative(z)) * (x >> 15) + slot - d.cumulative(z)
                row[j] = (d.z0 + z) << d.shift
            self.more(states, first, lanes, words)
            for i in lanes:
                row[16 * b + i] += states[first + i] % 2 ** found[i].shift
                states[first + i] >>= found[i].shift
            self.more(states, first, lanes, words)
        return row

    @staticmethod
    def more(states: list[int], first: int, lanes: list[int], words: Any) -> None:
        for i in lanes:
            if states[first + i] < 2**16:
                states[first + i] = states[first + i] << 16 | next(words)
