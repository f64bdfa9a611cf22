"""Everything that stemcodecs raises on purpose, under one base class.

A message says what is wrong and what to do about it, in one line: the command line prints it as it is.
"""

from __future__ import annotations


class StemcodecsError(Exception):
    """Base of every error that stemcodecs raises on purpose."""


class CorruptChunkError(StemcodecsError, ValueError):
    """The bytes of a chunk are truncated, altered, or not a stemcodecs chunk.

    Attributes
    ----------
    reason : str
        What was found to be wrong.
    """

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"corrupt chunk: {reason}; restore the chunk from another copy, or repair it from the source")


class UnsupportedDtypeError(StemcodecsError, TypeError):
    """The codec cannot store this dtype."""


class ConfigurationError(StemcodecsError, ValueError):
    """A codec's or a pipeline's configuration has an unknown key or an unusable value."""


class NotCountsError(ConfigurationError):
    """The values of a scan are no counts that a model of all its chunks could be of."""


class ValueRangeError(StemcodecsError, ValueError):
    """A value that a lossy codec can neither keep within its bound nor keep exactly."""


class FormatVersionError(StemcodecsError, ValueError):
    """The bytes were written by a newer stemcodecs than this one."""


class SourceError(StemcodecsError):
    """A source file is missing, of an unknown format, or has no scan in it."""


class SourceMismatchError(SourceError):
    """A source is not the one that a store was made from, or begun with."""


class MissingPartError(SourceError):
    """A file, or a place in a file, to which a link or a virtual dataset of a source leads is not there."""


class DestinationError(StemcodecsError):
    """The destination exists already, or cannot be written."""


class IncompleteStoreError(StemcodecsError):
    """A store was never finished: the writing run was killed, or is still going on."""


class ReadBackError(StemcodecsError):
    """The disk does not give back what was written to it a moment ago."""


class WorkersLostError(StemcodecsError):
    """The scheduler is gone, no worker is left, or a block was lost again and again."""


class VerificationError(StemcodecsError):
    """A store does not hold what its source holds, within what its method guarantees.

    Attributes
    ----------
    index : tuple of int
        Coordinates of the first value that differs.
    """

    def __init__(self, message: str, index: tuple[int, ...] = ()) -> None:
        self.index = index
        super().__init__(message)
