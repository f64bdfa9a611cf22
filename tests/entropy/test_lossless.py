"""What goes in comes out bit for bit: every dtype, shape, layout and kind of defect, on every instruction path."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from stemcodecs.entropy.chunk.decode import decode_array
from stemcodecs.entropy.chunk.encode import encode_array
from stemcodecs.entropy.chunk.header import COUNTS, STORED, read_header
from stemcodecs.entropy.fit.fit_model import FitOptions
from stemcodecs.entropy.kernels.cpu import has_avx512
from stemcodecs.entropy.kernels.pixel_methods import CONTEXT
from stemcodecs.entropy.kernels.threads import set_threads
from stemcodecs.entropy.model.model_bytes import read_histogram_model
from stemcodecs.entropy.values.number_map import MAX_EXCEPTIONS
from stemcodecs.entropy.values.plane import restore, to_plane
from stemcodecs.errors import ConfigurationError
from tests.strategies import CAMPAIGN_SHARE, DTYPES, FLOATS, GAINS, INTEGERS, MODES, same_bits, scans, simulated_scan

Array = np.ndarray[Any, Any]
PATHS = ["portable", "avx512"] if has_avx512() else ["portable"]


def examples(n: int) -> settings:
    """Settings of a property that shares its fixtures between all examples."""
    return settings(max_examples=n, suppress_health_check=[HealthCheck.function_scoped_fixture])


pytestmark = pytest.mark.usefixtures("_counts_only")


def encode(array: Array, mode: str = "auto") -> bytes:
    return encode_array(array, FitOptions(mode=mode))


def methods_of(data: bytes) -> set[int]:
    header = read_header(data)
    return {c.method for c in read_histogram_model(header.model, header.layout.detector).classes}


def check_round_trip(array: Array, mode: str) -> None:
    before = array.copy(order="K")
    decoded = decode_array(encode(array, mode))
    assert same_bits(decoded, array)
    assert decoded.flags.writeable
    # Zarr format 2 takes what it gets as it lies in memory.
    assert decoded.flags.f_contiguous == array.flags.f_contiguous
    assert same_bits(array, before)


@pytest.mark.slow
@examples(300)
@given(array=scans(), mode=st.sampled_from(MODES))
def test_round_trip(array: Array, mode: str) -> None:
    check_round_trip(array, mode)


@pytest.mark.campaign
@pytest.mark.timeout(3600)
@examples(10_000 // CAMPAIGN_SHARE)
@given(array=scans(), mode=st.sampled_from(MODES))
def test_10_000_round_trips(array: Array, mode: str) -> None:
    check_round_trip(array, mode)


def test_numbers_at_both_ends_of_64_bits() -> None:
    """Their differences overflow, in what looks for counts behind them."""
    ends = np.array([-(2**63), -(2**63) + 2, 2**63 - 2, 2**63 - 1, 0, 1])
    for seed in range(400):
        random = np.random.default_rng(seed)
        check_round_trip(random.choice(ends, (16, 4, 6), p=random.dirichlet(np.full(6, 0.4))), "pixel")


BOUNDARIES = sorted(s * 2**k + d for k in (0, 7, 8, 15, 16, 17, 31, 32, 63, 64) for s in (-1, 1) for d in (-1, 0, 1))


@pytest.mark.slow
@examples(200)
@given(data=st.data(), dtype=st.sampled_from(INTEGERS), mode=st.sampled_from(MODES))
def test_integers_at_the_edges_of_their_range(data: st.DataObject, dtype: str, mode: str) -> None:
    limits = np.iinfo(dtype)
    elements = st.sampled_from([v for v in BOUNDARIES if limits.min <= v <= limits.max] + [0])
    few = data.draw(st.lists(elements, min_size=1, max_size=3))
    array = np.array([few[i % len(few)] for i in range(data.draw(st.integers(1, 150)))], dtype)
    assert same_bits(decode_array(encode(array, mode)), array)


@pytest.mark.slow
@examples(60)
@given(array=scans(least_dimensions=1), mode=st.sampled_from(MODES))
def test_instruction_paths_and_threads_write_the_same_bytes(
    array: Array, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    chunks = []
    before = set_threads(1)
    try:
        for path in PATHS:
            for threads in (1, 2):
                monkeypatch.setenv("STEMCODECS_SIMD", path)
                set_threads(threads)
                chunks.append(encode(array, mode))
        assert len(set(chunks)) == 1
        for path in PATHS:
            for threads in (1, 2):
                monkeypatch.setenv("STEMCODECS_SIMD", path)
                set_threads(threads)
                assert same_bits(decode_array(chunks[0]), array)
    finally:
        set_threads(before)


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("positions", [1, 5, 63, 64, 65, 200])
def test_large_enough_for_every_method(simd: str, mode: str, positions: int) -> None:
    """Sparse corners, a bright middle, dead and constant pixels, in groups that are full, cut off or single."""
    counts = simulated_scan((positions, 24, 24), 30.0, seed=positions)
    counts[:, :3] = simulated_scan((positions, 3, 24), 0.05, seed=positions + 1)
    counts[:, 5, 5], counts[:, 6, 6] = 0, 77
    counts[positions // 2, 9, 9] = 65535
    array = counts.astype(np.uint16)
    data = encode(array, mode)
    assert same_bits(decode_array(data), array)


@pytest.mark.parametrize("mode", MODES)
def test_contexts_are_used_where_they_may(mode: str) -> None:
    """The tests of the modes mean something: contexts are chosen on structured data, and make it smaller."""
    array = simulated_scan((8, 16, 20, 20), 12.0).astype(np.uint16)
    data = encode(array, mode)
    assert read_header(data).kind == COUNTS
    assert (CONTEXT in methods_of(data)) == (mode != "pixel")
    if mode != "pixel":
        assert len(data) < len(encode(array, "pixel"))


def test_flat_scan_costs_no_more_with_contexts() -> None:
    """Where neighbours say nothing, their models must not cost much, not even in a chunk of 100 kB."""
    array = np.random.default_rng(3).poisson(1.0, (400, 16, 16)).astype(np.uint16)
    pixel = len(encode(array, "pixel"))
    assert len(encode(array, "auto")) <= 1.03 * pixel
    assert len(encode(array, "neighbour")) <= 1.03 * pixel


@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize("order", ["<", ">"])
def test_integers_share_one_plane(dtype: str, order: str) -> None:
    """Counts cost the same in every width: the groups of all integer dtypes are the same bytes."""
    counts = simulated_scan((70, 6, 6), 5.0)
    reference, data = encode(counts.astype(np.uint16)), encode(counts.astype(order + dtype))
    start, reference_start = read_header(data).length, read_header(reference).length
    assert data[start:] == reference[reference_start:]
    assert same_bits(decode_array(data), counts.astype(order + dtype))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("gain", GAINS)
def test_floats_that_are_scaled_integers_are_counts(dtype: str, gain: float) -> None:
    counts = simulated_scan((70, 8, 8), 3.0)
    array = (counts * gain).astype(dtype)
    data = encode(array)
    assert same_bits(decode_array(data), array)
    if dtype != "f2":
        # Half precision rounds multiples of a gain onto each other's neighbours; those may be stored.
        assert read_header(data).kind == COUNTS


@pytest.mark.parametrize(
    "low_bits",
    [1, 4, 10],
)
def test_wide_values_keep_their_counts_coded(low_bits: int) -> None:
    """Values beyond 16 bits are split: the upper part is entropy-coded, the lower bits are kept raw."""
    random = np.random.default_rng(0)
    array = (
        (random.poisson(3000, (100, 8, 8)) << (low_bits + 6)) + random.integers(0, 1 << low_bits, (100, 8, 8))
    ).astype(np.int64) - 12345
    array[:, 0, 0] = random.integers(0, 1 << (16 + low_bits), 100)
    data = encode(array)
    assert read_header(data).kind == COUNTS
    assert same_bits(decode_array(data), array)


@pytest.mark.parametrize("dtype", ["i4", "i8", "u8", "f4", "f8"])
def test_rare_outliers_do_not_spoil_the_counts(dtype: str) -> None:
    array = simulated_scan((200, 12, 12), 2.0).astype(dtype)
    outliers = {"i": [-(2**31), 2**31 - 1, -77], "u": [2**64 - 1, 2**63, 2**33], "f": [np.nan, np.inf, -0.0]}[dtype[0]]
    array.reshape(-1)[[7, 9000, 20000]] = outliers
    data = encode(array)
    assert read_header(data).kind == COUNTS
    assert same_bits(decode_array(data), array)


def test_real_floats_are_stored() -> None:
    array = np.random.default_rng(0).normal(size=(70, 5, 5))
    data = encode(array)
    assert read_header(data).kind == STORED
    assert same_bits(decode_array(data), array)


def test_tiny_arrays_take_the_smaller_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    array = simulated_scan((70, 5, 5), 0.01).astype(np.uint16)
    as_counts = encode(array)
    monkeypatch.undo()
    assert len(encode(array)) < len(as_counts)
    assert same_bits(decode_array(encode(array)), array)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("fill", [0, 1, -1, 7])
def test_a_constant_array_is_almost_nothing(dtype: str, fill: int) -> None:
    if fill < 0 and dtype.startswith("u"):
        fill = 255
    array = np.full((200, 16, 16), fill).astype(dtype)
    data = encode(array)
    assert same_bits(decode_array(data), array)
    assert len(data) < 400


@pytest.mark.slow
@examples(150)
@given(array=scans())
@example(np.zeros((0, 3), "f4"))
def test_plane_restores_every_bit(array: Array) -> None:
    """The split into counts, low bits and exceptions is exact by itself, before any coding."""
    array = np.ascontiguousarray(array, array.dtype.newbyteorder("="))
    plane = to_plane(array)
    if plane is None:
        assert array.dtype not in (np.dtype("u1"), np.dtype("u2"), np.dtype("?"))
        return
    assert plane.counts.size == array.size
    assert plane.exceptions_at.size <= MAX_EXCEPTIONS * array.size + 8
    restored = restore(plane.counts, plane.low, plane.numbers, array.dtype, plane.exceptions_at, plane.exceptions)
    assert same_bits(restored, array.reshape(-1))


@pytest.mark.parametrize("dtype", DTYPES)
def test_empty_and_scalar(dtype: str) -> None:
    for array in (np.zeros((0, 4, 4), dtype), np.zeros((3, 0, 4), dtype), np.ones((), dtype), np.ones((1,), dtype)):
        assert same_bits(decode_array(encode(array)), array)


def test_unknown_instruction_path_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEMCODECS_SIMD", "sse")
    with pytest.raises(ConfigurationError, match="portable"):
        encode(simulated_scan((70, 6, 6), 5.0).astype(np.uint16))


@pytest.mark.parametrize("n", [0, -3])
def test_no_threads_is_refused(n: int) -> None:
    with pytest.raises(ConfigurationError, match="1 or more"):
        set_threads(n)


@pytest.mark.parametrize("dtype", ["u4", "i4", "f4", "u8"])
def test_marked_pixels_cost_next_to_nothing(dtype: str) -> None:
    """Gaps and dead pixels as detectors mark them: 2**32 - 1, -2**31, NaN."""
    counts = simulated_scan((130, 16, 16), 3.0).astype(dtype)
    plain = len(encode(counts))
    counts[:, 5:7] = np.nan if dtype == "f4" else -(2**31) if dtype == "i4" else 2**32 - 1
    counts[:, 9, 9] = np.inf if dtype == "f4" else -1 if dtype == "i4" else 2**32 - 2
    data = encode(counts)
    assert same_bits(decode_array(data), counts)
    assert len(data) < plain


@pytest.mark.parametrize("dtype", ["u4", "i8", "f8"])
def test_scattered_outliers_cost_what_they_say(dtype: str) -> None:
    """Up to ten bytes each: neither the other pixels nor the fallback pay for them."""
    counts = simulated_scan((200, 16, 16), 3.0).astype(dtype)
    plain = len(encode(counts))
    at = np.random.default_rng(0).choice(counts.size, counts.size // 500, replace=False)
    counts.reshape(-1)[at] = np.random.default_rng(1).integers(2**20, 2**31, at.size)
    data = encode(counts)
    assert same_bits(decode_array(data), counts)
    assert len(data) < plain + 10 * at.size
