"""What goes in comes out bit for bit: every dtype, shape and defect, any network, on every instruction path."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stemcodecs.codecs import Learned
from stemcodecs.entropy.kernels.threads import set_threads
from stemcodecs.errors import ConfigurationError
from stemcodecs.learned import encode
from stemcodecs.learned.path import available, network_path
from stemcodecs.learned.prefix import HISTOGRAMS, NETWORK, read_prefix
from tests import learned_format_decoder
from tests.learned.random_networks import random_chunk
from tests.strategies import CAMPAIGN_SHARE, DTYPES, same_bits, scans, simulated_scan

Array = np.ndarray[Any, Any]
TILES = ((1, 1), (1, 2), (2, 2), (3, 4))


def examples(n: int) -> settings:
    return settings(max_examples=n, suppress_health_check=[HealthCheck.function_scoped_fixture])


def possible(tile: tuple[int, int], shape: tuple[int, ...]) -> bool:
    """A tile no larger than a sixteenth of the scan."""
    scan = shape[:-2] if len(shape) > 2 else shape[:1]
    rows, columns = int(np.prod(scan[:-1])), scan[-1] if scan else 1
    return tile == (1, 1) or (tile[0] <= rows and tile[1] <= columns and tile[0] * tile[1] * 16 <= rows * columns)


def any_chunk(array: Array, seed: int, tile: tuple[int, int]) -> bytes | None:
    """By a network of any kind, in any number of blocks."""
    tile = tile if possible(tile, array.shape) else (1, 1)
    return random_chunk(array, seed, tile, means=seed % 5, normal=seed % 3 > 0, blocks=(1, 2, 4)[seed % 3])


@pytest.mark.slow
@examples(150)
@given(array=scans(), seed=st.integers(0, 2**32 - 1), tile=st.sampled_from(TILES))
def test_any_network_is_lossless(array: Array, seed: int, tile: tuple[int, int]) -> None:
    data = any_chunk(array, seed, tile)
    if data is None:
        return
    decoded = Learned().decode_chunk(data)
    assert same_bits(decoded, array)
    assert decoded.flags.f_contiguous == array.flags.f_contiguous


@pytest.mark.campaign
@pytest.mark.timeout(3600)
@examples(5_000 // CAMPAIGN_SHARE)
@given(array=scans(), seed=st.integers(0, 2**32 - 1), tile=st.sampled_from(TILES))
def test_5_000_networks(array: Array, seed: int, tile: tuple[int, int]) -> None:
    data = any_chunk(array, seed, tile)
    assert data is None or same_bits(Learned().decode_chunk(data), array)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_fitted_network_of_every_dtype(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encode, "SMALL", 0)
    counts = simulated_scan((130, 12, 14), 6.0, seed=1)
    counts[3, 2, 2], counts[:, 0], counts[:, 1, 1] = 100, 0, 7
    array = counts.astype(dtype)
    codec = Learned(steps=6)
    data = codec.encode_chunk(array)
    assert same_bits(codec.decode_chunk(data), array)


def test_structure_that_histograms_cannot_express_is_learned() -> None:
    """A dose that differs from pixel to pixel, and neighbours that share charge."""
    random = np.random.default_rng(2)
    rate = 4 * random.gamma(1.0, 1.0, (400, 16, 16)).repeat(2, axis=1).repeat(2, axis=2)
    array = random.poisson(rate).astype(np.uint16)
    codec = Learned(steps=300)
    data = codec.encode_chunk(array)
    assert read_prefix(data) == NETWORK
    assert same_bits(codec.decode_chunk(data), array)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((70, 40, 40), np.uint16),
        np.random.default_rng(0).normal(size=(70, 40, 40)).astype(np.float32),
        np.zeros((3, 0, 5), np.int16),
        np.arange(20, dtype=np.uint8).reshape(1, 4, 5),
    ],
    ids=["blank", "true floats", "empty", "tiny"],
)
def test_where_a_network_has_nothing_to_say_histograms_do_it(array: Array) -> None:
    codec = Learned(steps=3)
    data = codec.encode_chunk(array)
    assert read_prefix(data) == HISTOGRAMS
    assert same_bits(codec.decode_chunk(data), array)


@pytest.mark.parametrize("mean", [0.05, 1.0, 21.0])
def test_counts_without_structure_take_no_more_than_histograms(mean: float) -> None:
    from stemcodecs.codecs import PixelHistogram

    array = np.random.default_rng(1).poisson(mean, (128, 24, 24)).astype(np.uint16)
    assert len(Learned(steps=12).encode_chunk(array)) <= len(PixelHistogram().encode_chunk(array)) + 12


def bright_scan() -> Array:
    array = simulated_scan((9, 20, 7, 9), 900.0, seed=4).astype(np.uint16)
    array[..., :2, :] = simulated_scan((9, 20, 2, 9), 0.05, seed=5)
    array[..., 3, 3], array[3, 4, 5, 5] = 7, 65535
    return array


@pytest.mark.slow
def test_instruction_paths_and_threads_write_the_same_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    chunks = set()
    before = set_threads(1)
    try:
        for name in available():
            for threads in (1, 2):
                monkeypatch.setenv("STEMCODECS_SIMD", name)
                set_threads(threads)
                chunks.add(random_chunk(bright_scan(), 3, (2, 2), means=2))
                chunks.add(random_chunk(bright_scan(), 3, (2, 2), normal=True))
    finally:
        set_threads(before)
    assert len(chunks) == 2


@pytest.mark.slow
@pytest.mark.parametrize("normal", [False, True])
def test_every_path_reads_what_another_wrote(path: str, normal: bool) -> None:
    data = random_chunk(bright_scan(), 3, (2, 2), means=2, normal=normal)
    assert data is not None
    assert same_bits(Learned().decode_chunk(data), bright_scan())


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(12))
def test_independent_decoder_reads_random_networks(seed: int) -> None:
    array = bright_scan()[:4, :18] if seed % 2 else simulated_scan((70, 4, 5), 3.0, seed=seed).astype(np.int32) - 1
    data = random_chunk(array, seed, (1, 2) if seed % 2 else (1, 1), seed % 3 if seed % 2 else 0, seed > 5)
    assert data is not None
    assert same_bits(learned_format_decoder.decode(data).astype(array.dtype), np.ascontiguousarray(array))


def test_same_seed_same_bytes() -> None:
    array = simulated_scan((130, 24, 24), 6.0, seed=1).astype(np.uint16)
    one, again = (Learned(steps=9).encode_chunk(array) for _ in range(2))
    assert one == again


@pytest.mark.parametrize("wish", ["sse", "AVX2"])
def test_unknown_paths_are_refused(wish: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEMCODECS_SIMD", wish)
    with pytest.raises(ConfigurationError, match="portable, sse2, avx2, avx512"):
        network_path()
