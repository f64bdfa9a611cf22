"""quantize/FORMAT.md is enough: decoders written from it alone read the golden bytes and what the package writes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from stemcodecs.codecs import BitPack, PoissonHistogram
from tests import quantize_format_decoder as independent
from tests.strategies import same_bits

FIXTURES = Path(__file__).parent.parent / "fixtures"


def golden(codec: str) -> list[Path]:
    return sorted((FIXTURES / codec).glob("v*/*.bin"))


def counts(mean: float, dtype: str) -> np.ndarray:
    return np.random.default_rng(3).poisson(mean, (2, 3, 7, 5)).astype(dtype)


@pytest.mark.parametrize("path", golden("bit_pack"), ids=lambda path: path.stem)
def test_golden_bit_pack(path):
    bits = json.loads(path.with_suffix(".json").read_text())["bits"]
    assert same_bits(independent.bit_pack(path.read_bytes(), bits), np.load(path.with_suffix(".npy")))


@pytest.mark.slow
@pytest.mark.parametrize("path", golden("poisson_histogram"), ids=lambda path: path.stem)
def test_golden_poisson_histogram(path):
    configuration = json.loads(path.with_suffix(".json").read_text())
    decoded = independent.poisson_histogram(path.read_bytes(), configuration)
    assert same_bits(decoded, np.load(path.with_suffix(".npy")))


@pytest.mark.parametrize("bits", [1, 3, 8, 13, 32])
def test_bit_pack_as_written_now(bits):
    values = np.random.default_rng(bits).integers(0, 2**bits, (3, 5, 7), np.int64).astype("u4")
    np.testing.assert_array_equal(independent.bit_pack(BitPack(bits=bits).encode_chunk(values), bits), values)


@pytest.mark.parametrize(
    "configuration",
    [
        {"r": 0.5},
        {"r": 1},
        {"r": "1/3", "gain": 2.5, "offset": 7},
        {"r": 0.5, "decoder": "centroid"},
        {"r": 0.25, "exact_below": 3, "saturation": 200},
        {"preset": "huang-511"},
        {"preset": "huang-255"},
        {"preset": "huang-191"},
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", ["u1", "i2", "u2"])
def test_poisson_histogram_as_written_now(configuration, dtype):
    scan = counts(40, dtype)
    scan[0, 0, 0, :3] = np.iinfo(dtype).max, np.iinfo(dtype).min, np.iinfo(dtype).max - 1
    codec = PoissonHistogram(**configuration)
    data = codec.encode_chunk(scan)
    np.testing.assert_array_equal(independent.poisson_histogram(data, configuration), codec.decode_chunk(data))
