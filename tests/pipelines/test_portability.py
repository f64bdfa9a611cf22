"""The calls that only Linux has are taken away: everything works without them."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

CODE = """
import os, signal, sys
absent = "posix_fallocate sched_getaffinity posix_fadvise getuid fork sync O_DIRECT O_DIRECTORY"
for name in absent.split():
    if hasattr(os, name):
        delattr(os, name)
os.process_cpu_count = os.cpu_count  # Python's own looks for one of them by name
for name in ("SIGKILL", "SIGXFSZ", "SIGPIPE", "SIGHUP"):
    delattr(signal, name)
for name in ("fcntl", "resource", "pwd", "grp", "termios"):
    sys.modules[name] = None
plain = os.open
def no_folder(path, *args, **options):
    if os.path.isdir(path):
        raise PermissionError(13, "Permission denied", path)
    return plain(path, *args, **options)
os.open = no_folder
from stemcodecs_pipelines.cli import app
source, store, out = sys.argv[1:]
for words in (
    ["compress", source, store, "--chunk", "4,8"],
    ["compress", source, store, "--overwrite"],
    ["verify", source, store],
    ["info", store],
    ["decompress", store, out],
    ["decompress", store, out, "--overwrite"],
    ["verify", out, store],
):
    print(words[0], flush=True)
    app(words, standalone_mode=False)
"""


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".npy", ".h5", ".zarr"])
def test_a_scan_goes_in_and_comes_out_without_what_linux_has(source, counts, tmp_path, suffix):
    store, out = tmp_path / "scan.zarr", tmp_path / f"out{suffix}"
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(source), str(store), str(out)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == [out.name, "scan.zarr"]
    if suffix == ".npy":
        assert np.array_equal(np.load(out), counts)
