"""Shared fixtures: where the real data lies, and how to skip without it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

# The first call of a Numba kernel compiles it: a deadline would measure that.
settings.register_profile("stemcodecs", deadline=None)
settings.load_profile("stemcodecs")

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder with real detector data (``STEMCODECS_DATA`` or ``../shared/data``); skips where it is absent."""
    folder = Path(os.environ.get("STEMCODECS_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip("real data is not on this machine; set STEMCODECS_DATA to its folder")
    return folder


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """``-m "not slow"`` takes the place of the default choice, and must leave out campaigns too."""
    for item in items:
        if any(item.get_closest_marker(name) for name in ("campaign", "slurm", "browser", "benchmark")):
            item.add_marker("slow")
