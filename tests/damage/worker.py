"""Read damaged chunks in a process of its own: ``python -m tests.damage.worker SEED CHUNKS FOLDER``.

Every chunk is read whole as Zarr format 3 does, and by one of the other ways: in part, from memory or from a file, or
by numcodecs, with or without ``out``. The number of the case stands in ``FOLDER/case`` before it begins, so that the
parent knows which one a crash or a hang belongs to. Memory is limited to what the process has after a warm-up and
``HEADROOM``; of the sealed chunks and of some others, what is allocated is measured as well. Prints counts as JSON.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import sys
import time
import tracemalloc
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from random import Random
from typing import Any
from unittest import mock

import numpy as np

from stemcodecs.entropy.kernels.threads import set_threads
from stemcodecs.errors import StemcodecsError
from tests.damage.damage import KINDS, damaged, sealed
from tests.damage.specimens import Specimen, all_specimens, bits, check_specimens

Array = np.ndarray[Any, Any]

SEALED = 10
"""One chunk in so many has valid checksums."""
MEASURED = 32
"""One of the others in so many has its memory measured."""
OVERHEAD = 80 << 20
"""What decoding any chunk may take beside twice its declared values: 4096 histograms, which a model may have, and their
look-up tables."""
HEADROOM = OVERHEAD + (176 << 20)
"""Of the address space: threads have stacks, and arenas of 64 MiB."""
_KINDS = tuple(KINDS)


class Silent(Exception):
    """A damaged chunk decoded to other values, or to another shape."""


class Outcome:
    """What became of the chunks of a batch."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.most_extra = 0
        self.slowest = 0.0
        self.problems: list[str] = []


def selection_of(shape: tuple[int, ...], random: Random) -> tuple[slice, ...]:
    """Some positions, or one, or a part of each pattern."""
    out = []
    for n in shape[: random.randrange(1, len(shape) + 1)]:
        start = random.randrange(n)
        out.append(slice(start, random.choice((start + 1, n))))
    return tuple(out)


async def read(specimen: Specimen, way: str, data: bytes, random: Random, folder: Path) -> tuple[Array, Array]:
    """What is read, and what should be."""
    values = specimen.values
    if way == "whole":
        return specimen.whole(data), values
    if way == "numcodecs":
        return specimen.numcodecs(data, None), values
    if way == "numcodecs out":
        return specimen.numcodecs(data, np.empty_like(values)), values
    selection = selection_of(values.shape, random)
    return await specimen.part(data, selection, folder if way == "part of a file" else None), values[selection]


def ways_of(specimen: Specimen, random: Random) -> tuple[str, str]:
    """Whole, and another way to read a specimen."""
    others = ["numcodecs"] if specimen.filter2 is not None else ["numcodecs", "numcodecs out"]
    if specimen.partial and specimen.values.size:
        # To write a file takes longer than all the rest.
        others += ["part", "part", "part of a file" if random.randrange(4) == 0 else "part"]
    return "whole", random.choice(others)


async def at_once(function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """In place of ``asyncio.to_thread``: to wake a thread takes longer than to refuse a chunk."""
    return function(*arguments, **named)


async def attempt(reading: Callable[[], Awaitable[tuple[Array, Array]]], valid: bool) -> str:
    """Read once: ``refused``, ``same``, or ``other`` where checksums were made valid."""
    try:
        found, expected = await reading()
    except StemcodecsError:
        return "refused"
    if found.shape == expected.shape and bits(found) == bits(expected):
        return "same"
    if not valid:
        raise Silent
    return "other"


async def run(seed: int, chunks: int, folder: Path) -> Outcome:
    """A batch."""
    names = list(all_specimens())
    specimens = list(all_specimens().values())
    outcome = Outcome()
    mark = os.open(folder / "case", os.O_CREAT | os.O_WRONLY)
    for case in range(chunks):
        os.pwrite(mark, b"%10d" % case, 0)
        if case % 5000 == 0:
            (folder / "counts.json").write_text(json.dumps(outcome.counts))
        random = Random(seed << 32 | case)
        index = random.randrange(len(specimens))
        specimen = specimens[index]
        valid = case % SEALED == 0
        kind = "sealed" if valid else random.choice(_KINDS)
        other = specimens[random.randrange(len(specimens))].data
        data = sealed(specimen, random, seed << 32 | case) if valid else damaged(specimen.data, kind, random, other)
        measured = valid or case % MEASURED == 1
        for way in ways_of(specimen, random):
            if measured:
                tracemalloc.start()
            begun = time.perf_counter()
            # Frames that a chunk of a movie does not store are zeros, which take no memory until they are read. Only
            # numcodecs takes its word for how many there are: whether they may be had is the system's business.
            blank = valid and way == "numcodecs" and names[index].startswith("tcs ")
            try:
                found = await attempt(lambda: read(specimen, way, data, random, folder), valid)  # noqa: B023
                outcome.counts[f"{kind}: {found}"] += 1
            except Exception as error:
                if blank and isinstance(error, MemoryError):
                    outcome.counts["more blank frames than memory"] += 1
                    tracemalloc.stop()
                    continue
                # Whatever is not an error of ours is a crash.
                what = "other values" if isinstance(error, Silent) else f"{type(error).__name__}: {error}"
                outcome.counts["silent" if isinstance(error, Silent) else "crashed"] += 1
                outcome.problems.append(f"seed {seed} case {case}, {names[index]}, {kind}, read {way}: {what}")
            outcome.slowest = max(outcome.slowest, time.perf_counter() - begun)
            if measured and blank:
                tracemalloc.stop()
            elif measured:
                extra = tracemalloc.get_traced_memory()[1] - 2 * specimen.values.nbytes
                tracemalloc.stop()
                outcome.counts["measured"] += 1
                outcome.most_extra = max(outcome.most_extra, extra)
                if extra > OVERHEAD + len(data):
                    outcome.counts["too much memory"] += 1
                    outcome.problems.append(
                        f"seed {seed} case {case}, {names[index]}, {kind}, read {way}: {extra >> 20} MiB too much"
                    )
    return outcome


def main(seed: int, chunks: int, folder: Path) -> None:
    set_threads(1)
    check_specimens()
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + HEADROOM, used + HEADROOM))
    with mock.patch.object(asyncio, "to_thread", at_once):
        outcome = asyncio.run(run(seed, chunks, folder))
    print(
        json.dumps(
            {
                "counts": outcome.counts,
                "most_extra": outcome.most_extra,
                "slowest": outcome.slowest,
                "problems": outcome.problems[:20],
            }
        )
    )


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
