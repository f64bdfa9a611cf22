"""What a store asks of a method: how a scan becomes a codec, what is guaranteed, and whether the guarantee holds."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeVar

from stemcodecs.errors import VerificationError
from stemcodecs_pipelines.methods.options import Exact, option

if TYPE_CHECKING:
    # The command reads the options of all methods when it starts; NumPy can wait.
    import numpy as np

    from stemcodecs.readers.scan import Region, Scan
    from stemcodecs_pipelines.run.engine import Engine

__all__ = [
    "Comparison",
    "Encoding",
    "Exact",
    "Learning",
    "Method",
    "RememberedFits",
    "check_exact",
    "check_form",
    "merged",
    "option",
]

Chosen = TypeVar("Chosen")
Made = TypeVar("Made")


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """Codecs of one array, as :func:`zarr.create_array` takes them.

    Parameters
    ----------
    serializer : object
        Array-to-bytes codec.
    filters : tuple of object
        Array-to-array codecs before it.
    stored_models : dict
        Objects of the store, by key: a model that is too large for the array's metadata.
    self_contained : object, optional
        The serializer with its model inside, for shards, where Zarr finds no stored model; None if it is too large for
        that too.
    """

    serializer: Any
    filters: tuple[Any, ...] = ()
    stored_models: Mapping[str, bytes] = field(default_factory=dict)
    self_contained: Any = None


@dataclass(frozen=True, kw_only=True)
class Learning:
    """Where a method that looks at the whole scan first does so, and whom it tells.

    Parameters
    ----------
    engine : Engine, optional
        Where its tasks run; default threads of this process.
    workers, memory : int, optional
        How many at once, and the bytes that they may take.
    report : callable, optional
        Called with a line that says what is done, steps done and steps in all; first with no step done.
    remembered : RememberedFits, optional
        What methods of the same scan may share.
    """

    engine: Engine | None = None
    workers: int | None = None
    memory: int | None = None
    report: Callable[[str, int, int], None] = lambda text, done, total: None
    remembered: RememberedFits = field(default_factory=lambda: RememberedFits())


class RememberedFits:
    """What was learned from scans while they stay open; who asks for the same again, gets the same, in any thread."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._found: dict[Hashable, tuple[Lock, list[Any]]] = {}

    def once(self, key: Hashable, make: Callable[[], Made]) -> Made:
        """What `make` gives, or gave before under this key.

        Parameters
        ----------
        key : hashable
            Names the scan and all that decides the result.
        make : callable
            May raise; then it is called again by the next who asks.
        """
        with self._lock:
            lock, found = self._found.setdefault(key, (Lock(), []))
        with lock:
            if not found:
                found.append(make())
            made: Made = found[0]
            return made


class Comparison(Protocol):
    """How far decoded values lie from their source."""

    def merge(self, other: Any) -> Any:
        """Both blocks together."""

    def summary(self) -> str:
        """One line for people."""


def merged(one: Comparison | None, other: Comparison | None) -> Comparison | None:
    """Comparisons of two parts of a scan, of which either may have measured nothing."""
    if one is None or other is None:
        return other if one is None else one
    both: Comparison = one.merge(other)
    return both


class Method(ABC, Generic[Chosen]):
    """One way to store a scan, with its options.

    A new method is one class in its own room, and one line in `stemcodecs_pipelines.methods.registry.METHODS`.

    Parameters
    ----------
    options : object
        An instance of `Options`.
    text : str
        What ``--method`` was given, as the store notes it and as the registry reads it.

    Attributes
    ----------
    name : str
        What ``--method`` takes.
    summary : str
        One line for people.
    Options : type
        Frozen dataclass whose fields are made by `stemcodecs_pipelines.methods.options.option`.
    worth_comparing : tuple of str
        Options, as ``key=value,key=value``, of the rows that ``stemcodecs compare`` has for the method.
    slow_to_compare : tuple of str
        Options of rows that take minutes, and are left out unless they are asked for.
    movies_only : bool
        Whether the method is made for movies, and says nothing about a scan of rows and columns.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    Options: ClassVar[type[Any]]
    worth_comparing: ClassVar[tuple[str, ...]] = ("",)
    slow_to_compare: ClassVar[tuple[str, ...]] = ()
    movies_only: ClassVar[bool] = False

    def __init__(self, options: Chosen, text: str) -> None:
        self.options = options
        self.text = text

    @property
    @abstractmethod
    def guarantee(self) -> str:
        """What a reader of the store may rely on; written into its attributes."""

    @property
    def exact(self) -> bool:
        """The guarantee is bit-exactness, so that the digest of the source is that of the decoded values."""
        return False

    @property
    def whole_detector(self) -> bool:
        """Chunks must not cut patterns."""
        return False

    @property
    def reads_everything(self) -> bool:
        """`build` reads the whole scan, not a few patterns of it."""
        return False

    @property
    def together(self) -> int:
        """Patterns along the fast scan axis that are coded as one, so that chunks better hold a multiple of them."""
        return 1

    def scratch_bytes(self, detector: tuple[int, int]) -> int:
        """Bytes that decoding takes beyond a block and its values, where they are many."""
        return 0

    def learning_bytes(self, scan: Scan) -> int:
        """Bytes that `build` takes with one worker, about; where they are many."""
        return 0

    @abstractmethod
    def build(self, scan: Scan, learning: Learning) -> Encoding:
        """The codecs for a scan; what is learned from it travels in their configuration, or as a stored model.

        Raises
        ------
        ConfigurationError
            The options do not fit the scan, or what is to be learned needs more memory than it may take.
        """

    def of_array(self, metadata: Mapping[str, Any]) -> Method[Chosen]:
        """The method with what it found out about the scan, from the Zarr metadata of the array that it wrote.

        Who compares blocks, on a worker or years later, has only these.
        """
        return self

    @abstractmethod
    def compare(self, source: np.ndarray[Any, Any], decoded: np.ndarray[Any, Any], region: Region) -> Comparison | None:
        """Check the guarantee on a block, and say how far the values lie apart if the method measures it.

        Raises
        ------
        VerificationError
            The guarantee is broken.
        """


def check_form(source: np.ndarray[Any, Any], decoded: np.ndarray[Any, Any], region: Region) -> None:
    """Compare shape and dtype.

    Raises
    ------
    VerificationError
        They differ.
    """
    if source.shape != decoded.shape or source.dtype != decoded.dtype:
        corner = tuple(s.start for s in region)
        raise VerificationError(
            f"the block at {corner} decodes to {decoded.dtype}{decoded.shape}, "
            f"its source is {source.dtype}{source.shape}; repair it with stemcodecs repair",
            corner,
        )


def check_exact(source: np.ndarray[Any, Any], decoded: np.ndarray[Any, Any], region: Region) -> None:
    """Compare every value bit by bit.

    Raises
    ------
    VerificationError
        With the coordinates of the first value that differs, in the whole scan.
    """
    import numpy as np

    check_form(source, decoded, region)
    bits = np.dtype(f"u{source.dtype.itemsize}")  # floats too: NaN payloads and −0 count
    for first, (a, b) in enumerate(zip(source.view(bits), decoded.view(bits), strict=True)):
        # Row by row, so that the comparison takes next to no memory.
        if not np.array_equal(a, b):
            inner = np.unravel_index(int(np.argmax(a != b)), a.shape)
            local = (first, *(int(i) for i in inner))
            index = tuple(i + s.start for i, s in zip(local, region, strict=True))
            raise VerificationError(
                f"the store differs from its source at {index}: "
                f"{decoded[local]} instead of {source[local]}; repair it with stemcodecs repair",
                index,
            )
