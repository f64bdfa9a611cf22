"""Decoders of ``bit_pack`` and ``poisson_histogram`` written from quantize/FORMAT.md alone, in plain Python.

Section numbers are those of that page. The codes of ``poisson_histogram`` are decoded by :mod:`tests.format_decoder`.
"""

from __future__ import annotations

import base64
import math
import struct
import zlib
from fractions import Fraction
from math import isqrt
from typing import Any

import numcodecs
import numpy as np

from tests import format_decoder

Config = dict[str, Any]
R_SQUARED = {"huang-511": Fraction(1, 8), "huang-255": Fraction(1, 2), "huang-191": Fraction(1)}


def bit_pack(data: bytes, bits: int) -> np.ndarray[Any, Any]:
    """Section 1."""
    assert data[:4] == b"SCbp"
    assert data[4] == 1
    assert struct.unpack("<I", data[-4:]) == (zlib.crc32(data[:-4]),)
    kind, width, b, dimensions = chr(data[5]), data[6], data[7], data[8]
    assert b == bits
    d = dimensions % 64
    shape = struct.unpack_from(f"<{d}Q", data, 9)
    stream = int.from_bytes(data[9 + 8 * d : -4], "little")
    n = math.prod(shape)
    assert len(data) == 9 + 8 * d + -(-n * b // 8) + 4
    assert stream >> n * b == 0
    values = [stream >> i * b & 2**b - 1 for i in range(n)]
    return in_memory(np.array(values, f"{kind}{width}").reshape(shape), dimensions & 64, dimensions & 128)


def poisson_histogram(data: bytes, configuration: Config) -> np.ndarray[Any, Any]:
    """Section 2."""
    magic, version, kind, width, flags, n_levels, definition, n = struct.unpack_from("<4sBcBBIII", data)
    assert magic == b"SCpq"
    to_counts = CountsMap(configuration["map"]) if "map" in configuration else None
    assert version == (1 if to_counts is None else 3 if to_counts.scaled else 2)
    start, m = (20, 0) if version == 1 else (24, *struct.unpack_from("<I", data, 20))
    end = start + n + m
    assert struct.unpack_from("<I", data, end) == (zlib.crc32(data[:end]),)
    stored = np.dtype(f"{kind.decode()}{width}")
    dtype = stored if version == 1 else np.dtype("i4")
    levels = Levels(configuration, dtype)
    numbers = struct.pack(f"<{2 + len(levels.lows)}q", levels.offset, levels.top, *levels.lows)
    if to_counts is not None:
        numbers += to_counts.crc
    assert definition == zlib.crc32(numbers)
    offsets = table_of_offsets(data[start : start + n])
    if not offsets and "centroids" in configuration:
        raw = base64.b64decode(configuration["centroids"])
        assert struct.unpack("<I", raw[-4:]) == (zlib.crc32(raw[:-4]),)
        offsets = table_of_offsets(raw[:-4])
    codes = format_decoder.decode(data[end + 4 :])
    assert codes.dtype == {0: np.uint8, 4: np.uint16, 8: np.uint32}[flags & 12]
    known: dict[int, np.ndarray[Any, Any]] = {}
    out = np.empty(codes.size, dtype)
    for i, code in enumerate(codes.ravel().tolist()):
        if code not in known:
            offset = offsets[code] if code < len(offsets) else 0
            value = levels.level(code, offset) if code < n_levels else levels.escape(code - n_levels)
            known[code] = value
        out[i] = known[code]
    if to_counts is not None:
        out = to_counts.values(out.reshape(codes.shape), stored, data[start + n : end])
    return in_memory(out.reshape(codes.shape), flags & 1, flags & 2)


class CountsMap:
    """Section 2.1."""

    def __init__(self, uri: str) -> None:
        data = base64.b64decode(uri.removeprefix("data:application/octet-stream;base64,"), validate=True)
        self.crc = data[-4:]
        assert data[:4] == b"SCcm"
        assert self.crc == struct.pack("<I", zlib.crc32(data[:-4]))
        s = format_decoder.Sections(data[5:-4])
        flags, height, width, floats = (s.varint() for _ in range(4))
        self.reversed, self.scaled = bool(flags & 1), bool(flags & 2)
        assert flags < 4
        assert data[4] == 3 or data[4] == (2 if self.scaled else 1)
        self.detector = height, width
        kind = np.dtype("f8" if floats else "i8")
        self.calibration = format_decoder.Calibration(s.section(), self.detector, 1, kind, data[4] == 3)
        self.zero = [v for line in format_decoder.Adaptive(s.section()).map(height, width) for v in line]
        alone = floats and not self.reversed and not any(self.zero) and not self.calibration.dark
        assert not self.scaled or alone or (data[4] == 3 and not floats)

    def values(self, counts: np.ndarray[Any, Any], dtype: np.dtype[Any], beside: bytes) -> np.ndarray[Any, Any]:
        """Values of counts, given what is kept beside them."""
        assert counts.shape[-2:] == self.detector
        if self.scaled:
            positions = counts.size // len(self.zero)
            s = format_decoder.Sections(beside)
            of_patterns = format_decoder.Sections(s.section())
            floats = format_decoder.Calibration.floats(
                of_patterns, lambda: format_decoder.Adaptive(of_patterns.section()).map(1, positions)[0]
            )
            assert of_patterns.at == len(of_patterns.data)
            if dtype.kind == "f":
                self.calibration.scale = [scale or 1.0 for scale in floats]
            else:
                self.calibration.shift = [int(offset) for offset in floats]
            beside = beside[s.at :]
        out = np.empty(counts.shape, dtype)
        flat = out.reshape(-1)
        for i, count in enumerate(counts.ravel().tolist()):
            pixel = i % len(self.zero)
            u = self.zero[pixel] - count if self.reversed else self.zero[pixel] + count
            if dtype.kind == "f":
                flat[i] = self.calibration.number(u, u, pixel, i // len(self.zero), dtype)
            else:
                cut = self.calibration.integer(0, u, pixel, i // len(self.zero)) % 2 ** (8 * dtype.itemsize)
                flat[i] = np.array(cut, f"u{dtype.itemsize}").view(dtype)
        exact_values(beside, out)
        return out


def exact_values(data: bytes, values: np.ndarray[Any, Any]) -> None:
    """Section 2.2, in place of what stands in values."""
    width = values.dtype.itemsize
    bits = values.reshape(-1, values.shape[-2] * values.shape[-1]).view(f"u{width}")
    s = format_decoder.Sections(data)

    def numbers(n: int, w: int) -> Any:
        raw = np.frombuffer(numcodecs.Zstd().decode(s.section()), "u1")
        return raw.reshape(w, n).T.copy().view(f"<u{w}").ravel()

    without: list[int] = []
    for which in range(3):
        if n := s.varint():
            places = np.cumsum(numbers(n, 8).astype(np.int64)) - 1
            if which == 0:
                without = places.tolist()
            elif which == 1:
                kept = numbers(n, width)
                for position in set(range(len(bits))) - set(without):
                    bits[position, places] = kept
            else:
                bits.reshape(-1)[places] = numbers(n, width)
    assert s.at == len(data)


def in_memory(values: np.ndarray[Any, Any], column_major: int, big_endian: int) -> np.ndarray[Any, Any]:
    """How decoded values lie in memory, which only Zarr format 2 asks for."""
    if big_endian:
        values = values.astype(values.dtype.newbyteorder(">"))
    return np.asfortranarray(values) if column_major else values


def table_of_offsets(data: bytes) -> list[int]:
    """Zigzag varints."""
    sections = format_decoder.Sections(data)
    out = []
    while sections.at < len(data):
        number = sections.varint()
        out.append(number // 2 if number % 2 == 0 else -(number + 1) // 2)
    return out


class Levels:
    """Section 3."""

    def __init__(self, configuration: Config, dtype: np.dtype[Any]) -> None:
        self.dtype = dtype
        if dtype.kind == "f":
            self.largest = {4: 2**24, 8: 2**32 - 1}[dtype.itemsize]
            self.smallest = -self.largest
        else:
            self.smallest, self.largest = int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
        preset = configuration.get("preset", "optimal")
        gain = Fraction(str(configuration.get("gain", 1)))
        r_squared = R_SQUARED.get(preset) or Fraction(str(configuration.get("r", 0.5))) ** 2
        self.k = r_squared * gain
        self.offset = configuration.get("offset", 0)
        saturation = configuration.get("saturation", self.largest + (dtype.kind == "f"))
        self.top = saturation - 1 - self.offset
        if preset == "optimal":
            exact = configuration.get("exact_below", 5 if configuration.get("decoder") == "centroid" else 1)
            self.lows = self.optimal(min(math.floor((exact - 1) * gain) + 1, self.top + 1))
        else:
            self.lows = self.huang(preset, gain)

    def optimal(self, e: int) -> list[int]:
        p, q = self.k.numerator, self.k.denominator
        lows = []
        if self.k == 1 and e == 1:
            high = self.top
            while high >= 1:
                value = high - isqrt(high)
                lows.append(max(1, (2 * value + 2 - isqrt(4 * value + 1)) // 2))
                high = lows[-1] - 1
            return [0, *reversed(lows)]
        low = e
        while low <= self.top:
            lows.append(low)
            value = low + isqrt(p * low // q)
            low = (2 * q * value + p + isqrt(4 * p * q * value + p * p)) // (2 * q) + 1
        return [*range(e), *lows]

    def huang(self, preset: str, gain: Fraction) -> list[int]:
        m = 4 if preset == "huang-511" else 1
        last = math.floor(self.top * m / gain)
        edges = [0, 1] if preset == "huang-191" else [0]
        if preset == "huang-191":
            k = 1
            while 4**k <= last:
                edges += range(4**k, 4 ** (k + 1), 2 ** (k + 1))
                k += 1
        else:
            j = 0
            while 2**j <= last:
                edges += range(2**j, 2 ** (j + 1), 2 ** min(j, (j + 1) // 2))
                j += 1
        return [math.ceil(edge * gain / m) for edge in edges if edge <= last]

    def reach(self, x: int) -> int:
        """⌊√(k·x)⌋."""
        return isqrt(self.k.numerator * x // self.k.denominator)

    def level(self, i: int, offset: int) -> np.ndarray[Any, Any]:
        low = self.lows[i]
        high = self.lows[i + 1] - 1 if i + 1 < len(self.lows) else self.top
        if high < low:
            return self.value(low + self.offset)
        least, most = max(low, high - self.reach(high)), min(high, low + self.reach(low))
        x = min(max((low + high) // 2, least), most) + offset
        assert offset == 0 or least <= x <= most
        return self.value(x + self.offset)

    def escape(self, t: int) -> np.ndarray[Any, Any]:
        if self.dtype.kind == "f":
            if t < 4:
                bits = (0x7FC00000, 0xFFC00000, 0x7F800000, 0xFF800000)
                wide = (0x7FF8 << 48, 0xFFF8 << 48, 0x7FF0 << 48, 0xFFF0 << 48)
                width = self.dtype.itemsize
                return np.array((bits if width == 4 else wide)[t], f"u{width}").view(self.dtype)
            t -= 4
        below, above = self.offset - self.smallest, self.largest - self.offset - self.top
        shared = min(below, above)
        if t < 2 * shared:
            j, under = t // 2, t % 2 == 0
        else:
            j, under = t - shared, below > above
        return self.value(self.offset - 1 - j if under else self.largest - j)

    def value(self, number: int) -> np.ndarray[Any, Any]:
        return np.array(number, self.dtype)
