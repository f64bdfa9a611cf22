from __future__ import annotations

import pytest

from stemcodecs_pipelines.compare import demo as demonstration
from stemcodecs_pipelines.compare.peer_coders import Coder, Peer


def demo(folder):
    lines = []
    demonstration.run_demo(str(folder), echo=lines.append, scan_shape=(4, 4), detector_shape=(16, 16))
    return lines


@pytest.mark.slow
def test_demo_shows_every_coder_and_the_bound(tmp_path):
    pytest.importorskip("PIL")
    text = "\n".join(demo(tmp_path / "kept"))
    assert "verified: all 4,096 values" in text
    assert "without" not in text
    for name in [*demonstration.SHOWN, "stemcodecs", "Shannon bound"]:
        assert name in text
    assert sorted(p.name for p in (tmp_path / "kept").iterdir()) == ["simulated.npy", "simulated.zarr"]


@pytest.mark.slow
def test_demo_says_which_coder_is_not_installed(tmp_path, monkeypatch):
    absent = Coder(encode=bytes, decode=lambda data, like: like, package="no_such_package")
    monkeypatch.setattr(demonstration, "PEERS", [Peer(name="PNG", settings=[absent], install="pip install it")])
    rows = [line for line in demo(tmp_path) if "PNG" in line]
    assert rows == ["(without PNG: pip install it brings what it needs)"]
