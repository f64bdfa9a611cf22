"""The demonstration: a simulated scan through the real pipeline, next to what else could store it."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from rich import filesize

from stemcodecs.errors import DestinationError
from stemcodecs.readers import open_scan
from stemcodecs.simulate import simulate_scan
from stemcodecs_pipelines.compare.lossless_peers import PEERS
from stemcodecs_pipelines.compare.peer_coders import size_of
from stemcodecs_pipelines.store.compress import compress
from stemcodecs_pipelines.store.verify import verify

__all__ = ["run_demo"]

SCAN_SHAPE = (32, 32)
DETECTOR_SHAPE = (128, 128)
MEAN_COUNTS = 1.0
SHOWN = ("gzip -6", "PNG", "Blosc zstd-5 bitshuffle")
"""Others that everybody has; ``stemcodecs compare`` has more."""


def run_demo(
    keep: str | None,
    *,
    echo: Callable[[str], None],
    scan_shape: tuple[int, int] = SCAN_SHAPE,
    detector_shape: tuple[int, int] = DETECTOR_SHAPE,
) -> None:
    """Simulate, compress, verify and compare.

    Parameters
    ----------
    keep : str or None
        Folder to leave ``simulated.npy`` and ``simulated.zarr`` in; None uses one that is removed.
    echo : callable
        Prints a line.
    scan_shape, detector_shape : tuple of int
        Size of the simulation.

    Raises
    ------
    DestinationError
        The folder holds a demonstration already.
    """
    if keep is not None and (taken := Path(keep) / "simulated.zarr").exists():
        raise DestinationError(f"{taken} exists; give another folder to --keep, or remove it")
    with tempfile.TemporaryDirectory(prefix="stemcodecs-demo-") as temporary:
        folder = Path(keep or temporary)
        folder.mkdir(parents=True, exist_ok=True)
        simulation = simulate_scan("grains", scan_shape, detector_shape, mean_counts=MEAN_COUNTS, dtype=np.uint16)
        echo(
            f"simulating a 4D-STEM scan of a polycrystal: {'×'.join(map(str, simulation.shape))}, "
            f"uint16, {MEAN_COUNTS} electrons per pixel …"
        )
        counts = simulation.counts
        np.save(folder / "simulated.npy", counts)
        store = folder / "simulated.zarr"
        with open_scan(folder / "simulated.npy") as scan:
            echo("compressing it …")
            start = time.perf_counter()
            result = compress(scan, store)
            seconds = time.perf_counter() - start
            echo(
                f"{filesize.decimal(result.raw_bytes)} → {filesize.decimal(result.stored_bytes)} in "
                f"{seconds:.1f} s, with the compilation of the kernels on their first use"
            )
            report = verify(scan, store)
            report.require_intact(store)
            echo(f"verified: all {report.values:,} values read back bit by bit")
        echo("comparing with other compressors and with the Shannon bound of the true rate …")
        patterns = counts.reshape(-1, *detector_shape)
        sizes = {}
        for peer in (peer for peer in PEERS if peer.name in SHOWN):
            if peer.installed:
                sizes[peer.name] = size_of(peer.best(patterns).encode(patterns))
            else:
                echo(f"(without {peer.name}: {peer.install} brings what it needs)")
        sizes["stemcodecs"] = result.stored_bytes
        bound = simulation.shannon_bound()
        for line in _table(sizes, result.raw_bytes, counts.size, bound):
            echo(line)
        if keep is not None:
            echo(f"kept in {os.fspath(folder)}: simulated.npy and simulated.zarr")


def _table(sizes: dict[str, int], raw: int, values: int, bound: float) -> list[str]:
    """Rows from the largest to the smallest, the bound last."""
    lines = [f"{'':<28} {'bytes':>12} {'bits/pixel':>11} {'ratio':>7} {'× bound':>8}"]
    for name, size in sorted(sizes.items(), key=lambda item: -item[1]):
        bits = 8 * size / values
        lines.append(f"{name:<28} {size:>12,} {bits:>11.3f} {raw / size:>7.2f} {bits / bound:>8.3f}")
    least = int(np.ceil(bound * values / 8))
    lines.append(f"{'Shannon bound':<28} {least:>12,} {bound:>11.3f} {raw / least:>7.2f} {1:>8.3f}")
    return lines
