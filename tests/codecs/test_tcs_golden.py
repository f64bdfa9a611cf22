"""Golden bytes of ``tcs``: the measurements that any released version wrote are read to the same sums by this one.

In ``tests/fixtures/tcs/v*``, ``NAME.bin`` are chunks, ``NAME.json`` the configuration, ``NAME.sums.npy`` the
measurements and ``NAME.frames.npy`` what was decoded from them. ``write.py`` beside them wrote them, once per version.
"""

from __future__ import annotations

import json
import runpy
import shutil
from pathlib import Path

import numcodecs
import numpy as np
import pytest

from stemcodecs.codecs import Tcs

FIXTURES = Path(__file__).parent.parent / "fixtures" / "tcs"
CHUNKS = sorted(FIXTURES.glob("v*/*.bin"))


@pytest.mark.parametrize("path", CHUNKS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_golden_bytes_decode(path: Path) -> None:
    data, stored = path.read_bytes(), json.loads(path.with_suffix(".json").read_text())
    sums = numcodecs.get_codec({**stored, "decoder": "measurement"}).decode(data)
    expected = np.load(path.with_suffix(".sums.npy"))
    assert np.array_equal(sums, expected)
    frames, before = numcodecs.get_codec(dict(stored)).decode(data), np.load(path.with_suffix(".frames.npy"))
    # An estimate: another processor may round it otherwise.
    assert np.abs(frames.astype(int) - before).max() <= 1
    assert (frames.dtype, frames.flags.f_contiguous) == (before.dtype, before.flags.f_contiguous)
    name = stored.pop("id")
    again = Tcs.from_dict({"name": name, "configuration": stored | {"decoder": "measurement"}}).decode_chunk(data)
    assert np.array_equal(again, expected)


def test_golden_bytes_cover_the_format() -> None:
    heads = [path.read_bytes()[:8] for path in CHUNKS]
    assert {h[4] for h in heads} == {1}
    assert {h[5] for h in heads} == {1, 2}
    assert {h[6] for h in heads} == {0, 1, 2}
    assert {h[7] for h in heads} == {3, 4}
    kinds = {json.loads(path.with_suffix(".json").read_text())["measurement"] for path in CHUNKS}
    assert kinds == {"tiled", "random", "bins"}


def test_golden_bytes_are_never_written_over(tmp_path: Path) -> None:
    shutil.copy(FIXTURES / "write.py", tmp_path)
    (tmp_path / "v1").mkdir()
    with pytest.raises(SystemExit, match="never written again"):
        runpy.run_path(str(tmp_path / "write.py"), run_name="__main__")
    assert not list((tmp_path / "v1").iterdir())


def test_golden_bytes_are_small() -> None:
    assert sum(p.stat().st_size for p in FIXTURES.rglob("*") if p.is_file()) < 120_000
