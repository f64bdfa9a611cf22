"""A process that has loaded no PCA model."""

from __future__ import annotations

import weakref

import pytest

from stemcodecs.last_used import LastUsed
from stemcodecs.lowrank import low_rank_model


def forget_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """Empty this process's cache of PCA models, as in a process that has just started."""
    monkeypatch.setattr(low_rank_model, "_kept", LastUsed(low_rank_model.KEPT_BYTES))
    monkeypatch.setattr(low_rank_model, "_alive", weakref.WeakValueDictionary())
