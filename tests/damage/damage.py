"""Damage for chunks of every codec: as disks and networks do it, and as someone does who makes the checksums right."""

from __future__ import annotations

import contextlib
import struct
import zlib
from random import Random

import numcodecs
import numpy as np

from stemcodecs.entropy.model.model_bytes import Reader, Writer
from stemcodecs.errors import StemcodecsError
from tests.damage.specimens import Specimen
from tests.entropy.chunk_surgery import mutate

__all__ = ["KINDS", "damaged", "sealed"]

EXTREMES = (0, 1, 2, 3, 63, 64, 127, 128, 255, 256, 4095, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1)


def _flip(data: bytearray, random: Random, other: bytes) -> None:
    data[random.randrange(len(data))] ^= 1 << random.randrange(8)


def _burst(data: bytearray, random: Random, other: bytes) -> None:
    at = random.randrange(len(data))
    n = min(random.choice((2, 3, 8, 32, 512)), len(data) - at)
    data[at : at + n] = random.choice((bytes(n), b"\xff" * n, random.randbytes(n)))


def _truncation(data: bytearray, random: Random, other: bytes) -> None:
    del data[random.randrange(len(data)) :]


def _splice(data: bytearray, random: Random, other: bytes) -> None:
    """Bytes of another chunk, from one place on, or a piece of them."""
    at, start = random.randrange(len(data)), random.randrange(len(other))
    n = random.choice((4, 16, 100, len(other)))
    data[at : len(data) if random.random() < 0.5 else at + n] = other[start : start + n]


def _insertion(data: bytearray, random: Random, other: bytes) -> None:
    at = random.randrange(len(data) + 1)
    data[at:at] = random.randbytes(random.choice((1, 2, 4, 17, 300)))


def _deletion(data: bytearray, random: Random, other: bytes) -> None:
    at = random.randrange(len(data))
    del data[at : at + random.choice((1, 2, 4, 17, 300))]


def _field(data: bytearray, random: Random, other: bytes) -> None:
    """A number of the header, where lengths, shapes and counts are."""
    width = random.choice((1, 2, 4, 8))
    at = random.randrange(max(1, min(len(data), 64) - width))
    data[at : at + width] = (random.choice(EXTREMES) % 2 ** (8 * width)).to_bytes(width, "little")


KINDS = {
    "flip": _flip, "burst": _burst, "truncation": _truncation, "splice": _splice, "insertion": _insertion,
    "deletion": _deletion, "field": _field,
}  # fmt: skip


def damaged(data: bytes, kind: str, random: Random, other: bytes) -> bytes:
    """Other bytes than ``data``; ``other`` is a chunk to splice from."""
    while True:
        out = bytearray(data)
        KINDS[kind](out, random, other)
        if out != data:
            return bytes(out)


def sealed(specimen: Specimen, random: Random, seed: int) -> bytes:
    """A damaged chunk with every checksum right, those of chunks inside it as well."""
    generator = np.random.default_rng(seed)
    if specimen.family == "pixel_histogram":
        return _entropy(specimen.data, random, generator)
    methods = {"poisson_histogram": _poisson, "bit_pack": _with_crc, "learned": _learned, "pca": _pca, "tcs": _tcs}
    return methods[specimen.family](specimen.data, random, generator)


def _entropy(data: bytes, random: Random, generator: np.random.Generator) -> bytes:
    out = mutate(data, generator)
    # Damage on damage gets further than one change that the first check refuses.
    if random.randrange(4) == 0:
        with contextlib.suppress(StemcodecsError):
            out = mutate(out, generator)
    return out


def _bytes_or_field(data: bytes, random: Random) -> bytearray:
    out = bytearray(data)
    for _ in range(random.randrange(1, 4)):
        if out:
            random.choice((_flip, _burst, _field, _field, _deletion, _insertion))(out, random, bytes(data))
    return out


def _crc(body: bytes | bytearray) -> bytes:
    return struct.pack("<I", zlib.crc32(body))


def _with_crc(data: bytes, random: Random, generator: np.random.Generator) -> bytes:
    body = bytearray(data[:-4])
    if random.random() < 0.5:
        # Lengths that fit one another get furthest: the stream is as long as the header says.
        body[9] = random.choice((0, 1, 2, 255))
    else:
        body = _bytes_or_field(bytes(body), random)
    return bytes(body) + _crc(body)


def _poisson(data: bytes, random: Random, generator: np.random.Generator) -> bytes:
    (n,) = struct.unpack_from("<I", data, 16)
    # With a map, values that are kept exactly stand in the head.
    start, m = (20, 0) if data[4] == 1 else (24, *struct.unpack_from("<I", data, 20))
    end = start + n + m
    head, codes = data[:end], data[end + 4 :]
    if m and random.random() < 0.4:
        beside = _beside(head[start + n :], random, scaled=data[4] == 3)
        head = head[:20] + struct.pack("<I", len(beside)) + head[24 : start + n] + beside
    elif random.random() < 0.5:
        codes = _entropy(codes, random, generator)
    else:
        changed = bytearray(head)
        choice = random.randrange(4)
        if choice == 0:
            changed[5:7] = random.choice((b"i", b"u", b"f")) + bytes([random.choice((1, 2, 4, 8))])
        elif choice == 1:
            changed[7] = random.choice((0, 1, 2, 4, 8, 12, 16))
        elif choice == 2:
            struct.pack_into("<I", changed, 8, random.choice(EXTREMES))
        else:
            changed = _bytes_or_field(head, random)
        if start == 20 and random.random() < 0.5 and len(changed) >= 20:
            struct.pack_into("<I", changed, 16, len(changed) - 20)
        head = bytes(changed)
    return head + _crc(head) + codes


def _learned(data: bytes, random: Random, generator: np.random.Generator) -> bytes:
    head = bytearray(data[:8])
    if random.random() < 0.1:
        head[random.choice((4, 5, 6))] = random.choice((0, 1, 2, 255))
    return bytes(head) + _crc(head) + _entropy(data[12:], random, generator)


def _beside(data: bytes, random: Random, *, scaled: bool) -> bytes:
    """Exact values changed, or the scales before them."""
    if not scaled:
        return _exact(data, random)
    r, out = Reader(data), Writer()
    scales = bytes(r.section())
    whole = Writer()
    whole.section(scales)
    rest = data[len(whole.getvalue()) :]
    if random.random() < 0.5:
        scales = bytes(_bytes_or_field(scales, random))
    else:
        rest = _exact(rest, random)
    out.section(scales)
    return out.getvalue() + rest


def _exact(data: bytes, random: Random) -> bytes:
    """Places and bits of exact values changed inside their frames, or the lengths around them."""
    if random.random() < 0.4:
        return bytes(_bytes_or_field(data, random))
    r, out = Reader(data), Writer()
    changed = random.randrange(6)
    for part in range(3):
        n = r.varint()
        out.varint(random.choice((n, n, n + 1, 0, 2**40)) if random.random() < 0.1 else n)
        for which in range((2 if part else 1) if n else 0):
            section = bytes(r.section())
            if changed == 2 * part + which:
                raw = bytearray(numcodecs.Zstd().decode(section))
                for _ in range(random.randrange(1, 4)):
                    random.choice((_flip, _burst))(raw, random, data)
                section = bytes(numcodecs.Zstd(1).encode(bytes(raw)))
            out.section(section)
    return out.getvalue()


def _pca(data: bytes, random: Random, generator: np.random.Generator) -> bytes:
    dtype_size, ndim = data[6], data[7]
    at = 8 + dtype_size + 8 * ndim + 8
    head, content = bytearray(data[:at]), data[at:-4]
    choice = random.randrange(6)
    if choice == 0:
        head = _bytes_or_field(bytes(head), random)
    elif choice == 1:
        lengths = list(struct.unpack_from(f"<{ndim}Q", head, 8 + dtype_size))
        lengths[random.randrange(ndim)] = random.choice((0, 1, 64, 71, 4096, 2**30, 2**62))
        struct.pack_into(f"<{ndim}Q", head, 8 + dtype_size, *lengths)
    elif choice == 2:
        head[4:6] = random.choice((1, 2, 3)).to_bytes(1, "little") + bytes([random.choice((0, 1, 2, 3, 0x10, 0x31))])
    elif data[4] == 3:
        _, size = struct.unpack_from("<IQ", content)
        beside, rest = content[12 : 12 + size], content[12 + size :]
        if random.random() < 0.6:
            # Three lists, and scales before them only in the one specimen that has them.
            beside = _beside(beside, random, scaled=bool(beside) and beside[0] > 30)
        else:
            rest = _low_rank(rest, random, generator)
        content = content[:4] + struct.pack("<Q", len(beside)) + beside + rest
    elif data[5] & 2:
        (size,) = struct.unpack_from("<Q", content)
        marks, rest = content[8 : 8 + size], content[8 + size :]
        if random.random() < 0.6:
            marks = _exact(marks, random)
        else:
            rest = _low_rank(rest, random, generator)
        content = struct.pack("<Q", len(marks)) + marks + rest
    elif data[5] & 1:
        content = _low_rank(content, random, generator)
    else:
        content = _entropy(content, random, generator)
    body = bytes(head) + content
    return body + _crc(body)


def _low_rank(content: bytes, random: Random, generator: np.random.Generator) -> bytes:
    (size,) = struct.unpack_from("<Q", content)
    coded, rest = content[8 : 8 + size], content[8 + size :]
    choice = random.randrange(3) if rest else 0
    if choice == 0:
        coded = _entropy(coded, random, generator) if coded and random.random() < 0.8 else bytes(coded[:-1])
    elif choice == 1:
        rest = bytes(_bytes_or_field(rest, random))
    else:
        rest = _residual(rest, random)
    return struct.pack("<Q", random.choice(EXTREMES) if random.random() < 0.02 else len(coded)) + coded + rest


def _residual(rest: bytes, random: Random) -> bytes:
    """Tables or escapes of a residual changed inside their compressed streams, or the directory."""
    largest, tables, packed, escaped = struct.unpack_from("<IIII", rest)
    parts = [rest[16 : 16 + packed], rest[16 + packed : 16 + packed + escaped]]
    tail = bytearray(rest[16 + packed + escaped :])
    choice = random.randrange(4)
    if choice < 2:
        raw = bytearray(zlib.decompress(parts[choice]))
        if raw:
            for _ in range(random.randrange(1, 4)):
                random.choice((_flip, _burst))(raw, random, rest)
        elif choice:
            raw = bytearray(8 * random.randrange(1, 5000))
        parts[choice] = zlib.compress(bytes(raw))
    elif choice == 2:
        _field(tail, random, rest)
    else:
        largest, tables = random.choice(((largest, random.choice(EXTREMES)), (random.choice(EXTREMES), tables)))
    return struct.pack("<IIII", largest, tables, len(parts[0]), len(parts[1])) + b"".join(parts) + bytes(tail)


def _tcs(data: bytes, random: Random, generator: np.random.Generator) -> bytes:
    ndim = data[7]
    (movies,) = struct.unpack_from("<Q", data, 8)
    at = 8 + 8 * ndim + 4 + 4 * movies
    ends = [8]
    while zlib.crc32(data[: ends[0]]) != struct.unpack_from("<I", data, ends[0])[0]:
        ends[0] += 1
    count = (ends[0] - at) // 9
    head, start, payloads = bytearray(data[:at]), ends[0] + 4, []
    kinds, sizes, _ = zip(*(struct.unpack_from("<BII", data, at + 9 * i) for i in range(count)), strict=True)
    for size in sizes:
        payloads.append(data[start : start + size])
        start += size
    if random.random() < 0.7:
        chosen = random.randrange(count)
        payloads[chosen] = _entropy(payloads[chosen], random, generator)
    else:
        head = _bytes_or_field(bytes(head), random)
    kinds = [kind if random.random() < 0.9 else random.randrange(3) for kind in kinds]
    table = (struct.pack("<BII", k, len(p), zlib.crc32(p)) for k, p in zip(kinds, payloads, strict=True))
    body = bytes(head) + b"".join(table)
    return body + _crc(body) + b"".join(payloads)
