"""What a comparison found: plain data, between the runs that make it and the table, page and JSON that show it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np

__all__ = ["Group", "Loss", "Pictures", "Recommendation", "Report", "Row", "Sample", "State"]

Image = np.ndarray[Any, Any]


class Group(StrEnum):
    """Whose method it is, and whether it keeps every value."""

    OURS_LOSSLESS = "stemcodecs, lossless"
    OURS_LOSSY = "stemcodecs, lossy"
    PEERS_LOSSLESS = "others, lossless"
    PEERS_LOSSY = "others, lossy at the same bound"

    @property
    def lossless(self) -> bool:
        """Whether every value comes back."""
        return self in (Group.OURS_LOSSLESS, Group.PEERS_LOSSLESS)

    @property
    def ours(self) -> bool:
        """Whether stemcodecs writes it."""
        return self in (Group.OURS_LOSSLESS, Group.OURS_LOSSY)


class State(StrEnum):
    """What became of a method."""

    DONE = "done"
    MISSING = "not installed"
    UNSUITED = "does not apply"
    LEFT_OUT = "left out"
    """It would take too long."""
    FAILED = "failed"
    LOSES = "loses values"
    """It calls itself lossless, and is not; or lossy, and breaks its bound."""


@dataclass(frozen=True, kw_only=True)
class Loss:
    """What a lossy method does to the counts; None stands for what was not measured, or has no meaning there.

    Attributes
    ----------
    largest_error : float or None
        Largest |decoded − source| in standard deviations √max(N, 1) of the shot noise of the count N itself.
    total_bias : float or None
        Sum of the decoded counts over that of the source, minus 1.
    added_noise : float or None
        Root mean square of (decoded − source) / √max(N, 1): 0.1 adds a tenth of a standard deviation.
    dose_equivalent : float or None
        Fraction of the dose whose Poisson noise would cost as much, 0 to 1.
    ssim_mean_pattern, ssim_images : float or None
        Structural similarity of the mean pattern; the lowest one of the virtual images.
    diffraction_mse : float or None
        Mean squared error of the amplitudes √N.
    resolution : float or None
        Half-bit resolution of the reconstruction in `Report.resolution_unit`; infinite where nothing agrees.
    phase_mse : float or None
        Mean squared error of the reconstructed phase in rad².
    """

    largest_error: float | None = None
    total_bias: float | None = None
    added_noise: float | None = None
    dose_equivalent: float | None = None
    ssim_mean_pattern: float | None = None
    ssim_images: float | None = None
    diffraction_mse: float | None = None
    resolution: float | None = None
    phase_mse: float | None = None


@dataclass(frozen=True, kw_only=True)
class Row:
    """One method.

    Attributes
    ----------
    name : str
        As in the table: ``pixel_histogram``, ``poisson:r=0.5``, ``Blosc zstd-9 bitshuffle, pixel-major``.
    group : Group
    state : State
    note : str
        The command that installs it, why it failed or does not apply, the first value that it loses; may be empty.
    guarantee : str
        What a reader of the bytes may rely on.
    stored_bytes : int or None
        Bytes of the sample as stored, models included.
    bits_per_value, bits_error : float or None
        8 × bytes / values; and its standard error by the sample, 0 when everything was read.
    encode_rate, decode_rate : float or None
        Megabytes (10⁶) of the source a second on one core.
    loss : Loss or None
        Of lossy methods.
    """

    name: str
    group: Group
    state: State = State.DONE
    note: str = ""
    guarantee: str = ""
    stored_bytes: int | None = None
    bits_per_value: float | None = None
    bits_error: float = 0.0
    encode_rate: float | None = None
    decode_rate: float | None = None
    loss: Loss | None = None


@dataclass(frozen=True, kw_only=True)
class Sample:
    """What part of the source was read.

    Attributes
    ----------
    positions, of_positions : int
        Patterns (or images) taken, and how many there are.
    raw_bytes, of_bytes : int
        The same in bytes.
    blocks : int
        Whole chunks, spread over the scan.
    """

    positions: int
    of_positions: int
    raw_bytes: int
    of_bytes: int
    blocks: int

    @property
    def whole(self) -> bool:
        """Whether everything was read."""
        return self.positions == self.of_positions


@dataclass(frozen=True, kw_only=True)
class Recommendation:
    """What to do, and what looks wrong.

    Attributes
    ----------
    advice : sequence of str
        Sentences, the most important first, each with its reason and, where there is one, its command.
    findings : sequence of str
        What was found in the data: counts times a gain, marks, hot pixels, saturation, few positions, drift …
    """

    advice: Sequence[str] = ()
    findings: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """Arrays that the page draws; every mapping goes by the name of a row, and any may be empty.

    Attributes
    ----------
    mean_pattern : ndarray or None
        Counts, shape (det_y, det_x).
    virtual_images : mapping
        Name to image, shape (scan_y, scan_x) or (n,).
    bits_map : ndarray or None
        Bits a value of each detector pixel, shape (det_y, det_x), of the smallest lossless method of ours.
    original : ndarray or None
        One pattern, shape (det_y, det_x).
    decoded : mapping
        The same pattern decoded by each lossy method.
    errors : mapping
        Histogram of (decoded − source) / √max(N, 1): (edges, counts).
    reconstructions : mapping
        Phase in rad of the object; ``source`` is that of the source itself.
    frc : mapping
        (spatial frequencies in 1 over `Report.resolution_unit`, correlation, half-bit threshold).
    """

    mean_pattern: Image | None = None
    virtual_images: Mapping[str, Image] = field(default_factory=dict)
    bits_map: Image | None = None
    original: Image | None = None
    decoded: Mapping[str, Image] = field(default_factory=dict)
    errors: Mapping[str, tuple[Image, Image]] = field(default_factory=dict)
    reconstructions: Mapping[str, Image] = field(default_factory=dict)
    frc: Mapping[str, tuple[Image, Image, Image]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Report:
    """Everything that a comparison found.

    Attributes
    ----------
    source : str
        Path as it was given.
    dataset : str
        Array within it; may be empty.
    shape : sequence of int
    dims : sequence of str
    dtype : str
    sample : Sample
    rows : sequence of Row
    recommendation : Recommendation
    pictures : Pictures
    versions : mapping
        Package to version.
    machine : mapping
        ``processor``, ``cores``, ``system``, ``python``.
    command : str
        What was typed to make this report; empty where it was made in Python.
    date : str
        ISO 8601, UTC.
    seconds : float
        How long it took.
    resolution_unit : str
        ``m``, or ``pixel`` where the size of an object pixel is not known.
    finished : bool
        False when it was interrupted: rows are those that were done.
    """

    source: str
    dataset: str = ""
    shape: Sequence[int]
    dims: Sequence[str]
    dtype: str
    sample: Sample
    rows: Sequence[Row]
    recommendation: Recommendation = field(default_factory=Recommendation)
    pictures: Pictures = field(default_factory=Pictures)
    versions: Mapping[str, str] = field(default_factory=dict)
    machine: Mapping[str, Any] = field(default_factory=dict)
    command: str = ""
    date: str = ""
    seconds: float = 0.0
    resolution_unit: str = "m"
    finished: bool = True
