"""Golden bytes of ``stemcodecs.learned``: decoded on every instruction path, and from FORMAT.md alone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from stemcodecs.codecs import Learned, NumcodecsLearned
from stemcodecs.entropy.chunk.header import COUNTS, read_header
from stemcodecs.learned.context_model_bytes import read_network
from stemcodecs.learned.image_model import read_image_network
from stemcodecs.learned.l3c_model_bytes import is_l3c, read_l3c
from stemcodecs.learned.path import available
from stemcodecs.learned.prefix import HISTOGRAMS, LENGTH, NETWORK, VERSION, read_prefix
from tests import learned_format_decoder
from tests.strategies import same_bits

FOLDER = Path(__file__).parent.parent / "fixtures" / "learned"
CHUNKS = sorted(FOLDER.glob("v*/*.bin"))


def configuration(path: Path) -> dict[str, str]:
    shared = path.with_suffix(".json")
    return json.loads(shared.read_text()) if shared.exists() else {}


@pytest.mark.parametrize("path", CHUNKS, ids=lambda p: f"{p.parent.name}-{p.stem}")
@pytest.mark.parametrize("simd", ["portable", "sse2", "avx2", "avx512"])
def test_golden_bytes_decode(path: Path, simd: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if simd not in available():
        pytest.skip(f"this processor has no {simd}")
    monkeypatch.setenv("STEMCODECS_SIMD", simd)
    expected = np.load(path.with_suffix(".npy"))
    decoded = Learned(**configuration(path)).decode_chunk(path.read_bytes())
    assert same_bits(decoded, expected)
    assert decoded.flags.f_contiguous == expected.flags.f_contiguous
    assert same_bits(NumcodecsLearned(**configuration(path)).decode(path.read_bytes()), expected)


@pytest.mark.slow
@pytest.mark.parametrize("path", [p for p in CHUNKS if not configuration(p)], ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_independent_decoder_reads_golden_bytes(path: Path) -> None:
    """What FORMAT.md says of a version stays true, whatever later versions write."""
    expected = np.load(path.with_suffix(".npy"))
    decoded = learned_format_decoder.decode(path.read_bytes())
    assert same_bits(decoded.astype(expected.dtype), np.ascontiguousarray(expected).reshape(expected.shape))


def test_golden_bytes_cover_the_format() -> None:
    assert {p.parent.name for p in CHUNKS} == {f"v{v}" for v in range(1, VERSION + 1)}
    assert {read_prefix(p.read_bytes()) for p in CHUNKS} == {HISTOGRAMS, NETWORK}
    headers = {p.stem: read_header(p.read_bytes()[LENGTH:]) for p in CHUNKS if p.stem != "histograms"}
    assert {h.kind for h in headers.values()} == {COUNTS}
    assert {h.flags for h in headers.values()} == {0, 1, 2}
    assert headers["shared"].shared
    groups = [g for h in headers.values() for g in h.groups]
    assert all(any(getattr(g, part) for g in groups) for part in ("words", "low", "patches", "exceptions"))
    inside = {name: header for name, header in headers.items() if not header.shared}
    pyramids = {
        name: read_l3c(header.model, header.layout.detector) for name, header in inside.items() if is_l3c(header.model)
    }
    images = {name: read_image_network(h.model, h.layout.detector) for name, h in inside.items() if "images" in name}
    assert {network.chained for network in images.values()} == {False, True}
    networks = {
        name: read_network(header.model, header.layout.detector)
        for name, header in inside.items()
        if name not in pyramids and name not in images
    }
    assert networks["scan"].chained
    assert len(networks["means"].means) == 3
    assert networks["means_fitted"].means
    assert {name for name, network in networks.items() if network.normal} == {
        "normals", "normals_means", "normals_fitted"
    }  # fmt: skip
    assert networks["normals_means"].means
    assert {h.blocks for h in headers.values()} >= {1, 2}
    assert (networks["pattern"].levels < 0).any()
    assert {bool(network.maps) for network in networks.values()} == {False, True}
    assert len({network.scales for network in pyramids.values()}) > 1
    assert len({network.latents for network in pyramids.values()}) > 1
    assert {len(np.unique(network.levels)) > 1 for network in pyramids.values()} == {False, True}
    assert headers["l3c_trained"].shared


def test_golden_bytes_are_small() -> None:
    assert sum(p.stat().st_size for p in FOLDER.glob("v*/*")) < 300_000
