"""Which method to take, in words, with the reason."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence

from stemcodecs_pipelines.compare.findings import Look
from stemcodecs_pipelines.compare.report import Group, Recommendation, Row, State

__all__ = ["recommend"]

CLEARLY = 1.02
"""How much smaller something must be, to be worth a lower speed."""
HARMLESS = 0.5
"""Bound in standard deviations that costs less than the noise of a measurement repeated: see docs/reconstruction.md."""


def recommend(
    source: str, rows: Sequence[Row], look: Look, raw_bits: int, options: Sequence[str] = ()
) -> Recommendation:
    """Advice from the rows that were done.

    Parameters
    ----------
    source : str
        Path, for the commands.
    rows : sequence of Row
        All rows.
    look : Look
        What was found in the data.
    raw_bits : int
        Bits of a value as it is stored now.
    options : sequence of str
        Words that say how to open the source, for the commands.
    """
    source = shlex.join([source, "scan.zarr", *options])
    done = [row for row in rows if row.state is State.DONE and row.stored_bytes]
    advice: list[str] = []
    advice += _lossless(source, done, raw_bits)
    advice += _lossy(source, done, look)
    advice += _broken(rows)
    return Recommendation(advice=tuple(advice), findings=look.findings)


def _bits(row: Row) -> float:
    assert row.bits_per_value is not None
    return row.bits_per_value


def _command(source: str, row: Row) -> str:
    return f"stemcodecs compress {source} --method {row.name}"


def _smallest(rows: Iterable[Row], group: Group) -> Row | None:
    return min((row for row in rows if row.group is group), key=_bits, default=None)


def _lossless(source: str, done: Sequence[Row], raw_bits: int) -> list[str]:
    ours, peer = _smallest(done, Group.OURS_LOSSLESS), _smallest(done, Group.PEERS_LOSSLESS)
    if ours is None:
        return []
    against = ""
    if peer is not None:
        share = _bits(ours) / _bits(peer) - 1
        word = "smaller" if share < 0 else "larger"
        against = f", {abs(100 * share):.1f} % {word} than {peer.name}, the smallest of the others"
    rate = f"; it writes {ours.encode_rate:.0f} MB/s a core" if ours.encode_rate else ""
    lines = [
        f"Smallest without loss: {ours.name}, {raw_bits / _bits(ours):.1f} times smaller than the scan{against}{rate}: "
        f"{_command(source, ours)}"
    ]
    quick = max(
        (row for row in done if row.group is Group.OURS_LOSSLESS), key=lambda row: row.encode_rate or 0.0, default=ours
    )
    if quick is not ours and (quick.encode_rate or 0) > 2 * (ours.encode_rate or 0):
        lines.append(
            f"Fastest without loss: {quick.name}, {(quick.encode_rate or 0) / (ours.encode_rate or 1):.0f} times as "
            f"fast at {100 * (_bits(quick) / _bits(ours) - 1):.1f} % more bytes: {_command(source, quick)}"
        )
    if peer is not None and _bits(ours) > CLEARLY * _bits(peer):
        lines.append(f"{peer.name} stores this scan smaller: {_bits(peer):.3f} bits a value, ours {_bits(ours):.3f}.")
    return lines


def _lossy(source: str, done: Sequence[Row], look: Look) -> list[str]:
    lossless = _smallest(done, Group.OURS_LOSSLESS)
    named = {row.name: row for row in done}
    row = named.get(f"poisson:r={HARMLESS}")
    if row is None or lossless is None or not look.counts.known:
        return []
    if _bits(row) * CLEARLY > _bits(lossless):
        return [
            f"Loss does not pay here: with r = {HARMLESS} σ a value takes {_bits(row):.3f} bits, without loss "
            f"{_bits(lossless):.3f}."
        ]
    cost = ""
    if row.loss is not None and row.loss.dose_equivalent is not None:
        cost = f"; it costs as much as {100 * (1 - row.loss.dose_equivalent):.1f} % of the dose"
    line = (
        f"If r = {HARMLESS} σ of the shot noise is acceptable: {row.name}, {_bits(lossless) / _bits(row):.2f} times "
        f"smaller again{cost}: {_command(source, row)}"
    )
    return [line]


def _broken(rows: Sequence[Row]) -> list[str]:
    return [
        f"{row.name} does not keep what it promises on this scan: {row.note}"
        for row in rows
        if row.state is State.LOSES
    ]
