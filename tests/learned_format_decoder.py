"""A decoder of ``stemcodecs.learned`` written from its FORMAT.md alone, in plain Python, without the package.

Section numbers are those of ``stemcodecs/learned/FORMAT.md``.
"""

from __future__ import annotations

import math
import struct
import zlib
from typing import Any

import numpy as np

from tests import format_decoder, l3c_format_decoder
from tests.format_decoder import DTYPES, Adaptive, Counts, Sections

SIGMOID = [round(2**15 / (1 + math.exp(-(i - 2047.5) / 128))) for i in range(4096)]
NORMAL = [round(2**14 * math.erfc(-0.6 * (i - 2047.5) / 128 / math.sqrt(2))) for i in range(4096)]
MANTISSA = [round(2**11 * 2 ** (-i / 64)) for i in range(64)]


def clip(v: int, low: int, high: int) -> int:
    return min(max(v, low), high)


def i32(v: int) -> int:
    return (v + 2**31) % 2**32 - 2**31


def root(v: int) -> int:
    """3.1"""
    return math.isqrt(4096 * v + 1536)


def sigmoid(a: int) -> int:
    return SIGMOID[clip(a, -2048, 2047) + 2048]


def normal(a: int) -> int:
    """10"""
    return NORMAL[clip(a, -2048, 2047) + 2048]


class Network:
    """2, and what it says of pixels."""

    def __init__(self, data: bytes, height: int, width: int) -> None:
        s = Sections(data)
        architecture = s.varint()
        assert architecture in (1, 4, 5)
        self.distribution = NormalDistribution if architecture == 5 else Distribution
        self.height, self.width = height, width
        scale = s.varint()
        self.levels = [v for line in Adaptive(s.section()).map(height, width) for v in line]
        constants, total = iter(s.numbers()), 0
        self.constants = []
        for level in self.levels:
            total += next(constants) if level < 0 else 0
            self.constants.append(total)
        self.maps = []
        for _ in range(s.varint()):
            shift = s.varint()
            self.maps.append([v << shift for line in Adaptive(s.section()).map(height, width) for v in line])
        pairs = s.numbers((0, 1)) if architecture > 1 else []
        self.means = [tuple(pairs[i : i + 2]) for i in range(0, len(pairs), 2)]
        triples = s.numbers((0, 1, 2))
        self.neighbours = [tuple(triples[i : i + 3]) for i in range(0, len(triples), 3)]
        self.chained = any(reference for reference, _, _ in self.neighbours)
        h = s.varint()
        lanes = 1 + self.chained + len(self.neighbours)
        self.layers = []
        for units, inputs in ((h, lanes + 5 + len(self.maps)), (h, h), (5, h)):
            shift, weights, bias = s.varint(), s.numbers(), s.numbers()
            self.layers.append((shift, [weights[u * inputs : (u + 1) * inputs] for u in range(units)], bias))
        assert s.at == len(data)
        self.lanes = lanes
        means = [max(level, 0) ** 2 * scale >> 16 for level in self.levels]
        self.roots = [math.isqrt((m + 24576) * 16) for m in means]

    def first_bias(self, pixel: int) -> list[int]:
        y, x = divmod(pixel, self.width)

        def level(yy: int, xx: int) -> int:
            return min(self.roots[clip(yy, 0, self.height - 1) * self.width + clip(xx, 0, self.width - 1)] >> 4, 32767)

        own = level(y, x)
        around = [level(*place) - own for place in ((y, x - 1), (y - 1, x), (y, x + 1), (y + 1, x))]
        features = [own, *around, *(m[pixel] for m in self.maps)]
        _, weights, bias = self.layers[0]
        return [
            b + (sum(w * f for w, f in zip(row[self.lanes :], features, strict=True)) >> 6)
            for row, b in zip(weights, bias, strict=True)
        ]

    def outputs(self, first_bias: list[int], features: list[int]) -> list[int]:
        """3.3"""
        (s1, w1, _), (s2, w2, b2), (s3, w3, b3) = self.layers

        def layer(weights: Any, bias: Any, shift: int, x: list[int]) -> list[int]:
            return [
                i32(b + sum(w * v for w, v in zip(row, x, strict=False))) >> shift
                for row, b in zip(weights, bias, strict=True)
            ]

        one = [clip(v, 0, 32767) for v in layer(w1, first_bias, s1, features)]
        two = [clip(v, 0, 32767) for v in layer(w2, b2, s2, one)]
        return layer(w3, b3, s3, two)


class ImagesNetwork:
    """7, and what it says of pixels."""

    def __init__(self, data: bytes, height: int, width: int) -> None:
        s = Sections(data)
        assert s.varint() == 3
        self.height, self.width = height, width
        self.first = s.varint()
        triples = s.numbers((0, 1, 2))
        self.neighbours = [tuple(triples[i : i + 3]) for i in range(0, len(triples), 3)]
        self.chained = any(reference for reference, _, _ in self.neighbours)
        h = s.varint()
        self.layers = []
        for units, inputs in ((h, 6 + self.chained + len(self.neighbours)), (h, h), (5, h)):
            shift, weights, bias = s.varint(), s.numbers(), s.numbers()
            self.layers.append((shift, [weights[u * inputs : (u + 1) * inputs] for u in range(units)], bias))
        assert s.at == len(data)
        self.levels = [0] * (height * width)

    outputs = Network.outputs

    def around(self, y: int, x: int) -> list[tuple[int, int]]:
        """W, N, NW, NE, WW, NN of 7.1."""
        if y == 0:
            w = (0, x - 1)
            return [w, w, w, w, (0, x - 2) if x > 1 else w, w]
        n = (y - 1, x)
        w = (y, x - 1) if x else n
        return [
            w,
            n,
            (y - 1, x - 1) if x else n,
            (y - 1, x + 1) if x < self.width - 1 else n,
            (y, x - 2) if x > 1 else w,
            (y - 2, x) if y > 1 else n,
        ]


def log2(v: int) -> int:
    return v.bit_length() - 1


class ValueDistribution:
    """7.3"""

    def __init__(self, o: list[int], base: int, unit: int) -> None:
        self.w = [sigmoid(o[0]), 2**15 - sigmoid(o[0])]
        self.loc = [clip(o[1 + k], -(2**18) + 1, 2**18 - 1) for k in range(2)]
        self.s = [clip(o[3 + k], -384, 511) for k in range(2)]
        self.base, self.unit = base, unit
        mean = sum(w * (loc >> 4) for w, loc in zip(self.w, self.loc, strict=True)) >> 11
        c = clip(base + ((mean << unit) >> 10), 0, 65535)
        t = max([s for s, w in zip(self.s, self.w, strict=True) if w >= 256], default=-384)
        spread = (MANTISSA[-t & 63] << (unit + 3)) >> (11 + (-t >> 6))
        self.width = 16 if spread < 4 else 32 if spread < 8 else 64 if spread < 16 else 128
        self.shift = sum(2**k <= spread for k in range(5, 14))
        self.z0 = max((c >> self.shift) - self.width // 2, 0)

    def cumulative(self, z: int) -> int:
        if z in (0, self.width):
            return 2**15 if z else 0
        twice = 2 * (((self.z0 + z) << self.shift) - self.base) - 1
        y = clip((twice * 512) >> self.unit, -(2**19) + 1, 2**19 - 1)
        f = 0
        for w, loc, s in zip(self.w, self.loc, self.s, strict=True):
            f += w * sigmoid(((y - loc) * MANTISSA[s & 63]) >> (14 + (s >> 6)))
        f >>= 15
        return f - ((f * self.width) >> 15) + z


class Distribution:
    """3.4 and 3.5"""

    cumulative_of = staticmethod(sigmoid)

    def __init__(self, o: list[int], base: int) -> None:
        self.w = [sigmoid(o[0]), 2**15 - sigmoid(o[0])]
        self.loc = [clip(i32(base + o[1 + k]), -(2**18), 2**19 - 1) for k in range(2)]
        self.s = [clip(o[3 + k], -384, 511) for k in range(2)]
        c = clip(sum(w * (loc >> 4) for w, loc in zip(self.w, self.loc, strict=True)) >> 11, 0, 2**18 - 1)
        t = max([s for s, w in zip(self.s, self.w, strict=True) if w >= 256], default=-384)
        self.window(c, (MANTISSA[-t & 63] << (6 - (-t >> 6))) >> 7)

    def window(self, c: int, s: int) -> None:
        top = (min(c + 12 * s, 2**18 - 1) >> 5) ** 2 >> 10
        self.shift = self.z0 = 0
        self.width = next((width for width in (16, 32, 64) if top < width), 128)
        if self.width == 128:
            spread = ((c >> 6) * (s >> 6)) >> 7
            self.shift = sum(2**k <= spread for k in range(3, 12))
            self.z0 = max((((c >> 3) ** 2 >> 14) >> self.shift) - 64, 0)

    def cumulative(self, z: int) -> int:
        if z in (0, self.width):
            return 2**15 if z else 0
        y = math.isqrt((((self.z0 + z) << self.shift) - 1) * 2**20 + 917504)
        f = 0
        for w, loc, s in zip(self.w, self.loc, self.s, strict=True):
            f += w * self.cumulative_of(((y - loc) * MANTISSA[s & 63]) >> (14 + (s >> 6)))
        f >>= 15
        return f - ((f * self.width) >> 15) + z


class NormalDistribution(Distribution):
    """10"""

    cumulative_of = staticmethod(normal)

    def window(self, c: int, s: int) -> None:
        top = (min(c + 8 * s, 2**18 - 1) >> 5) ** 2 >> 10
        self.shift = self.z0 = 0
        self.width = next((width for width in (8, 16, 32) if top < width), 64)
        if top >= 64:
            spread = ((c >> 6) * (s >> 6)) >> 7
            self.shift = sum(2**k <= spread for k in range(2, 11))
            self.z0 = max((((c >> 3) ** 2 >> 14) >> self.shift) - 32, 0)


class NetworkCounts(Counts):
    """4: groups of a chunk whose model is a network."""

    def values(
        self, payload: bytes, group: int, step: int, positions: list[int], earlier: list[list[list[int]]]
    ) -> list[list[int]]:
        net: Any = self.model
        if step == 0:
            self.residuals: list[list[list[int]]] = []
            self.places: dict[tuple[int, int], int] = {}
        self.places |= {(step, lane): p for lane, p in enumerate(positions) if p >= 0}
        self.shares: dict[tuple[int, int], list[tuple[int, int, int]]] = {}
        while len(self.residuals) < step:  # steps that hold no position
            self.residuals.append([[0] * 64 for _ in range(self.n)])
        words_size, low_size, patch_size, _ = self.sizes[group]
        words = iter(struct.unpack(f"<{words_size // 2}H", payload[:words_size]))
        patches = self.patches(payload[words_size + low_size :][:patch_size])
        active = [int(p >= 0) for p in positions]
        used = [0] * 64
        for j in range(64):
            used[16 * (j // 16 % self.blocks) + j % 16] |= active[j]
        states = [next(words) | next(words) << 16 if u else 2**16 for u in used]
        doses = [math.isqrt(4096 * self.doses[p]) if p >= 0 else 0 for p in positions]
        values: list[list[int]] = []
        mine: list[list[int]] = [[0] * 64 for _ in range(self.n)]
        self.residuals.append(mine)
        for pixel in range(self.n):
            if net.levels[pixel] < 0:
                row = [net.constants[pixel]] * 64
            else:
                images = isinstance(net, ImagesNetwork)
                bias = net.layers[0][2] if images else net.first_bias(pixel)
                bases = [] if images else [(net.roots[pixel] * d) >> 12 for d in doses]
                row = [0] * 64
                for b in range(4):
                    lanes = [i for i in range(16) if active[16 * b + i]]
                    first = 16 * (b % self.blocks)
                    found = {}
                    for i in lanes:
                        j = 16 * b + i
                        if images:
                            features, base, unit = self.image_features(net, pixel, step, j, doses[j], values, earlier)
                            d = found[i] = ValueDistribution(net.outputs(bias, features), base, unit)
                        else:
                            features = self.features(net, pixel, step, j, doses[j])
                            d = found[i] = net.distribution(net.outputs(bias, features), bases[j])
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
            row = [patches.get(64 * pixel + j, v % 65536) * active[j] for j, v in enumerate(row)]
            values.append(row)
            if net.levels[pixel] >= 0 and not isinstance(net, ImagesNetwork):
                mine[pixel] = [clip(root(v) - (base >> 4), -32768, 32767) for v, base in zip(row, bases, strict=True)]
        assert states == [2**16] * 64
        assert next(words, None) is None
        return values

    @staticmethod
    def more(states: list[int], first: int, lanes: list[int], words: Any) -> None:
        for i in lanes:
            if states[first + i] < 2**16:
                states[first + i] = states[first + i] << 16 | next(words)

    def features(self, net: Network, pixel: int, step: int, lane: int, dose: int) -> list[int]:
        """3.2"""
        y, x = divmod(pixel, self.detector[1])
        steps = self.references(step)
        out = [(dose - 4096) >> 5]
        if net.chained:
            out.append(64 if step else 0)
        for reference, dy, dx in net.neighbours:
            inside = 0 <= y + dy < self.detector[0] and 0 <= x + dx < self.detector[1]
            there = (y + dy) * self.detector[1] + x + dx
            if not inside or (reference and not step):
                out.append(0)
            elif reference > 4:
                shares = self.shares_of(step, lane, reference - 5, *net.means[reference - 5])
                out.append((sum(u * self.residuals[t][there][i] for t, i, u in shares) + 2**13) >> 14)
            else:
                out.append(self.residuals[steps[reference]][there][lane])
        return out

    def shares_of(self, step: int, lane: int, mean: int, decay: int, reach: int) -> list[tuple[int, int, int]]:
        """9.1: steps and lanes that a mean is of, and their shares."""
        key = (mean, lane)
        if key not in self.shares:
            found = []
            for (t, i), place in self.places.items():
                if t < step and (step, lane) in self.places:
                    (y, x), (yy, xx) = (divmod(p, self.nx) for p in (self.places[step, lane], place))
                    distance = (y - yy) ** 2 + (x - xx) ** 2
                    if distance <= reach:
                        e = decay * distance
                        found.append((t, i, (MANTISSA[e % 64] * 8) >> min(e // 64, 31)))
            total = max(sum(v for _, _, v in found), 1)
            self.shares[key] = [(t, i, v * 2**14 // total) for t, i, v in found]
        return self.shares[key]

    def base_of(self, net: ImagesNetwork, y: int, x: int, step: int, lane: int, now: Any, earlier: Any) -> int:
        """7.1"""
        if y == x == 0:
            return earlier[self.references(step)[1]][0][lane] if net.chained and step else net.first
        w, n, nw = (now[yy * net.width + xx][lane] for yy, xx in net.around(y, x)[:3])
        return sorted((w, n, w + n - nw))[1]

    def image_features(
        self, net: ImagesNetwork, pixel: int, step: int, lane: int, dose: int, now: Any, earlier: Any
    ) -> tuple[list[int], int, int]:
        """7.1 and 7.2: features, base and unit; ``now`` are the rows of the step so far."""
        y, x = divmod(pixel, net.width)

        def miss(yy: int, xx: int) -> int:
            if yy < 0 or xx < 0:
                return 0
            return now[yy * net.width + xx][lane] - self.base_of(net, yy, xx, step, lane, now, earlier)

        base, left, above = self.base_of(net, y, x, step, lane, now, earlier), miss(y, x - 1), miss(y - 1, x)
        activity = 1024
        if pixel:
            w, n, nw, ne, ww, nn = (now[yy * net.width + xx][lane] for yy, xx in net.around(y, x))
            activity = abs(w - nw) + abs(n - nw) + abs(n - ne) + abs(w - ww) + abs(n - nn)
            activity += 2 * abs(left) + 2 * abs(above) + 4
        unit = min(log2(activity) - 2, 12)

        def scaled(d: int) -> int:
            return clip((d * 64) >> unit, -4096, 4096)

        def log(v: int) -> int:
            return 64 * log2(v) + ((v * 64) >> log2(v)) - 64

        out = [(dose - 4096) >> 5]
        if net.chained:
            out.append(64 if step else 0)
        out += [log(activity), (activity * 64) >> log2(activity), log(base + 1), scaled(left), scaled(above)]
        for reference, dy, dx in net.neighbours:
            inside = 0 <= y + dy < net.height and 0 <= x + dx < net.width
            if not inside or (reference and not step):
                out.append(0)
            else:
                rows = earlier[self.references(step)[reference]] if reference else now
                out.append(scaled(rows[(y + dy) * net.width + x + dx][lane] - base))
        return out, base, unit


def network(data: bytes, height: int, width: int) -> Network | ImagesNetwork:
    """2: which network it is, the first number says."""
    return (ImagesNetwork if data[0] == 3 else Network)(data, height, width)


def decode(data: bytes) -> np.ndarray[Any, Any]:
    """Array of a learned chunk."""
    assert data[:5] == b"SCLN\x01"
    assert data[6:8] == bytes(2)
    assert struct.unpack_from("<I", data, 8)[0] == zlib.crc32(data[:8])
    chunk = data[12:]
    if data[5] == 0 or chunk[5] == 0:
        return format_decoder.decode(chunk)
    version, _, code, _, ndim = chunk[4:9]
    (length,) = struct.unpack_from("<I", chunk, 12)
    shape = struct.unpack_from(f"<{ndim}Q", chunk, 16)
    body = Sections(chunk[16 + 8 * ndim : length - 4])
    if architecture(body, version) == 2:
        l3c_format_decoder.L3cCounts.distribution = Distribution
        l3c = l3c_format_decoder.L3cNetwork
        return l3c_format_decoder.L3cCounts(
            chunk, shape, np.dtype(DTYPES[code]), length, body, version, model=l3c
        ).array()
    return NetworkCounts(chunk, shape, np.dtype(DTYPES[code]), length, body, version, model=network).array()


def architecture(body: Sections, version: int) -> int:
    """Number of the network inside a header whose body begins here."""
    look = Sections(body.data)
    for _ in range(version):
        look.section()
    for _ in range(4):
        look.varint()
    return look.section()[0]
