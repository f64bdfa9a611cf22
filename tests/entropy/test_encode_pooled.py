"""One histogram for all pixels: any values come back, by any number of threads, in hardly more bytes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from stemcodecs.entropy.chunk.decode import decode_array
from stemcodecs.entropy.chunk.encode import encode_array
from stemcodecs.entropy.chunk.encode_pooled import encode_pooled
from stemcodecs.entropy.chunk.header import read_header
from stemcodecs.entropy.fit.fit_model import FitOptions
from stemcodecs.entropy.kernels.threads import set_threads
from stemcodecs.entropy.model.model_bytes import read_histogram_model

Array = np.ndarray[Any, Any]

pytestmark = pytest.mark.usefixtures("_counts_only")


def residuals(shape: tuple[int, ...], spread: float, seed: int = 0) -> Array:
    """Zigzag differences as a prediction of a noisy image leaves them."""
    d = np.rint(np.random.default_rng(seed).normal(0, spread, shape)).astype(np.int64)
    return ((d << 1) ^ (d >> 63)).astype(np.uint16)


@pytest.mark.parametrize("positions", [1, 63, 64, 65, 200, 1200])
def test_any_number_of_positions(positions, simd):
    array = residuals((positions, 16, 16), 6)
    assert np.array_equal(decode_array(encode_pooled(array)), array)


def test_a_blank_image_takes_the_states_of_the_coder():
    array = np.zeros((640, 16, 16), np.uint16)
    data = encode_pooled(array)
    assert np.array_equal(decode_array(data), array)
    assert len(data) < 10 * 64 * 4 + 200


@pytest.mark.parametrize("spread", [0.2, 0.7, 5, 60, 3000])
def test_any_spread_in_hardly_more_bytes(spread, simd):
    array = residuals((2, 20, 17, 16, 16), spread)
    data = encode_pooled(array)
    assert np.array_equal(decode_array(data), array)
    assert len(data) <= 1.005 * len(encode_array(array, FitOptions(mode="pixel"))) + 100
    header = read_header(data)
    assert len(read_histogram_model(header.model, header.layout.detector).classes) == 1


def test_values_that_the_sample_has_not_seen(simd):
    array = residuals((500, 16, 16), 5)
    places = np.random.default_rng(1).integers(0, array.size, 400)
    array.reshape(-1)[places] = np.random.default_rng(2).integers(0, 65536, 400)
    array[:64] = 0
    assert np.array_equal(decode_array(encode_pooled(array)), array)


def test_uniform_values_of_all_bits():
    array = np.random.default_rng(0).integers(0, 65536, (130, 16, 16)).astype(np.uint16)
    data = encode_pooled(array)
    assert np.array_equal(decode_array(data), array)
    assert len(data) < 1.01 * array.nbytes


def test_threads_change_no_byte():
    array = residuals((2500, 16, 16), 9)
    array.reshape(-1)[::9999] = 60000
    before = set_threads(1)
    try:
        expected = encode_pooled(array)
        for threads in (2, 5):
            set_threads(threads)
            assert encode_pooled(array) == expected
    finally:
        set_threads(before)
    assert np.array_equal(decode_array(expected), array)
