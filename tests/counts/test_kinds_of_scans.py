"""Every kind of counts in disguise through the codecs that need to know the counts: as if they were given these."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from stemcodecs.codecs.pca import Pca
from stemcodecs.codecs.poisson_histogram import PoissonHistogram
from stemcodecs.counts.counts_map import MOST_COUNTS, CountsMap
from stemcodecs.counts.deviation import deviation_behind
from stemcodecs.counts.find_map import find_map
from stemcodecs.lowrank import LowRankModel, exact_basis
from stemcodecs.marks import mark_of
from stemcodecs.quantize import PoissonQuantizer
from tests.disguised_scans import DISGUISES, Parts, with_defects

Array = np.ndarray[Any, Any]

POSITIONS, SIDE = 256, 40
PEDESTAL = 6
"""Counts that the offset of a bright pixel leaves open."""


def parts_of(seed: int) -> Parts:
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE, :SIDE] - SIDE // 2
    counts = random.poisson(np.where(y**2 + x**2 < 100, 4.0, 0.1), (POSITIONS, SIDE, SIDE))
    return Parts(counts, random)


PARTS = parts_of(2)
REFUSED = {"gain / monitor, all double"}
"""Two numbers of double precision each whose product is all that is known: refused, in one line."""


def map_of(values: Array) -> CountsMap | None:
    found = find_map(values, np.arange(POSITIONS), (16, 16))
    assert found.plain or found.map is not None, found.problem
    assert not found.problem
    return found.map


def quick_first(cases: list[Any], every: int) -> list[Any]:
    """Every so many are quick to see, and all are seen by the campaigns."""
    return [case if k % every == 0 else pytest.param(*case, marks=pytest.mark.campaign) for k, case in enumerate(cases)]


@pytest.mark.parametrize(
    ("name", "defects"), quick_first([(name, defects) for name in DISGUISES for defects in (False, True)], 7)
)
def test_the_noise_is_that_of_the_counts(name: str, defects: bool) -> None:
    """Counts behind decoded values are those that the codec makes of the counts, but for what is kept exactly."""
    values = DISGUISES[name](PARTS)
    values = with_defects(values, np.random.default_rng(3)) if defects else values
    if name in REFUSED:
        found = find_map(values, np.arange(POSITIONS), (16, 16))
        assert found.map is None
        assert "no gain of their pixels" in found.problem
        return
    behind = map_of(values)
    options: dict[str, Any] = {"r": 1, "decoder": "midpoint"}
    if behind is not None:
        # As the method does: levels above decode to values that the dtype does not hold.
        top, mark = behind.largest(values.dtype), None if behind.reversed else mark_of(values.dtype)
        saturation = min(top, top if mark is None or behind.scaled else behind.counts_at(mark) - 1) + 1
        options |= {"map": behind.to_uri(), "saturation": saturation if saturation <= MOST_COUNTS else None}
    codec = PoissonHistogram(**options)
    decoded = codec.decode_chunk(codec.encode_chunk(values))
    assert decoded.dtype == values.dtype
    if behind is None:
        # Counts as they are.
        assert name.startswith("plain")
        return
    quantizer = PoissonQuantizer(r=1, decoder="midpoint", saturation=options["saturation"])
    assert deviation_behind(values, decoded, quantizer, behind, (0, 0, 0)).violations == 0
    flat = values.reshape(POSITIONS, -1)
    counts, unknown = behind.counts(flat)
    assert unknown.mean() < (0.3 if "both signs" in name else 0.02)
    bits = f"u{values.dtype.itemsize}"
    assert (decoded.reshape(flat.shape).view(bits)[unknown] == flat.view(bits)[unknown]).all()
    own = PoissonHistogram(r=1, decoder="midpoint", saturation=options["saturation"])
    of_counts = own.decode_chunk(own.encode_chunk(counts.reshape(values.shape))).reshape(flat.shape)
    expected = behind.values(of_counts, values.dtype, behind.scales(flat))
    kept = ~unknown & (counts >= 0)
    assert (decoded.reshape(flat.shape).view(bits)[kept] == expected.view(bits)[kept]).all()
    truth = (PARTS.adu if "ADU" in name or name == "fused" else PARTS.c).reshape(flat.shape)
    if "ADU" not in name and name != "fused":
        alive = (values.reshape(flat.shape) != values.reshape(flat.shape)[:1]).any(axis=0)
        right = (counts == truth)[:, alive] | unknown[:, alive]
        # Of a bright pixel with an offset of its own, and of few patterns, a count or two are not known.
        apart = np.abs(counts - truth)[:, alive][~right & (np.abs(counts - truth)[:, alive] < PEDESTAL)]
        assert right.mean() > 0.98
        assert apart.size >= 0.5 * np.count_nonzero(~right) or np.count_nonzero(~right) < 0.005 * right.size


MODELLED = (
    "+ pattern", "1000 - c - pixel - pattern", "+ pixel", "gain, rounded, reversed", "2^40 - c - row", "dose f2",
    "gain, rounded + pattern", "zeros of both signs x gain", "(ADU - dark) / gain",
)  # fmt: skip


@pytest.mark.parametrize(
    ("name", "residual"),
    quick_first([(name, residual) for name in MODELLED for residual in ("none", "bounded", "lossless")], 4),
)
def test_the_model_is_that_of_the_counts(name: str, residual: str) -> None:
    values = DISGUISES[name](PARTS)
    behind = map_of(values)
    assert behind is not None
    flat = values.reshape(POSITIONS, -1)
    scales = behind.scales(flat)
    counts, unknown = behind.counts(flat, scales)
    unknown |= counts < 0
    model = LowRankModel.from_basis(exact_basis(np.maximum(counts, 0).reshape(values.shape), rank=1))
    codec = Pca.from_model(model, residual=residual, map=behind.to_uri())
    data = codec.encode_chunk(values)
    decoded = codec.decode_chunk(data).reshape(flat.shape)
    bits = f"u{values.dtype.itemsize}"
    assert (decoded.view(bits)[unknown] == flat.view(bits)[unknown]).all()
    if residual == "lossless":
        assert (decoded.view(bits) == flat.view(bits)).all()
        return
    plain = Pca.from_model(model, residual=residual)
    of_counts = plain.decode_chunk(plain.encode_chunk(np.where(unknown, 0, counts).astype("u4").reshape(values.shape)))
    if residual == "bounded":
        found = behind.counts(decoded, scales)[0]
        assert (np.abs(found - counts) <= 0.5 * np.sqrt(np.maximum(counts, 0)) + 1e-9)[~unknown].all()
        return
    rates = behind.rates(decoded, scales)[~unknown]
    # Rates are of the counts: what is kept exactly instead is predicted from the others.
    near = np.abs(rates - of_counts.reshape(flat.shape)[~unknown])
    assert near.mean() < 0.6


def test_offsets_of_patterns_are_read_in_part() -> None:
    values = DISGUISES["1000 - c - pixel - pattern"](PARTS)
    behind = map_of(values)
    assert behind is not None
    again = CountsMap.from_uri(behind.to_uri())
    assert again.to_bytes() == behind.to_bytes()
    assert again.to_bytes()[4] == 3
    flat = values.reshape(POSITIONS, -1)
    some = behind.scales(flat[5:9])
    assert some is not None
    whole = behind.scales(flat)
    assert whole is not None
    assert (some == whole[5:9]).all()
