"""Files of microscope cameras as their programs write them, with any number of frames behind the header.

Each function takes a folder, a random generator, the frames that the header says and those that can be held; it returns
the path, a function that makes the file hold so many frames (also broken ones), and the frames.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Written = tuple[Path, Callable[[float], None], np.ndarray[Any, Any]]


def _holding(path: Path, head: bytes, records: bytes, record_bytes: int) -> Callable[[float], None]:
    def hold(count: float) -> None:
        path.write_bytes(head + records[: int(count * record_bytes)])

    return hold


def mrc_header(columns: int, rows: int, sections: int, mode: int, *, order: str = "<", stamp: bool = True) -> bytearray:
    """Header of 1024 bytes with pixels of 2 Å."""
    header = bytearray(1024)
    struct.pack_into(f"{order}10i", header, 0, columns, rows, sections, mode, 0, 0, 0, columns, rows, sections)
    struct.pack_into(f"{order}3f", header, 40, 2.0 * columns, 2.0 * rows, float(sections))
    if stamp:
        header[208:216] = b"MAP " + (b"DD\0\0" if order == "<" else b"\x11\x11\0\0")
    return header


def mrc(folder: Path, random: np.random.Generator, *, said: int, kept: int) -> Written:
    """A stack of unsigned 16-bit frames."""
    frames = random.poisson(4.0, (kept, 6, 7)).astype("<u2")
    path = folder / "a.mrc"
    hold = _holding(path, bytes(mrc_header(7, 6, said, 6)), frames.tobytes(), frames[0].nbytes)
    hold(kept)
    return path, hold, frames


def empad(folder: Path, random: np.random.Generator, *, said: int, kept: int) -> Written:
    """EMPAD: frames of 128 × 128 with two more lines each, and an .xml that says the scan."""
    records = random.poisson(4.0, (kept, 130, 128)).astype("<f4")
    path, raw = folder / "a.xml", folder / "scan_x4_y3.raw"
    columns = 4
    path.write_text(
        f'<root name="a"><type>scan</type><pix_x>{columns}</pix_x><pix_y>{said // columns}</pix_y>'
        f'<raw_file filename="{raw.name}"/></root>'
    )
    hold = _holding(raw, b"", records.tobytes(), records[0].nbytes)
    hold(kept)
    return path, hold, records[:, :128]


def blockfile(folder: Path, random: np.random.Generator, *, said: int, kept: int) -> Written:
    """NanoMEGAS .blo: each frame of bytes follows six bytes of its own header."""
    frames = random.poisson(4.0, (kept, 8, 8)).astype("u1")
    columns = 4
    head = bytearray(0x1000 + said)
    offset = len(head)
    struct.pack_into("<6sHIII", head, 0, b"IMGBLO", 0x102, 0x1000, offset, 0)
    struct.pack_into("<5H", head, 20, 8, 0, columns, said // columns, 0)
    struct.pack_into("<ddIHId", head, 30, 2.0, 2.0, 200_000, 100, 100, 25571.0)
    records = b"".join(b"\xaa\x55" + struct.pack("<I", i) + frame.tobytes() for i, frame in enumerate(frames))
    path = folder / "a.blo"
    hold = _holding(path, bytes(head), records, 6 + frames[0].nbytes)
    hold(kept)
    return path, hold, frames


def ripple(folder: Path, random: np.random.Generator, *, said: int, kept: int) -> Written:
    """Lispix: a text file that says what lies in the .raw file beside it."""
    frames = random.poisson(4.0, (kept, 6, 7)).astype("<u2")
    path = folder / "a.rpl"
    lines = ["key\tvalue", "width\t7", "height\t6", f"depth\t{said}", "offset\t0", "data-length\t2"]
    lines += ["data-type\tunsigned", "byte-order\tlittle-endian", "record-by\timage"]
    path.write_text("\n".join(lines) + "\n")
    hold = _holding(folder / "a.raw", b"", frames.tobytes(), frames[0].nbytes)
    hold(kept)
    return path, hold, frames
