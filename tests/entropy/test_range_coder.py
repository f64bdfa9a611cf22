"""The adaptive coder of models against one with unbounded integers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from stemcodecs.entropy.model.range_coder import decode_map, decode_numbers, encode_map, encode_numbers

Array = np.ndarray[Any, Any]


class PlainEncoder:
    """LZMA's binary range coder with a ``low`` that never overflows: no carries to propagate."""

    def __init__(self) -> None:
        self.low, self.range, self.shifts = 0, 2**32 - 1, 0
        self.contexts: dict[tuple[int, int], int] = {}

    def _renormalise(self) -> None:
        while self.range < 2**24:
            self.range <<= 8
            self.low <<= 8
            self.shifts += 1

    def bit(self, context: int, i: int, bit: int) -> None:
        """An adaptive bit; probabilities are those of a 0, of 4096."""
        p = self.contexts.get((context, i), 2048)
        bound = (self.range >> 12) * p
        if bit:
            self.low += bound
            self.range -= bound
            p -= p >> 5
        else:
            self.range = bound
            p += (4096 - p) >> 5
        self.contexts[context, i] = p
        self._renormalise()

    def plain(self, value: int, width: int) -> None:
        """Equally likely bits, high ones first."""
        for i in range(width - 1, -1, -1):
            self.range >>= 1
            self.low += self.range * (value >> i & 1)
            self._renormalise()

    def number(self, context: int, value: int) -> None:
        """Zero flag, sign, exponent in unary, top bit of the rest with a context, the others plain."""
        self.bit(context, 0, int(value == 0))
        if value == 0:
            return
        self.bit(context, 1, int(value < 0))
        magnitude = abs(value)
        e = magnitude.bit_length() - 1
        for i in range(e):
            self.bit(context, 2 + i, 1)
        if e < 31:
            self.bit(context, 2 + e, 0)
        if e:
            self.bit(context, 33 + e, magnitude >> (e - 1) & 1)
            self.plain(magnitude % 2 ** (e - 1), e - 1)

    def finish(self) -> bytes:
        """One byte that is always zero, then every byte of ``low``."""
        return self.low.to_bytes(self.shifts + 5, "big")


numbers = st.one_of(
    st.integers(-3, 3), st.integers(-300, 300), st.integers(-(2**32) + 1, 2**32 - 1), st.sampled_from([2**31, -(2**31)])
)


@pytest.mark.slow
@settings(max_examples=200)
@given(values=st.lists(st.tuples(numbers, st.integers(0, 4)), max_size=200))
@example(values=[(0, 0)] * 5000)
@example(values=[(2**32 - 1, 1)] * 300)
def test_numbers(values: list[tuple[int, int]]) -> None:
    which = np.array([k for _, k in values], np.int64)
    plain = PlainEncoder()
    for value, k in values:
        plain.number(k, value)
    coded = encode_numbers(np.array([v for v, _ in values], np.int64), which)
    assert coded == plain.finish()
    assert decode_numbers(coded, len(values), which).tolist() == [v for v, _ in values]


@pytest.mark.slow
@settings(max_examples=100)
@given(values=st.lists(numbers, max_size=100))
def test_numbers_without_contexts(values: list[int]) -> None:
    assert decode_numbers(encode_numbers(np.array(values, np.int64)), len(values)).tolist() == values


@settings(max_examples=100)
@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    spread=st.sampled_from([0, 1, 20, 3000, 60000]),
)
def test_maps(seed: int, shape: tuple[int, int], spread: int) -> None:
    random = np.random.default_rng(seed)
    image = random.integers(-1, spread + 1, shape) + (np.arange(shape[1]) * spread) // 4
    assert np.array_equal(decode_map(encode_map(image), shape), image)


@pytest.mark.slow
@settings(max_examples=200)
@given(data=st.binary(max_size=60), count=st.integers(0, 300))
def test_any_bytes_decode_to_something(data: bytes, count: int) -> None:
    """Never out of bounds, whatever the bytes; what they mean is checked by the reader of the model."""
    values = decode_numbers(data, count, np.arange(count) % 5)
    assert values.shape == (count,)
    assert (np.abs(values) < 2**32).all()
    assert decode_map(data, (7, 5)).shape == (7, 5)


def test_a_number_costs_a_ninety_second_of_a_bit_or_more() -> None:
    """Readers refuse sections that claim to hold more numbers than they can."""
    n = 1_000_000
    assert len(encode_numbers(np.zeros(n, np.int64))) > n / 1024


@pytest.mark.parametrize("number", [-(2**63), 2**63 - 1, -(2**40), 2**33])
def test_numbers_that_have_no_code_are_refused(number: int) -> None:
    """The smallest of 64 bits has no magnitude: the coder would count its bits for ever."""
    with pytest.raises(ValueError, match="cannot be coded"):
        encode_numbers(np.array([0, number]))
    with pytest.raises(ValueError, match="cannot be coded"):
        encode_map(np.array([[0, number]]))
