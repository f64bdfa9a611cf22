"""Damage chunks, and make their checksums valid again, so that what lies behind the checksums is tested too."""

from __future__ import annotations

import struct
from dataclasses import replace
from typing import Any

import numpy as np

from stemcodecs.entropy.chunk.header import COUNTS, PREFIX, Header, checksum, read_header, write_header
from stemcodecs.entropy.model.histogram_model import HistogramModel
from stemcodecs.entropy.model.model_bytes import read_histogram_model, write_histogram_model
from stemcodecs.entropy.values.calibration import (
    Calibration,
    FloatCalibration,
    IntegerCalibration,
    SharedCalibration,
    ValueTable,
)
from stemcodecs.errors import StemcodecsError

Array = np.ndarray[Any, Any]

EXTREMES = (-(2**31), -65537, -65536, -2, -1, 0, 1, 2, 9, 63, 64, 127, 128, 255, 4095, 4096, 65535, 65536, 2**31 - 1)


def reseal(data: bytes) -> bytes:
    """The same bytes with every checksum right, as far as the header can still be read."""
    out = bytearray(data)
    if len(out) < PREFIX + 4:
        return bytes(out)
    (length,) = struct.unpack_from("<I", out, PREFIX - 4)
    if not PREFIX + 4 <= length <= len(out):
        return bytes(out)
    _seal_header(out, length)
    try:
        header = read_header(bytes(out))
    except StemcodecsError:
        return bytes(out)
    crcs = [checksum(bytes(piece)) for piece in group_bytes(bytes(out), header)]
    # The checksums of the groups end the body of the header.
    at = length - 4 - 4 * len(crcs)
    out[at : length - 4] = np.array(crcs, "<u4").tobytes()
    _seal_header(out, length)
    return bytes(out)


def _seal_header(out: bytearray, length: int) -> None:
    struct.pack_into("<I", out, length - 4, checksum(bytes(out[: length - 4])))


def group_bytes(data: bytes, header: Header) -> list[bytes]:
    """What every checksum of the group table covers."""
    if header.kind != COUNTS:
        return [data[header.length :]]
    return [data[g.offset : g.offset + g.size] for g in header.groups]


def assemble(header: Header, sizes: Array, payloads: list[bytes]) -> bytes:
    """A chunk from its parts, whether they fit together or not."""
    crcs = np.array([checksum(p) for p in payloads], np.uint32)
    return b"".join([write_header(header, sizes, crcs), *payloads])


def sizes_of(header: Header) -> Array:
    """Group table of a header: int64[n_groups, 4]."""
    return np.array([(g.words, g.low, g.patches, g.exceptions) for g in header.groups], np.int64).reshape(-1, 4)


def mutate(data: bytes, random: np.random.Generator) -> bytes:
    """A damaged chunk with valid checksums: bytes, header fields, model fields or the group table changed."""
    header = read_header(data)
    kinds = [_bytes, _cut]
    if header.kind == COUNTS:
        kinds += [_fields, _fields, _table, _payload]
        if not header.shared:
            kinds += [_model, _model, _model_bytes]
    for _ in range(8):
        try:
            return kinds[random.integers(len(kinds))](data, header, random)
        except (ValueError, OverflowError, struct.error, IndexError):
            # Not every impossible value can be written down; take another.
            continue
    return _bytes(data, header, random)


def _overwrite(data: bytes, first: int, last: int, random: np.random.Generator) -> bytes:
    out = bytearray(data)
    for _ in range(random.integers(1, 5)):
        at = int(random.integers(first, last))
        choice = random.integers(4)
        if choice == 0:
            out[at] ^= 1 << int(random.integers(8))
        elif choice == 1:
            out[at] = int(random.integers(256))
        elif choice == 2:
            out[at] = int(random.choice([0, 1, 127, 128, 255]))
        else:
            n = int(random.integers(1, 9))
            out[at : at + n] = random.bytes(min(n, last - at))
    return bytes(out)


def _bytes(data: bytes, header: Header, random: np.random.Generator) -> bytes:
    end = header.length if random.integers(2) else len(data)
    return reseal(_overwrite(data, 0, end, random))


def _payload(data: bytes, header: Header, random: np.random.Generator) -> bytes:
    return reseal(_overwrite(data, header.length, len(data), random))


def _cut(data: bytes, header: Header, random: np.random.Generator) -> bytes:
    at, n = int(random.integers(0, len(data))), int(random.integers(1, 40))
    piece = random.bytes(n) if random.integers(2) else b""
    return reseal(data[:at] + piece + data[at + (0 if piece else n) :])


def _extreme(random: np.random.Generator) -> int:
    return int(random.choice(EXTREMES)) if random.integers(3) else int(random.integers(-300, 300))


def _some(values: Array, random: np.random.Generator) -> Array:
    out = np.array(values, np.int64)
    for _ in range(random.integers(1, 4)):
        if out.size:
            out.reshape(-1)[random.integers(out.size)] = _extreme(random)
    return out


LONGEST_MAP = 1 << 16


def _calibration(header: Header, random: np.random.Generator) -> Calibration | SharedCalibration:
    """A calibration with some wild entries, of the header's kind or of any."""
    # A header that states terabytes gets maps of another length: we have no room for its own.
    n = min(header.layout.n_positions, LONGEST_MAP)
    m = min(header.layout.n_pixels, LONGEST_MAP)
    c = header.calibration
    if isinstance(c, SharedCalibration) and random.integers(2):
        wild = np.array([0, -1, 2**31 - 1, 2**31, -(2**31)])
        scale = random.choice(np.array([0.0, np.nan, -1e300, 1.0]), n)
        return random.choice(
            [SharedCalibration(shift=random.choice(wild, n)), SharedCalibration(scale), SharedCalibration()]
        )
    if isinstance(c, FloatCalibration) or (c is None and header.dtype.kind == "f"):
        wild = np.array([0.0, -0.0, np.nan, np.inf, 1e-320, -1e300, 1.0, 0.1])
        c = c if isinstance(c, FloatCalibration) else FloatCalibration()
        return replace(
            c, gain=random.choice(wild, m), dark=random.choice(wild, m) if random.integers(2) else None,
            scale=random.choice(wild, n) if random.integers(2) else None, single=bool(random.integers(2)),
            gain_divides=bool(random.integers(2)), scale_first=bool(random.integers(2)),
        )  # fmt: skip
    if isinstance(c, ValueTable) or random.integers(2):
        return ValueTable(values=np.cumsum(random.integers(-5, 2**20, int(random.integers(1, 300)))))
    wild = np.array([-1, 0, 1, 2**31 - 1, 2**31, -(2**31), 77])
    return IntegerCalibration(
        fraction=int(random.integers(0, 27)), gain=random.choice(wild, m) if random.integers(2) else None,
        offset=random.choice(wild, m) if random.integers(2) else None,
        shift=random.choice(wild, n) if random.integers(2) else None,
    )  # fmt: skip


def _fields(data: bytes, header: Header, random: np.random.Generator) -> bytes:
    numbers = header.numbers
    changes: list[dict[str, Any]] = [
        {"numbers": replace(numbers, low_bits=int(random.integers(0, 17)))},
        {"numbers": replace(numbers, negatives=int(random.integers(0, 65536)))},
        {"numbers": replace(numbers, offset=int(random.integers(-(2**63), 2**63 - 1)))},
        {"numbers": replace(numbers, gain=float(random.choice([0.0, np.nan, np.inf, -1.0, 1e-308, 1e308, 5e-324])))},
        {"numbers": replace(numbers, divide=not numbers.divide)},
        {"calibration": _calibration(header, random)},
        {"tile": (int(random.integers(0, 70)), int(random.integers(0, 70)))},
        {"tile": (abs(_extreme(random)), 1)},
        {"blocks": int(random.integers(0, 6))},
        {"shared": True},
        {"doses": np.clip(_some(header.doses, random), -(2**31), 2**31)},
        {"doses": np.zeros(0, np.int64)},
        {"selections": random.integers(0, 256, (len(header.groups), 8)).astype(np.uint8)},
        {"selections": np.zeros((0, 8), np.uint8)},
        {"shape": tuple(int(random.choice([0, 1, s, s + 1, 2 * s, 2**20, 2**47])) for s in header.shape)},
        {"shape": header.shape[::-1]},
        {"shape": (header.shape[0] * 64, *header.shape[1:]) if header.shape else (5,)},
        {"dtype": np.dtype(str(random.choice(["|b1", "|u1", "<i2", "<u8", "<f2", "<f8"])))},
        {"flags": int(random.integers(0, 5))},
    ]
    if header.calibration is not None:
        # Its maps have the sizes of the shape; those of other shapes come about by altered bytes.
        changes = [c for c in changes if "shape" not in c]
    changed = replace(header, **changes[random.integers(len(changes))])
    return assemble(changed, sizes_of(header), group_bytes(data, header))


def _table(data: bytes, header: Header, random: np.random.Generator) -> bytes:
    """Sizes that still add up, or do not: bytes move from one part of a group to another."""
    sizes = sizes_of(header)
    if sizes.size and random.integers(3):
        row = sizes[random.integers(len(sizes))]
        a, b = random.choice(4, 2, replace=False)
        n = int(random.integers(0, row[a] + 1))
        row[a] -= n
        row[b] += n
    else:
        sizes = _some(sizes, random)
    return reseal(assemble(header, sizes, group_bytes(data, header)))


def _with_model(data: bytes, header: Header, model: bytes) -> bytes:
    return assemble(replace(header, model=model), sizes_of(header), group_bytes(data, header))


def _model_bytes(data: bytes, header: Header, random: np.random.Generator) -> bytes:
    return _with_model(data, header, _overwrite(header.model, 0, len(header.model), random))


def _model(data: bytes, header: Header, random: np.random.Generator) -> bytes:
    model = read_histogram_model(header.model, header.layout.detector)
    changes = [_model_classes, _model_neighbours, _model_maps, _model_frequencies]
    return _with_model(data, header, write_histogram_model(changes[random.integers(len(changes))](model, random)))


def _model_classes(model: HistogramModel, random: np.random.Generator) -> HistogramModel:
    classes = list(model.classes)
    for _ in range(random.integers(1, 3)):
        i = int(random.integers(len(classes)))
        c = classes[i]
        name = str(random.choice(["first_level", "method", "base", "shift", "rate_bits", "index_base", "index_shift"]))
        choice = random.integers(6)
        if choice < 2:
            classes[i] = replace(c, **{name: _extreme(random)})
        elif choice == 5:
            # The writer of histograms takes these as they are.
            classes[i] = replace(c, bits=int(random.integers(5, 17)))
        elif choice == 2:
            classes[i] = replace(c, residual=not c.residual, rate_bits=int(random.integers(0, 29)))
        elif choice == 3 and c.thresholds:
            classes[i] = replace(c, thresholds=tuple(_some(np.array(c.thresholds), random).tolist()))
        elif c.weights:
            classes[i] = replace(c, weights=tuple(tuple(_some(np.array(s), random).tolist()) for s in c.weights))
    return replace(model, classes=tuple(classes))


def _model_neighbours(model: HistogramModel, random: np.random.Generator) -> HistogramModel:
    if not model.neighbours:
        return replace(model, level_scale=int(random.integers(0, 2**50)))
    neighbours = [list(n) for n in model.neighbours]
    for _ in range(random.integers(1, 4)):
        neighbours[random.integers(len(neighbours))][random.integers(3)] = int(random.integers(-10, 11))
    return replace(model, neighbours=tuple((k, y, x) for k, y, x in neighbours))


def _model_maps(model: HistogramModel, random: np.random.Generator) -> HistogramModel:
    if random.integers(2):
        return replace(model, levels=_some(model.levels, random))
    constants = np.where(model.levels < 0, _some(model.constants, random), 0)
    return replace(model, constants=constants, level_scale=abs(_extreme(random)) << int(random.integers(0, 20)))


def _model_frequencies(model: HistogramModel, random: np.random.Generator) -> HistogramModel:
    frequencies = np.array(model.frequencies)
    for _ in range(random.integers(1, 4)):
        row = frequencies[random.integers(len(frequencies))]
        choice = random.integers(3)
        if choice == 0:
            random.shuffle(row)
        elif choice == 1:
            row[:], row[random.integers(256)] = 0, row.sum()
        else:
            row[random.integers(256)] = abs(_extreme(random)) % 70000
    return replace(model, frequencies=frequencies)
