"""Lossless coding of real and simulated scans, next to its peers and to the Shannon bound, in one run.

Run with ``python -m tests.benchmarks.bench_lossless [--sizes | --speed | --random-access | --threads | --shared |
--affine | --learned | --l3c]``; without an option it prints one table of sizes and speeds. The real scans are looked
for in ``--data``, ``STEMCODECS_DATA`` or ``../shared/data``; the simulated ones need nothing.

Sizes hold everything that a decoder needs besides the array's metadata: each scan is one chunk, with its model, header
and checksums. Every result is decoded and compared. Speeds are MB/s of raw data in CPU time on one thread, the smallest
of a few repeats; each repeat is taken in turn with Blosc (zstd-5, bitshuffle) on the same data, so that the ratios to
it hold on a machine with other work. Slow peers (marked *) see every n-th pattern of large simulated scans.
"""

from __future__ import annotations

import argparse
import itertools
import math
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from stemcodecs.codecs.pixel_histogram import PixelHistogram
from stemcodecs.entropy.kernels.threads import get_threads, set_threads
from stemcodecs.simulate import simulate_scan
from stemcodecs_pipelines.compare.lossless_peers import BLOSC, PEERS
from stemcodecs_pipelines.compare.peer_coders import Coder, Peer, size_of
from tests.benchmarks.calibrated_scans import calibrated_scans
from tests.benchmarks.l3c_rows import SCANS as L3C_SCANS
from tests.benchmarks.l3c_rows import l3c_cells, other_rows, trained
from tests.benchmarks.learned_rows import coded as learned_row
from tests.benchmarks.learned_rows import pattern_share as learned_pattern_share
from tests.benchmarks.learned_rows import rows as learned_rows
from tests.benchmarks.learned_rows import stack_rows as learned_stack_rows
from tests.benchmarks.learned_speeds import BLOSC_SPEEDS, path_rows

Array = np.ndarray[Any, Any]

REAL = {
    "rotavirus 24": "rotavirus_4dstem_scan24x24_det256_u8.npy",
    "rotavirus 56": "rotavirus_4dstem_scan56x56_det128_u8.npy",
    "Siemens star": "aps_siemens_xptycho_516x128x128_u16.npy",
    "PETRA int32": "petra3_nearfield_xptycho_200x100x100_i32.npy",
}
SIMULATED: dict[str, dict[str, Any]] = {
    "flat 0.05": {"kind": "unstructured", "scan_shape": (32, 32), "detector_shape": (256, 256), "mean_counts": 0.05},
    "flat 1": {"kind": "unstructured", "scan_shape": (32, 32), "detector_shape": (256, 256), "mean_counts": 1.0},
    "flat 21": {"kind": "unstructured", "scan_shape": (32, 32), "detector_shape": (256, 256), "mean_counts": 21.0},
    "grains 1": {"kind": "grains", "scan_shape": (64, 64), "detector_shape": (64, 64), "mean_counts": 1.0},
    "lattice 1": {"kind": "lattice", "scan_shape": (64, 64), "detector_shape": (64, 64), "mean_counts": 1.0},
    "ptycho 3000": {"kind": "ptychography", "scan_shape": (32, 32), "detector_shape": (128, 128), "mean_counts": 3e3},
}
MODES = ("pixel", "neighbour", "scan", "auto")
SUBSET = 16_000_000
"""Bytes of a simulated scan that slow peers see."""
REPEATS = 5
ROUNDS = 8
"""Of threads against processes, in turn: all three must have met a quiet moment."""
PAIRED_ROUNDS = 7
"""Of plain counts and those in disguise, in turn."""
ENCODE_SHARE, DECODE_SHARE = 0.6, 0.7
"""Of the speed on plain counts, that a calibration must leave."""
SECONDS = 4.0
"""CPU time after which a codec is not repeated any more."""


@dataclass(frozen=True, kw_only=True)
class Scan:
    """One column of the table."""

    name: str
    counts: Array
    real: bool
    bound: float | None

    @property
    def patterns(self) -> Array:
        """The counts as (n, det_y, det_x)."""
        return self.counts.reshape(-1, *self.counts.shape[-2:])

    def subset(self) -> Array:
        """Patterns for slow peers."""
        step = 1 if self.real else math.ceil(self.counts.nbytes / SUBSET)
        return np.ascontiguousarray(self.patterns[::step])


@dataclass(frozen=True, kw_only=True)
class Result:
    """One codec on one scan; speeds in MB/s of the scan as it is stored."""

    bits: float
    ratio: float
    encode: float
    decode: float
    encode_relative: float
    decode_relative: float


def scans(folder: Path | None, only: str) -> Iterator[Scan]:
    """The data, one scan at a time."""
    for name, file in REAL.items():
        if only in name and folder is not None and (folder / file).exists():
            yield Scan(name=name, counts=np.load(folder / file), real=True, bound=None)
    for name, parameters in SIMULATED.items():
        if only in name:
            simulation = simulate_scan(**parameters, dtype=np.uint16)
            yield Scan(name=name, counts=simulation.counts, real=False, bound=simulation.shannon_bound())


def ours(mode: str) -> Coder:
    """A mode of ours; the scan keeps its shape, so that neighbours on the scan are known."""
    codec = PixelHistogram(mode=mode)
    return Coder(encode=codec.encode_chunk, decode=lambda data, like: codec.decode_chunk(data))


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """CPU seconds of this process, all threads together: hidden ones do not help."""
    start = time.process_time()
    result = work()
    return time.process_time() - start, result


def measure(coder: Coder, given: Array, stored: Array, *, speed: bool, warm: bool) -> Result | str:
    """Size and speeds of one codec, or why there are none.

    Parameters
    ----------
    coder : Coder
        What to measure.
    given, stored : ndarray
        What it gets, and the same patterns as they are stored, which the reference gets.
    speed : bool
        Whether to repeat, in turn with the reference.
    warm : bool
        Whether to code once before.
    """
    blosc_data = BLOSC.encode(stored)
    if warm:  # the first call of a Numba kernel loads or compiles it
        coder.decode(coder.encode(given), given)
    best = [math.inf] * 4
    spent = 0.0
    data: Any = b""
    for repeat in range(REPEATS if speed else 1):
        encoding, data = timed(partial(coder.encode, given))
        decoding, decoded = timed(partial(coder.decode, data, given))
        if repeat == 0 and not (decoded.dtype == given.dtype and np.array_equal(decoded, given)):
            return "loses"
        del decoded
        times = [encoding, decoding]
        if speed:
            times += [timed(partial(BLOSC.encode, stored))[0], timed(partial(BLOSC.decode, blosc_data, stored))[0]]
        best = [min(a, b) for a, b in zip(best, [*times, math.inf, math.inf], strict=False)]
        spent += encoding + decoding
        if spent > SECONDS:
            break
    size = size_of(data)
    encode, decode, blosc_encode, blosc_decode = best
    return Result(
        bits=8 * size / given.size,
        ratio=stored.nbytes / size,
        encode=stored.nbytes / 1e6 / encode,
        decode=stored.nbytes / 1e6 / decode,
        encode_relative=blosc_encode / encode,
        decode_relative=blosc_decode / decode,
    )


def row(scan: Scan, codec: str | Peer, *, speed: bool) -> Result | str:
    """One codec on one scan: a mode of ours, or a peer."""
    if isinstance(codec, str):
        return measure(ours(codec), scan.counts, scan.patterns, speed=speed, warm=speed)
    if not codec.installed:
        return "not installed"
    patterns = scan.subset() if codec.slow else scan.patterns
    given = codec.accepts(patterns)
    if given is None:
        return "not its dtype"
    coder = codec.best(given)
    return measure(coder, given, patterns, speed=speed, warm=False)


def table(folder: Path | None, only: str, *, sizes: bool, speed: bool) -> None:
    """Print the table: blocks of the same rows (codecs) and columns (scans)."""
    codecs: dict[str, str | Peer] = {f"stemcodecs {mode}": mode for mode in MODES}
    codecs |= {peer.name + (" *" if peer.slow else ""): peer for peer in PEERS}
    results: dict[tuple[str, str], Result | str] = {}
    bounds: dict[str, float | None] = {}
    for scan in scans(folder, only):
        bounds[scan.name] = scan.bound
        for name, codec in codecs.items():
            found = results[name, scan.name] = row(scan, codec, speed=speed)
            # The table comes at the end: what is known so far goes beside it.
            known = found if isinstance(found, str) else f"{found.bits:.4f} bits/pixel"
            print(f"{scan.name}: {name}: {known}", file=sys.stderr, flush=True)
    blocks: list[tuple[str, Callable[[Result], float], int]] = []
    if sizes:
        blocks += [("bits/pixel", lambda r: r.bits, 4), ("ratio", lambda r: r.ratio, 2)]
    if speed:
        blocks += [
            ("enc MB/s", lambda r: r.encode, 0),
            ("dec MB/s", lambda r: r.decode, 0),
            ("enc x blosc", lambda r: r.encode_relative, 2),
            ("dec x blosc", lambda r: r.decode_relative, 2),
        ]
    for title, value, digits in blocks:
        print_row(title, list(bounds), rule=True)
        if title == "bits/pixel":
            print_row("Shannon bound", ["" if b is None else f"{b:.4f}" for b in bounds.values()])
        for name in codecs:
            found = [results[name, scan] for scan in bounds]
            print_row(name, [r if isinstance(r, str) else f"{value(r):.{digits}f}" for r in found])
        if title == "bits/pixel":
            summary(codecs, results, bounds)
        print()


def summary(
    codecs: dict[str, str | Peer], results: dict[tuple[str, str], Result | str], bounds: dict[str, float | None]
) -> None:
    """Last rows of the sizes: ours over the bound, and over the smallest peer."""

    def bits(name: str, scan: str) -> float:
        result = results[name, scan]
        return math.inf if isinstance(result, str) else result.bits

    peers = [name for name, codec in codecs.items() if isinstance(codec, Peer)]
    print_row("auto / bound", ["" if b is None else f"{bits('stemcodecs auto', s) / b:.4f}" for s, b in bounds.items()])
    best = {scan: min(peers, key=lambda name, scan=scan: bits(name, scan)) for scan in bounds}
    print_row("auto / best peer", [f"{bits('stemcodecs auto', s) / bits(best[s], s):.4f}" for s in bounds])
    print_row("best peer", [best[s].split(",")[0].removesuffix(" *")[:13] for s in bounds])


def print_row(name: str, cells: list[str], *, rule: bool = False) -> None:
    """One row, in Markdown."""
    print(f"| {name:39} |" + "".join(f" {cell:>13} |" for cell in cells), flush=True)
    if rule:
        print(f"|{'-' * 41}|" + f"{'-' * 14}:|" * len(cells))


def random_access() -> None:
    """One random pattern of a 1 GB store through Zarr, against its whole chunk of 4,096 positions."""
    import zarr

    side, detector = 64, (128, 128)
    chunk = simulate_scan("unstructured", (side, side), detector, mean_counts=1.0).counts
    rng = np.random.default_rng(0)
    print(
        "random access: 8 chunks of 64×64 positions, 128×128 detector, uint16, mean 1; medians; CPU time of all threads"
    )
    print_row(
        "", ["store MB", "chunk ms", "chunk CPU ms", "first ms", "pattern ms", "pattern CPU", "CPU ratio"], rule=True
    )
    for mode in MODES:
        with tempfile.TemporaryDirectory() as folder:
            store = zarr.create_array(
                folder, shape=(2 * side, 4 * side, *detector), chunks=chunk.shape, dtype=chunk.dtype,
                serializer=PixelHistogram(mode=mode), compressors=None,
            )  # fmt: skip
            for i in range(8):
                y, x = i // 4 * side, i % 4 * side
                store[y : y + side, x : x + side] = np.roll(chunk, i, axis=1)
            stored = sum(f.stat().st_size for f in Path(folder).rglob("*") if f.is_file())

            def read(region: tuple[Any, ...], folder: str = folder) -> tuple[Array, float, float]:
                """Values, wall and CPU seconds of a read, the store opened before."""
                array: Any = zarr.open_array(folder, mode="r")
                wall_start, cpu_start = time.perf_counter(), time.process_time()
                values = array[region]
                return values, time.perf_counter() - wall_start, time.process_time() - cpu_start

            chunks, patterns = [], []
            for _ in range(200):
                y, x = (int(n) for n in rng.integers((2 * side, 4 * side)))
                pattern, *seconds = read((y, x))
                patterns.append(seconds)
                i = y // side * 4 + x // side
                np.testing.assert_array_equal(pattern, chunk[y % side, (x - i) % side])
                if len(patterns) % 10 == 0:
                    chunks.append(read((slice(side), slice(side)))[1:])
        of_chunk, of_pattern = np.median(chunks, axis=0), np.median(patterns, axis=0)
        times = [of_chunk[0], of_chunk[1], patterns[0][0], of_pattern[0], of_pattern[1]]
        cells = [f"{stored / 1e6:.1f}", *(f"{1e3 * t:.2f}" for t in times), f"{of_chunk[1] / of_pattern[1]:.0f}"]
        print_row(f"stemcodecs {mode}", cells)


def shared(folder: Path | None, only: str) -> None:
    """Chunks of 64 positions with one model for all of them, against one large chunk."""
    from stemcodecs.entropy.fit.scan_statistics import ScanStatistics

    print("shared model: bytes of chunks of 64 positions, relative to one chunk; mode neighbour")
    print_row("", ["one, bits/px", "shared", "with its model", "own models"], rule=True)
    for scan in scans(folder, only):
        patterns, layout = scan.patterns, scan.counts.shape
        model = ScanStatistics.block(patterns, np.arange(len(patterns))).finalize("neighbour")
        grid = [range(0, n, 8 if len(layout) == 4 else 64) for n in layout[:-2]]
        pieces = [
            np.ascontiguousarray(scan.counts[tuple(slice(s, s + r.step) for s, r in zip(at, grid, strict=True))])
            for at in itertools.product(*grid)
        ]
        one, together, own = (
            sum(len(codec.encode_chunk(piece)) for piece in of)
            for codec, of in (
                (PixelHistogram(mode="neighbour"), [scan.counts]),
                (PixelHistogram(mode="neighbour", **model.configuration()), pieces),
                (PixelHistogram(mode="neighbour"), pieces),
            )
        )
        inside = len(model.configuration()["model"])
        cells = [8 * one / scan.counts.size, together / one, (together + inside) / one, own / one]
        print_row(scan.name, [f"{cell:.4f}" for cell in cells])


def affine(only: str, positions: int) -> bool:
    """Counts in disguise against the counts themselves; returns whether all are as small and as fast as they should."""
    codec = PixelHistogram()
    print(f"counts in disguise: {positions} patterns of 128×128, a disk of mean 4 on 0.1; bits/pixel")
    print_row("", ["counts", "disguised", "allowed", "enc / counts", "dec / counts", ""], rule=True)

    good = True
    for scan in calibrated_scans(positions):
        if only not in scan.name:
            continue
        # Counts of 8 bits in disguise are as fast as counts of 8 bits, at best.
        behind = scan.behind.astype(np.uint8) if scan.values.itemsize == 1 else scan.behind
        (plain, found), speeds = coded_in_turn(codec, behind, scan.values)
        short = found > plain + scan.allowed or speeds[0] < ENCODE_SHARE or speeds[1] < DECODE_SHARE
        good &= not short
        cells = [f"{plain:.4f}", f"{found:.4f}", f"{plain + scan.allowed:.4f}", *(f"{s:.2f}" for s in speeds)]
        print_row(scan.name, [*cells, "short" if short else "ok"])
    return good


def coded_in_turn(codec: PixelHistogram, plain: Array, disguised: Array) -> tuple[list[float], list[float]]:
    """Bits a pixel of both, and the speeds of encoding and of decoding the disguised values, as shares of plain ones.

    A machine with other work is slow for seconds: both are timed in turn, and each round gives a share, of which the
    median counts. A speed is in bytes of what is stored.
    """
    for values in (plain, disguised):
        codec.decode_chunk(codec.encode_chunk(values[:64]))
    bits, rounds = [], []
    for turn in range(PAIRED_ROUNDS):
        seconds = []
        for values in (plain, disguised):
            encoding, data = timed(partial(codec.encode_chunk, values))
            decoding, decoded = timed(partial(codec.decode_chunk, data))
            seconds.append((encoding / values.nbytes, decoding / values.nbytes))
            if turn == 0:
                bits.append(8 * len(data) / values.size)
                if decoded.dtype != values.dtype or decoded.tobytes() != values.tobytes():
                    raise SystemExit("a value was not restored")
            del decoded
        rounds.append(np.divide(*seconds))
    return bits, np.median(rounds, axis=0).tolist()


def learned(folder: Path | None, only: str, steps: int) -> bool:
    """Networks against histograms; returns whether all take as little as they should."""
    print(f"learned: one chunk with its network, {steps} steps of fit; MB/s of uint16 a core, the fit left out")
    titles = ["bits/pixel", "at most", "below auto", "/ bound", "fit CPU s", "enc MB/s", "dec MB/s"]
    print_row("", [*titles, "enc x blosc", "dec x blosc", ""], rule=True)
    good = True
    for row in itertools.chain(learned_rows(scans(folder, only)), learned_stack_rows(only)):
        cells, enough = learned_row(row, steps)
        good &= enough
        print_row(row.name, cells)
    if only in "speed":
        print_row("", [*titles[5:], "enc x blosc", "dec x blosc", "at least", "at least", ""], rule=True)
        for path, cells, enough in path_rows(scan for name in BLOSC_SPEEDS for scan in scans(folder, name)):
            good &= enough
            print_row(path, cells)
    if only in "one pattern":
        share, enough = learned_pattern_share()
        good &= enough
        print(f"one pattern takes 1/{1 / share:.0f} of its chunk of 4,096 positions: {'ok' if enough else 'short'}")
    return good


def l3c(folder: Path | None, only: str, seconds: float) -> None:
    """A small L3C, told where it is or not, next to what else there is."""
    print(f"L3C-mini: one network a scan, trained for {seconds:g} s; MB/s of uint16 a core")
    print_row("", ["bits/pixel", "its network", "enc MB/s", "dec MB/s"], rule=True)
    for scan in scans(folder, only):
        if scan.name not in L3C_SCANS:
            continue
        for name, location in (("blind", False), ("told where it is", True)):
            cells = l3c_cells(scan.patterns, trained(scan.patterns, seconds, location=location))
            print_row(f"{scan.name}: L3C-mini, {name}", cells)
        if scan.bound is not None:
            print_row(f"{scan.name}: Shannon bound", [f"{scan.bound:.4f}"])
        for name, bits in other_rows(scan.counts):
            print_row(f"{scan.name}: {name}", [f"{bits:.4f}"])


def _worker(pipe: Any, mode: str, counts: Array) -> None:
    """A process that codes on one thread whenever it is told to."""
    set_threads(1)
    codec = PixelHistogram(mode=mode)
    data = codec.encode_chunk(counts)
    work = {"encode": lambda: codec.encode_chunk(counts), "decode": lambda: codec.decode_chunk(data)}
    codec.decode_chunk(data)
    pipe.send("ready")
    while (task := pipe.recv()) != "end":
        work[task]()
        pipe.send("done")


def threads() -> None:
    """Speed-up of two threads, relative to what two independent processes reach in turn with them."""
    counts = simulate_scan("unstructured", (32, 32), (256, 256), mean_counts=1.0).counts
    print(f"threads: flat 1, {counts.nbytes / 1e6:.0f} MB; wall time, best of {ROUNDS} rounds")
    print_row(
        "", ["1 thread ms", "2 threads ms", "2 processes", "thr. speed-up", "proc. speed-up", "thr./proc."], rule=True
    )
    context = multiprocessing.get_context("spawn")
    before = get_threads()
    for mode in ("pixel", "neighbour"):
        codec = PixelHistogram(mode=mode)
        data = codec.encode_chunk(counts)
        pipes = []
        for _ in range(2):
            pipe, other = context.Pipe()
            context.Process(target=_worker, args=(other, mode, counts), daemon=True).start()
            pipes.append(pipe)
        for pipe in pipes:
            pipe.recv()
        for task, work in (
            ("encode", partial(codec.encode_chunk, counts)),
            ("decode", partial(codec.decode_chunk, data)),
        ):
            best = [math.inf] * 3
            for _ in range(ROUNDS):
                set_threads(1)
                one = wall(work)
                set_threads(2)
                work()  # starts the threads
                two = wall(work)
                best = [min(a, b) for a, b in zip(best, [one, two, wall(partial(both, pipes, task))], strict=True)]
            by_threads, by_processes = best[0] / best[1], 2 * best[0] / best[2]
            cells = [f"{seconds * 1e3:.0f}" for seconds in best]
            print_row(
                f"stemcodecs {mode}, {task}",
                [*cells, f"{by_threads:.2f}", f"{by_processes:.2f}", f"{by_threads / by_processes:.2f}"],
            )
        for pipe in pipes:
            pipe.send("end")
    set_threads(before)


def both(pipes: list[Any], task: str) -> None:
    """Run a task in all processes at once."""
    for pipe in pipes:
        pipe.send(task)
    for pipe in pipes:
        pipe.recv()


def wall(work: Callable[[], Any]) -> float:
    """Seconds on the clock, the smallest of three calls on end."""
    best = math.inf
    for _ in range(3):
        start = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start)
    return best


def main() -> None:
    """Print what was asked for."""
    import numcodecs.blosc

    # One thread, whatever the machine has: in the main thread Blosc would take all.
    numcodecs.blosc.use_threads = False
    numcodecs.blosc.set_nthreads(1)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    part = parser.add_mutually_exclusive_group()
    part.add_argument("--sizes", action="store_true", help="sizes only")
    part.add_argument("--speed", action="store_true", help="speeds only")
    part.add_argument("--random-access", action="store_true", help="one pattern against its chunk")
    part.add_argument("--shared", action="store_true", help="small chunks with a shared model against a large one")
    part.add_argument("--affine", action="store_true", help="counts that were scaled, shifted, corrected, normalised")
    part.add_argument("--learned", action="store_true", help="networks against histograms")
    part.add_argument("--l3c", action="store_true", help="a small L3C, which torch trains, against all")
    part.add_argument("--threads", action="store_true", help="two threads against two processes")
    default = os.environ.get("STEMCODECS_DATA", str(Path(__file__).parents[3] / "shared" / "data"))
    parser.add_argument("--data", type=Path, default=Path(default), help="folder with the real scans")
    parser.add_argument("--check", action="store_true", help="with --affine, --learned: fail if a row takes too much")
    parser.add_argument("--positions", type=int, default=1024, help="with --affine: patterns of each scan")
    parser.add_argument("--steps", type=int, default=8000, help="with --learned: of a fit")
    parser.add_argument("--seconds", type=float, default=300.0, help="with --l3c: to train each network in")
    parser.add_argument("--only", default="", help="part of the name of the scans to take")
    arguments = parser.parse_args()
    if arguments.random_access:
        random_access()
    elif arguments.affine:
        set_threads(1)
        if not affine(arguments.only, arguments.positions) and arguments.check:
            sys.exit("some rows take more than they should")
    elif arguments.learned:
        set_threads(1)
        found = learned(arguments.data if arguments.data.is_dir() else None, arguments.only, arguments.steps)
        if not found and arguments.check:
            sys.exit("some rows take more than they should")
    elif arguments.l3c:
        set_threads(1)
        l3c(arguments.data if arguments.data.is_dir() else None, arguments.only, arguments.seconds)
    elif arguments.threads:
        threads()
    elif arguments.shared:
        shared(arguments.data if arguments.data.is_dir() else None, arguments.only)
    else:
        set_threads(1)
        folder = arguments.data if arguments.data.is_dir() else None
        table(folder, arguments.only, sizes=not arguments.speed, speed=not arguments.sizes)


if __name__ == "__main__":
    main()
