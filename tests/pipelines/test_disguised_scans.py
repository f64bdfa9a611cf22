"""A user's fuzz: scans of every kind, with what detectors add to them, compressed by every method and read back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from stemcodecs.errors import StemcodecsError
from stemcodecs_pipelines import compress, decompress, verify
from tests.disguised_scans import DISGUISES, Parts, with_defects
from tests.strategies import CAMPAIGN_SHARE, same_bits

Array = np.ndarray[Any, Any]

LOSSLESS = (
    "pixel_histogram", "pixel_histogram:mode=scan", "pixel_histogram:model=scan",
    "pixel_histogram:model=scan,mode=pixel", "learned:steps=20", "pca:rank=2,residual=lossless",
)  # fmt: skip
LOSSY = ("poisson", "poisson:r=1,decoder=midpoint", "poisson:gain=auto", "pca:rank=2,residual=bounded", "pca:rank=1")
CAMPAIGN = 400
QUICK = 2


def disguised(random: np.random.Generator) -> tuple[str, Array]:
    """A scan of any kind, detector and dose, some of them kinds that are mixed with markers or with each other."""
    rows, columns = (int(n) for n in random.choice([(1, 3), (2, 5), (5, 13), (8, 9), (16, 17), (9, 33)]))
    detector = tuple(int(n) for n in random.choice([(1, 9), (1, 60), (7, 1), (5, 6), (16, 16), (24, 31)]))
    y, x = np.mgrid[: detector[0], : detector[1]]
    radius = np.hypot(y - detector[0] / 2, x - detector[1] / 2)
    mean, dark = float(random.choice([0.02, 1.0, 4.0, 60.0])), float(random.choice([0.0, 0.1, 3.0]))
    rate = np.where(radius < 0.3 * max(detector), mean, dark) * random.gamma(9, 1 / 9, (rows * columns, 1, 1))
    parts = Parts(random.poisson(rate), random)
    name = str(random.choice(list(DISGUISES)))
    with np.errstate(all="ignore"):
        values = DISGUISES[name](parts)
    if random.random() < 0.5:
        values, name = with_defects(values, random), f"{name}, defects"
    if random.random() < 0.3:
        mark = np.array(-1).astype(values.dtype) if values.dtype.kind != "f" else random.choice([np.nan, np.inf, -1])
        values[:, : 1 + detector[0] // 4, -1], name = mark, f"{name}, a gap of {mark}"
    if random.random() < 0.2:
        with np.errstate(all="ignore"):
            other = DISGUISES[str(random.choice(list(DISGUISES)))](parts).astype(values.dtype)
        half = len(values) // 2
        values[half:], name = other[half:], f"{name}, then another kind"
    if random.random() < 0.1:
        values, name = values.astype(values.dtype.newbyteorder(">")), f"{name}, big-endian"
    return f"{name} {rows}x{columns}x{detector} {values.dtype}", values.reshape(rows, columns, *detector)


def check(seed: int, folder: Path) -> str:
    """Compress a scan by a method, and read it back in every way; what it says if it is refused."""
    random = np.random.default_rng(seed)
    name, values = disguised(random)
    method = str(random.choice(LOSSLESS if random.random() < 0.6 else LOSSY))
    case = f"{seed}: {method} of {name}"
    folder.mkdir()
    np.save(folder / "scan.npy", values)
    # Ragged at the end, as a rule.
    chunk = (*(int(random.integers(1, n + 1)) for n in values.shape[:2]), *values.shape[2:])
    source, store = folder / "scan.npy", folder / "out.zarr"
    refused = ""
    try:
        compress(source, store, method=method, chunk=chunk, workers=1)
    except StemcodecsError as error:
        refused = f"{case}: {error}"
    if refused:
        assert "\n" not in refused
        assert method.startswith(("poisson", "pca")), refused
        # A chunk may be the first to say so; the root is written last.
        assert not (store / "zarr.json").exists(), refused
        return refused
    data = zarr.open_array(store / "data", mode="r")
    native = values.astype(values.dtype.newbyteorder("="))
    # A bound was held against every value by compress, and is here once more.
    verify(source, store, workers=1).require_intact(str(store))
    decompress(store, folder / "again.npy", workers=1)
    whole = np.load(folder / "again.npy")
    if method in LOSSLESS:
        assert same_bits(np.asarray(whole, native.dtype), native), case
    at = tuple(int(random.integers(0, n)) for n in values.shape[:2])
    assert data[at].tobytes() == np.ascontiguousarray(whole[at]).astype(data.dtype).tobytes(), case
    return ""


# Where an event lies beside two frequent values, among others that were found once.
@pytest.mark.parametrize("seed", [*range(QUICK), 1059])
def test_disguised_scans_come_back(seed: int, tmp_path: Path) -> None:
    check(seed, tmp_path / "case")


@pytest.mark.campaign
@pytest.mark.timeout(3600)
def test_400_disguised_scans_come_back(tmp_path: Path) -> None:
    """Nothing wrong, no crash; lossless methods take everything, and lossy ones refuse in one line what they cannot."""
    seeds = range(QUICK, QUICK + CAMPAIGN // CAMPAIGN_SHARE)
    refused = [words for seed in seeds if (words := check(seed, tmp_path / str(seed)))]
    # Of two in five that are asked of a lossy method, some are true floats to it, or tell no gain.
    assert len(refused) < 2 * len(seeds) // 5, "\n".join(refused)
