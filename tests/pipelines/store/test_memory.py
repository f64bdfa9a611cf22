"""The memory bound that is printed before a run is held, on sources larger than it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

CODE = """
import sys
from stemcodecs.readers import open_scan
from stemcodecs_pipelines.run.memory import share_freed_blocks
from stemcodecs_pipelines.store.compress import compress
share_freed_blocks()  # as the command does
bounds = []
with open_scan(sys.argv[1]) as scan:
    compress(scan, sys.argv[2], chunk=(8, 8), workers=2, start=lambda plan: bounds.append(plan.memory_bound))
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(bounds[0], int(peak.split()[1]) * 1024)
"""


def measure(source: Path, store: Path) -> tuple[int, int]:
    """Bound and peak of one compression in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(source), str(store)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    bound, peak = map(int, done.stdout.split())
    return bound, peak


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_compress_stays_within_its_bound(tmp_path):
    shape = (64, 56, 256, 256)
    data = np.lib.format.open_memmap(tmp_path / "scan.npy", mode="w+", dtype=np.uint16, shape=shape)
    data[:8] = np.random.default_rng(0).poisson(0.1, (8, *shape[1:]))
    del data
    # The first process compiles the kernels, which takes memory of its own, once per installation.
    measure(tmp_path / "scan.npy", tmp_path / "first.zarr")
    bound, peak = measure(tmp_path / "scan.npy", tmp_path / "second.zarr")
    assert bound < np.prod(shape) * 2
    assert peak <= bound
    print(f"bound {bound / 1e6:.0f} MB, peak {peak / 1e6:.0f} MB")


SPY = """
import ctypes, sys
told = []
class Library(ctypes.CDLL):
    def mallopt(self, name, value):
        told.append((name, value))
        return 1
ctypes.CDLL = Library
import numpy as np
from stemcodecs_pipelines import compress, pca_basis, verify
compress(sys.argv[1], sys.argv[2], method="pca:rank=2")
verify(sys.argv[1], sys.argv[2])
pca_basis(np.ones((3, 40, 130, 140)), rank=2)  # large enough for the range finder
assert not told, told
import stemcodecs_pipelines.cli as cli
sys.argv = ["stemcodecs", "--version"]
try:
    cli.main()
except SystemExit:
    pass
assert told
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only glibc is told anything")
def test_only_the_command_changes_the_allocator_of_its_process(source, tmp_path):
    subprocess.run([sys.executable, "-c", SPY, str(source), str(tmp_path / "out.zarr")], check=True)
