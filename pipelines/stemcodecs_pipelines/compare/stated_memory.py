"""What a comparison will read, and the memory that it takes, said before anything is read."""

from __future__ import annotations

import math

import numpy as np
from rich import filesize

from stemcodecs.readers.scan import Scan
from stemcodecs_pipelines.compare.our_rows import our_methods
from stemcodecs_pipelines.compare.sample import ChosenBlocks
from stemcodecs_pipelines.methods.registry import parse_method
from stemcodecs_pipelines.run.plan import BASE_BYTES, WORKER_BYTES

__all__ = ["memory_bound", "plan_in_words"]

BYTES_A_VALUE = 14
"""What a row holds for every value of its block besides itself and what is decoded of it: roots as float32, these
transposed, and the planes of whoever compresses them."""
LOADED_BYTES = 250_000_000
"""Kernels of all methods, and the libraries of all others."""


def memory_bound(scan: Scan, chosen: ChosenBlocks, workers: int, judging: int) -> int:
    """Most memory that a comparison takes, in bytes: that of the rows that take most, as many as run at a time."""
    plan = chosen.plan
    values = math.prod(min(n, size) for n, size in zip(plan.block, plan.shape, strict=True))
    coding = max((BYTES_A_VALUE + 2 * np.dtype(plan.dtype).itemsize) * values, WORKER_BYTES) + plan.source_bytes
    learning = sorted((parse_method(text).learning_bytes(scan) for text in our_methods()), reverse=True)
    at_once = [*learning, *[0] * workers][:workers]
    rows = sum(max(coding, most) for most in at_once)
    # Reconstructions follow when all rows are done.
    return BASE_BYTES + LOADED_BYTES + max(rows, judging)


def plan_in_words(scan: Scan, chosen: ChosenBlocks, workers: int, judging: int) -> str:
    """One line on what will be read, and the memory that it takes.

    Parameters
    ----------
    scan : Scan
        Source.
    chosen : ChosenBlocks
        What will be read.
    workers : int
        Rows at a time.
    judging : int
        Bytes that reconstructions will take; 0 for none.
    """
    plan = chosen.plan
    if chosen.whole:
        what = f"all of {filesize.decimal(plan.raw_bytes)}"
    else:
        what = f"a sample of {filesize.decimal(chosen.raw_bytes)} of {filesize.decimal(plan.raw_bytes)}"
    bound = memory_bound(scan, chosen, workers, judging)
    return (
        f"{what} in {len(chosen.numbers)} chunk{'s' * (len(chosen.numbers) != 1)} of {'×'.join(map(str, plan.chunk))}, "
        f"{workers} method{'s' * (workers != 1)} at a time, memory at most {filesize.decimal(bound)}"
    )
