"""The comparison: every method that applies, on a sample or on everything, one row each."""

from __future__ import annotations

import contextlib
import datetime
import math
import os
import platform
import queue
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
from rich import filesize
from threadpoolctl import threadpool_limits

from stemcodecs.entropy.kernels.threads import set_threads
from stemcodecs.errors import ConfigurationError
from stemcodecs.readers.scan import Scan
from stemcodecs_pipelines.compare.advice import recommend
from stemcodecs_pipelines.compare.comparing import Comparing, Outcome
from stemcodecs_pipelines.compare.findings import Look, look_at
from stemcodecs_pipelines.compare.judged_rows import JudgedRows, judge_rows, judging_bytes
from stemcodecs_pipelines.compare.losses import ERROR_EDGES
from stemcodecs_pipelines.compare.lossless_peers import LONG_PEERS, PEERS, SLOW_PEERS
from stemcodecs_pipelines.compare.lossy_peers import LOSSY_PEERS
from stemcodecs_pipelines.compare.our_rows import left_out_row, our_methods, our_row, our_slow_methods
from stemcodecs_pipelines.compare.peer_rows import peer_row
from stemcodecs_pipelines.compare.report import Group, Pictures, Recommendation, Report, State
from stemcodecs_pipelines.compare.row_sums import first_pattern
from stemcodecs_pipelines.compare.sample import DEFAULT_SAMPLE, ChosenBlocks, choose_blocks
from stemcodecs_pipelines.compare.stated_memory import plan_in_words
from stemcodecs_pipelines.methods.base import RememberedFits
from stemcodecs_pipelines.run.plan import available_cores
from stemcodecs_pipelines.run.source import HowToOpen, opened, source_options

if TYPE_CHECKING:
    from stemcodecs_pipelines.ptychography.problem import PtychographyProblem

__all__ = ["compare"]

Task = Callable[[Comparing], Outcome]

BEGUN_FIRST = ("learned", "pca")
"""Rows that take longest, so that none is left alone at the end. Other rows of ``pca`` find its basis then."""
LONGEST_SECONDS = 20.0
"""Of a core, beyond which `LONG_PEERS` are left out."""
PACKAGES = (
    "stemcodecs",
    "numpy",
    "numba",
    "numcodecs",
    "zarr",
    "imagecodecs",
    "hdf5plugin",
    "pcodec",
    "pyterse",
    "torch",
)


def compare(
    source: Scan | str | os.PathLike[str],
    *,
    sample: int = DEFAULT_SAMPLE,
    slow: bool = False,
    workers: int | None = None,
    problem: PtychographyProblem | None = None,
    command: str = "",
    options: Sequence[str] = (),
    start: Callable[[str], None] = lambda text: None,
    progress: Callable[[float, int, str], None] = lambda done, total, name: None,
    **how: Unpack[HowToOpen],
) -> Report:
    """Run every method that applies to a scan, ours and those of others, and say which to use.

    Every method codes and decodes the same blocks, chunk by chunk as ``compress`` cuts them, and what it gives back is
    compared. Speeds are those of one core, whatever else the machine does. Ctrl-C ends the comparison: the report then
    has the rows that were done, and is marked as unfinished.

    Parameters
    ----------
    source : Scan or path
        What `stemcodecs_pipelines.compress` takes: files, stores, movies, stacks.
    sample : int
        Bytes to read of a larger scan, in whole chunks that are spread over it.
    slow : bool
        Run compressors of others that take minutes too.
    workers : int, optional
        Rows at once; default: one per core.
    problem : PtychographyProblem, optional
        Positions and probe of the scan: what loss does to a reconstruction is measured too. Needs a scan that is read
        whole.
    command : str
        What was typed, for the report.
    options : sequence of str
        Words by which a command is told how to open an open scan, for the commands that are recommended.
    start : callable, optional
        Called with a line that says what will be read and how much memory it takes, before anything is read.
    progress : callable, optional
        Called with rows done (parts of them count), rows in all, and the name of the row that was finished; or "".
    **how
        How to open a path, see `stemcodecs.readers.open_scan`.

    Returns
    -------
    Report

    Raises
    ------
    ConfigurationError
        The sample or the number of workers is not positive, or a reconstruction is asked for of a part of a scan.
    SourceError
        The source cannot be opened or read, or changed while it was read.
    """
    if sample < 1:
        raise ConfigurationError(f"a sample of {sample} bytes is none; give a size such as 256MB")
    if workers is not None and workers < 1:
        raise ConfigurationError(f"--workers {workers}: at least one worker is needed")
    began = time.perf_counter()
    with (
        opened(source, **how) as scan,
        # A row that was interrupted may still be writing.
        tempfile.TemporaryDirectory(prefix="stemcodecs-compare-", ignore_cleanup_errors=True) as folder,
    ):
        chosen = choose_blocks(scan, sample, whole_detector=True)
        if problem is not None and not chosen.whole:
            raise ConfigurationError(
                f"a reconstruction needs the whole scan, and {filesize.decimal(chosen.raw_bytes)} of "
                f"{filesize.decimal(chosen.plan.raw_bytes)} would be read; give --sample {scan.nbytes}"
            )
        count = workers or available_cores()
        rows = _tasks(slow)
        start(plan_in_words(scan, chosen, count, 0 if problem is None else judging_bytes(problem, len(rows))))
        look: Look | None = None
        outcomes: list[Outcome] = []
        judged: JudgedRows | None = None
        finished = False
        # Encoders share a pool of threads: a row is timed on one.
        before = set_threads(1)
        try:
            remembered = RememberedFits()
            look = look_at(scan, chosen, remembered)
            common = Comparing(
                scan=scan,
                sample_bytes=sample,
                folder=Path(folder),
                keep_patterns=problem is not None,
                counts=look.counts,
                detectors=look.detectors,
                remembered=remembered,
            )
            # So that the time of a row's thread is all of it.
            with threadpool_limits(1, user_api="blas"):
                for outcome in _run(rows, common, count, progress):
                    outcomes.append(outcome)
            if problem is not None:
                judged = judge_rows(problem, outcomes, progress)
            finished = True
        except KeyboardInterrupt:
            pass
        finally:
            set_threads(before)
        scan.check_unchanged()
        return _report(
            scan,
            chosen,
            look,
            outcomes,
            judged,
            command=command,
            options=[*options, *source_options(how)],
            finished=finished,
            seconds=time.perf_counter() - began,
        )


def _tasks(slow: bool) -> list[tuple[str, Task]]:
    """Names and tasks of all rows, in the order in which they begin."""
    ours: dict[str, Task] = {text: partial(our_row, text) for text in our_methods()}
    ours |= {text: partial(our_row if slow else left_out_row, text) for text in our_slow_methods()}
    first = [(text, ours.pop(text)) for text in BEGUN_FIRST]
    longest = math.inf if slow else LONGEST_SECONDS
    long: list[tuple[str, Task]] = [(peer.name, partial(peer_row, peer, longest=longest)) for peer in LONG_PEERS]
    peers = [(peer.slow, (peer.name, partial(peer_row, peer))) for peer in (*SLOW_PEERS * slow, *PEERS, *LOSSY_PEERS)]
    slow_ones, quick_ones = ([task for is_slow, task in peers if is_slow is wanted] for wanted in (True, False))
    return [*first, *long, *slow_ones, *ours.items(), *quick_ones]


def _run(
    tasks: Sequence[tuple[str, Task]],
    common: Comparing,
    workers: int,
    progress: Callable[[float, int, str], None],
) -> Iterator[Outcome]:
    """Outcomes in the order in which they are ready.

    The threads are daemons: a compressor that holds on to its block for a minute must not hold up Ctrl-C.
    """
    waiting: queue.SimpleQueue[tuple[str, Task]] = queue.SimpleQueue()
    for task in tasks:
        waiting.put(task)
    ready: queue.SimpleQueue[tuple[str, float] | Outcome | BaseException] = queue.SimpleQueue()

    def work() -> None:
        while not common.stopped.is_set():
            try:
                name, task = waiting.get_nowait()
            except queue.Empty:
                return

            def step(share: float, name: str = name) -> None:
                ready.put((name, share))

            try:
                ready.put(task(replace(common, step=step)))
            except BaseException as error:  # to be raised where the user is
                ready.put(error)

    for number in range(min(workers, len(tasks))):
        threading.Thread(target=work, name=f"stemcodecs-row-{number}", daemon=True).start()
    parts: dict[str, float] = {}
    done = 0
    try:
        while done < len(tasks):
            found = ready.get()
            if isinstance(found, BaseException):
                raise found
            if isinstance(found, Outcome):
                done += 1
                parts.pop(found.row.name, None)
                progress(done + sum(parts.values()), len(tasks), found.row.name)
                yield found
            else:
                name, share = found
                parts[name] = parts.get(name, 0.0) + share
                progress(done + sum(parts.values()), len(tasks), "")
    finally:
        common.stopped.set()


def _report(
    scan: Scan,
    chosen: ChosenBlocks,
    look: Look | None,
    outcomes: Sequence[Outcome],
    judged: JudgedRows | None,
    *,
    command: str,
    options: Sequence[str],
    finished: bool,
    seconds: float,
) -> Report:
    order = {group: i for i, group in enumerate(Group)}
    rows = [outcome.row if judged is None else judged.with_loss(outcome.row) for outcome in outcomes]
    rows.sort(key=lambda row: (order[row.group], row.bits_per_value is None, row.bits_per_value or 0.0, row.name))
    recommendation = Recommendation()
    pictures = Pictures()
    if look is not None:
        recommendation = recommend(scan.path, rows, look, 8 * scan.dtype.itemsize, options)
        pictures = _pictures(scan, chosen, look, outcomes, judged)
    if judged is not None and judged.remark:
        recommendation = replace(recommendation, findings=(*recommendation.findings, judged.remark))
    return Report(
        source=scan.path,
        dataset=scan.dataset or "",
        shape=scan.shape,
        dims=scan.dims,
        dtype=scan.dtype.name,
        sample=chosen.describe(),
        rows=tuple(rows),
        recommendation=recommendation,
        pictures=pictures,
        versions=_versions(),
        machine=_machine(),
        command=command,
        date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        seconds=seconds,
        resolution_unit="m" if judged is None else judged.unit,
        finished=finished,
    )


def _pictures(
    scan: Scan, chosen: ChosenBlocks, look: Look, outcomes: Sequence[Outcome], judged: JudgedRows | None
) -> Pictures:
    first = scan.read(chosen.regions[0])
    counts, _ = look.counts.of(first_pattern(first)[None])
    return Pictures(
        mean_pattern=look.mean_pattern,
        virtual_images=look.virtual_images,
        bits_map=_bits_map(outcomes),
        original=counts[0] if look.counts.known else first_pattern(first),
        decoded={o.row.name: o.decoded for o in outcomes if o.decoded is not None},
        errors={o.row.name: (ERROR_EDGES, o.errors.histogram) for o in outcomes if o.errors is not None},
        reconstructions={} if judged is None else judged.reconstructions,
        frc={} if judged is None else judged.frc,
    )


def _bits_map(outcomes: Sequence[Outcome]) -> np.ndarray[Any, Any] | None:
    """Bits of every pixel in the first chunk of the smallest lossless method of ours, where its codec can tell."""
    from stemcodecs.codecs import Learned, PixelHistogram
    from stemcodecs.entropy.chunk.describe import describe
    from stemcodecs.learned.describe import describe_learned

    done = [o for o in outcomes if o.chunk is not None and o.row.state is State.DONE]
    for outcome in sorted(done, key=lambda o: o.row.bits_per_value or 0.0):
        assert outcome.chunk is not None
        codec, data = outcome.chunk
        if isinstance(codec, Learned):
            return describe_learned(data, codec.shared()).bits
        if isinstance(codec, PixelHistogram):
            return describe(data, codec.shared()).bits
    return None


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def _machine() -> dict[str, Any]:
    return {
        "processor": _processor(),
        "cores": available_cores(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


def _processor() -> str:
    """Its name, where the system tells it; else what Python knows."""
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as file:
        for line in file:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
