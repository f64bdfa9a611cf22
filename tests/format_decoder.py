"""A decoder of ``stemcodecs.pixel_histogram`` written from FORMAT.md alone, in plain Python, without the package.

Section numbers are those of FORMAT.md.
"""

from __future__ import annotations

import hashlib
import math
import struct
import zlib
from dataclasses import dataclass
from functools import cache
from typing import Any

import numcodecs
import numpy as np

DTYPES = ("?", "i1", "u1", "<i2", "<u2", "<i4", "<u4", "<i8", "<u8", "<f2", "<f4", "<f8")


class Sections:
    """1.2: varints, sections, numbers."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def varint(self) -> int:
        value = shift = 0
        while True:
            byte = self.data[self.at]
            self.at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    def section(self) -> bytes:
        n = self.varint()
        self.at += n
        assert self.at <= len(self.data)
        return self.data[self.at - n : self.at]

    def numbers(self, contexts: tuple[int, ...] = (0,)) -> list[int]:
        n = self.varint()
        if n == 0:
            return []
        coder = Adaptive(self.section())
        return [coder.number(contexts[i % len(contexts)]) for i in range(n)]


class Adaptive:
    """1.10: the adaptive coder."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 5
        self.code, self.range = int.from_bytes(data[1:5], "big"), 2**32 - 1
        self.contexts: dict[int, list[int]] = {}

    def renormalise(self) -> None:
        while self.range < 2**24:
            self.range <<= 8
            byte = self.data[self.at] if self.at < len(self.data) else 0
            self.code = (self.code << 8 | byte) % 2**32
            self.at += 1

    def bit(self, context: list[int], i: int) -> int:
        p = context[i]
        bound = (self.range >> 12) * p
        if self.code < bound:
            self.range = bound
            context[i] += (4096 - p) >> 5
            bit = 0
        else:
            self.code -= bound
            self.range -= bound
            context[i] -= p >> 5
            bit = 1
        self.renormalise()
        return bit

    def plain(self) -> int:
        self.range >>= 1
        bit = int(self.code >= self.range)
        self.code -= self.range * bit
        self.renormalise()
        return bit

    def number(self, which: int) -> int:
        context = self.contexts.setdefault(which, [2048] * 96)
        if self.bit(context, 0):
            return 0
        negative = self.bit(context, 1)
        e = 0
        while e < 31 and self.bit(context, 2 + e):
            e += 1
        magnitude = 1
        if e >= 1:
            magnitude = magnitude << 1 | self.bit(context, 33 + e)
            for _ in range(e - 1):
                magnitude = magnitude << 1 | self.plain()
        return -magnitude if negative else magnitude

    def map(self, height: int, width: int) -> list[list[int]]:
        def activity(d: int) -> int:
            d = abs(d)
            return d if d < 3 else 3 if d < 6 else 4 if d < 14 else 5

        image = [[0] * width for _ in range(height)]
        for y in range(height):
            for x in range(width):
                if y == 0:
                    prediction, context = (image[0][x - 1], 2) if x else (0, 5)
                elif x == 0:
                    prediction, context = image[y - 1][0], 2
                else:
                    w, n, nw = image[y][x - 1], image[y - 1][x], image[y - 1][x - 1]
                    ne = image[y - 1][x + 1] if x + 1 < width else n
                    prediction = (3 * w + 3 * n + 2 * ne + 4) >> 3
                    context = max(activity(w - nw), activity(n - nw), activity(n - ne))
                image[y][x] = prediction + self.number(context)
        return image


@dataclass(eq=False)
class Class:
    """1.6: one class of the model."""

    first: int
    method: int
    bits: int
    base: int
    shift: int
    n_thresholds: int
    rate_bits: int
    index_base: int
    index_shift: int
    residual: int
    thresholds: list[int]
    weights: list[list[int]]
    first_table: int


class Model:
    """1.6 and 1.7."""

    def __init__(self, data: bytes, height: int, width: int) -> None:
        s = Sections(data)
        self.height, self.width = height, width
        self.scale = s.varint()
        triples = s.numbers((0, 1, 2))
        self.neighbours = [tuple(triples[i : i + 3]) for i in range(0, len(triples), 3)]
        n_sets = s.varint()
        fields = s.numbers(tuple(range(10)))
        thresholds, weights = iter(s.numbers()), iter(s.numbers())
        self.classes: list[Class] = []
        first = tables = 0
        for row in (fields[i : i + 10] for i in range(0, len(fields), 10)):
            first += row[0]
            total, own = 0, []
            for _ in range(row[5]):
                total += next(thresholds)
                own.append(total)
            sets = [[next(weights) for _ in range(1 + len(self.neighbours))] for _ in range(n_sets * (row[1] == 4))]
            self.classes.append(Class(first, *row[1:], own, sets, tables))
            tables += 1 + row[5]
        self.n_sets = n_sets
        self.levels = [v for line in Adaptive(s.section()).map(height, width) for v in line]
        constants, total = iter(s.numbers()), 0
        self.constants = []
        for level in self.levels:
            total += next(constants) if level < 0 else 0
            self.constants.append(total)
        self.tables = self.histograms(Adaptive(s.section()))
        assert s.at == len(data)

    def histograms(self, coder: Adaptive) -> list[list[int]]:
        tables: list[list[int]] = []
        for k, c in enumerate(self.classes):
            before = self.classes[k - 1] if k else None
            for number in range(1 + c.n_thresholds):
                alike = before is not None and (before.method, before.shift, before.base) == (c.method, c.shift, c.base)
                chained = number > 0 or (alike and c.method != 4)
                table, left_over = [0] * 256, 2**c.bits
                for i in range(256):
                    if left_over == 0:
                        break
                    left = table[i - 1] if i else 0
                    prediction = left
                    if chained:
                        above = tables[-1]
                        prediction = max(0, above[i] + ((left - (above[i - 1] if i else 0)) >> 1))
                    context = min(prediction.bit_length(), 12) + (13 if chained else 0)
                    table[i] = prediction + coder.number(context)
                    left_over -= table[i]
                assert left_over == 0
                tables.append(table)
        return tables

    def class_of(self, pixel: int) -> Class | None:
        level = self.levels[pixel]
        return None if level < 0 else [c for c in self.classes if c.first <= level][-1]

    def mean(self, pixel: int) -> int:
        return max(self.levels[pixel], 0) ** 2 * self.scale >> 16

    @cache  # noqa: B019  a model lives as long as a test
    def coefficients(self, pixel: int, c: Class, which: int) -> tuple[int, int, list[int]]:
        def clip(v: int) -> int:
            return min(max(v, -(2**31)), 2**31 - 1)

        w = c.weights[which]
        y, x = divmod(pixel, self.width)
        m, own, constant, factors = self.mean(pixel), w[0], 0, []
        for i, (_, dy, dx) in enumerate(self.neighbours):
            inside = 0 <= y + dy < self.height and 0 <= x + dx < self.width
            other = (y + dy) * self.width + x + dx
            if not inside or self.levels[other] < 0:
                own += w[i + 1]
                factors.append(0)
            else:
                ratio = min((m << 20) // (self.mean(other) + 2**14), 2**25)
                factors.append(clip((w[i + 1] * ratio) >> (32 - c.rate_bits)))
                constant += factors[-1] >> 2
        return clip(constant), clip((own * m) >> (40 - c.rate_bits)), factors


def decode(data: bytes, shared: bytes = b"") -> np.ndarray[Any, Any]:
    """Array of a chunk, of either kind; ``shared`` is the model of the configuration."""
    assert data[:4] == b"SCPH"
    version, kind, code, _, ndim = data[4:9]
    assert version in (1, 2, 3, 4, 5, 6, 7)
    assert data[9:12] == bytes(3)
    (length,) = struct.unpack_from("<I", data, 12)
    assert zlib.crc32(data[: length - 4]) == struct.unpack_from("<I", data, length - 4)[0]
    shape = struct.unpack_from(f"<{ndim}Q", data, 16)
    body = Sections(data[16 + 8 * ndim : length - 4])
    dtype = np.dtype(DTYPES[code])
    if kind == 0:
        assert struct.unpack("<I", body.section()) == (zlib.crc32(data[length:]),)
        pieces, raw = Sections(data[length:]), b""
        while pieces.at < len(pieces.data):
            shuffled = bytes(numcodecs.Zstd().decode(pieces.section()))
            raw += np.frombuffer(shuffled, "u1").reshape(dtype.itemsize, -1).T.tobytes()
        return np.frombuffer(raw, dtype).reshape(shape)
    return Counts(data, shape, dtype, length, body, version, shared=shared).array()


class Calibration:
    """1.9.1: from counts to calibrated values."""

    def __init__(
        self, data: bytes, detector: tuple[int, int], positions: int, dtype: Any, extended: bool = False
    ) -> None:
        s = Sections(data)
        self.kind = s.varint()
        assert (self.kind >= 2) == (dtype.kind == "f")

        def pixels() -> list[int]:
            return [v for line in Adaptive(s.section()).map(*detector) for v in line]

        def of_positions() -> list[int]:
            return Adaptive(s.section()).map(1, positions)[0]

        if self.kind == 3:
            n, kind = s.varint(), dtype.newbyteorder("<")
            self.listed = np.frombuffer(numcodecs.Zstd().decode(s.section()), kind)
            assert len(self.listed) == n
        elif self.kind == 0:
            (first,), step = struct.unpack("<q", s.section()), s.varint()
            self.table, e = [first], 1
            for d in s.numbers():
                e += d
                self.table.append(self.table[-1] + step * e)
        elif self.kind == 1:
            self.fraction, flags = s.varint(), s.varint()
            n = math.prod(detector)
            self.base = struct.unpack("<q", s.section())[0] if flags & 64 else 0
            self.gain = pixels() if flags & 1 else [2**self.fraction] * n
            assert flags < (128 if extended else 8)
            self.offset = [2**self.fraction // 2] * n
            if flags & 16:
                height, width = detector
                self.offset, bent = [0] * n, s.numbers()
                for p in range(n):
                    above = [self.offset[p - width], self.offset[p - width - 1]] if p >= width else [0, 0]
                    left = self.offset[p - 1] if p % width else 0
                    self.offset[p] = bent[p] + left + above[0] - (above[1] if p % width else 0)
                assert len(bent) == height * width
            elif flags & 2:
                self.offset = pixels()
            if flags & 32:
                self.offset = [(o << self.fraction) + 2**self.fraction // 2 for o in self.offset]
            self.reversed = bool(flags & 8)
            self.shift = of_positions() if flags & 4 else None
        else:
            self.flags = s.varint()
            self.type = np.float64 if self.flags & 64 else np.float32
            self.dark = self.floats(s, pixels) if self.flags & 2 else None
            self.gains = self.floats(s, pixels) if self.flags & 1 else None
            self.scale = self.floats(s, of_positions) if self.flags & 4 else None
            assert self.flags < (512 if extended else 128)
            self.corrections: list[dict[int, int]] = []
            if self.flags & 256:
                first, lengths, steps = pixels(), pixels(), s.numbers()
                for a, n in zip(first, lengths, strict=True):
                    self.corrections.append({a + k: steps.pop(0) for k in range(n)})
                assert not steps
        assert s.at == len(data)

    @staticmethod
    def floats(s: Sections, numbers: Any) -> list[float]:
        width = 64 if s.varint() else 32
        ordered = numbers()
        if width == 64:
            low = np.frombuffer(numcodecs.Zstd().decode(s.section()), "<u4").tolist()
            ordered = [h << 32 | part for h, part in zip(ordered, low, strict=True)]
        bits = [~b ^ -(2 ** (width - 1)) if b < 0 else b for b in ordered]
        kind = ("<i8", "<f8") if width == 64 else ("<i4", "<f4")
        return np.array(bits, kind[0]).view(kind[1]).tolist()

    def integer(self, c: int, u: int, pixel: int, position: int) -> int:
        if self.kind == 0:
            return self.table[c] if c < len(self.table) else 0
        value = (self.gain[pixel] * u + self.offset[pixel]) >> self.fraction
        value += self.shift[position] if self.shift else 0
        return (~value if self.reversed else value) + self.base

    def number(self, c: int, u: int, pixel: int, position: int, dtype: Any) -> Any:
        if self.kind == 3:
            return self.listed[c] if c < len(self.listed) else dtype.type(0)
        x = self.type(u)
        if self.flags & 128 and u == c and c > 0:
            x = self.type(c - 1 if c > 1 else -0.0)
        if self.dark is not None:
            x = x - self.type(self.dark[pixel])
        factors = [(self.gains, pixel, 8), (self.scale, position, 16)]
        for values, at, divides in factors[::-1] if self.flags & 32 else factors:
            if values is not None:
                x = x / self.type(values[at]) if self.flags & divides else x * self.type(values[at])
        step = self.corrections[pixel].get(c, 0) if self.corrections else 0
        if step == 0:
            return x
        width = 8 * dtype.itemsize
        (b,) = np.array([x]).astype(dtype).view(f"<i{dtype.itemsize}").tolist()
        b = (~b ^ -(2 ** (width - 1)) if b < 0 else b) + step
        b = ~b ^ -(2 ** (width - 1)) if b < 0 else b
        return np.array([b]).astype(f"<i{dtype.itemsize}").view(dtype)[0]


class Counts:
    """1.4, 1.5, 1.8, 1.9: a chunk of kind counts."""

    def __init__(
        self, data: bytes, shape: tuple[int, ...], dtype: Any, length: int, body: Sections, version: int,
        model: Any = Model, shared: bytes = b"",
    ) -> None:  # fmt: skip
        self.data, self.shape, self.dtype, self.length = data, shape, dtype, length
        section = body.section()
        self.offset, self.gain, self.divide, self.low_bits, self.negatives = struct.unpack_from("<qdBBH", section)
        specials = np.frombuffer(section[20:], "<u8").tolist()
        self.specials = {65535 - self.negatives - i: bits for i, bits in enumerate(specials)}
        calibration = body.section() if version in (2, 4, 7) else None
        scales = Sections(body.section()) if version == 5 else None
        shift = Adaptive(body.section()) if version == 6 else None
        self.tile = body.varint(), body.varint()
        self.blocks = body.varint()
        reference, model_bytes = body.varint(), body.section()
        scan, detector = (shape[:-2], shape[-2:]) if len(shape) > 2 else (shape[:1], shape[1:])
        self.detector = detector if len(detector) == 2 else (1, math.prod(detector))
        self.ny, self.nx = math.prod(scan[:-1]), scan[-1] if scan else 1
        self.n = math.prod(self.detector)
        self.calibration = None
        if reference:
            # 1.11
            assert hashlib.sha256(shared).digest() == model_bytes
            magic, of_shared, *of = struct.unpack_from("<4sBII", shared)
            assert (magic, *of) == (b"SCPM", *self.detector)
            model_bytes = shared[21:]
            if of_shared > 1:
                (size,) = struct.unpack_from("<I", model_bytes)
                behind, model_bytes = Sections(model_bytes[4 : 4 + size]), model_bytes[4 + size :]
                assert behind.varint() == self.negatives or version < 3
                assert behind.section() == section[20:] or version < 3
                of_scan = behind.section()
                if version in (3, 5, 6):
                    assert of_shared in ((2, 4) if version == 3 else (3, 5) if version == 5 else (5,))
                    self.calibration = Calibration(of_scan, self.detector, 0, dtype, of_shared > 3)
                if scales is not None:
                    n = self.ny * self.nx
                    read = scales
                    self.calibration.scale = Calibration.floats(read, lambda: Adaptive(read.section()).map(1, n)[0])
                    assert read.at == len(read.data)
                if shift is not None:
                    assert self.calibration.kind == 1
                    self.calibration.shift = shift.map(1, self.ny * self.nx)[0]
        assert version not in (3, 5, 6) or self.calibration
        if calibration is not None:
            self.calibration = Calibration(calibration, self.detector, self.ny * self.nx, dtype, version == 4)
        self.model = model(model_bytes, *self.detector)
        self.doses = [4096 + d for d in body.numbers()]
        self.selections = body.section()
        sizes = body.numbers((0, 1, 2, 3))
        self.sizes = [sizes[i : i + 4] for i in range(0, len(sizes), 4)]
        self.crcs = body.section()
        assert body.at == len(body.data)

    def lane_positions(self, chain: int, step: int) -> list[int]:
        ty, tx = self.tile
        across = -(-self.nx // tx)
        out = []
        for lane in range(64):
            row, column = divmod(64 * chain + lane, across)
            y, x = row * ty + step // tx, column * tx + step % tx
            inside = row < -(-self.ny // ty) and y < self.ny and x < self.nx
            out.append(y * self.nx + x if inside else -1)
        return out

    def references(self, step: int) -> list[int]:
        """Steps that the references 0 to 4 stand for."""
        tx = self.tile[1]

        def distance(s: int) -> int:
            return (s // tx - step // tx) ** 2 + (s % tx - step % tx) ** 2

        nearest = sorted(range(step), key=lambda s: (distance(s), -s))[:4]
        return [step, *nearest, *nearest[:1] * (4 - len(nearest))]

    def array(self) -> np.ndarray[Any, Any]:
        out = np.zeros((self.ny * self.nx, self.n), self.dtype)
        at, group = self.length, 0
        tiles = -(-self.ny // self.tile[0]) * -(-self.nx // self.tile[1])
        for chain in range(-(-tiles // 64)):
            steps: list[list[list[int]]] = []
            for step in range(self.tile[0] * self.tile[1]):
                positions = self.lane_positions(chain, step)
                if max(positions) < 0:
                    steps.append([[0] * 64 for _ in range(self.n)])
                    continue
                size = sum(self.sizes[group])
                payload = self.data[at : at + size]
                assert zlib.crc32(payload) == struct.unpack_from("<I", self.crcs, 4 * group)[0]
                steps.append(self.values(payload, group, step, positions, steps))
                self.place(payload, group, positions, steps[-1], out)
                at += size
                group += 1
        assert at == len(self.data)
        return out.reshape(self.shape)

    def values(
        self, payload: bytes, group: int, step: int, positions: list[int], earlier: list[list[list[int]]]
    ) -> list[list[int]]:
        words_size, low_size, patch_size, _ = self.sizes[group]
        words = iter(struct.unpack(f"<{words_size // 2}H", payload[:words_size]))
        patches = self.patches(payload[words_size + low_size :][:patch_size])
        active = [int(p >= 0) for p in positions]
        quarters = [active[16 * b : 16 * b + 16] for b in range(4)]

        def union(*parts: list[int]) -> list[int]:
            return [max(bits) for bits in zip(*parts, strict=True)]

        masks = {
            1: [(0, union(*quarters))],
            2: [(0, union(*quarters[:2])), (1, union(*quarters[2:]))],
            3: list(enumerate(quarters)),
            4: list(enumerate(quarters)),
        }
        masks = {method: [(b, m) for b, m in parts if any(m)] for method, parts in masks.items()}
        classes = [self.model.class_of(p) for p in range(self.n)]
        used = [0] * 64
        number = 0
        for c in classes:
            for _, mask in masks[c.method] if c else []:
                for i in range(16):
                    used[16 * (number % self.blocks) + i] |= mask[i]
                number += 1
        states = [next(words) | next(words) << 16 if u else 2**15 for u in used]
        values: list[list[int]] = []
        number = 0
        for pixel, c in enumerate(classes):
            if c is None:
                row = [self.model.constants[pixel]] * 64
            else:
                rates = self.rates(pixel, c, group, step, positions, values, earlier) if c.method == 4 else [0] * 64
                symbols, low = [0] * 64, [0] * 64
                for b, mask in masks[c.method]:
                    first = 16 * (number % self.blocks)
                    number += 1
                    lanes = [i for i in range(16) if mask[i]]
                    for i in lanes:
                        table = self.model.tables[self.table(c, rates[16 * b + i])]
                        x, slot, start, symbol = states[first + i], states[first + i] % 2**c.bits, 0, 0
                        while start + table[symbol] <= slot:
                            start += table[symbol]
                            symbol += 1
                        states[first + i] = table[symbol] * (x >> c.bits) + slot - start
                        symbols[16 * b + i] = symbol
                    self.refill(states, first, lanes, words)
                    if c.shift:
                        for i in lanes:
                            low[16 * b + i] = states[first + i] % 2**c.shift
                            states[first + i] >>= c.shift
                        self.refill(states, first, lanes, words)
                row = [self.value(c, j, symbols, low, rates[j]) % 65536 for j in range(64)]
            row = [patches.get(64 * pixel + j, v) * active[j] for j, v in enumerate(row)]
            values.append(row)
        assert states == [2**15] * 64
        assert next(words, None) is None
        return values

    @staticmethod
    def refill(states: list[int], first: int, lanes: list[int], words: Any) -> None:
        for i in lanes:
            if states[first + i] < 2**15:
                states[first + i] = states[first + i] << 16 | next(words)

    @staticmethod
    def table(c: Class, rate: int) -> int:
        if c.method != 4:
            return c.first_table
        index = min(max(((rate - c.index_base + 2**31) % 2**32 - 2**31) >> c.index_shift, 0), 127)
        return c.first_table + sum(t <= index for t in c.thresholds)

    @staticmethod
    def value(c: Class, j: int, symbols: list[int], low: list[int], rate: int) -> int:
        if c.method == 1:
            return symbols[j % 16] >> 2 * (j // 16) & 3
        if c.method == 2:
            return symbols[16 * (j // 32) + j % 16] >> 4 * (j // 16 % 2) & 15
        whole = (symbols[j] << c.shift) + low[j]
        if c.method == 4 and c.residual:
            return whole + min(max(rate, 0) >> c.rate_bits, 65535) - (128 << c.shift)
        return whole + c.base

    def rates(
        self, pixel: int, c: Class, group: int, step: int, positions: list[int], now: Any, earlier: Any
    ) -> list[int]:
        steps = self.references(step)
        out = []
        for j in range(64):
            second = self.model.n_sets == 2 and step > 0 and self.selections[8 * group + j // 8] >> j % 8 & 1
            constant, slope, factors = self.model.coefficients(pixel, c, int(second))
            rate = constant + slope * (self.doses[positions[j]] if positions[j] >= 0 else 0)
            for (reference, dy, dx), factor in zip(self.model.neighbours, factors, strict=True):
                if not factor:
                    continue
                other = pixel + dy * self.detector[1] + dx
                if reference and step == 0:
                    rate += factor * (now[pixel - 1][j] if pixel else 0)
                else:
                    rate += factor * (earlier[steps[reference]] if reference else now)[other][j]
            out.append((rate + 2**31) % 2**32 - 2**31)
        return out

    @staticmethod
    def patches(data: bytes) -> dict[int, int]:
        if not data:
            return {}
        k = Sections(data).varint() // 2
        numbers = Sections(data).numbers((0,) * k + (1,) * k)
        return dict(zip(np.cumsum(numbers[:k]).tolist(), numbers[k:], strict=True))

    def place(
        self, payload: bytes, group: int, positions: list[int], values: list[list[int]], out: np.ndarray[Any, Any]
    ) -> None:
        """1.9: from values to the array."""
        words, low_size, patch_size, exception_size = self.sizes[group]
        held = [j for j in range(64) if positions[j] >= 0]
        plane = -(-len(held) * self.n // 8)
        assert low_size == plane * self.low_bits
        for k, j in enumerate(held):
            for pixel in range(self.n):
                c, v = values[pixel][j], k * self.n + pixel
                if self.calibration:
                    u = c - 65536 if c >= 65536 - self.negatives else c
                    if c in self.specials:
                        out[positions[j], pixel] = self.cut(self.specials[c])
                    elif self.dtype.kind == "f":
                        with np.errstate(over="ignore"):
                            out[positions[j], pixel] = self.calibration.number(c, u, pixel, positions[j], self.dtype)
                    else:
                        out[positions[j], pixel] = self.cut(self.calibration.integer(c, u, pixel, positions[j]))
                    continue
                if self.dtype.kind == "b" or self.dtype in (np.uint8, np.uint16):
                    out[positions[j], pixel] = c
                    continue
                if c in self.specials:
                    out[positions[j], pixel] = self.cut(self.specials[c])
                    continue
                u = c - 65536 if c >= 65536 - self.negatives else c
                if self.dtype.kind == "f":
                    with np.errstate(over="ignore"):
                        out[positions[j], pixel] = (
                            np.float64(u) / self.gain if self.divide else np.float64(u) * self.gain
                        )
                    continue
                low = sum((payload[words + b * plane + v // 8] >> v % 8 & 1) << b for b in range(self.low_bits))
                out[positions[j], pixel] = self.cut((u << self.low_bits | low) + self.offset)
        if not exception_size:
            return
        s = Sections(payload[words + low_size + patch_size :])
        index = np.cumsum(s.numbers()).tolist()
        for i, bits in zip(index, np.frombuffer(numcodecs.Zstd().decode(s.section()), "<u8").tolist(), strict=True):
            lane, pixel = divmod(i, self.n)
            raw = (bits % 2 ** (8 * self.dtype.itemsize)).to_bytes(self.dtype.itemsize, "little")
            out[positions[lane], pixel] = np.frombuffer(raw, self.dtype)[0]

    def cut(self, value: int) -> Any:
        """Low bits of an integer as a value of the dtype."""
        raw = (value % 2 ** (8 * self.dtype.itemsize)).to_bytes(self.dtype.itemsize, "little")
        return np.frombuffer(raw, self.dtype)[0]
