"""Bases in memory: against numpy's SVD, at the edges, and what they refuse."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from stemcodecs.errors import ConfigurationError
from stemcodecs.lowrank import exact_basis
from stemcodecs.lowrank.rangefinder import (
    PassSums,
    first_sketch,
    next_sketch,
    nystrom,
    pass_sums,
    symmetric_product,
)
from stemcodecs.lowrank.stabilize import anscombe

Array = np.ndarray[Any, Any]


@pytest.mark.slow
@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize("stabilised", [True, False])
def test_exact_basis_is_the_svd(scan: Array, centred: bool, stabilised: bool) -> None:
    flat = scan.reshape(99, -1).astype(np.float64)
    x = anscombe(flat).astype(np.float64) if stabilised else flat
    x = x - x.mean(0) if centred else x
    _, strength, vectors = np.linalg.svd(x, full_matrices=False)
    basis = exact_basis(scan, rank=6, centred=centred, stabilised=stabilised)
    assert np.allclose(basis.eigenvalues, strength[:6] ** 2 / 99, rtol=1e-6)
    overlap = np.abs(np.einsum("kp,kp->k", basis.components.reshape(6, -1), vectors[:6]))
    assert np.allclose(overlap, 1, atol=1e-5)
    assert np.isclose(basis.total, (x**2).sum() / 99)
    assert np.allclose(basis.mean_counts, scan.mean((0, 1)))


@pytest.mark.parametrize("centred", [True, False])
def test_range_finder_is_exact_where_the_sketch_spans_the_data(scan: Array, centred: bool) -> None:
    flat = scan.reshape(99, -1)
    sketch = first_sketch(flat.shape[1], 99, seed=3)
    for last in (False, True):
        total = PassSums.zero(flat.shape[1], 99)
        for start in (0, 40, 80):
            total.add(pass_sums(flat[start : start + 40], None, sketch, True, moments=True))
        product = symmetric_product(total, sketch, centred)
        if not last:
            sketch = next_sketch(product)
    _, energies = nystrom(product, sketch)
    reference = exact_basis(scan, rank=20, centred=centred)
    assert np.allclose(energies[:20] / 99, reference.eigenvalues, rtol=1e-4)


def test_noise_is_that_of_the_coefficients() -> None:
    generator = np.random.default_rng(0)
    rate = generator.gamma(2.0, 3.0, (6, 7))
    basis = exact_basis(generator.poisson(rate, (4000, 6, 7)), rank=5, stabilised=False)
    # Without signal all variance is noise.
    assert np.allclose(np.sqrt(basis.eigenvalues), basis.noise(), rtol=0.1)


def test_rebuild_from_all_components_restores_the_counts(scan: Array) -> None:
    basis = exact_basis(scan, rank=99, stabilised=False)
    assert np.allclose(basis.rebuild(basis.project(scan)), scan, atol=1e-3)


@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize("value", [0, 5])
def test_constant_scan_needs_no_component_beyond_its_mean(value: int, centred: bool) -> None:
    constant = np.full((20, 4, 5), value, np.uint8)
    basis = exact_basis(constant, rank=3, centred=centred, stabilised=False)
    assert basis.rank == (0 if centred or value == 0 else 1)
    assert np.allclose(basis.rebuild(basis.project(constant)), constant, atol=1e-5)


def test_refusals(scan: Array) -> None:
    with pytest.raises(ConfigurationError, match="allows 1 to 99"):
        exact_basis(scan, rank=100)
    with pytest.raises(ConfigurationError, match="stack of patterns"):
        exact_basis(scan[0, 0], rank=1)
    broken = scan.astype(np.float32)
    broken[3, 4, 5, 6] = np.nan
    with pytest.raises(ConfigurationError, match="NaN"):
        exact_basis(broken, rank=2)
    with pytest.raises(ConfigurationError, match="negative"):
        exact_basis(scan.astype(np.int32) - 1, rank=2)
    with pytest.raises(ConfigurationError, match="allows 1 to 3"):
        exact_basis(scan, rank=3).truncate(4)
    with pytest.raises(ConfigurationError, match="12 × 10"):
        exact_basis(scan, rank=3).project(np.zeros((5, 10, 12)))
