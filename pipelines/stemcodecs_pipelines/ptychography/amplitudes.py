"""Square roots of the counts, in segments of a bounded size: the scan itself may be larger than memory.

A segment is made of blocks from all over the scan, chosen anew in every pass, so that batches drawn from one segment
see the whole object. A scan that fits is one segment, is read once, and stays.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from stemcodecs.errors import ConfigurationError
from stemcodecs_pipelines.ptychography.pattern_source import PatternBlock
from stemcodecs_pipelines.ptychography.problem import PtychographyProblem

__all__ = ["Amplitudes"]

Array = np.ndarray[Any, Any]

DEFAULT_MEMORY = 1 << 30
"""Bytes of patterns held at once, as single-precision amplitudes."""


class Amplitudes:
    """Measured amplitudes √N of a problem, zero frequency in the corner, 0 where the mask is.

    Parameters
    ----------
    problem : PtychographyProblem
        Patterns and the positions that use them.
    memory : int
        Bytes of patterns to hold at once.

    Raises
    ------
    ConfigurationError
        When patterns are read: a pixel that counts is negative or not a number.
    """

    def __init__(self, problem: PtychographyProblem, memory: int = DEFAULT_MEMORY) -> None:
        self.problem = problem
        # Which position uses a pattern of the source; -1: none of this part of the scan.
        self._position = np.full(problem.patterns.count, -1)
        self._position[problem.numbers] = np.arange(problem.count)
        self._blocks = [b for b in problem.patterns.blocks() if (self._position[b.numbers] >= 0).any()]
        self._sizes = [int((self._position[b.numbers] >= 0).sum()) for b in self._blocks]
        self._pattern_bytes = 4 * problem.side**2
        self.total_bytes = self._pattern_bytes * problem.count
        self.largest_block = max(len(b.numbers) for b in self._blocks) * self._pattern_bytes
        self.memory = max(memory, self.largest_block)
        self._kept: tuple[Array, Array] | None = None
        self._buffer: Array | None = None
        self.total_counts = 0.0
        """Counts of all positions, known after the first pass."""

    @property
    def held_bytes(self) -> int:
        """What amplitudes take in memory at once: a segment, and the block that is read into it on its way there."""
        # Decoded chunks, the block made of them, what is chosen from it; then numbers, roots, and these in order.
        block = self.largest_block // 4 * (3 * self.problem.patterns.dtype.itemsize + 12)
        return min(self.total_bytes, self.memory) + block

    @property
    def in_memory(self) -> bool:
        """Whether all patterns are held."""
        return self.total_bytes <= self.memory

    def segments(self, generator: np.random.Generator) -> Iterator[tuple[Array, Array]]:
        """One pass over the scan: (positions, amplitudes) of each segment, in a random order of the blocks.

        Of a scan larger than memory, the next segment takes the place of the last one.
        """
        if self._kept is not None:
            yield self._kept
            return
        order = generator.permutation(len(self._blocks))
        total, start = 0.0, 0
        while start < len(order):
            stop, size = start, 0
            while stop < len(order) and (size + self._sizes[order[stop]]) * self._pattern_bytes <= self.memory:
                size += self._sizes[order[stop]]
                stop += 1
            segment = self._read([self._blocks[i] for i in order[start:stop]], size)
            total += _counts(segment[1])
            start = stop
            if self.in_memory:
                self._kept, self.total_counts = segment, total
            yield segment
        self.total_counts = total

    def mean_counts(self) -> float:
        """Mean counts of a pattern, from a pass over all of them, or, of a scan larger than memory, a segment."""
        positions, amplitudes = next(self.segments(np.random.default_rng(0)))
        return _counts(amplitudes) / len(positions)

    def _read(self, blocks: list[PatternBlock], size: int) -> tuple[Array, Array]:
        side = self.problem.side
        if self._buffer is None:
            self._buffer = np.empty((min(self.total_bytes, self.memory) // self._pattern_bytes, side, side), np.float32)
        amplitudes = self._buffer[:size]
        positions = np.empty(size, np.int64)
        filled = 0
        for block in blocks:
            values = self.problem.patterns.read_block(block)
            users = self._position[block.numbers]
            wanted = users >= 0
            part = slice(filled, filled + int(wanted.sum()))
            positions[part] = users[wanted]
            amplitudes[part] = self._amplitudes(values[wanted], block.numbers[wanted])
            filled = part.stop
        return positions, amplitudes

    def _amplitudes(self, values: Array, numbers: Array) -> Array:
        counts = self.problem.orientation.apply(values).astype(np.float32)
        counts[:, ~self.problem.mask] = 0.0
        if not counts.min() >= 0 or not np.isfinite(counts.max()):
            first = int(np.flatnonzero(~((counts >= 0) & np.isfinite(counts)).all(axis=(1, 2)))[0])
            y, x = np.argwhere(~((counts[first] >= 0) & np.isfinite(counts[first])))[0]
            raise ConfigurationError(
                f"pattern {numbers[first]} has {counts[first, y, x]:g} at ({y}, {x}), which is no count; give a mask "
                "of the pixels that were measured"
            )
        return np.fft.ifftshift(np.sqrt(counts), axes=(1, 2))


def _counts(amplitudes: Array) -> float:
    """Sum of their squares; few patterns at a time, for the squares of a segment would take as much as it does."""
    parts = (amplitudes[start : start + 64] for start in range(0, len(amplitudes), 64))
    return sum(float(np.square(part).sum(dtype=np.float64)) for part in parts)
