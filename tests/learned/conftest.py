"""Fixtures of the tests of networks."""

from __future__ import annotations

import pytest

from stemcodecs.learned.path import available


@pytest.fixture(params=["portable", "sse2", "avx2", "avx512"])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each instruction path in turn."""
    if request.param not in available():
        pytest.skip(f"this processor has no {request.param}")
    monkeypatch.setenv("STEMCODECS_SIMD", request.param)
    return str(request.param)
