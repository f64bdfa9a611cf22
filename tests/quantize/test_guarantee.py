"""The check of the bound finds what breaks it, and its sums do not depend on the blocks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from stemcodecs.quantize import PoissonQuantizer
from stemcodecs.quantize.guarantee import Deviation


def test_one_wrong_value_is_found() -> None:
    quantizer = PoissonQuantizer(r=0.5)
    scan = np.full((4, 5, 6), 16, dtype=np.uint16)
    decoded = scan + np.uint16(2)  # half a sigma: allowed
    assert Deviation.of(scan, decoded, quantizer).violations == 0
    decoded[1, 2, 3] += 1
    found = Deviation.of(scan, decoded, quantizer, origin=(10, 0, 100))
    assert found.violations == 1
    assert found.first_violation == (11, 2, 103)
    assert found.largest_sigma == pytest.approx(0.75)
    assert "1 values break the bound" in found.summary()


@pytest.mark.parametrize(
    ("source", "decoded"),
    [(-1, -2), (65535, 65534), (0, 1), (-1, 0), (40, 65535), (1, 0)],
)
def test_exact_values_must_be_exact(source: int, decoded: int) -> None:
    quantizer = PoissonQuantizer(r=0.5, saturation=65535)
    a, b = np.array([source], dtype=np.int32), np.array([decoded], dtype=np.int32)
    assert Deviation.of(a, a, quantizer).violations == 0
    assert Deviation.of(a, b, quantizer).violations == 1


def test_floats() -> None:
    quantizer = PoissonQuantizer()
    source = np.array([np.nan, np.inf, 100, 100, 7], dtype=np.float32)
    assert Deviation.of(source, source, quantizer).violations == 0
    for index, wrong in [(0, 0), (1, -np.inf), (2, np.nan), (3, 100.5), (4, np.inf)]:
        decoded = source.copy()
        decoded[index] = wrong
        found = Deviation.of(source, decoded, quantizer)
        assert found.first_violation == (index,)


def test_sums() -> None:
    quantizer = PoissonQuantizer(r=1, gain=2, offset=10)
    source = np.array([10, 12, 18, 5], dtype=np.uint16)
    decoded = np.array([10, 13, 16, 5], dtype=np.uint16)
    found = Deviation.of(source, decoded, quantizer)
    assert (found.values, found.exact, found.violations) == (4, 1, 0)
    assert (found.adu, found.difference, found.squares) == (10, -1, 5)
    assert found.bias == pytest.approx(-0.1)
    assert found.added_variance == pytest.approx(5 / 20)
    assert found.largest_sigma == pytest.approx(0.5)


def test_blocks_merge() -> None:
    rng = np.random.default_rng(0)
    quantizer = PoissonQuantizer(gain=1.5)
    source = rng.poisson(300, (8, 50)).astype(np.uint16)
    table = quantizer.table(np.uint16)
    decoded = table.decode(table.encode(source, np.dtype("u2")))
    decoded[5, 7] = 0
    whole = Deviation.of(source, decoded, quantizer)
    merged = Deviation()
    for i in (6, 0, 4, 2):
        part = Deviation.of(source[i : i + 2], decoded[i : i + 2], quantizer, origin=(i, 0))
        merged = merged.merge(part)
    assert merged == whole
    assert whole.first_violation == (5, 7)


@pytest.mark.parametrize("dtype", [np.int16, np.uint16, np.int32])
def test_compiled_and_plain_comparison_agree(dtype: type) -> None:
    rng = np.random.default_rng(7)
    source = rng.poisson(rng.gamma(1, 500, 4000)).clip(0, 30000).astype(dtype)
    error = rng.integers(-20, 21, source.size)
    decoded = (source + np.where(rng.random(source.size) < 0.5, error, 0)).astype(dtype)
    source[::50] = 30001
    for quantizer in (PoissonQuantizer(saturation=30001), PoissonQuantizer(offset=13, gain=2.5)):
        fast = Deviation.of(source, decoded, quantizer)
        # Floats take the plain path.
        plain = Deviation.of(
            source.astype(np.float64),
            decoded.astype(np.float64),
            replace(quantizer, saturation=quantizer.top(np.dtype(dtype)) + 1 + quantizer.offset),
        )
        assert fast.violations > 100
        assert fast == plain


def test_huge_errors_do_not_overflow() -> None:
    source = np.array([0, 1, 1 << 31, 3], dtype=np.uint32)
    decoded = np.array([0, 1 << 31, 1, 3 + (1 << 20)], dtype=np.uint32)
    assert Deviation.of(source, decoded, PoissonQuantizer()).violations == 3


def test_shapes_must_match() -> None:
    with pytest.raises(ValueError, match="no decoding"):
        Deviation.of(np.zeros(3, np.uint8), np.zeros(3, np.uint16), PoissonQuantizer())
