"""The map of a scan: every value that it gives comes back bit by bit, the others are kept as they are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stemcodecs.codecs import PoissonHistogram
from stemcodecs.codecs.poisson_histogram import NumcodecsPoissonHistogram
from stemcodecs.counts.counts_map import CountsMap
from stemcodecs.counts.deviation import deviation_behind
from stemcodecs.counts.exact_values import ExactValues
from stemcodecs.counts.words import words_of_map
from stemcodecs.entropy.values.calibration import FloatCalibration, IntegerCalibration
from stemcodecs.errors import ConfigurationError, CorruptChunkError, FormatVersionError
from stemcodecs.quantize import PoissonQuantizer
from tests.strategies import same_bits

Array = np.ndarray[Any, Any]
DETECTOR = (3, 5)
PIXELS = 15


def float_map(seed: int, *, dark: bool, divides: bool, single: bool) -> CountsMap:
    random = np.random.default_rng(seed)
    precision = np.float32 if single else np.float64
    gain = random.lognormal(0, 1, PIXELS).astype(precision).astype(np.float64)
    darks = random.normal(30, 9, PIXELS).astype(precision).astype(np.float64) if dark else None
    zero = np.zeros(PIXELS, np.int64) if darks is None else np.ceil(darks).astype(np.int64)
    calibration = FloatCalibration(dark=darks, gain=gain, gain_divides=divides, single=single)
    return CountsMap(detector=DETECTOR, calibration=calibration, zero=zero)


def integer_map(seed: int, *, fraction: int, reversed_: bool) -> CountsMap:
    random = np.random.default_rng(seed)
    gain = random.integers(1 << fraction, 40 << fraction, PIXELS)
    offset = random.integers(0, 1 << fraction, PIXELS)
    zero = random.integers(-50, 2000, PIXELS)
    calibration = IntegerCalibration(fraction=fraction, gain=gain, offset=offset)
    return CountsMap(detector=DETECTOR, calibration=calibration, zero=zero, reversed=reversed_)


maps = st.one_of(
    st.builds(float_map, st.integers(0, 99), dark=st.booleans(), divides=st.booleans(), single=st.booleans()),
    st.builds(integer_map, st.integers(0, 99), fraction=st.sampled_from([0, 1, 5, 12]), reversed_=st.booleans()),
)


def dtype_of(found: CountsMap, wide: bool) -> np.dtype[Any]:
    floats = isinstance(found.calibration, FloatCalibration)
    single = floats and found.calibration.single  # type: ignore[union-attr]
    return np.dtype("f4" if single or (floats and not wide) else "f8" if floats else "i8" if wide else "i4")


@settings(max_examples=60, deadline=None)
@given(maps, st.booleans(), st.integers(0, 10**6), st.integers(0, 99))
def test_values_and_counts_are_inverse(found: CountsMap, wide: bool, largest: int, seed: int) -> None:
    dtype = dtype_of(found, wide)
    counts = np.random.default_rng(seed).integers(-5, largest + 1, (7, PIXELS))
    values = found.values(counts, dtype)
    again, unknown = found.counts(values)
    # Single precision holds 24 digits; what two counts share belongs to one of them.
    same = again == counts
    assert same_bits(found.values(again, dtype), values)
    assert not unknown.any()
    if dtype.kind != "f" or largest < 1 << 20:
        assert same.all()
    assert CountsMap.from_uri(found.to_uri()).checksum == found.checksum
    parsed = CountsMap.from_bytes(found.to_bytes())
    assert same_bits(parsed.values(counts, dtype), values)
    assert words_of_map(parsed) == words_of_map(found)


@settings(max_examples=40, deadline=None)
@given(maps, st.booleans(), st.integers(0, 99), st.sampled_from([0.25, 0.5, 1.0, 3.0]))
def test_a_chunk_keeps_its_bound_and_its_marks(found: CountsMap, wide: bool, seed: int, r: float) -> None:
    """Both faces, in both orders of memory: the bound in counts, and everything else bit by bit."""
    dtype = dtype_of(found, wide)
    random = np.random.default_rng(seed)
    counts = random.poisson(random.lognormal(1, 2), (4, 3, *DETECTOR))
    values = found.values(counts.reshape(-1, PIXELS), dtype).reshape(counts.shape)
    strange = [np.nan, -np.inf, -0.0, 1e30] if dtype.kind == "f" else [np.iinfo(dtype).max, np.iinfo(dtype).min, -1]
    where = random.random(values.shape) < 0.05
    where[..., 1, 2] = True
    values[where] = random.choice(np.array(strange, dtype), int(where.sum()))
    configuration = {"r": r, "map": found.to_uri(), "saturation": min(found.largest(dtype), 10**6) + 1}
    codec, other = PoissonHistogram(**configuration), NumcodecsPoissonHistogram(**configuration)
    decoded = codec.decode_chunk(codec.encode_chunk(values))
    quantizer = PoissonQuantizer(r=r, saturation=configuration["saturation"])
    assert deviation_behind(values, decoded, quantizer, found, (0,) * 4).violations == 0
    # By hand: what is behind both differs by at most r·σ.
    n, unknown = found.counts(values.reshape(-1, PIXELS))
    m, lost = found.counts(decoded.reshape(-1, PIXELS))
    assert (unknown == lost).all()
    quantised = ~unknown & (n >= 0)
    assert (np.abs(m - n)[quantised] <= r * np.sqrt(n[quantised]) * (1 + 1e-12)).all()
    bits = f"u{dtype.itemsize}"
    kept = ~quantised.reshape(values.shape)
    assert (decoded.view(bits)[kept] == values.view(bits)[kept]).all()
    for laid_out in (values, np.asfortranarray(values), values.astype(dtype.newbyteorder(">"))):
        back = other.decode(other.encode(laid_out))
        assert back.dtype == laid_out.dtype
        assert back.flags.f_contiguous == laid_out.flags.f_contiguous
        assert back.astype(dtype).tobytes() == decoded.tobytes()


def test_no_decoded_value_wraps_around() -> None:
    """Levels end where a value of some pixel would leave the dtype."""
    calibration = IntegerCalibration(gain=np.array([17, 40]), offset=np.array([0, 3]))
    found = CountsMap(detector=(1, 2), calibration=calibration, zero=np.zeros(2, np.int64))
    top = found.largest(np.dtype("u2"))
    assert found.values(np.array([[top, top]]), np.dtype("i8")).max() <= 65535
    assert found.values(np.array([[top + 1, top + 1]]), np.dtype("i8")).max() > 65535
    backwards = CountsMap(detector=(1, 2), calibration=calibration, zero=np.full(2, 100), reversed=True)
    top = backwards.largest(np.dtype("u2"))
    assert backwards.values(np.array([[top, top]]), np.dtype("i8")).min() >= 0
    assert backwards.values(np.array([[top + 1, top + 1]]), np.dtype("i8")).min() < 0


def test_damage_to_the_map_and_other_chunks_are_refused() -> None:
    found = float_map(1, dark=True, divides=False, single=True)
    data = found.to_bytes()
    for n in range(len(data)):
        with pytest.raises(CorruptChunkError):
            CountsMap.from_bytes(data[:n])
    with pytest.raises(FormatVersionError, match="upgrade"):
        CountsMap.from_bytes(data[:4] + b"\x04" + data[5:])
    with pytest.raises(ConfigurationError, match="damaged"):
        PoissonHistogram(map=found.to_uri()[:-8])
    with pytest.raises(ConfigurationError, match="data: URI"):
        PoissonHistogram(map="x")
    values = found.values(np.ones((4, PIXELS), int), np.dtype("f4")).reshape(4, *DETECTOR)
    codec = PoissonHistogram(map=found.to_uri())
    chunk = codec.encode_chunk(values)
    for n in range(0, len(chunk), 3):
        with pytest.raises(CorruptChunkError):
            codec.decode_chunk(chunk[:n])
    # Codes mean nothing without the very map.
    other = PoissonHistogram(map=float_map(2, dark=True, divides=False, single=True).to_uri())
    for wrong in (other, PoissonHistogram()):
        with pytest.raises(CorruptChunkError):
            wrong.decode_chunk(chunk)
    with pytest.raises(CorruptChunkError, match="do not agree"):
        codec.decode_chunk(PoissonHistogram().encode_chunk(np.ones((4, *DETECTOR), np.float32)))
    with pytest.raises(ConfigurationError, match="3 × 5"):
        codec.encode_chunk(np.ones((4, 5, 3), np.float32))
    with pytest.raises(ConfigurationError, match="not one of uint16"):
        codec.encode_chunk(np.ones((4, *DETECTOR), np.uint16))


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 5), st.integers(0, 9), st.integers(0, 99), st.sampled_from(["u1", "f2", "i4", "f8"]))
def test_exact_values_come_back(n: int, pixels: int, seed: int, dtype: str) -> None:
    random = np.random.default_rng(seed)
    values = random.integers(0, 200, (n, pixels)).astype(dtype)
    mask = random.random((n, pixels)) < 0.2
    if pixels:
        values[:, 0], mask[:, 0] = 7, True
    if n > 3:
        # As the patterns that fill a chunk up.
        mask[2], mask[-1] = False, False
    exact = ExactValues.of(values, mask)
    again = ExactValues.from_bytes(exact.to_bytes(), values.shape, values.dtype.itemsize)
    out = np.zeros_like(values)
    again.insert(out)
    assert same_bits(out, np.where(mask, values, np.zeros(1, dtype)).astype(dtype))
    again = ExactValues.from_bytes(exact.to_bytes(), values.shape, values.dtype.itemsize)
    rows = np.unique(random.integers(0, max(n, 1), 3))[: n or 0]
    part = np.zeros((len(rows), pixels), dtype)
    again.insert(part, rows)
    assert same_bits(part, out[rows])
    for cut in range(len(exact.to_bytes())):
        with pytest.raises(CorruptChunkError):
            ExactValues.from_bytes(exact.to_bytes()[:cut], values.shape, values.dtype.itemsize)
