"""Campaign: damaged records, jobs, metadata documents and images of a store: a block done again or an error each time.

``STEMCODECS_CAMPAIGN=full`` damages ten thousand objects, otherwise a tenth of that.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import zarr

import stemcodecs
from stemcodecs.errors import StemcodecsError
from stemcodecs.location import Location
from stemcodecs.readers import open_scan
from stemcodecs_pipelines.store.compress import compress
from stemcodecs_pipelines.store.info import info
from stemcodecs_pipelines.store.job import JOB_KEY, Job
from stemcodecs_pipelines.store.journal import Record
from stemcodecs_pipelines.store.verify import verify
from tests.damage.damage import KINDS, damaged

FULL = os.environ.get("STEMCODECS_CAMPAIGN") == "full"
OBJECTS = 10_000 if FULL else 1_000
CHUNK = (2, 3)
BLOCKS = 4


class Killed(BaseException):
    """Stands for the end of the process."""


class HalfEngine:
    """Does every block, and dies before the store is finished."""

    def map(self, function: Any, common: Any, indices: Any) -> Iterator[Any]:
        for index in indices:
            yield function(common, index)
        raise Killed

    def tell(self, function: Any, argument: Any) -> None:
        function(argument)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("source") / "scan.npy"
    np.save(path, np.random.default_rng(3).poisson(2, (4, 6, 8, 8)).astype(np.uint16))
    return path


@pytest.fixture(scope="module")
def begun(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store whose blocks all have records."""
    place = tmp_path_factory.mktemp("begun") / "scan.zarr"
    with open_scan(source) as scan, pytest.raises(Killed):
        compress(scan, place, chunk=CHUNK, engine=HalfEngine())  # type: ignore[arg-type]
    return place


@pytest.fixture(scope="module")
def whole(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("whole") / "scan.zarr"
    with open_scan(source) as scan:
        compress(scan, place, chunk=CHUNK)
    return place


@contextlib.contextmanager
def replaced(path: Path, data: bytes) -> Iterator[None]:
    before = path.read_bytes()
    path.write_bytes(data)
    try:
        yield
    finally:
        path.write_bytes(before)


def damages(path: Path, others: list[Path], count: int, seed: int) -> Iterator[bytes]:
    random = Random(seed)
    data = path.read_bytes()
    for _ in range(count):
        kind = random.choice(("flip", "flip", *KINDS))
        yield damaged(data, kind, random, random.choice(others).read_bytes())


def fails(reading: Callable[[], Any]) -> bool:
    """Whether it is refused, in one line."""
    try:
        reading()
    except StemcodecsError as error:
        if "\n" in str(error):
            raise AssertionError(f"more than one line: {error}") from error
        return True
    return False


def check_records(begun: Path, count: int) -> Counter[str]:
    """A damaged record is none: its block is done again."""
    place = Location.of(begun)
    records = [place.child(Record.key(index)) for index in range(BLOCKS)]
    found: Counter[str] = Counter()
    for index, record in enumerate(records):
        for data in damages(record, records, count // BLOCKS, index):
            with replaced(record, data):
                found["done again" if Record.read(place, index) is None else "taken for whole"] += 1
    return found


@pytest.mark.slow
def test_resume_does_blocks_of_damaged_records_again(source: Path, begun: Path, tmp_path: Path, digests: Any) -> None:
    with open_scan(source) as scan:
        compress(scan, tmp_path / "whole.zarr", chunk=CHUNK)
    expected = digests(tmp_path / "whole.zarr")
    records = [Path(begun, Record.key(index)) for index in range(BLOCKS)]
    for data in damages(records[1], records, 12, seed=99):
        place = tmp_path / "scan.zarr"
        shutil.copytree(begun, place)
        (place / Record.key(1)).write_bytes(data)
        with open_scan(source) as scan:
            assert compress(scan, place, resume=True).kept_blocks == BLOCKS - 1
        assert digests(place) == expected
        shutil.rmtree(place)


@pytest.fixture(scope="session")
def digests() -> Callable[[Path], dict[str, bytes]]:
    def of(folder: Path) -> dict[str, bytes]:
        return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}

    return of


def check_jobs(begun: Path, count: int) -> Counter[str]:
    """A damaged job is refused, unless it says the same in other words."""
    place = Location.of(begun)
    path = place.child(JOB_KEY)
    meant = json.loads(path.read_bytes())
    found: Counter[str] = Counter()
    for data in damages(path, [path], count, seed=5):
        refused = fails(lambda: Job.from_json(data, place))  # noqa: B023
        found["refused" if refused else "same" if json.loads(data) == meant else "taken for whole"] += 1
    return found


def check_documents(whole: Path, count: int) -> Counter[str]:
    """Info, open and verify refuse damaged metadata in one line; where digests cover them, verify finds every one."""
    documents = sorted(whole.rglob("zarr.json"))
    root = json.loads((whole / "zarr.json").read_bytes())
    covered = "objects" in root["attributes"]["stemcodecs"]
    found: Counter[str] = Counter()
    # Most of what is read of a store is said in two of them.
    main = [whole / "zarr.json", whole / "data" / "zarr.json"] * (len(documents) // 2)
    for number, path in enumerate(documents + main):
        meant = json.loads(path.read_bytes())
        for data in damages(path, documents, -(-count // len(documents + main)), seed=100 + number):
            with replaced(path, data):
                refused = {name: fails(lambda: read(whole)) for name, read in READERS.items()}  # noqa: B023
            for name, yes in refused.items():
                found[f"{name} {'refused' if yes else 'read'}"] += 1
            try:
                same = json.loads(data) == meant
            except (ValueError, RecursionError):
                same = False
            if not (refused["verify"] or same):
                found["taken for whole" if covered else "not covered by digests"] += 1
    return found


def _open(place: Path) -> None:
    with stemcodecs.open(place) as dataset:
        list(dataset.variables)


def _verify(place: Path) -> None:
    verify(None, place, workers=1).require_intact(place)


READERS: dict[str, Callable[[Path], Any]] = {"info": info, "open": _open, "verify": _verify}


def check_images(whole: Path, count: int) -> Counter[str]:
    """No flipped bit in an image or a coordinate decodes to other values, where they carry a checksum."""
    group = zarr.open_group(whole, mode="r")
    arrays = {name: array for name, array in group.arrays() if name != "data"}
    found: Counter[str] = Counter()
    for number, (name, array) in enumerate(sorted(arrays.items())):
        if not any(type(codec).__name__ == "Crc32cCodec" for codec in array.compressors):
            found["without a checksum, left out"] += 1
            continue
        expected = np.asarray(array[...]).tobytes()
        for path in sorted(p for p in (whole / name).rglob("*") if p.is_file() and p.name != "zarr.json"):
            for data in damages(path, [path], -(-count // len(arrays)), seed=200 + number):
                with replaced(path, data):
                    try:
                        same = np.asarray(zarr.open_array(whole / name, mode="r")[...]).tobytes() == expected
                        found["same" if same else "taken for whole"] += 1
                    except (ValueError, RuntimeError, OSError):
                        found["refused"] += 1
    return found


@pytest.mark.campaign
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("part", ["records", "jobs", "documents", "images"])
def test_damaged_objects(part: str, begun: Path, whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing damaged is taken for whole, and nothing ends in anything but an error of ours."""
    check, place, share = {
        "records": (check_records, begun, 5),
        "jobs": (check_jobs, begun, 1),
        "documents": (check_documents, whole, 2),
        "images": (check_images, whole, 2),
    }[part]
    with warnings.catch_warnings():
        # What Zarr says about metadata that it does not know is no refusal.
        warnings.simplefilter("ignore")
        found = check(place, OBJECTS * share // 10)
    with capsys.disabled():
        print(f"\ndamaged {part}: {dict(sorted(found.items()))}")
    assert found["taken for whole"] == 0
