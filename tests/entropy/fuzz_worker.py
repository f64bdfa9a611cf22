"""Decode damaged chunks in a process of its own: ``python -m tests.entropy.fuzz_worker SEED CASES``.

Prints the number of a case before it begins, so that the parent knows which one a crash or a hang belongs to, and
at the end how many were refused. Memory is limited to what the process has after a warm-up, and ``HEADROOM``.
"""

from __future__ import annotations

import contextlib
import math
import resource
import sys
from pathlib import Path
from typing import Any

import numpy as np

from stemcodecs.entropy.chunk.decode import decode_array, decode_positions
from stemcodecs.entropy.chunk.header import COUNTS, read_header
from stemcodecs.entropy.kernels.threads import set_threads
from stemcodecs.errors import StemcodecsError
from tests.entropy.chunk_surgery import mutate
from tests.entropy.specimens import specimens

HEADROOM = 512 << 20
LARGE = 64 << 20
"""Arrays that declare more than this are read by their header alone: they may rightly take their memory."""


def _virtual_memory() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def _decode(data: bytes, random: np.random.Generator) -> str:
    """What became of a damaged chunk, read whole and in part."""
    try:
        header = read_header(data)
        if math.prod(header.shape) * header.dtype.itemsize > LARGE:
            return "large"
        decoded = decode_array(data)
        if decoded.shape != header.shape or decoded.dtype.newbyteorder("=") != header.dtype.newbyteorder("="):
            raise AssertionError(f"{decoded.dtype}{decoded.shape} instead of {header.dtype}{header.shape}")
        if header.kind == COUNTS:
            n = header.layout.n_positions
            positions = np.unique(random.integers(0, n, 3))
            header.ranges(positions)
            part = decode_positions(header, lambda a, b: data[a:b], positions)
            whole = decode_positions(header, lambda a, b: data[a:b], None).reshape(n, -1)
            if part.tobytes() != whole[positions].tobytes():
                raise AssertionError("a part decodes otherwise than the whole")
    except StemcodecsError:
        return "refused"
    return "decoded"


def main(seed: int, cases: int) -> None:
    set_threads(1)
    chunks = [data for _, data in specimens().values()]
    for data in chunks:
        decode_array(data)
    limit = _virtual_memory() + HEADROOM
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    outcome: dict[str, Any] = dict.fromkeys(("refused", "decoded", "large"), 0)
    for case in range(cases):
        print(case, flush=True)
        random = np.random.default_rng([seed, case])
        data = chunks[random.integers(len(chunks))]
        # Damage on damage gets further than one change that the first check refuses.
        damaged = mutate(data, random)
        if random.integers(4) == 0:
            with contextlib.suppress(StemcodecsError):
                damaged = mutate(damaged, random)
        outcome[_decode(damaged, random)] += 1
    print(*(f"{key} {n}" for key, n in outcome.items()))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
