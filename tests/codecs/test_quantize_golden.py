"""Golden bytes of ``poisson_histogram`` and ``bit_pack``: what any released version wrote is decoded by this one.

In ``tests/fixtures/CODEC/v*``, ``NAME.bin`` are chunks, ``NAME.json`` the configuration, ``NAME.npy`` the decoded
arrays and ``NAME.source.npy`` the counts before quantisation. ``write.py`` beside them wrote them, once per version.
"""

from __future__ import annotations

import json
import runpy
import shutil
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import pytest

from stemcodecs.codecs.bit_pack import BitPack
from stemcodecs.codecs.poisson_histogram import PoissonHistogram
from stemcodecs.counts.counts_map import CountsMap
from stemcodecs.counts.deviation import deviation_behind
from stemcodecs.quantize import PoissonQuantizer
from stemcodecs.quantize.guarantee import Deviation
from tests.strategies import same_bits

FIXTURES = Path(__file__).parent.parent / "fixtures"
CODECS = ("poisson_histogram", "bit_pack")
CHUNKS = sorted(p for codec in CODECS for p in (FIXTURES / codec).glob("v*/*.bin"))
QUANTISED = [p for p in CHUNKS if "poisson_histogram" in p.parts]


def name_of(path: Path) -> str:
    return f"{path.parent.parent.name}-{path.parent.name}-{path.stem}"


def configuration(path: Path) -> dict[str, Any]:
    stored: dict[str, Any] = json.loads(path.with_suffix(".json").read_text())
    return stored


@pytest.mark.slow
@pytest.mark.parametrize("path", CHUNKS, ids=name_of)
def test_golden_bytes_decode(path: Path) -> None:
    """Both faces of the codec, from the configuration as a store keeps it."""
    data, expected = path.read_bytes(), np.load(path.with_suffix(".npy"))
    stored = configuration(path)
    decoded = numcodecs.get_codec(dict(stored)).decode(data)
    assert same_bits(decoded, expected)
    assert decoded.flags.f_contiguous == expected.flags.f_contiguous
    name = stored.pop("id")
    codec = {"stemcodecs.bit_pack": BitPack, "stemcodecs.poisson_histogram": PoissonHistogram}[name]
    assert same_bits(codec.from_dict({"name": name, "configuration": stored}).decode_chunk(data), expected)


@pytest.mark.parametrize("path", QUANTISED, ids=name_of)
def test_golden_bytes_meet_the_bound(path: Path) -> None:
    """The bound that the stored configuration states still holds, and marks are still exact."""
    source, decoded = np.load(path.with_suffix(".source.npy")), np.load(path.with_suffix(".npy"))
    stored = configuration(path)
    quantizer = PoissonQuantizer.from_dict(stored)
    if "map" in stored:
        found = deviation_behind(source, decoded, quantizer, CountsMap.from_uri(stored["map"]), (0,) * source.ndim)
    else:
        found = Deviation.of(source, decoded, quantizer)
    assert found.violations == 0
    assert numcodecs.get_codec(stored).encode(source)[:16] == path.read_bytes()[:16]


def test_golden_bytes_cover_the_format() -> None:
    packed = [p.read_bytes()[:9] for p in CHUNKS if p not in QUANTISED]
    assert {h[4] for h in packed} == {1}
    assert {(chr(h[5]), h[6]) for h in packed} >= {("u", 1), ("u", 2), ("i", 2), ("u", 4), ("i", 4)}
    assert {h[8] & 0xC0 for h in packed} == {0, 64, 128}
    heads = {p.stem: p.read_bytes()[:20] for p in QUANTISED}
    assert {h[4] for h in heads.values()} == {1, 2, 3}
    assert {(chr(h[5]), h[6]) for h in heads.values()} >= {("u", 1), ("u", 2), ("i", 2), ("i", 4), ("f", 4)}
    assert {flag for h in heads.values() for flag in (1, 2, 4) if h[7] & flag} == {1, 2, 4}
    assert {h[16:] != bytes(4) for h in heads.values()} == {True, False}  # with and without a table of offsets


@pytest.mark.parametrize("codec", CODECS)
def test_golden_bytes_are_never_written_over(codec: str, tmp_path: Path) -> None:
    shutil.copy(FIXTURES / codec / "write.py", tmp_path)
    newest = sorted((FIXTURES / codec).glob("v*"))[-1].name
    (tmp_path / newest).mkdir()
    with pytest.raises(SystemExit, match="never written again"):
        runpy.run_path(str(tmp_path / "write.py"), run_name="__main__")
    assert not list((tmp_path / newest).iterdir())


@pytest.mark.parametrize("codec", CODECS)
def test_golden_bytes_are_small(codec: str) -> None:
    assert sum(p.stat().st_size for p in (FIXTURES / codec).rglob("*") if p.is_file()) < 90_000
