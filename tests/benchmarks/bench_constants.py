"""What the tuning constants of the encoder are worth: sizes and times with other values in their place.

Run with ``python -m tests.benchmarks.bench_constants [--only NAME] [--check] [--facts] [--data FOLDER]``. Every row
encodes the same scans with one constant changed; ``docs/encoder.md`` says what each of them is. Real crops are taken
where ``--data``, ``STEMCODECS_DATA`` or ``../shared/data`` has them; the simulated scans need nothing.

``size`` and ``time`` are ratios to the value in use, averaged over the scans (times are CPU seconds on one thread, the
smallest of two). ``--check`` prints for each constant whether the value in use is within 0.2 % in size of the best that
was tried, and exits with 1 if one is not. ``--facts`` prints what some constants are estimates of.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FunctionType
from typing import Any

import numpy as np
from numba import njit

from stemcodecs.codecs.pixel_histogram import PixelHistogram
from stemcodecs.entropy.chunk.encode import encode_array
from stemcodecs.entropy.chunk.header import read_header
from stemcodecs.entropy.fit.scan_statistics import ScanStatistics
from stemcodecs.entropy.kernels.threads import set_threads
from stemcodecs.entropy.model.model_bytes import Reader, read_histogram_model
from stemcodecs.entropy.model.range_coder import map_prediction
from stemcodecs.simulate import simulate_scan

Array = np.ndarray[Any, Any]

TOLERANCE = 0.002
REPEATS = 2
FIT = "stemcodecs.entropy.fit"
SIMULATED: dict[str, dict[str, Any]] = {
    "flat 0.1": {"kind": "unstructured", "scan_shape": (32, 32), "detector_shape": (64, 64), "mean_counts": 0.1},
    "flat 1": {"kind": "unstructured", "scan_shape": (32, 32), "detector_shape": (64, 64), "mean_counts": 1.0},
    "grains 1": {"kind": "grains", "scan_shape": (32, 32), "detector_shape": (64, 64), "mean_counts": 1.0},
    "ptycho 300": {"kind": "ptychography", "scan_shape": (16, 32), "detector_shape": (64, 64), "mean_counts": 300.0},
}
REAL: dict[str, tuple[str, tuple[Any, ...]]] = {
    "rotavirus": ("rotavirus_4dstem_scan24x24_det256_u8.npy", (..., slice(80, 176), slice(80, 176))),
    "star": ("aps_siemens_xptycho_516x128x128_u16.npy", (..., slice(24, 104), slice(24, 104))),
}


def encoded(mode: str, scan: Array) -> int:
    """Bytes of a scan as one chunk."""
    return len(PixelHistogram(mode=mode).encode_chunk(scan))


def with_shared_model(scan: Array) -> int:
    """Bytes of a scan with a model of the whole scan, which is counted too."""
    patterns = scan.reshape(-1, *scan.shape[-2:])
    model = ScanStatistics.block(patterns, np.arange(len(patterns))).finalize()
    return len(encode_array(scan, shared=model)) + len(model.data)


def in_chunks(positions: int, scan: Array) -> int:
    """Bytes of a scan in chunks of so many patterns."""
    patterns = scan.reshape(-1, *scan.shape[-2:])
    chunks = [patterns[i : i + positions] for i in range(0, len(patterns), positions)]
    return sum(encoded("neighbour", chunk) for chunk in chunks)


def low_rank(scan: Array, step: float = 3.0) -> int:
    """Bytes of a scan as eigen-patterns with a lossless residual, the model included."""
    from stemcodecs.lowrank import LowRankModel, exact_basis
    from stemcodecs.lowrank.coding import encode_counts

    patterns = scan.reshape(-1, *scan.shape[-2:])
    # The SVD takes longer than all the coding, and every trial starts from the same one.
    basis = _bases.get(scan.ctypes.data) or exact_basis(patterns, rank=8)
    _bases[scan.ctypes.data] = basis
    model = LowRankModel.from_basis(basis, step=step, precision=None)
    coded = encode_counts(patterns.reshape(len(patterns), -1), model, None)
    assert coded is not None
    return len(coded) + model.uri_bytes


_bases: dict[int, Any] = {}
AUTO, PIXEL, SCAN = (partial(encoded, mode) for mode in ("auto", "pixel", "scan"))


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One constant and the values to try in its place.

    Attributes
    ----------
    module, name : str
        Where it is defined; ``name`` without a module is an argument of ``measure``.
    values : sequence
        To try, besides the one in use.
    measure : callable
        Bytes of a scan.
    kernels : tuple of str
        Compiled functions of the module that have the constant in their machine code.
    scans : tuple of str
        Scans that it matters for; all if empty.
    free : bool
        Trades size for time or memory: its size is not held against the best.
    """

    module: str
    name: str
    values: Sequence[Any]
    measure: Callable[[Array], int] = AUTO
    kernels: tuple[str, ...] = ()
    scans: tuple[str, ...] = ()
    free: bool = False

    def chosen(self) -> Any:
        """The value in use."""
        return vars(importlib.import_module(self.module))[self.name]


DENSE = ("ptycho 300", "star")
TRIALS = (
    Trial(module=f"{FIT}.static", name="TABLE_BITS", values=(32.0, 65.0, 130.0, 520.0, 1040.0)),
    Trial(module=f"{FIT}.static", name="MAX_STATIC_CLASSES", values=(16, 64, 128, 448), measure=PIXEL),
    Trial(module=f"{FIT}.static", name="NARROWEST_CLASS", values=(0.0, 0.015, 0.06, 0.12), measure=PIXEL),
    Trial(module=f"{FIT}.static", name="LEVEL_STEP", values=(0.6, 0.85, math.sqrt(3), 2.4)),
    Trial(
        module=f"{FIT}.static",
        name="_RESIDUAL_BITS",
        values=(np.zeros(7), np.array([0.3, 2, 3, 3.5, 4, 4.5, 5]), np.array([0.3, 6, 10, 12, 14, 16, 18])),
    ),
    Trial(module=f"{FIT}.static", name="_SAMPLED_VALUES", values=(250_000, 500_000, 4_000_000), measure=PIXEL),
    Trial(module=f"{FIT}.static", name="PACKED4_MEAN", values=(0.0, 0.1, 0.2, 0.8), measure=PIXEL, free=True),
    Trial(module=f"{FIT}.static", name="PACKED2_MEAN", values=(0.0, 0.5, 1.1, 4.4), measure=PIXEL, free=True),
    Trial(module=f"{FIT}.static", name="_TAIL", values=(0.0, 1e-6, 1e-4, 1e-3), measure=PIXEL),
    Trial(module=f"{FIT}.static", name="WIDEST_SPREAD", values=(4, 8, 32), measure=PIXEL, scans=DENSE),
    Trial(module=f"{FIT}.static", name="WIDEST_RANGE", values=(100, 150, 250), measure=PIXEL, scans=DENSE),
    Trial(module=f"{FIT}.grouped_counts", name="_SAMPLED_VALUES", values=(1_000_000, 3_000_000, 24_000_000)),
    Trial(module=f"{FIT}.symbols", name="_COUNTED_VALUES", values=(1_000_000, 3_000_000, 24_000_000)),
    Trial(module=f"{FIT}.context", name="_SHAPED_VALUES", values=(20_000, 40_000, 320_000)),
    Trial(module=f"{FIT}.context", name="_RATE_TAIL", values=(0.0, 0.0001, 0.005)),
    Trial(module=f"{FIT}.context", name="_RARE", values=(0.0, 0.005, 0.05)),
    Trial(module=f"{FIT}.context", name="LARGEST_ABSOLUTE_RATE", values=(12, 24, 96, 192)),
    Trial(module=f"{FIT}.context", name="RESIDUAL_SPREAD", values=(2, 4, 12, 24), scans=DENSE),
    Trial(module=f"{FIT}.context", name="MOST_TABLES", values=(12, 24, 96)),
    Trial(module=f"{FIT}.context", name="MOST_RESIDUAL_TABLES", values=(5, 10, 40), scans=DENSE),
    Trial(module=f"{FIT}.weights", name="N_CONTEXT_CLASSES", values=(2, 4, 16, 24)),
    Trial(module=f"{FIT}.weights", name="CLASS_RATIO", values=(1.0, 1.15, 1.6, 2.0)),
    Trial(module=f"{FIT}.weights", name="CONTEXT_BITS", values=(11, 12), free=True),
    Trial(module=f"{FIT}.weights", name="_FITTED_VALUES", values=(75_000, 150_000, 1_200_000)),
    Trial(module=f"{FIT}.weights", name="VARIANCE_FLOOR", values=(0.01, 0.25), kernels=("_accumulate", "_lane_errors")),
    Trial(module=f"{FIT}.weights", name="VARIANCE_GROWTH", values=(0.0, 0.1), kernels=("_accumulate", "_lane_errors")),
    Trial(module=f"{FIT}.weights", name="_RIDGE", values=(1e-9, 1e-4, 1e-3)),
    Trial(module=f"{FIT}.weights", name="_JUDGED_PIXELS", values=(256, 512, 4096)),
    Trial(module=f"{FIT}.fit_model", name="LEAST_GAIN", values=(0.0, 0.001, 0.01, 0.03), free=True),
    Trial(module=f"{FIT}.fit_model", name="RING_GAIN", values=(0.0, 0.001, 0.01, 1.0), free=True),
    Trial(module=f"{FIT}.fit_model", name="ROUNDS", values=(1, 3), measure=SCAN),
    Trial(module=f"{FIT}.tile", name="CHAIN", values=(4, 9, 25, 36), measure=SCAN, free=True),
    Trial(module=f"{FIT}.tile", name="SCAN_GAIN", values=(0.0, 0.005, 0.02, 0.05), free=True),
    Trial(module=f"{FIT}.tile", name="_SAMPLED_VALUES", values=(500_000, 1_000_000, 8_000_000)),
    Trial(module=f"{FIT}.tile", name="FEWEST_TILES", values=(8, 32, 64), measure=SCAN),
    Trial(
        module=f"{FIT}.scan_statistics", name="MOST_PATTERNS", values=(64, 256, 512), measure=with_shared_model,
    ),
    Trial(
        module="stemcodecs.entropy.chunk.encoded_group",
        name="FOUR_BLOCKS_FROM",
        values=(0, 15_000, 240_000),
        free=True,
    ),
    Trial(module="stemcodecs.entropy.chunk.encoded_group", name="TWO_BLOCKS_FROM", values=(0, 30_000), free=True),
    Trial(
        module="stemcodecs.entropy.kernels.coding_tables",
        name="PATCH_BITS",
        values=(20.0, 40.0),
        kernels=("normalise",),
    ),
    Trial(module="stemcodecs.lowrank.residual", name="TABLE_BITS", values=(4.5, 18.0), measure=low_rank, scans=DENSE),
)  # fmt: skip


def scans(folder: Path) -> dict[str, Array]:
    """The data, a few million values each."""
    found = {name: simulate_scan(**parameters, dtype=np.uint16).counts for name, parameters in SIMULATED.items()}
    for name, (file, crop) in REAL.items():
        if (folder / file).exists():
            found[name] = np.ascontiguousarray(np.load(folder / file, mmap_mode="r")[crop])
    return found


@contextlib.contextmanager
def changed(trial: Trial, value: Any) -> Iterator[None]:
    """Another value in a constant's place, wherever its module's neighbours have imported it, and in its kernels."""
    home = vars(importlib.import_module(trial.module))
    before = home[trial.name]
    replaced: list[tuple[dict[str, Any], str, Any]] = []

    def replace(space: dict[str, Any], name: str, new: Any) -> None:
        replaced.append((space, name, space[name]))
        space[name] = new

    def everywhere(name: str, old: Any, new: Any) -> None:
        for module in [m for key, m in sys.modules.items() if key.startswith("stemcodecs.")]:
            if vars(module).get(name) is old:
                replace(vars(module), name, new)

    if trial.name.startswith("_"):
        replace(home, trial.name, value)
    else:
        everywhere(trial.name, before, value)
    for name in trial.kernels:
        kernel = home[name]
        # A kernel holds its globals as constants: it is compiled anew, and not cached.
        options = {k: kernel.targetoptions[k] for k in ("nogil", "error_model") if k in kernel.targetoptions}
        old = kernel.py_func
        new = FunctionType(old.__code__, {**old.__globals__, trial.name: value}, old.__name__, old.__defaults__)
        everywhere(name, kernel, njit(**options)(new))
    try:
        yield
    finally:
        for space, name, old in reversed(replaced):
            space[name] = old


def timed(measure: Callable[[Array], int], scan: Array) -> tuple[int, float]:
    """Bytes, and CPU seconds: the smallest of a few."""
    size, best = 0, math.inf
    for _ in range(REPEATS):
        start = time.process_time()
        size = measure(scan)
        best = min(best, time.process_time() - start)
    return size, best


def tried(trial: Trial, data: dict[str, Array]) -> dict[str, list[tuple[int, float]]]:
    """Bytes and seconds of every scan by value; the one in use comes first."""
    chosen = trial.chosen()
    names = [name for name in data if not trial.scans or name in trial.scans]
    out: dict[str, list[tuple[int, float]]] = {}
    for name in names:  # or the first value would pay for caches that are cold
        trial.measure(data[name])
    for value in (chosen, *trial.values):
        with changed(trial, value):
            trial.measure(data[names[0]])
            label = _text(value) + ("" if out else " (in use)")
            out[label] = [timed(trial.measure, data[name]) for name in names]
    return out


def _text(value: Any) -> str:
    return "/".join(f"{v:g}" for v in value) if isinstance(value, np.ndarray) else f"{value:.6g}"


def ratios(rows: list[tuple[int, float]], reference: list[tuple[int, float]]) -> tuple[float, float]:
    """Mean size and time against the value in use."""
    sizes = [a[0] / b[0] for a, b in zip(rows, reference, strict=True)]
    times = [a[1] / b[1] for a, b in zip(rows, reference, strict=True)]
    return float(np.mean(sizes)), float(np.mean(times))


def show(trial: Trial, data: dict[str, Array]) -> bool:
    """Print the rows of a constant; returns whether the value in use is good enough."""
    results = tried(trial, data)
    reference = next(iter(results.values()))
    names = [name for name in data if not trial.scans or name in trial.scans]
    best = 1.0
    module = trial.module.removeprefix("stemcodecs.")
    for label, rows in results.items():
        size, seconds = ratios(rows, reference)
        best = min(best, size)
        cells = {name: f"{8 * row[0] / data[name].size:.4f}" for name, row in zip(names, rows, strict=True)}
        bits = " | ".join(f"{cells.get(name, ''):>10}" for name in data)
        print(f"| {module}.{trial.name:22} | {label:>18} | {bits} | {size:6.4f} | {seconds:5.2f} |", flush=True)
    return trial.free or best >= 1 - TOLERANCE


def print_chunks(data: dict[str, Array]) -> None:
    """Sizes by the patterns of a chunk: what LARGEST_CHUNK and the cost of a small chunk rest on."""
    print("\npatterns in a chunk, bits per pixel (mode neighbour)")
    for positions in (32, 64, 128, 256, 512, 1024):
        cells = {n: 8 * in_chunks(positions, s) / s.size for n, s in data.items() if s.nbytes < 12e6}
        print(f"| {positions:5} | " + " | ".join(f"{name} {bits:.4f}" for name, bits in cells.items()), flush=True)


def print_steps(data: dict[str, Array]) -> None:
    """Sizes by the step of PCA coefficients in units of their noise, with a lossless residual."""
    print("\nstep of PCA coefficients, bits per pixel (rank 8, lossless residual)")
    for step in (0.5, 1.0, 2.0, 3.0, math.sqrt(12), 6.0):
        cells = {n: 8 * low_rank(data[n], step) / data[n].size for n in data if n in ("grains 1", *DENSE)}
        print(f"| {step:5.2f} | " + " | ".join(f"{name} {bits:.4f}" for name, bits in cells.items()), flush=True)


def print_facts(data: dict[str, Array]) -> None:
    """What constants estimate: bits of a stored histogram, of a level by its distance from the prediction."""
    print("\nscan | mode | histograms | bits each | levels: share at distance 0, 1, 2, 3 | bits of the map per pixel")
    for name, scan in data.items():
        for mode in ("pixel", "neighbour"):
            header = read_header(PixelHistogram(mode=mode).encode_chunk(scan))
            model = read_histogram_model(header.model, header.layout.detector)
            sections = _sections(header.model)
            distances = _distances(model.levels.reshape(model.detector))
            share = [f"{np.mean(distances == d):.3f}" for d in range(4)]
            table = 8 * sections["histograms"] / max(len(model.frequencies), 1)
            each = 8 * sections["levels"] / model.levels.size
            print(f"{name} | {mode} | {len(model.frequencies)} | {table:.0f} | {', '.join(share)} | {each:.2f}")


def _sections(data: bytes) -> dict[str, int]:
    """Bytes of the parts of a model that weigh, by the order of FORMAT.md 1.6."""
    r = Reader(data)
    r.varint()

    def skip_numbers() -> None:
        if r.varint():
            r.section()

    skip_numbers()
    r.varint()
    for _ in range(3):
        skip_numbers()
    levels = len(r.section())
    skip_numbers()
    return {"levels": levels, "histograms": len(r.section())}


def _distances(levels: Array) -> Array:
    """How far every level lies from its prediction."""
    out = np.empty(levels.shape, np.int64)
    for y, x in np.ndindex(levels.shape):
        out[y, x] = abs(levels[y, x] - map_prediction(levels, y, x)[0])
    return out


def main() -> int:
    """Print the tables that were asked for; 1 if ``--check`` found a constant that could be better."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="constants whose module and name contain this")
    parser.add_argument("--check", action="store_true", help="say ok or short for every constant")
    parser.add_argument("--facts", action="store_true", help="print what constants estimate, chunks and steps")
    root = Path(__file__).resolve().parents[3]
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("STEMCODECS_DATA", root / "shared" / "data")))
    options = parser.parse_args()
    set_threads(1)
    data = scans(options.data)
    if options.facts:
        print_facts(data)
        print_chunks(data)
        print_steps(data)
        return 0
    chosen = [trial for trial in TRIALS if options.only in f"{trial.module}.{trial.name}"]
    print(f"| {'constant':40} | value | " + " | ".join(data) + " | size | time |")
    print("|" + "---|" * (len(data) + 4))
    verdicts = {f"{t.module}.{t.name}".removeprefix("stemcodecs."): (t, show(t, data)) for t in chosen}
    if options.check:
        for name, (trial, good) in verdicts.items():
            print(f"{'ok' if good else 'short':5} {name}{' (trades size for time)' if trial.free else ''}")
    return int(options.check and not all(good for _, good in verdicts.values()))


if __name__ == "__main__":
    sys.exit(main())
