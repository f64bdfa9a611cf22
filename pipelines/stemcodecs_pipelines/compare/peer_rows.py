"""Rows of the compressors of others: every block by itself, decoded, and compared with what it was."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from typing import Any

import numpy as np

from stemcodecs_pipelines.compare.comparing import Comparing, Outcome, in_short
from stemcodecs_pipelines.compare.lossy_peers import LossyPeer
from stemcodecs_pipelines.compare.peer_coders import Coder, Peer, size_of
from stemcodecs_pipelines.compare.report import Group, Row, State
from stemcodecs_pipelines.compare.row_sums import RowSums, best_of

__all__ = ["peer_row"]

Array = np.ndarray[Any, Any]
TIMED_BYTES = 1 << 20
"""Of patterns on which it is timed how long a compressor would take."""
LOSSLESS = "lossless: every value is restored bit by bit"


def peer_row(peer: Peer, common: Comparing, *, longest: float = math.inf) -> Outcome:
    """Code the blocks of a sample with a compressor of others.

    Parameters
    ----------
    peer : Peer
        Compressor.
    common : Comparing
        Source, and what its rows share.
    longest : float
        Seconds of a core beyond which it is left out.

    Raises
    ------
    KeyboardInterrupt
        The comparison was interrupted.
    """
    if isinstance(peer, LossyPeer):
        row = Row(name=peer.name, group=Group.PEERS_LOSSY, guarantee=peer.guarantee)
    else:
        row = Row(name=peer.name, group=Group.PEERS_LOSSLESS, guarantee=LOSSLESS)
    reason = _reason_against(peer, common)
    if reason:
        return Outcome(row=replace(row, state=State.UNSUITED, note=reason))
    if not peer.installed:
        return Outcome(row=replace(row, state=State.MISSING, note=peer.install))
    try:
        return _coded(peer, row, common, longest)
    except Exception as error:  # every package raises its own kinds, and the others must go on
        return Outcome(row=replace(row, state=State.FAILED, note=in_short(error)))


def _reason_against(peer: Peer, common: Comparing) -> str:
    if not isinstance(peer, LossyPeer):
        return ""
    if peer.movies_only and len(common.scan.shape) != 3:
        return "for movies: stacks of frames"
    return "" if common.counts.known else "there are no counts behind the values"


def _coded(peer: Peer, row: Row, common: Comparing, longest: float) -> Outcome:
    chosen = common.blocks(whole_detector=True)
    lossy = isinstance(peer, LossyPeer)
    # What runs elsewhere takes no time of this thread.
    clock = time.perf_counter if peer.program else time.thread_time
    sums = RowSums(row.name, chosen, common, lossy=lossy, repeats=1)
    coder: Coder | None = None
    for region, block in sums.blocks():
        patterns, known = block.reshape(-1, *block.shape[-2:]), None
        if lossy:
            patterns, known = common.counts.of(patterns)
        given = peer.accepts(_narrow(patterns) if lossy else patterns)
        if given is None:
            return Outcome(row=replace(row, state=State.UNSUITED, note=f"does not take these values of {block.dtype}"))
        if coder is None:
            if longest < math.inf and (seconds := _expected(peer, given) * chosen.raw_bytes / block.nbytes) > longest:
                note = f"would take about {seconds:.0f} s of a core; --all takes it in"
                return Outcome(row=replace(row, state=State.LEFT_OUT, note=note))
            coder = peer.best(given)
        data = sums.encode(coder.encode, given, size=size_of, clock=clock)
        decoded = sums.decode(coder.decode, data, given, clock=clock)
        if not peer.keeps(decoded, given):
            return Outcome(row=replace(row, state=State.LOSES, note=_what_was_lost(peer, decoded, given)))
        if lossy:
            sums.add_loss(patterns, decoded, known, region)
    assert coder is not None
    return sums.outcome(replace(row, note=coder.layout))


def _expected(peer: Peer, patterns: Array) -> float:
    """Seconds of a core that a block takes in the slowest of the layouts, by a small part of it."""
    count = max(1, TIMED_BYTES // patterns[:1].nbytes)
    first = max(0, (len(patterns) - count) // 2)
    some = np.ascontiguousarray(patterns[first : first + count])
    coders = [coder for coder in peer.settings if coder.installed]
    seconds = [best_of(coder.encode, some, clock=time.thread_time, repeats=1)[0] for coder in coders]
    return max(seconds) * len(patterns) / len(some)


def _narrow(counts: Array) -> Array:
    """Counts in the narrowest unsigned dtype that holds them, as a detector would write them."""
    return counts.astype(np.min_scalar_type(int(counts.max(initial=0))), copy=False)


def _what_was_lost(peer: Peer, decoded: Array, source: Array) -> str:
    """The first value that is not what it must be."""
    if decoded.shape != source.shape:
        return f"gives back {decoded.shape} instead of {source.shape}"
    apart = decoded.astype(np.float64) - source
    if isinstance(peer, LossyPeer) and peer.bound is not None:
        apart = np.maximum(np.abs(apart) - peer.bound * np.sqrt(np.maximum(source.astype(np.float64), 1)), 0)
    wrong = apart != 0
    if not wrong.any():
        return f"gives back other bits, or {decoded.dtype} instead of {source.dtype}"
    at = tuple(int(i) for i in np.unravel_index(int(np.argmax(wrong)), wrong.shape))
    return f"{decoded[at]} instead of {source[at]} at pattern {at[0]}, pixel {at[1]}, {at[2]} of a block"
