"""Whole scans: time and size next to Dask and Blosc, scaling, memory, and the load on a Dask scheduler.

Run with ``python tests/benchmarks/bench_pipelines.py [compress|scaling|memory|histograms|scheduler|sync]
[--gigabytes 2] [--chunks 200000] [--folder FOLDER] [--check]``. Every peer runs in the same run, on the same source and
workers. ``--check`` holds what has a target: that syncing every object and reading it back from the disk costs at most
5 % of a verified run.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

SCAN = """
import sys, time
from stemcodecs.readers import open_scan
from stemcodecs_pipelines.store.compress import compress
with open_scan(sys.argv[1]) as scan:
    bounds = []
    memory = int(sys.argv[4]) if len(sys.argv) > 4 else None
    start = time.perf_counter()
    result = compress(
        scan, sys.argv[2], verify=False, workers=int(sys.argv[3]), memory=memory,
        start=lambda plan: bounds.append(plan.memory_bound),
    )
    seconds = time.perf_counter() - start
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(seconds, result.stored_bytes, bounds[0], int(peak.split()[1]) * 1024)
"""

HISTOGRAMS = """
import sys, time
from stemcodecs.readers import open_scan
from stemcodecs_pipelines.histograms.scan_histograms import histograms
with open_scan(sys.argv[1]) as scan:
    bounds = []
    start = time.perf_counter()
    histograms(scan, workers=2, start=lambda plan: bounds.append(plan.memory_bound))
    seconds = time.perf_counter() - start
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(seconds, bounds[0], int(peak.split()[1]) * 1024)
"""

DASK = """
import sys, time
import dask, dask.array as da, numpy as np, zarr, numcodecs
numcodecs.blosc.use_threads = False
data = np.load(sys.argv[1], mmap_mode="r")
chunks = eval(sys.argv[4])
start = time.perf_counter()
array = da.from_array(data, chunks=chunks)
compressor = zarr.codecs.BloscCodec(cname="zstd", clevel=5, shuffle="bitshuffle")
target = zarr.create_array(sys.argv[2], shape=data.shape, dtype=data.dtype, chunks=chunks, compressors=[compressor])
with dask.config.set(scheduler="threads", num_workers=int(sys.argv[3])):
    da.store(array, target, lock=False)
print(time.perf_counter() - start)
"""

VERIFIED = """
import os, sys, time
if sys.argv[3] == "unsynced":
    os.fsync = lambda descriptor: None
    os.posix_fadvise = lambda *arguments: None
from stemcodecs_pipelines import compress
start = time.perf_counter()
compress(sys.argv[1], sys.argv[2], workers=2)
print(time.perf_counter() - start)
"""

ROUNDS = 3
MOST_FOR_SYNCS = 1.05
LEAST_MEMORY = 370_000_000
"""With it, two workers can run at all."""


def source(folder: Path, gigabytes: float) -> Path:
    """A simulated scan: Poisson counts of mean 1 under a disk, tiled from 1,024 simulated patterns."""
    from stemcodecs.simulate import simulate_scan

    path = folder / f"scan-{gigabytes:g}GB.npy"
    if path.exists():
        return path
    detector = (256, 256)
    side = 8 * max(1, round((gigabytes * 1e9 / (2 * detector[0] * detector[1])) ** 0.5 / 8))
    simulation = simulate_scan("unstructured", (side, side), detector, mean_counts=1.0)
    shape = (side, side, *detector)
    print(f"simulating {shape} uint16 …", flush=True)
    data = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint16, shape=shape)
    for row in range(side):
        data[row] = simulation.block((slice(row, row + 1),))[0]
    data.flush()
    return path


def python(code: str, *words: object) -> list[float]:
    """Numbers that a fresh process prints."""
    done = subprocess.run([sys.executable, "-c", code, *map(str, words)], capture_output=True, text=True, check=True)
    return [float(word) for word in done.stdout.split()]


def folder_bytes(folder: Path) -> int:
    """Size of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def fresh(path: Path) -> Path:
    """A path with nothing there."""
    shutil.rmtree(path, ignore_errors=True)
    return path


def bench_compress(folder: Path, gigabytes: float) -> None:
    """Wall time and size of a whole compression, without verification, on two workers."""
    from stemcodecs.readers import open_scan
    from stemcodecs_pipelines.run.plan import make_plan

    path = source(folder, gigabytes)
    with open_scan(path) as scan:
        chunk = make_plan(scan).chunk
    raw = path.stat().st_size
    small = source(folder, 0.03)
    for workers in (1, 2):  # compiles the kernels, for one thread and for several
        python(SCAN, small, fresh(folder / "warm.zarr"), workers)
    print(f"{raw / 1e9:.2f} GB, chunks {chunk}, 2 workers, warm kernel cache, process start excluded")
    ours, theirs = folder / "ours.zarr", folder / "dask.zarr"
    runs = [(python(SCAN, path, fresh(ours), 2), python(DASK, path, fresh(theirs), 2, chunk)[0]) for _ in range(ROUNDS)]
    seconds, blosc = min(run[0][0] for run in runs), min(run[1] for run in runs)
    bound, peak = runs[0][0][2], max(run[0][3] for run in runs)
    print(f"best of {ROUNDS} runs in turn")
    rows = [("stemcodecs", seconds, folder_bytes(ours)), ("dask + Blosc zstd-5", blosc, folder_bytes(theirs))]
    for name, spent, size in rows:
        print(f"{name:<22} {spent:7.1f} s {raw / spent / 1e6:7.0f} MB/s {size:>12,} bytes, ratio {raw / size:.2f}")
    print(f"time {seconds / blosc:.2f} ×, size {rows[0][2] / rows[1][2]:.3f} × of Blosc")
    print(f"memory: bound {bound / 1e6:.0f} MB, peak {peak / 1e6:.0f} MB")


def bench_scaling(folder: Path, gigabytes: float) -> None:
    """Speed-up from one to two workers, next to what two independent processes reach.

    Each block is coded on one thread: by itself, a single worker lets the codec use all cores.
    """
    os.environ["STEMCODECS_THREADS"] = "1"
    path = source(folder, gigabytes)
    raw = path.stat().st_size
    ones, twos, boths = [], [], []
    for _ in range(ROUNDS):
        ones.append(python(SCAN, path, fresh(folder / "one.zarr"), 1)[0])
        twos.append(python(SCAN, path, fresh(folder / "two.zarr"), 2)[0])
        pair = [
            subprocess.Popen(
                [sys.executable, "-c", SCAN, path, fresh(folder / f"pair{i}.zarr"), "1"],
                stdout=subprocess.PIPE,
                text=True,
            )
            for i in range(2)
        ]
        boths.append(max(float(process.communicate()[0].split()[0]) for process in pair))
    del os.environ["STEMCODECS_THREADS"]
    one, two, both = min(ones), min(twos), min(boths)
    best, reached = 2 * one / both, one / two
    print(f"1 worker {raw / one / 1e6:.0f} MB/s, 2 workers {raw / two / 1e6:.0f} MB/s: {reached:.2f} ×")
    print(f"two processes {best:.2f} ×; the workers reach {100 * reached / best:.0f} % of that")


def bench_memory(folder: Path, gigabytes: float) -> None:
    """Peak memory on a source that is ten times as large as the bound (3.7 GB and more)."""
    path = source(folder, gigabytes)
    size = path.stat().st_size
    memory = max(size // 10, LEAST_MEMORY)
    _, _, bound, peak = python(SCAN, path, fresh(folder / "memory.zarr"), 2, memory)
    print(
        f"source {size / 1e6:.0f} MB = {size / bound:.1f} × bound; bound {bound / 1e6:.0f} MB, peak {peak / 1e6:.0f} MB"
    )


def bench_histograms(folder: Path, gigabytes: float) -> None:
    """Model and exact counts of a whole scan: speed and peak memory; the second run has compiled kernels."""
    path = source(folder, gigabytes)
    seconds, bound, peak = [python(HISTOGRAMS, path) for _ in range(2)][1]
    size = path.stat().st_size
    print(f"{size / seconds / 1e6:.0f} MB/s; bound {bound / 1e6:.0f} MB, peak {peak / 1e6:.0f} MB")


def bench_sync(folder: Path, gigabytes: float) -> bool:
    """What it costs that every object is synced before it gets its name, and read back from the disk."""
    path = source(folder, gigabytes)
    python(VERIFIED, source(folder, 0.03), fresh(folder / "warm.zarr"), "synced")
    times: dict[str, list[float]] = {"unsynced": [], "synced": []}
    for _ in range(ROUNDS):
        for name, spent in times.items():
            # What another run has left to write is not this one's.
            os.sync()
            spent += python(VERIFIED, path, fresh(folder / f"{name}.zarr"), name)
    best = {name: min(spent) for name, spent in times.items()}
    ratio = best["synced"] / best["unsynced"]
    good = ratio <= MOST_FOR_SYNCS
    print(
        f"verified, 2 workers, best of {ROUNDS}: {best['unsynced']:.1f} s without syncs, {best['synced']:.1f} s with: "
        f"{ratio:.3f} (asked {MOST_FOR_SYNCS}) {'ok' if good else 'short'}"
    )
    return good


def nothing(common: object, index: int) -> int:
    """A block whose encoding takes no time."""
    return index


def bench_scheduler(folder: Path, chunks: int) -> None:
    """Throughput and memory of client and scheduler on blocks that cost nothing; leaves a plot."""
    import psutil
    from distributed import Client

    from stemcodecs_pipelines.run.engine import DaskEngine

    file = folder / "scheduler.json"
    file.unlink(missing_ok=True)
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    module = [sys.executable, "-m"]
    environment = {"cwd": str(Path(__file__).parent)}
    processes = [
        subprocess.Popen(
            [*module, "distributed.cli.dask_scheduler", "--scheduler-file", file, "--port", "0", "--no-dashboard"],
            **quiet,
            **environment,
        )
    ]
    processes += [
        subprocess.Popen(
            [*module, "distributed.cli.dask_worker", "--scheduler-file", file, "--nthreads", "1", "--no-dashboard"],
            **quiet,
            **environment,
        )
        for _ in range(2)
    ]
    try:
        with Client(scheduler_file=str(file), set_as_default=False) as client:
            client.wait_for_workers(2)
            client.upload_file(__file__)
            from bench_pipelines import nothing as task

            scheduler, here = psutil.Process(processes[0].pid), psutil.Process()
            samples = []
            start = time.perf_counter()
            for count, _ in enumerate(DaskEngine(client).map(task, None, range(chunks)), 1):
                if count % 2000 == 0 or count == chunks:
                    samples.append((count, scheduler.memory_info().rss / 1e6, here.memory_info().rss / 1e6))
            seconds = time.perf_counter() - start
    finally:
        for process in processes:
            process.kill()
            process.wait()
    done, server, own = zip(*samples, strict=True)
    print(f"{chunks:,} chunks in {seconds:.0f} s: {chunks / seconds:.0f} chunks/s")
    for name, values in (("scheduler", server), ("client", own)):
        middle = values[len(values) // 4]
        print(f"{name}: {middle:.0f} MB after a quarter, {values[-1]:.0f} MB at the end")
    _plot(folder / "scheduler.png", done, {"scheduler": server, "client": own})


def _plot(path: Path, x: tuple[int, ...], lines: dict[str, tuple[float, ...]]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 3.5), layout="constrained")
    for name, values in lines.items():
        axes.plot(x, values, label=name)
    axes.set(xlabel="chunks done", ylabel="memory (MB)", ylim=(0, None))
    axes.legend()
    figure.savefig(path, dpi=120)
    print(f"plot: {path}")


def main() -> None:
    """Run the benchmarks that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", nargs="*", default=[], metavar="compress|scaling|memory|histograms|scheduler|sync")
    parser.add_argument("--gigabytes", type=float, default=2.0)
    parser.add_argument("--chunks", type=int, default=200_000)
    parser.add_argument("--folder", type=Path, help="keep source and plot here")
    parser.add_argument("--check", action="store_true", help="only what has a target; exit 1 if it is missed")
    options = parser.parse_args()
    everything = ["sync"] if options.check else ["compress", "scaling", "memory", "histograms", "scheduler", "sync"]
    good = True
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for name in options.what or everything:
            print(f"\n{name}", flush=True)
            if name == "scheduler":
                bench_scheduler(folder, options.chunks)
            elif name == "sync":
                good = bench_sync(folder, options.gigabytes)
            else:
                {
                    "compress": bench_compress,
                    "scaling": bench_scaling,
                    "memory": bench_memory,
                    "histograms": bench_histograms,
                }[name](folder, options.gigabytes)
    if options.check and not good:
        sys.exit(1)


if __name__ == "__main__":
    main()
