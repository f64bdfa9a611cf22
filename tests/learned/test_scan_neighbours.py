"""Whether a network looks at scan neighbours: where they say something, whatever they are worth to histograms."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from stemcodecs.entropy.fit.grouped_counts import GroupedCounts
from stemcodecs.entropy.fit.tile import choose_layout
from stemcodecs.entropy.model.group_layout import GroupLayout
from stemcodecs.errors import CorruptChunkError
from stemcodecs.learned.context_model_bytes import read_network, write_network
from stemcodecs.learned.fit import NetworkOptions, chains_pay
from stemcodecs.learned.scan_means import means_of
from tests.learned.random_networks import random_network


@pytest.mark.parametrize("grain", [8, 1])
def test_neighbours_of_one_grain_are_looked_at(grain: int) -> None:
    random = np.random.default_rng(4)
    grains = random.gamma(1.0, 2.0, (32 // grain, 32 // grain, 12, 12))
    rate = grains.repeat(grain, axis=0).repeat(grain, axis=1)
    counts = random.poisson(rate).astype(np.uint16).reshape(1024, 144)
    layout = GroupLayout.of_shape((32, 32, 12, 12))
    grouped = GroupedCounts(counts, layout, 0)
    chained = choose_layout(counts, layout, "scan")
    assert chained.chain_length > 1
    assert chains_pay(grouped, counts, chained, NetworkOptions(steps=1600)) == (grain == 8)


def test_means_are_of_all_positions_around_that_come_earlier() -> None:
    random = np.random.default_rng(1)
    layout = GroupLayout(scan=(7, 10), detector=(1, 3), tile=(2, 2))
    plane = random.poisson(5.0, (70, 3)).astype(np.uint16)
    root = int(1024 * np.sqrt(5.375))
    residual = np.floor(64 * np.sqrt(plane + 0.375)) - (root >> 4)
    # The only chain: 20 tiles, whose positions are decoded in four steps.
    y, x = np.divmod(np.arange(70), 10)
    step = 2 * (y % 2) + x % 2
    chosen = np.array([0, 11, 34, 36, 69])
    found = means_of(plane, layout, np.full(3, root), np.full(70, 4096), chosen, ((64, 4),))
    for i, p in enumerate(chosen):
        distance = (y - y[p]) ** 2 + (x - x[p]) ** 2
        weight = np.where((step < step[p]) & (distance <= 4), 0.5**distance, 0)
        expected = weight @ residual / max(weight.sum(), 1e-9)
        np.testing.assert_allclose(found[i, 0], expected, atol=1)


def test_damaged_networks_with_means_are_refused() -> None:
    layout = GroupLayout(scan=(6, 8), detector=(4, 5), tile=(1, 2))
    counts = GroupedCounts(np.random.default_rng(2).poisson(3.0, (48, 20)).astype(np.uint16), layout, 0)
    model = random_network(counts, layout, np.random.default_rng(3), means=2)
    data = write_network(model)
    assert read_network(data, layout.detector).means == model.means
    for end in range(len(data)):
        with pytest.raises(CorruptChunkError):
            read_network(data[:end], layout.detector)
    for means in (((1024, 4), (1, 1)), ((3, 65), (1, 1)), ((3, 0), (1, 1)), ((3, 4),) * 5):
        with pytest.raises(CorruptChunkError, match="means"):
            read_network(write_network(replace(model, means=means)), layout.detector)
    # Of a newer stemcodecs.
    with pytest.raises(CorruptChunkError, match="upgrade stemcodecs"):
        read_network(b"\x07" + data[1:], layout.detector)
