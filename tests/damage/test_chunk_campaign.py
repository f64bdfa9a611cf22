"""Campaign: chunks of every codec, kind and mode, damaged in every way, read by both faces, whole and in part.

``STEMCODECS_CAMPAIGN=full`` reads a million damaged chunks, a tenth of them with valid checksums; without it a tenth of
that. Processes of their own, so that a crash would end them; their memory is limited.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.damage.worker import OVERHEAD

REPOSITORY = Path(__file__).resolve().parents[2]
FULL = os.environ.get("STEMCODECS_CAMPAIGN") == "full"
BATCHES = 20 if FULL else 4
"""Processes: to measure memory so often takes some itself, which adds up against the limit."""
CHUNKS = (1_000_000 if FULL else 100_000) // BATCHES
SECONDS = 900

pytestmark = pytest.mark.campaign


def run_worker(seed: int, chunks: int, folder: Path, **environment: str) -> dict[str, Any]:
    """Outcome of a batch; a crash and a hang are told with the case that they belong to."""
    command = [sys.executable, "-m", "tests.damage.worker", str(seed), str(chunks), str(folder)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=SECONDS, cwd=REPOSITORY, check=False,
            env=os.environ | {"STEMCODECS_SIMD": "portable"} | environment,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        pytest.fail(f"{command}: hangs at case {(folder / 'case').read_text()}")
    if done.returncode:
        case = (folder / "case").read_text() if (folder / "case").exists() else "none"
        pytest.fail(f"{command}: exit {done.returncode} at case {case}\n{done.stderr[-3000:]}")
    outcome: dict[str, Any] = json.loads(done.stdout)
    return outcome


def report(outcome: dict[str, Any], chunks: int, capsys: pytest.CaptureFixture[str]) -> None:
    counts = Counter(outcome["counts"])
    with capsys.disabled():
        print(f"\n{chunks} damaged chunks, each read in two ways; slowest read {outcome['slowest']:.2f} s")
        for name, n in sorted(counts.items()):
            print(f"  {name:24} {n:9}")
        print(f"  most beside twice the declared values: {outcome['most_extra'] / 2**20:.1f} of {OVERHEAD >> 20} MiB")


def hold(outcome: dict[str, Any]) -> None:
    counts = Counter(outcome["counts"])
    problems = "\n".join(outcome["problems"])
    assert counts["crashed"] == 0, problems
    assert counts["silent"] == 0, problems
    assert counts["too much memory"] == 0, problems


@pytest.mark.timeout(2 * SECONDS)
@pytest.mark.parametrize("seed", range(BATCHES))
def test_damaged_chunks(seed: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No crash, no hang, no other values unless checksums were made valid, no memory that the declared shape does not
    account for.
    """
    outcome = run_worker(seed, CHUNKS, tmp_path)
    report(outcome, CHUNKS, capsys)
    hold(outcome)
    counts = Counter(outcome["counts"])
    # Damage with valid checksums is of use only where a good part of it gets behind them.
    assert counts["sealed: refused"] + counts["sealed: same"] + counts["sealed: other"] > CHUNKS // 10
    assert counts["sealed: same"] + counts["sealed: other"] > CHUNKS // 100


@pytest.mark.timeout(2 * SECONDS)
def test_damaged_chunks_with_bounds_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An index out of range is an error even where it would do no visible harm."""
    chunks = CHUNKS // 10
    outcome = run_worker(1000, chunks, tmp_path, NUMBA_BOUNDSCHECK="1", NUMBA_CACHE_DIR=str(tmp_path / "numba"))
    report(outcome, chunks, capsys)
    hold(outcome)
