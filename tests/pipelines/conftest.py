"""A small scan on disk, and stores of it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from stemcodecs.readers import open_scan
from stemcodecs.readers.scan import Scan
from stemcodecs_pipelines.store.compress import compress
from tests.pipelines.clusters import cluster_of


@pytest.fixture(scope="session")
def counts() -> np.ndarray:
    """A scan of 10×13 positions on a 12×16 detector, with a bright-field disk."""
    rng = np.random.default_rng(7)
    y, x = np.mgrid[:12, :16]
    rate = np.where((y - 5) ** 2 + (x - 8) ** 2 <= 16, 8.0, 0.2)
    return rng.poisson(rate, (10, 13, 12, 16)).astype(np.uint16)


@pytest.fixture(scope="session")
def source(counts, tmp_path_factory) -> Path:
    """The scan as .npy."""
    path = tmp_path_factory.mktemp("source") / "scan.npy"
    np.save(path, counts)
    return path


@pytest.fixture
def scan(source) -> Scan:
    """The scan, open."""
    with open_scan(source) as scan:
        yield scan


@pytest.fixture
def store(scan, tmp_path) -> Path:
    """The scan compressed into 3×2 blocks."""
    compress(scan, tmp_path / "scan.zarr", chunk=(4, 8))
    return tmp_path / "scan.zarr"


@pytest.fixture(scope="session")
def digests() -> Callable[[Path], dict[str, str]]:
    """SHA-256 of every file below a folder, by name."""

    def of(folder: Path) -> dict[str, str]:
        return {
            str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }

    return of


@pytest.fixture(scope="module")
def client():
    """A client of one worker process of two threads, in this process."""
    with cluster_of(1, threads_per_worker=2) as client:
        yield client
