"""Rows of the compressors of others: every block by itself, decoded, and compared with what it was."""

from __future__ import annotations

import hashlib
import time
from dataclasses import replace
from typing import Any

import numpy as np

from stemcodecs_pipelines.compare.comparing import (
    Comparing,
    DecodedPatterns,
    Outcome,
    best_of,
    first_pattern,
    in_short,
)
from stemcodecs_pipelines.compare.losses import LossSums
from stemcodecs_pipelines.compare.lossy_peers import LossyPeer
from stemcodecs_pipelines.compare.peer_coders import Coder, Peer, size_of
from stemcodecs_pipelines.compare.report import Group, Row, State

__all__ = ["peer_row"]

Array = np.ndarray[Any, Any]
LOSSLESS = "lossless: every value is restored bit by bit"


def peer_row(peer: Peer, common: Comparing) -> Outcome:
    """Code the blocks of a sample with a compressor of others.

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
        return _coded(peer, row, common)
    except Exception as error:  # every package raises its own kinds, and the others must go on
        return Outcome(row=replace(row, state=State.FAILED, note=in_short(error)))


def _reason_against(peer: Peer, common: Comparing) -> str:
    if not isinstance(peer, LossyPeer):
        return ""
    if peer.movies_only and len(common.scan.shape) != 3:
        return "for movies: stacks of frames"
    return "" if common.counts.known else "there are no counts behind the values"


def _coded(peer: Peer, row: Row, common: Comparing) -> Outcome:
    chosen = common.blocks(whole_detector=True)
    # What runs elsewhere takes no time of this thread.
    clock = time.perf_counter if peer.program else time.thread_time
    sizes, encoding_seconds, decoding_seconds = [], 0.0, 0.0
    losses, kept = None, None
    if isinstance(peer, LossyPeer):
        losses = LossSums(shape=common.scan.shape, detectors=common.detectors)
        if common.keep_patterns:
            digest = hashlib.sha256(peer.name.encode()).hexdigest()[:16]
            kept = DecodedPatterns(common.folder / f"{digest}.npy", common.scan.shape)
    coder: Coder | None = None
    shown: Array | None = None
    for i, region in enumerate(chosen.regions):
        block = common.read(region)
        patterns = block.reshape(-1, *block.shape[-2:])
        known: Array | None = None
        if losses is not None:
            patterns, known = common.counts.of(patterns)
        given = peer.accepts(_narrow(patterns) if losses is not None else patterns)
        if given is None:
            return Outcome(row=replace(row, state=State.UNSUITED, note=f"does not take these values of {block.dtype}"))
        coder = peer.best(given) if coder is None else coder
        seconds, data = best_of(coder.encode, given, clock=clock)
        encoding_seconds += seconds
        sizes.append(size_of(data))
        seconds, decoded = best_of(coder.decode, data, given, clock=clock)
        decoding_seconds += seconds
        if not peer.keeps(decoded, given):
            return Outcome(row=replace(row, state=State.LOSES, note=_what_was_lost(peer, decoded, given)))
        if losses is not None:
            losses.add(patterns, decoded, known, region)
            if kept is not None:
                kept.add(decoded, region)
            shown = first_pattern(decoded) if i == 0 else shown
        common.step(1 / len(chosen.numbers))
    bits, error = chosen.bits_per_value(sizes)
    assert coder is not None
    return Outcome(
        row=replace(
            row,
            note=coder.layout,
            stored_bytes=sum(sizes),
            bits_per_value=bits,
            bits_error=error,
            encode_rate=chosen.raw_bytes / 1e6 / max(encoding_seconds, 1e-9),
            decode_rate=chosen.raw_bytes / 1e6 / max(decoding_seconds, 1e-9),
            loss=None if losses is None else losses.loss(whole=chosen.whole),
        ),
        decoded=shown,
        errors=losses,
        patterns=None if kept is None else kept.place,
    )


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
