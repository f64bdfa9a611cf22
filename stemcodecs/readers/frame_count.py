"""How many frames a file says that it holds, how many it does hold, and which of them are read."""

from __future__ import annotations

from typing import Literal

from stemcodecs.errors import SourceError

__all__ = ["Frames", "frames_to_read"]

Frames = Literal["said", "partial", "all"]
"""Which frames are wanted of a file that disagrees with its header.

``"said"``: those of the header, and an error where they are not those of the file; ``"partial"``: those of the header
that are there; ``"all"``: every frame of the file, whatever the header says.
"""


def frames_to_read(path: str, *, said: int, there: int, wanted: Frames) -> tuple[int, tuple[str, ...]]:
    """Number of frames to read, and what a user should know about it.

    Parameters
    ----------
    path : str
        The file, for messages.
    said : int
        Frames according to the header.
    there : int
        Whole frames in the file.
    wanted : str
        See `Frames`.

    Raises
    ------
    SourceError
        The two differ, and nobody said which to take; or nothing is there.
    """
    if there == said:
        return said, ()
    if there > said:
        if wanted == "all":
            return there, (f"all {there} frames of the file are read; its header says {said}",)
        if wanted == "partial" and said:
            return said, (f"the file holds {there} frames: {there - said} after the {said} of its header are left out",)
        only = ", or only those of the header with --partial" if said else ""
        raise SourceError(
            f"{path}: its header says {said} frames, but the file holds {there}; take all of them with "
            f"--scan-shape {there} (or ROWS,COLUMNS){only}"
        )
    if wanted == "partial" and there > 0:
        return there, (f"the file is truncated: {there} whole frames of the {said} of its header are read",)
    way_out = f", or take the {there} whole frames that are there with --partial" if there else ""
    raise SourceError(
        f"{path}: its header says {said} frames, but the file holds {there}; it is truncated: restore it{way_out}"
    )
