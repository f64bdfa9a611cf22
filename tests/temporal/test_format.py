"""FORMAT.md is enough: measurements are read by code written from that page alone, in plain Python."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import numpy as np
import pytest

from stemcodecs.codecs import Tcs
from tests.format_decoder import decode
from tests.temporal.test_sampling import splitmix


def read_sums(data: bytes, c: dict[str, Any]) -> list[list[list[list[int]]]]:
    """Sums of every measurement that is not kept exactly."""
    assert data[:5] == b"SCtc\x01"
    width, _, d = data[5:8]
    shape = struct.unpack_from(f"<{d}Q", data, 8)
    at = 8 + 8 * d
    names = ("measurement", "frames", "seed", "step", "time_bins", "space_bins")
    text = ",".join(str(c.get(name, 1 if name.endswith("bins") else 0)) for name in names)
    assert struct.unpack_from("<I", data, at) == (zlib.crc32(text.encode()),)
    at += 4
    movies = int(np.prod(shape[:-3], dtype=int))
    used = struct.unpack_from(f"<{movies}I", data, at)
    at += 4 * movies
    n = sum(-(-f // c["frames"]) for f in used)
    entries = [struct.unpack_from("<BII", data, at + 9 * i) for i in range(n)]
    at += 9 * n
    assert struct.unpack_from("<I", data, at) == (zlib.crc32(data[:at]),)
    at += 4
    out = []
    for kind, size, crc in entries:
        payload = data[at : at + size]
        assert zlib.crc32(payload) == crc
        at += size
        if kind == 0:
            out.append(planes(decode(payload), c, shape[-2:], 256**width - 1))
    assert at == len(data)
    return out


def numbers(c: dict[str, Any], height: int, width: int) -> list[list[list[int]]]:
    b_all = c["frames"]
    if c["measurement"] == "bins":
        n, s = c["time_bins"], c["space_bins"]
        return [
            [
                [
                    ((t + 1) * b_all // n - t * b_all // n) * min(s, height - y) * min(s, width - x)
                    for x in range(0, width, s)
                ]
                for y in range(0, height, s)
            ]
            for t in range(n)
        ]
    if c["measurement"] == "random":
        tops = [splitmix(c["seed"], i) >> 63 for i in range(b_all * height * width)]
        return [[[sum(tops[y * width + x :: height * width]) for x in range(width)] for y in range(height)]]
    return [[[max(1, b_all // 2)] * width for _ in range(height)]]


def planes(blocks: np.ndarray, c: dict[str, Any], frame: tuple[int, int], top: int) -> list[list[list[int]]]:
    opened = numbers(c, *frame)
    rows, columns = len(opened[0]), len(opened[0][0])
    assert blocks.shape == (len(opened), -(-rows // 16), -(-columns // 16), 16, 16)
    most = (top * -(-c["frames"] // c.get("time_bins", 1)) * c.get("space_bins", 1) ** 2 + c["step"] // 2) // c["step"]
    out: list[list[list[int]]] = []
    for t, of_plane in enumerate(opened):
        plane = [[0] * columns for _ in range(rows)]
        for y in range(rows):
            for x in range(columns):
                places = [(y, x - 1), (y - 1, x), (y - 1, x - 1), (y - 1, x + 1)]
                places = [(i, j) for i, j in places if i >= 0 and 0 <= j < columns]
                q, n = sum(plane[i][j] for i, j in places), sum(of_plane[i][j] for i, j in places)
                if t:
                    q, n = q + 2 * out[t - 1][y][x], n + 2 * opened[t - 1][y][x]
                z = int(blocks[t, y // 16, x // 16, y % 16, x % 16])
                guess = (of_plane[y][x] * q + n // 2) // n if n else 0
                plane[y][x] = guess + (z // 2 if z % 2 == 0 else -(z + 1) // 2)
                assert 0 <= plane[y][x] <= most
        out.append(plane)
    return [[[q * c["step"] for q in row] for row in plane] for plane in out]


@pytest.mark.parametrize(
    "options",
    [
        {"frames": 4},
        {"frames": 5, "measurement": "random", "seed": 9, "step": 3},
        {"frames": 5, "measurement": "bins", "time_bins": 2, "space_bins": 2},
    ],
    ids=str,
)
def test_independent_decoder_reads_measurements(options, monkeypatch):
    # Small arrays would be stored by the generic coder, which other tests read.
    monkeypatch.setattr("stemcodecs.entropy.chunk.encode.SMALL", 0)
    codec = Tcs(**options, incoherent="measured")
    movie = np.random.default_rng(1).poisson(30, (2, 11, 21, 18)).astype(np.uint8)
    data = codec.encode_chunk(movie)
    stored = codec.configuration()
    found = read_sums(data, stored)
    expected = []
    for one in movie:
        for start in range(0, 11, codec.frames):
            sums = codec.sampling.measure(one[start : start + codec.frames])
            expected.append((codec.sampling.quantise(sums).astype(int) * codec.step).tolist())
    assert found == expected
