"""Whether a network looks at scan neighbours: where they say something, whatever they are worth to histograms."""

from __future__ import annotations

import numpy as np
import pytest

from stemcodecs.entropy.fit.grouped_counts import GroupedCounts
from stemcodecs.entropy.fit.tile import choose_layout
from stemcodecs.entropy.model.group_layout import GroupLayout
from stemcodecs.learned.fit import NetworkOptions, chains_pay


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
