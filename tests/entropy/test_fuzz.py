"""Campaign: chunks damaged in every way, with checksums made valid again, in processes that a crash would end."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from stemcodecs.entropy.kernels.cpu import has_avx512

REPOSITORY = Path(__file__).resolve().parents[2]
BATCH = 2500
SECONDS = 300
"""A batch takes about ten; one that takes this long hangs."""

pytestmark = pytest.mark.campaign


def run_batch(seed: int, cases: int, environment: dict[str, str]) -> dict[str, int]:
    command = [sys.executable, "-m", "tests.entropy.fuzz_worker", str(seed), str(cases)]
    environment = {**os.environ, **environment}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=SECONDS, env=environment, cwd=REPOSITORY, check=False
        )
    except subprocess.TimeoutExpired as error:
        last = (error.stdout or b"").split()[-1:]
        pytest.fail(f"{command}: hangs at case {last}")
    lines = done.stdout.splitlines()
    assert done.returncode == 0, f"{command}: exit {done.returncode} at case {lines[-1:]}\n{done.stderr[-3000:]}"
    words = lines[-1].split()
    return dict(zip(words[::2], map(int, words[1::2]), strict=True))


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("path", ["portable", "avx512"])
@pytest.mark.parametrize("seed", range(4))
def test_20_000_damaged_chunks(seed: int, path: str) -> None:
    """No crash, no hang, no memory beyond the declared shape and a fixed overhead; refused, or an array of that shape.

    Checksums are valid, so an altered value cannot be told from a right one: other numbers are no failure here.
    """
    if path == "avx512" and not has_avx512():
        pytest.skip("this processor has no AVX-512")
    outcome = run_batch(seed + 100 * (path == "avx512"), BATCH, {"STEMCODECS_SIMD": path})
    assert sum(outcome.values()) == BATCH
    assert outcome["refused"] > BATCH // 4
    assert outcome["decoded"] > BATCH // 20


@pytest.mark.timeout(3600)
def test_2_500_damaged_chunks_with_bounds_checked(tmp_path: Path) -> None:
    """The same with Numba's bounds checks: an index out of range is an error even where it would do no visible harm."""
    environment = {"STEMCODECS_SIMD": "portable", "NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(tmp_path)}
    outcome = run_batch(1000, BATCH, environment)
    assert sum(outcome.values()) == BATCH
