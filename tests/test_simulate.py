"""Simulated scans: any blocking gives the same values, and the rate is what the counts follow."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stemcodecs.errors import ConfigurationError, SourceError
from stemcodecs.metrics import shannon_bound
from stemcodecs.simulate import KINDS, simulate_scan

SCAN, DETECTOR = (6, 7), (20, 24)


def small(kind, **options):
    """A scan of a few positions."""
    return simulate_scan(kind, SCAN, DETECTOR, **{"mean_counts": 2.0, "seed": 5, **options})


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_any_region_equals_the_part_of_the_whole(kind):
    simulation = small(kind)
    counts, rate = simulation.counts, simulation.rate()

    def bounds(size: int) -> st.SearchStrategy[slice]:
        pairs = st.tuples(st.integers(0, size), st.integers(0, size))
        return pairs.map(lambda p: slice(min(p), max(p)))

    @settings(max_examples=20, deadline=None)
    @given(st.tuples(*(bounds(n) for n in simulation.shape)))
    def check(region):
        np.testing.assert_array_equal(simulation.block(region), counts[region])
        np.testing.assert_array_equal(simulation.rate(region), rate[region])

    check()


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_same_seed_same_scan_also_pickled_and_in_threads(kind):
    simulation = small(kind)
    counts = simulation.counts
    np.testing.assert_array_equal(small(kind).counts, counts)
    copy = pickle.loads(pickle.dumps(simulation))
    assert copy == simulation
    with ThreadPoolExecutor(4) as pool:
        rows = list(pool.map(lambda y: copy.block((slice(y, y + 1),)), range(SCAN[0])))
    np.testing.assert_array_equal(np.concatenate(rows), counts)
    other = small(kind, seed=6).counts
    assert (other != counts).mean() > 0.1


def test_pickle_does_not_carry_the_specimen():
    simulation = simulate_scan("ptychography", (40, 40), (64, 64))
    simulation.block((slice(0, 1), slice(0, 1)))
    assert len(pickle.dumps(simulation)) < 1_000


@pytest.mark.slow
@pytest.mark.parametrize("mean", [0.05, 1.0, 21.0])
@pytest.mark.parametrize("kind", KINDS)
def test_mean_of_the_rate_is_what_was_asked_for(kind, mean):
    simulation = small(kind, mean_counts=mean)
    rate = simulation.rate()
    assert rate.min() >= 0
    assert rate.mean() == pytest.approx(mean, rel=1e-9)
    # Five standard errors of a sum of Poisson counts.
    total = rate.sum()
    assert abs(simulation.counts.sum(dtype=np.int64) - total) < 5 * np.sqrt(total)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_counts_are_poisson_and_independent(kind):
    """(N − λ)/√λ has mean 0, variance 1, and no correlation between positions or pixels."""
    simulation = small(kind, mean_counts=30.0)
    rate = simulation.rate()
    z = np.where(rate > 1, (simulation.counts - rate) / np.sqrt(rate), 0.0)
    n = int((rate > 1).sum())
    assert abs(z.sum()) < 5 * np.sqrt(n)
    assert (z**2).sum() / n == pytest.approx(1.0, abs=5 * np.sqrt(3 / n))
    for axis in range(4):
        assert abs((np.roll(z, 1, axis) * z).sum()) < 6 * np.sqrt(n)


@pytest.mark.parametrize("kind", KINDS)
def test_shannon_bound_is_the_empirical_code_length(kind):
    """Coding each count with its own Poisson distribution takes the bound, within its noise."""
    simulation = small(kind)
    rate, counts = simulation.rate(), simulation.counts.astype(np.int64)
    log_factorial = np.concatenate([[0], np.cumsum(np.log(np.arange(1, counts.max() + 1)))])
    bits = (rate - counts * np.log(rate) + log_factorial[counts]) / np.log(2)
    bound = simulation.shannon_bound()
    assert bound == pytest.approx(shannon_bound(rate), rel=1e-9)
    assert bits.mean() == pytest.approx(bound, abs=5 * bits.std() / np.sqrt(bits.size))
    part = (slice(2, 4), slice(0, 3), slice(5, 9))
    assert simulation.shannon_bound(part) == pytest.approx(shannon_bound(rate[part]), rel=1e-9)


def test_bounds_of_the_unstructured_scans():
    """Bits per pixel at means 0.05, 1 and 21, that the targets of the codecs refer to."""
    for mean, bits in [(0.05, 0.148), (1.0, 0.514), (21.1, 1.468)]:
        simulation = simulate_scan("unstructured", (2, 3), (256, 256), mean)
        assert simulation.shannon_bound() == pytest.approx(bits, rel=0.01)


@pytest.mark.slow
def test_grains_differ_and_positions_of_a_grain_resemble_each_other():
    simulation = simulate_scan("grains", (24, 24), (64, 64), 5.0, grains=4, seed=1)
    rate = simulation.rate().reshape(24 * 24, -1)
    correlation = np.corrcoef(rate - rate.mean(axis=0))
    neighbours = np.diag(correlation, 1)
    assert np.median(neighbours) > 0.9
    assert np.percentile(correlation, 25) < 0.3


def test_high_dose_ptychography_fits_uint16():
    simulation = simulate_scan("ptychography", (3, 3), (64, 64), 3000.0)
    counts = simulation.counts
    assert counts.dtype == np.uint16
    assert counts.max() > 10_000
    assert counts.mean() == pytest.approx(3000, rel=0.01)


@pytest.mark.parametrize(("dtype", "mean"), [("u1", 300.0), ("i1", 150.0), ("f2", 3000.0)])
def test_counts_that_do_not_fit_are_refused(dtype, mean):
    simulation = small("unstructured", dtype=dtype, mean_counts=mean)
    with pytest.raises(ConfigurationError, match="choose a wider dtype or fewer mean_counts"):
        simulation.block((slice(0, 1), slice(0, 1)))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["u1", "i2", ">u2", "u4", "f4", "f8"])
def test_dtypes_hold_the_same_counts(dtype):
    counts = small("grains", dtype=dtype).counts
    assert counts.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(counts, small("grains").counts)


@pytest.mark.parametrize(
    "options",
    [
        {"kind": "amorphous"},
        {"scan_shape": (4, 4, 4)},
        {"detector_shape": (0, 4)},
        {"mean_counts": 0.0},
        {"mean_counts": float("nan")},
        {"seed": -1},
        {"grains": 0},
        {"dtype": "c8"},
        {"dtype": "?"},
        {"dtype": "counts"},
    ],
)
def test_what_cannot_be_simulated(options):
    with pytest.raises(ConfigurationError):
        simulate_scan(**options)


def test_region_beyond_the_scan_is_refused():
    with pytest.raises(SourceError, match="not within the shape"):
        small("grains").block((slice(0, 7),))


def test_simulation_is_read_like_a_file():
    simulation = small("lattice", dtype="f4")
    with simulation.scan() as scan:
        assert scan.dims == ("scan_y", "scan_x", "det_y", "det_x")
        assert scan.dtype == np.dtype("float32")
        assert scan.axes == simulation.axes
        assert scan.metadata["simulation"]["kind"] == "lattice"
        copy = pickle.loads(pickle.dumps(scan))
        np.testing.assert_array_equal(copy.read((slice(1, 3),)), simulation.counts[1:3])


def test_axes_are_calibrated():
    axes = small("grains").axes
    assert [a.units for a in axes] == ["nm", "nm", "mrad", "mrad"]
    assert [a.size for a in axes] == [*SCAN, *DETECTOR]
    assert axes[2].coordinates.mean() == pytest.approx(0.0, abs=1e-9)
