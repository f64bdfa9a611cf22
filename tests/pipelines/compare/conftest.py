"""A scan with what a comparison looks for, and few methods, so that a test takes a second."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from stemcodecs_pipelines.compare import run
from stemcodecs_pipelines.compare.lossless_peers import PEERS
from stemcodecs_pipelines.compare.our_rows import our_row
from stemcodecs_pipelines.compare.peer_coders import Peer
from stemcodecs_pipelines.compare.peer_rows import peer_row
from stemcodecs_pipelines.compare.run import Task

GZIP = next(peer for peer in PEERS if peer.name == "gzip -6")


@pytest.fixture(scope="session")
def disk() -> np.ndarray:
    """Counts of 14×13 positions on a detector of 24×24, with a bright disk and a dose that waves by a third."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:24, :24]
    rate = np.where((y - 11) ** 2 + (x - 12) ** 2 <= 40, 8.0, 0.2)
    dose = 1 + 0.3 * np.sin(np.arange(13) / 3)
    return rng.poisson(rate * dose[:, None, None], (14, 13, 24, 24)).astype(np.uint16)


@pytest.fixture(scope="session")
def disk_file(disk, tmp_path_factory) -> Path:
    """The same as .npy."""
    path = tmp_path_factory.mktemp("disk") / "disk.npy"
    np.save(path, disk)
    return path


@pytest.fixture
def few(monkeypatch) -> Callable[..., None]:
    """Let comparisons have a few rows only: methods of ours by name, peers, and tasks."""

    def task(row: str | Peer | Task) -> tuple[str, Task]:
        if isinstance(row, str):
            return row, partial(our_row, row)
        return (row.name, partial(peer_row, row)) if isinstance(row, Peer) else ("task", row)

    def choose(*rows: str | Peer | Task) -> None:
        tasks = [task(row) for row in rows]
        monkeypatch.setattr(run, "_tasks", lambda slow: tasks)

    return choose
