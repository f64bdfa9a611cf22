"""Quantised histograms against brute force."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stemcodecs.entropy.kernels.coding_tables import (
    PATCH_BITS,
    SYMBOLS,
    build_decode_tables,
    build_encode_tables,
    normalise,
)

Array = np.ndarray[Any, Any]


def frequencies_of(histogram: Array, bits: int) -> Array:
    out = np.zeros((1, SYMBOLS), np.int32)
    normalise(histogram[None].astype(np.int64), np.array([bits], np.int64), out)
    return out[0]


def code_length(histogram: Array, frequencies: Array, bits: int) -> float:
    """Bits of all counted symbols; a symbol without a frequency is patched."""
    length = np.full(histogram.size, PATCH_BITS)
    kept = frequencies > 0
    length[kept] = bits - np.log2(frequencies[kept])
    return float((histogram * length).sum())


histograms = st.builds(
    lambda seed, spread, n: np.random.default_rng(seed).poisson(
        n * np.random.default_rng(seed).gamma(spread, 1.0, SYMBOLS) * (np.arange(SYMBOLS) < 1 + seed % 256)
    ),
    st.integers(0, 2**32 - 1),
    st.sampled_from([0.02, 0.3, 5.0]),
    st.sampled_from([0.01, 1.0, 1e3, 1e7]),
)


@pytest.mark.slow
@settings(max_examples=200)
@given(histogram=histograms, bits=st.integers(10, 12))
def test_sum_and_support(histogram: Array, bits: int) -> None:
    frequencies = frequencies_of(histogram, bits)
    assert frequencies.sum() == 1 << bits
    assert (frequencies >= 0).all()
    if histogram.sum():
        assert not frequencies[histogram == 0].any()
        # A frequent symbol is never left without a frequency.
        assert (frequencies[histogram > histogram.sum() / (1 << bits)] > 0).all()


@pytest.mark.slow
@settings(max_examples=100)
@given(histogram=histograms, bits=st.integers(10, 12))
def test_close_to_the_entropy(histogram: Array, bits: int) -> None:
    n = histogram.sum()
    if n == 0:
        return
    share = histogram[histogram > 0] / n
    entropy = float(-(histogram[histogram > 0] * np.log2(share)).sum())
    # Each of up to 256 symbols may be rounded up to the least frequency.
    slack = n * np.log2(1 / max(1 - np.count_nonzero(histogram) / (1 << bits), 0.5))
    assert code_length(histogram, frequencies_of(histogram, bits), bits) <= entropy * 1.01 + slack + 1e-6


@pytest.mark.parametrize(("bits", "tolerance"), [(3, 0.02), (4, 1e-9), (5, 1e-9), (6, 1e-9)])
@pytest.mark.parametrize("symbols", [1, 2, 3])
def test_least_code_length_by_brute_force(bits: int, tolerance: float, symbols: int) -> None:
    """No other way to share out the frequencies, patching included, is better; with 8 to share out, hardly."""
    random = np.random.default_rng(10 * bits + symbols)
    total = 1 << bits
    shares = np.array([s for s in itertools.product(range(total + 1), repeat=symbols) if sum(s) == total])
    # In bits a symbol, PATCH_BITS without a frequency.
    lengths = np.where(shares > 0, bits - np.log2(np.maximum(shares, 1)), PATCH_BITS)
    for scale in (1, 30, 1000, 100_000):
        for _ in range(10):
            histogram = np.zeros(SYMBOLS, np.int64)
            at = np.sort(random.choice(SYMBOLS, symbols, replace=False))
            histogram[at] = random.poisson(random.gamma(0.5, 1.0, symbols) * scale)
            if histogram.sum() == 0:
                continue
            best = (lengths @ histogram[at]).min()
            got = code_length(histogram, frequencies_of(histogram, bits), bits)
            assert got <= best * (1 + tolerance) + 1e-6


def test_empty_histogram_is_one_certain_symbol() -> None:
    frequencies = frequencies_of(np.zeros(SYMBOLS, np.int64), 12)
    assert frequencies[0] == 4096


@settings(max_examples=50)
@given(histogram=histograms, bits=st.integers(10, 12))
def test_lookup_tables_say_what_the_frequencies_say(histogram: Array, bits: int) -> None:
    frequencies = frequencies_of(histogram, bits)[None]
    decode = np.zeros(1 << bits, np.uint32)
    build_decode_tables(frequencies, np.zeros(1, np.int64), decode)
    symbol = np.repeat(np.arange(SYMBOLS), frequencies[0])
    start = np.concatenate([[0], np.cumsum(frequencies[0])[:-1]])
    slots = np.arange(1 << bits)
    assert np.array_equal(decode & 255, symbol)
    assert np.array_equal(decode >> 20, frequencies[0][symbol] - 1)
    assert np.array_equal((decode >> 8) & 4095, slots - start[symbol])
    encode, likeliest = np.zeros(SYMBOLS, np.uint32), np.zeros(1, np.int64)
    build_encode_tables(frequencies, encode, likeliest)
    assert np.array_equal(encode >> 16, frequencies[0])
    assert np.array_equal((encode & 0xFFFF)[frequencies[0] > 0], start[frequencies[0] > 0])
    assert frequencies[0, likeliest[0]] == frequencies[0].max()
