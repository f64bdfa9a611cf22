"""Rows of our own methods: what a method puts beside its array."""

from __future__ import annotations

from types import SimpleNamespace

from stemcodecs_pipelines.compare.our_rows import _built
from stemcodecs_pipelines.methods.base import Encoding, RememberedFits


def test_models_that_lie_beside_the_array_are_written(tmp_path):
    encoding = Encoding(serializer=None, stored_models={"data/models/basis": b"model"})
    method = SimpleNamespace(text="pca", reads_everything=True, build=lambda scan, learning: encoding)
    common = SimpleNamespace(folder=tmp_path, scan=None, remembered=RememberedFits())
    found, place, _ = _built(method, SimpleNamespace(whole=True), common)
    assert found is encoding
    assert place.read("data/models/basis") == b"model"
