"""PCA out of core against dask's SVD, its cost over positions and rank, and sizes against peers.

Run with ``python -m tests.benchmarks.bench_pca [basis|large|linear|rate|lossless ...] [--data DIR]``. Everything
is measured in one run: each fit in a process of its own for its peak memory, ours and dask's in turn.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
RANK = 64
REAL = {
    "rotavirus 24": "rotavirus_4dstem_scan24x24_det256_u8.npy",
    "rotavirus 56": "rotavirus_4dstem_scan56x56_det128_u8.npy",
    "Siemens star": "aps_siemens_xptycho_516x128x128_u16.npy",
}


class Repeated:
    """A scan that reads the same store again and again: 20 GB without the disk for it."""

    def __init__(self, path: str, times: int) -> None:
        import zarr

        self.array: Any = zarr.open_array(path, mode="r")
        rows, *rest = self.array.shape
        self.shape = (rows * times, *rest)
        self.dtype = self.array.dtype
        self.chunks = self.array.chunks
        self.reads = 0

    def read(self, region: tuple[slice, ...]) -> Array:
        self.reads += 1  # of blocks; one too few now and then would not matter
        rows = self.array.shape[0]
        first = region[0].start % rows
        size = region[0].stop - region[0].start
        return np.asarray(self.array[(slice(first, first + size), *region[1:])])


def simulate(path: Path) -> None:
    """4096 positions × 16384 pixels of Poisson ptychography, mean 5."""
    import zarr

    from stemcodecs.simulate import simulate_scan

    simulation = simulate_scan("ptychography", (64, 64), (128, 128), mean_counts=5.0)
    array = zarr.create_array(path, shape=simulation.shape, dtype="u2", chunks=(2, 64, 128, 128))
    for row in range(0, 64, 2):
        array[row : row + 2] = simulation.block((slice(row, row + 2),))


def fit(kind: str, path: str, rank: int, times: int, out: str) -> None:
    """One fit, in this process; prints seconds, processor seconds, peak memory and the stated bound."""
    import zarr

    bound = 0
    if kind == "ours":
        from stemcodecs_pipelines.pca.fit import pca_basis, plan_pca

        scan: Any = zarr.open_array(path, mode="r") if times == 1 else Repeated(path, times)
        bound = plan_pca(scan, rank=rank).memory_bound
        start, cpu = time.perf_counter(), time.process_time()
        basis = pca_basis(scan, rank=rank, centred=False)
        components = basis.components.reshape(rank, -1)
    else:
        import dask.array as da

        def stabilise(block: Array) -> Array:
            return 2 * np.sqrt(block.astype(np.float32) + np.float32(0.375))

        start, cpu = time.perf_counter(), time.process_time()
        matrix = da.from_zarr(path).reshape(4096, -1).map_blocks(stabilise, dtype="f4")
        _, _, v = da.linalg.svd_compressed(matrix, rank, n_power_iter=1, n_oversamples=16, seed=0)
        components = v.compute()
    answer = {
        "seconds": time.perf_counter() - start,
        "cpu": time.process_time() - cpu,
        # Kilobytes on Linux.
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "bound": bound,
        "reads": getattr(scan, "reads", 0) if kind == "ours" else 0,
    }
    np.save(out, components)
    print(json.dumps(answer))


def run(kind: str, path: Path, rank: int = RANK, times: int = 1) -> dict[str, float]:
    """A fit in a fresh process."""
    command = [sys.executable, __file__, "--fit", kind, str(path), str(rank), str(times)]
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    answer: dict[str, float] = json.loads(result.stdout.splitlines()[-1])
    return answer


def bench_basis(path: Path) -> None:
    """Captured energy, time and memory against dask."""
    import zarr

    runs: dict[str, list[dict[str, float]]] = {"ours": [], "dask": []}
    for _ in range(6):
        for kind, kept in runs.items():
            kept.append(run(kind, path))
    counts: Any = zarr.open_array(str(path), mode="r")[:]  # type: ignore[index]
    x = 2 * np.sqrt(counts.reshape(4096, -1).astype(np.float32) + np.float32(0.375))
    exact = float(np.linalg.eigvalsh(x @ x.T)[-RANK:].sum())
    print(f"smallest of {len(runs['ours'])} runs in turn")
    for kind, kept in runs.items():
        v = np.load(path.parent / f"{kind}.npy")
        energy = float(((x @ v.T) ** 2).sum(dtype=np.float64)) / exact
        seconds, cpu, peak = (min(r[key] for r in kept) for key in ("seconds", "cpu", "peak"))
        print(
            f"{kind:5s} {seconds:7.2f} s   CPU {cpu:6.2f} s   peak {peak / 1e6:6.0f} MB   "
            f"captured energy / exact {energy:.5f}"
        )
    for name, key in (("time", "seconds"), ("CPU", "cpu"), ("memory", "peak")):
        ratios = sorted(a[key] / b[key] for a, b in zip(runs["ours"], runs["dask"], strict=True))
        smallest = min(r[key] for r in runs["ours"]) / min(r[key] for r in runs["dask"])
        print(
            f"ours / dask, {name:6s}: {smallest:.2f} of the smallest; run by run "
            f"{ratios[0]:.2f} to {ratios[-1]:.2f}, median {float(np.median(ratios)):.2f}"
        )


def bench_large(path: Path) -> None:
    """20 GB: time, peak memory and the bound that was stated before."""
    result = run("ours", path, times=150)
    print(
        f"20.1 GB, rank {RANK}: {result['seconds']:.0f} s, CPU {result['cpu']:.0f} s, peak "
        f"{result['peak'] / 1e6:.0f} MB, stated bound {result['bound'] / 1e6:.0f} MB"
    )


def bench_linear(path: Path) -> None:
    """Cost and memory over positions, and cost over rank."""
    names = ("GB", "positions", "reads of a block", "s", "CPU s", "CPU s/GB", "peak MB", "bound MB")
    print(" ".join(f"{name:>9s}" for name in names))
    for times in (8, 15, 30, 60):
        result = run("ours", path, times=times)
        size, blocks = times * 4096 * 16384 * 2 / 1e9, times * 32
        print(
            f"{size:9.2f} {4096 * times:9d} {result['reads'] / blocks:16.3f} {result['seconds']:9.2f} "
            f"{result['cpu']:9.2f} {result['cpu'] / size:9.2f} {result['peak'] / 1e6:9.0f} {result['bound'] / 1e6:9.0f}"
        )
    print(f"\n{'columns':>7s} {'s':>7s} {'CPU s':>7s} {'CPU ms/column':>13s}    (columns = rank + 16)")
    for rank in (16, 48, 112, 240):
        runs = [run("ours", path, rank=rank) for _ in range(3)]
        seconds, cpu = min(r["seconds"] for r in runs), min(r["cpu"] for r in runs)
        print(f"{rank + 16:7d} {seconds:7.2f} {cpu:7.2f} {1e3 * cpu / (rank + 16):13.1f}")


def bench_rate(path: Path) -> None:
    """Bits per pixel and diffraction error against raw coefficients and zstd."""
    import numcodecs
    import zarr

    from stemcodecs.codecs.pca import Pca
    from stemcodecs.lowrank import LowRankModel
    from stemcodecs.simulate import simulate_scan
    from stemcodecs_pipelines.pca.fit import pca_basis

    counts: Any = zarr.open_array(str(path), mode="r")[:]  # type: ignore[index]
    simulation = simulate_scan("ptychography", (64, 64), (128, 128), mean_counts=5.0)
    rate = np.concatenate([simulation.rate((slice(i, i + 8),)) for i in range(0, 64, 8)])
    basis = pca_basis(counts, rank=128)

    def error(decoded: Array) -> float:
        return float(np.mean((np.sqrt(np.maximum(decoded, 0)) - np.sqrt(rate)) ** 2)) * 4

    print("error: mean of 4·(√N′ − √λ)², 1 is one standard deviation of the counting noise; models included")
    print(f"{'rank':>4s} {'coder':24s} {'bits/pixel':>10s} {'error':>8s} {'of raw: size':>13s} {'error':>7s}")
    for rank in (8, 16, 32, 64):
        part = basis.truncate(rank)
        raw = part.project(counts)
        size = sum(len(numcodecs.Zstd(9).encode(a)) for a in (raw, part.components, part.mean))
        reference = error(part.rebuild(raw))
        print(f"{rank:4d} {'raw float32 + zstd':24s} {8 * size / counts.size:10.5f} {reference:8.5f}")
        for step in (0.25, 0.5, 1.0):
            model = LowRankModel.from_basis(part, step=step)
            codec = Pca.from_model(model)
            data = codec.encode_chunk(counts.astype(np.float32))
            found, total = error(codec.decode_chunk(data)), len(data) + model.uri_bytes
            print(
                f"{rank:4d} {f'stemcodecs.pca step {step}':24s} {8 * total / counts.size:10.5f} "
                f"{found:8.5f} {total / size:13.3f} {found / reference:7.4f}"
            )


def bench_lossless(path: Path, folder: Path | None) -> None:
    """residual="lossless", model included, against pixel_histogram; each scan as one chunk."""
    import zarr

    from stemcodecs.codecs.pca import Pca
    from stemcodecs.codecs.pixel_histogram import PixelHistogram
    from stemcodecs.lowrank import LowRankModel
    from stemcodecs.readers import open_scan
    from stemcodecs.simulate import simulate_scan
    from stemcodecs_pipelines.methods.base import Learning
    from stemcodecs_pipelines.methods.registry import parse_method
    from stemcodecs_pipelines.pca.fit import choose_rank, pca_basis

    scans: dict[str, Array] = {}
    for name, file in REAL.items():
        if folder is not None and (folder / file).exists():
            scans[name] = np.load(folder / file)
    scans["ptychography 5"] = np.asarray(zarr.open_array(str(path))[:])
    for kind in ("grains", "lattice", "unstructured"):
        scans[f"{kind} 1"] = simulate_scan(kind, (64, 64), (64, 64), mean_counts=1.0).counts
    print("bits per pixel, model included, and over those of pixel_histogram")
    print("compress: what compress stores by default; split: the rank of count splitting; best: of ranks 0 to 128")
    columns = ("compress", "split", "best")
    print(f"{'scan':16s} {'pixel_hist.':>11s}" + "".join(f" | {c:>8s} rank    size   ratio" for c in columns))
    for name, counts in scans.items():
        reference = 8 * len(PixelHistogram().encode_chunk(counts)) / counts.size
        split = choose_rank(counts).rank
        whole = pca_basis(counts, rank=min(128, int(np.prod(counts.shape[:-2]))))
        found: dict[int, float] = {}
        for rank in sorted({0, 1, 2, 4, 8, 16, 32, 64, 128, split}):
            model = LowRankModel.from_basis(whole.truncate(rank), step=3.0, precision=None)
            codec = Pca.from_model(model, residual="lossless")
            data = codec.encode_chunk(counts)
            assert np.array_equal(codec.decode_chunk(data), counts)
            found[rank] = 8 * (len(data) + model.uri_bytes) / counts.size
        np.save(path.parent / "scan.npy", counts)
        with open_scan(path.parent / "scan.npy") as scan:
            encoding = parse_method("pca:residual=lossless").build(scan, Learning())
        chosen = LowRankModel.load(encoding.serializer.model, encoding.serializer.sha256)
        stored = 8 * (len(encoding.serializer.encode_chunk(counts)) + chosen.uri_bytes) / counts.size
        best = min(found, key=lambda rank: found[rank])
        print(f"{name:16s} {reference:11.4f}", end="")
        for rank, size in ((chosen.rank, stored), (split, found[split]), (best, found[best])):
            print(f" | {'':8s} {rank:4d} {size:7.4f} {size / reference:7.4f}", end="")
        print(flush=True)


def main() -> None:
    """Run the parts that were asked for, or all."""
    parts = ("basis", "large", "linear", "rate", "lossless")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="|".join(parts))
    parser.add_argument("--data", type=Path, default=os.environ.get("STEMCODECS_DATA"))
    parser.add_argument("--fit", nargs=4, metavar=("KIND", "PATH", "RANK", "TIMES"))
    options = parser.parse_args()
    if options.fit:
        kind, path, rank, times = options.fit
        fit(kind, path, int(rank), int(times), str(Path(path).parent / f"{kind}.npy"))
        return
    warnings.simplefilter("ignore")
    folder = Path(options.data) if options.data else None
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "scan.zarr"
        simulate(path)
        for part in options.parts or parts:
            print(f"\n== {part}", flush=True)
            if part == "lossless":
                bench_lossless(path, folder)
            else:
                {
                    "basis": bench_basis,
                    "large": bench_large,
                    "linear": bench_linear,
                    "rate": bench_rate,
                }[part](path)


if __name__ == "__main__":
    main()
