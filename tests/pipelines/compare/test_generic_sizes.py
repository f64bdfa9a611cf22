from __future__ import annotations

import io
import zlib

import numpy as np
import pytest

from stemcodecs.errors import UnsupportedDtypeError
from stemcodecs_pipelines.compare.demo import run_demo
from stemcodecs_pipelines.compare.generic_sizes import PEERS, png_frame


def decode_png(data: bytes) -> np.ndarray:
    """A decoder that shares nothing with the encoder: one byte after the other."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    file, parts = io.BytesIO(data[8:]), {}
    while head := file.read(8):
        body = file.read(int.from_bytes(head[:4]))
        assert zlib.crc32(head[4:] + body) == int.from_bytes(file.read(4))
        parts[head[4:]] = body
    width, height = (int.from_bytes(parts[b"IHDR"][i : i + 4]) for i in (0, 4))
    depth = parts[b"IHDR"][8] // 8
    raw = zlib.decompress(parts[b"IDAT"])
    rows = [bytearray(width * depth)]
    for y in range(height):
        line = raw[y * (width * depth + 1) :][: width * depth + 1]
        row = bytearray(line[1:])
        for i in range(len(row)):
            a = row[i - depth] if i >= depth else 0
            b = rows[-1][i]
            c = rows[-1][i - depth] if i >= depth else 0
            nearest = min((abs(b - c), 0, a), (abs(a - c), 1, b), (abs(a + b - 2 * c), 2, c))[2]
            row[i] = (row[i] + (0, a, b, (a + b) // 2, nearest)[line[0]]) % 256
        rows.append(row)
    values = np.frombuffer(b"".join(rows[1:]), f">u{depth}")
    return values.reshape(height, width)


@pytest.mark.parametrize("dtype", ["u1", "u2"])
def test_png_frames_are_png(dtype):
    rng = np.random.default_rng(3)
    y, x = np.mgrid[:20, :23]
    pattern = (rng.poisson(3, (20, 23)) + 2 * y + (x > 10) * 90).astype(dtype)
    pattern[15:] = rng.integers(0, np.iinfo(dtype).max, (5, 23))
    assert np.array_equal(decode_png(png_frame(pattern)), pattern)


def test_png_refuses_other_dtypes():
    with pytest.raises(UnsupportedDtypeError):
        png_frame(np.zeros((2, 2), np.int32))


def test_peers_compress_counts():
    patterns = np.random.default_rng(0).poisson(0.3, (4, 32, 32)).astype("u2")
    for size in PEERS.values():
        assert 0 < size(patterns) < patterns.nbytes


def test_demo_shows_every_peer_and_the_bound(tmp_path):
    lines = []
    run_demo(str(tmp_path / "kept"), echo=lines.append, scan_shape=(4, 4), detector_shape=(16, 16))
    text = "\n".join(lines)
    assert "verified: all 4,096 values" in text
    for name in [*PEERS, "stemcodecs", "Shannon bound"]:
        assert name in text
    assert sorted(p.name for p in (tmp_path / "kept").iterdir()) == ["simulated.npy", "simulated.zarr"]
