"""The integer model: exact arithmetic, serialisation, sizes, and damage."""

from __future__ import annotations

import base64
import zlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from stemcodecs.errors import ConfigurationError, CorruptChunkError, FormatVersionError
from stemcodecs.lowrank import LowRankModel, PcaBasis, exact_basis
from stemcodecs.lowrank import low_rank_model as model
from stemcodecs.lowrank.low_rank_model import WEIGHT_BITS

Array = np.ndarray[Any, Any]


@pytest.fixture
def small(scan: Array) -> LowRankModel:
    return LowRankModel.from_basis(exact_basis(scan, rank=5))


def test_float_products_equal_int64_arithmetic(small: LowRankModel, scan: Array) -> None:
    generator = np.random.default_rng(0)
    coefficients = generator.integers(-(2**17), 2**17, (300, 5))
    assert small.in_range(coefficients)
    weights = small.weights.astype(np.int64) << (WEIGHT_BITS - small.exponents.astype(np.int64))[:, None]
    expected = (coefficients @ weights + (small.mean.astype(np.int64) << 16)) >> 12
    assert np.array_equal(small.predict(coefficients), expected.T)


def test_too_large_coefficients_are_refused(small: LowRankModel) -> None:
    with pytest.raises(CorruptChunkError, match="range"):
        small.predict(np.full((1, 5), 2**45))


@pytest.mark.slow
@pytest.mark.parametrize("stabilised", [True, False])
def test_prediction_is_as_good_as_the_float_basis(scan: Array, rate: Array, stabilised: bool) -> None:
    basis = exact_basis(scan, rank=5, stabilised=stabilised)
    integer = LowRankModel.from_basis(basis, step=0.5)
    flat = scan.reshape(99, -1)
    prediction = integer.predict(integer.coefficients(flat)).T / 4096
    features = basis.project(scan).reshape(99, -1) @ basis.components.reshape(5, -1)
    difference = prediction - (features + basis.mean.ravel())
    noise = 1.0 if stabilised else np.sqrt(scan.mean())
    # Coefficient steps of half a sigma add 5 components × 0.5²/12 per pattern, spread over 120
    # pixels.
    assert difference.std() < 0.06 * noise
    del rate


@pytest.mark.slow
def test_no_more_digits_than_the_scan_determines(scan: Array) -> None:
    """Fewer positions know the eigen-patterns less well, and their model is smaller."""
    basis = exact_basis(scan, rank=4)
    sizes = {}
    for positions in (50, 5000):
        known = LowRankModel.from_basis(replace(basis, positions=positions), precision=None)
        again = LowRankModel.from_bytes(known.to_bytes())
        assert (again.digest, again.mean_bits) == (known.digest, known.mean_bits)
        sizes[positions] = len(known.packed)
        mean = np.ldexp(known.mean.astype(float), -known.mean_bits).reshape(basis.detector)
        # The mean is known to 1/√positions of the noise, which is about 1.
        assert np.abs(mean - basis.mean).max() <= 2 * np.sqrt(12 / positions) / 2
    assert sizes[50] < sizes[5000] < len(LowRankModel.from_basis(basis).packed)


def test_bytes_round_trip(small: LowRankModel) -> None:
    again = LowRankModel.from_bytes(small.to_bytes())
    assert again.digest == small.digest
    for name in ("mean", "weights", "exponents"):
        assert np.array_equal(getattr(again, name), getattr(small, name))
    assert (again.detector, again.stabilised, again.step) == (small.detector, True, 0.5)


def test_every_truncation_is_noticed(small: LowRankModel) -> None:
    data = small.to_bytes()
    for size in range(0, len(data), 7):
        with pytest.raises(CorruptChunkError):
            LowRankModel.from_bytes(data[:size])
    with pytest.raises(FormatVersionError):
        LowRankModel.from_bytes(data[:4] + b"\x09" + data[5:])


def test_damaged_uri(small: LowRankModel) -> None:
    uri = small.to_uri()
    other = base64.b64encode(zlib.compress(b"something else")).decode()
    digest = "0" * 64
    for broken in ("file:///x", uri[:-20], uri.split(",")[0] + "," + other):
        with pytest.raises(ConfigurationError):
            LowRankModel.load(broken, digest)
    with pytest.raises(ConfigurationError, match="open_with_model"):
        LowRankModel.load(None, digest)


def test_sizes_in_metadata(small: LowRankModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "WARN_BYTES", 100)
    with pytest.warns(UserWarning, match="slows opening"):
        small.to_uri()
    monkeypatch.setattr(model, "REFUSE_BYTES", 100)
    with pytest.raises(ConfigurationError, match="beside the array"):
        small.to_uri()


@pytest.mark.slow
def test_usual_detector_stays_below_a_megabyte() -> None:
    generator = np.random.default_rng(0)
    rate = generator.gamma(1.0, 5.0, (128, 128))
    basis = exact_basis(generator.poisson(rate, (200, 128, 128)), rank=64)
    assert len(LowRankModel.from_basis(basis).packed) < 1 << 20


@pytest.mark.slow
@pytest.mark.parametrize("step", [0, -1.0])
def test_step_must_be_positive(scan: Array, step: float) -> None:
    with pytest.raises(ConfigurationError, match="positive"):
        LowRankModel.from_basis(exact_basis(scan, rank=2), step=step)


def test_rank_zero(scan: Array) -> None:
    basis: PcaBasis = exact_basis(scan, rank=3).truncate(0)
    empty = LowRankModel.from_basis(basis)
    assert LowRankModel.from_bytes(empty.to_bytes()).digest == empty.digest
    prediction = empty.predict(empty.coefficients(scan.reshape(99, -1)))
    assert np.allclose(prediction[:, 0] / 4096, basis.mean.ravel(), atol=0.01)


def test_component_that_vanishes_in_integers_gets_no_coefficient(scan: Array) -> None:
    basis = exact_basis(scan, rank=3)
    coarse = LowRankModel.from_basis(basis)
    weights = coarse.weights.copy()
    weights[1] = 0
    lame = replace(coarse, weights=weights)
    coefficients = lame.coefficients(scan.reshape(99, -1))
    assert not coefficients[:, 1].any()
    assert coefficients[:, [0, 2]].any(0).all()


def test_coarse_precision_keeps_every_component(scan: Array) -> None:
    basis = exact_basis(scan, rank=12)
    coarse = LowRankModel.from_basis(basis, precision=50.0)
    weights = np.ldexp(coarse.weights.astype(np.float64), -coarse.exponents[:, None].astype(int))
    exact = basis.components.reshape(12, -1) * 0.5 * basis.noise()[:, None]
    assert (((weights - exact) ** 2).sum(1) < 0.03 * (exact**2).sum(1)).all()
