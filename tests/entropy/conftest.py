"""Fixtures of the entropy coder's tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from stemcodecs.entropy.chunk import encode
from stemcodecs.entropy.kernels.cpu import has_avx512
from stemcodecs.entropy.kernels.threads import set_threads


@pytest.fixture
def _counts_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small arrays are entropy-coded even where the generic coder of stored chunks would take fewer bytes."""
    monkeypatch.setattr(encode, "SMALL", 0)


@pytest.fixture(params=["portable", "avx512"])
def simd(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each instruction path in turn."""
    if request.param == "avx512" and not has_avx512():
        pytest.skip("this processor has no AVX-512")
    monkeypatch.setenv("STEMCODECS_SIMD", request.param)
    return str(request.param)


@pytest.fixture
def _one_thread() -> Iterator[None]:
    before = set_threads(1)
    yield
    set_threads(before)
