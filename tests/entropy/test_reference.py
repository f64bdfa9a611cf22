"""Kernels against plain Python integers: whole groups, the steps of the coder, predicted rates and coefficients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit

from stemcodecs.entropy.chunk.decode import decode_array
from stemcodecs.entropy.chunk.encode import encode_array
from stemcodecs.entropy.fit.fit_model import FitOptions
from stemcodecs.entropy.fit.scan_statistics import ScanStatistics
from stemcodecs.entropy.kernels.lanes import context_rate
from stemcodecs.entropy.kernels.pixel_methods import CONTEXT, PACKED2, PACKED4, STATIC
from stemcodecs.entropy.model.histogram_model import HistogramModel, PixelClass
from stemcodecs.entropy.model.model_bytes import read_histogram_model, write_histogram_model
from stemcodecs.entropy.values.plane import to_plane
from tests.entropy.reference import ReferenceDecoder, coefficients, int32, rans_encode
from tests.strategies import MODES, simulated_scan

Array = np.ndarray[Any, Any]


def scan_of_all_methods(positions: tuple[int, ...], *, bright: bool = True, seed: int = 0) -> Array:
    """Sparse, moderate, bright and constant pixels, and some counts that their histograms do not hold."""
    counts = simulated_scan((*positions, 8, 9), 12.0 if bright else 3.0, seed)
    sparse = simulated_scan((*positions, 2, 9), 0.05, seed + 1)
    counts[..., :2, :] = sparse
    counts[..., 2, :4] = simulated_scan((*positions, 4, 4), 1.0, seed + 2)[..., 0, :]
    if bright:
        counts[..., 7, :] = simulated_scan((*positions, 3, 9), 3000.0, seed + 3)[..., 0, :]
    counts[..., 3, 3], counts[..., 4, 4] = 0, 19
    flat = counts.reshape(-1)
    odd = [65535, 7, 0, 65535, 300, 65535, 90, 1] if bright else [9, 17, 0, 40, 5, 20, 4, 1]
    flat[:: flat.size // 7] = odd[: flat[:: flat.size // 7].size]
    return counts.astype(np.uint16)


@pytest.mark.slow
@pytest.mark.usefixtures("_counts_only")
@pytest.mark.parametrize("mode", MODES[:3])
@pytest.mark.parametrize("bright", [True, False])
@pytest.mark.parametrize("positions", [(66,), (6, 7), (3,)])
def test_groups_decode_as_the_format_says(simd: str, mode: str, bright: bool, positions: tuple[int, ...]) -> None:
    """The reference reads every group, needs every word of it, and its encoder writes the very same words."""
    array = scan_of_all_methods(positions, bright=bright)
    data = encode_array(array, FitOptions(mode=mode))
    reference = ReferenceDecoder(data)
    plane = np.zeros((reference.layout.n_positions, reference.layout.n_pixels), np.int64)
    for of_lane, group in reference.groups():
        assert group.decoder.finished
        assert rans_encode(group.decoder.history, group.decoder.lanes) == group.words
        plane[of_lane[of_lane >= 0]] = group.values.T[of_lane >= 0]
    assert np.array_equal(plane, array.reshape(plane.shape))
    assert np.array_equal(decode_array(data), array)


@pytest.mark.usefixtures("_counts_only")
@pytest.mark.parametrize("mode", ["neighbour", "scan"])
def test_reference_sees_contexts_and_patches(mode: str) -> None:
    """The comparison above is one of contexts, two weight sets and patches, not only of static tables."""
    reference = ReferenceDecoder(encode_array(scan_of_all_methods((6, 7)), FitOptions(mode=mode)))
    methods = {c.method for c in reference.model.classes}
    assert CONTEXT in methods
    assert any(entry.patches for entry in reference.header.groups)
    assert reference.model.n_sets == (2 if mode == "scan" else 1)
    assert (reference.header.tile != (1, 1)) == (mode == "scan")


@pytest.mark.usefixtures("_counts_only")
def test_patches_of_every_method_decode_as_the_format_says(simd: str) -> None:
    """Pixels of means from 0.001 to 9, some dead, and a model that does not know all that they hold."""
    rate = (np.arange(1, 97) / 32) ** 2
    random = np.random.default_rng(0)
    known = random.poisson(rate, (300, 96)).astype(np.uint16).reshape(300, 8, 12)
    known[:, 7, 7] = 3
    shared = ScanStatistics.block(known, np.arange(300)).finalize("pixel")
    array = random.poisson(rate, (100, 96)).astype(np.uint16).reshape(100, 8, 12)
    array[:, 7, 7] = 3
    array[30, :, 3], array[40, 7, 7], array[99, 0, 0], array[64, 3, 4] = 17, 4, 65535, 300
    data = encode_array(array, shared=shared)
    reference = ReferenceDecoder(data, shared.model)
    assert reference.header.shared
    assert {c.method for c in reference.model.classes} == {PACKED4, PACKED2, STATIC}
    assert sum(entry.patches > 0 for entry in reference.header.groups) == 2
    assert np.array_equal(reference.plane(), array.reshape(100, -1))
    assert np.array_equal(decode_array(data, shared), array)


@pytest.mark.slow
@pytest.mark.usefixtures("_counts_only")
@pytest.mark.parametrize("blocks", [1, 2, 4])
def test_every_number_of_blocks(simd: str, blocks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from stemcodecs.entropy.chunk import encode

    monkeypatch.setattr(encode, "state_blocks", lambda *_: blocks)
    array = scan_of_all_methods((66,))
    data = encode_array(array)
    reference = ReferenceDecoder(data)
    assert reference.header.blocks == blocks
    assert np.array_equal(reference.plane(), array.reshape(66, -1))
    assert np.array_equal(decode_array(data), array)


@pytest.mark.usefixtures("_counts_only")
def test_wide_values_decode_as_the_format_says() -> None:
    """Shifted symbols with raw low bits in the stream, and raw low bits beside it."""
    random = np.random.default_rng(5)
    array = (random.poisson(20000, (65, 4, 4)) * 3000 + random.integers(0, 3000, (65, 4, 4))).astype(np.int32)
    data = encode_array(array)
    reference = ReferenceDecoder(data)
    assert reference.header.numbers.low_bits > 0
    assert any(c.shift for c in reference.model.classes)
    plane = to_plane(array)
    assert plane is not None
    assert np.array_equal(reference.plane(), plane.counts.reshape(65, -1))
    assert np.array_equal(decode_array(data), array)


# One model with everything extreme in it: the integer arithmetic of the decoder must not depend on plausible values.


def extreme_model(seed: int, sets: int = 2) -> HistogramModel:
    random = np.random.default_rng(seed)
    height, width = int(random.integers(1, 6)), int(random.integers(1, 6))
    scale = int(random.integers(1, 1 << 17))
    top = int(np.sqrt((1 << 50) / scale))
    levels = random.integers(-1, min(top, 65535), height * width)
    neighbours = [(0, 0, -1), (0, -1, 0), (0, -1, 8), (0, -8, -8), (1, 0, 0), (2, 8, 8), (4, -1, 1)]
    neighbours = tuple(neighbours[i] for i in sorted(random.choice(len(neighbours), 4, replace=False)))
    classes = []
    for first in (0, 1, 300):
        n = int(random.integers(0, 5))
        classes.append(
            PixelClass(
                first_level=first, method=CONTEXT, bits=int(random.integers(10, 13)), shift=int(random.integers(0, 16)),
                base=int(random.integers(-65536, 65536)), rate_bits=int(random.integers(0, 28)),
                thresholds=tuple(sorted(random.integers(0, 130, n).tolist())), residual=bool(random.integers(2)),
                index_base=int(random.integers(0, 2**31)), index_shift=int(random.integers(0, 32)),
                weights=tuple(tuple(random.integers(-65535, 65536, 5).tolist()) for _ in range(sets)),
            )
        )  # fmt: skip
    bits = np.repeat([c.bits for c in classes], [c.n_tables for c in classes])
    frequencies = np.zeros((bits.size, 256), np.int32)
    for k, b in enumerate(bits):
        cuts = np.sort(random.integers(0, (1 << b) + 1, 255))
        frequencies[k] = np.diff(np.concatenate([[0], cuts, [1 << b]]))
    model = HistogramModel(
        detector=(height, width), level_scale=scale, levels=levels,
        constants=np.where(levels < 0, random.integers(0, 65536, levels.size), 0),
        classes=tuple(classes), neighbours=neighbours, frequencies=frequencies,
    )  # fmt: skip
    model.check()
    return model


@pytest.mark.parametrize("seed", range(20))
def test_coefficients_are_those_of_plain_integers(seed: int) -> None:
    model = extreme_model(seed)
    program = model.program()
    for pixel, k in enumerate(model.class_of_pixels().tolist()):
        for s in range(2):
            got = program.coefficients[pixel, s].tolist()
            c = model.classes[k]
            assert got == (coefficients(model, pixel, c, c.weights[s]) if k >= 0 else [0] * 6)


@pytest.mark.parametrize("seed", range(20))
def test_model_bytes_round_trip(seed: int) -> None:
    model = extreme_model(seed)
    again = read_histogram_model(write_histogram_model(model), model.detector)
    for name in ("detector", "level_scale", "classes", "neighbours"):
        assert getattr(again, name) == getattr(model, name)
    for name in ("levels", "constants", "frequencies"):
        assert np.array_equal(getattr(again, name), getattr(model, name))


@njit
def rate_of(rows, row, neighbours, coefficients, first, dose, selection, mixture, rate):  # type: ignore[no-untyped-def]
    context_rate(rows, row, neighbours, coefficients, first, dose, selection, mixture, rate)


@pytest.mark.slow
@settings(max_examples=60)
@given(seed=st.integers(0, 2**32 - 1), mixture=st.integers(0, 2))
def test_predicted_rate_is_a_sum_modulo_two_to_the_32(seed: int, mixture: int) -> None:
    random = np.random.default_rng(seed)
    n_neighbours = int(random.integers(0, 9))
    rows = random.integers(0, 65536, (20, 64), dtype=np.uint16)
    row = int(random.integers(10, 20))
    neighbours = -random.integers(1, 10, n_neighbours)
    factors = random.integers(-(2**31), 2**31, (3, 2, n_neighbours + 2)).astype(np.int32)
    dose = random.integers(0, 65536, 64).astype(np.int32)
    selection = random.integers(0, 2, 64).astype(bool)
    rate = np.zeros(64, np.int32)
    first = 2 * factors[0].size
    rate_of(rows, row, neighbours, factors.reshape(-1), first, dose, selection, mixture, rate)
    of_lane = {0: np.zeros(64, int), 1: np.ones(64, int), 2: selection.astype(int)}[mixture]
    for j in range(64):
        constant, slope, *rest = factors[2, of_lane[j]].tolist()
        total = constant + slope * int(dose[j])
        total += sum(f * int(rows[row + k, j]) for f, k in zip(rest, neighbours.tolist(), strict=True))
        assert rate[j] == int32(total)
