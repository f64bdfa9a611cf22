"""A power cut at any step of a compression: what was not synced may be gone, what says that it is complete is.

Every change of the local disk is recorded. For each prefix of them, the disks that a power cut may leave are made: the
bytes of files that were not synced are gone; names (made, renamed, removed) whose folder was not synced since may be
old or new, each for itself.
"""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stemcodecs import disk
from stemcodecs.location import JOURNAL
from stemcodecs.readers import open_scan
from stemcodecs_pipelines.store.compress import compress

Tree = dict[str, bytes | None]
"""Files with their bytes, folders with None."""


class Recorder:
    """Records what :mod:`stemcodecs.disk` does, and lets it do so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.steps: list[tuple[Any, ...]] = []
        for name in ("write_file", "make_folders", "sync_folder", "rename", "remove_file", "remove_tree"):
            self._wrap(monkeypatch, name)

    def _wrap(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        really = getattr(disk, name)

        def recorded(*args: Any, **options: Any) -> None:
            if name == "write_file":
                self.steps.append((name, str(args[0]), bytes(args[2]), options.get("sync", True)))
            else:
                self.steps.append((name, *map(str, args)))
            really(*args, **options)

        monkeypatch.setattr(disk, name, recorded)


def names_of(tree: Tree, folder: str) -> list[str]:
    return [name for name in tree if name == folder or name.startswith(f"{folder}/")]


def apply(tree: Tree, change: tuple[Any, ...]) -> None:
    """One change of names; what it needs may be missing after a power cut, then it changes nothing."""
    kind, *args = change
    if kind == "put" and os.path.dirname(args[0]) in tree:
        tree[args[0]] = args[1]
    elif kind == "folder" and os.path.dirname(args[0]) in tree:
        tree.setdefault(args[0], None)
    elif kind == "remove":
        for name in names_of(tree, args[0]):
            del tree[name]
    elif kind == "rename" and args[0] in tree:
        moved = {args[1] + name[len(args[0]) :]: tree.pop(name) for name in names_of(tree, args[0])}
        tree.update(moved)


def folders_of(change: tuple[Any, ...]) -> set[str]:
    names = change[1:2] if change[0] in ("put", "folder", "remove") else change[1:3]
    return {os.path.dirname(name) for name in names}


def disks_after(before: Tree, steps: list[tuple[Any, ...]], rng: random.Random) -> list[Tree]:
    """Disks that a power cut after these steps may leave."""
    changes: list[tuple[Any, ...]] = []
    synced: list[bool] = []

    def change(*what: Any) -> None:
        changes.append(what)
        synced.append(False)

    for kind, *args in steps:
        if kind == "write_file":
            path, data, sync = args
            change("put", path, data if sync else b"")
        elif kind == "make_folders":
            missing, place = [], args[0]
            while place not in before:
                missing.append(place)
                place = os.path.dirname(place)
            for name in reversed(missing):
                change("folder", name)
        elif kind == "rename":
            change("rename", *args)
        elif kind in ("remove_file", "remove_tree"):
            change("remove", args[0])
        elif kind == "sync_folder":
            for i, what in enumerate(changes):
                if args[0] in folders_of(what):
                    synced[i] = True
    chances = (0.0, 1.0, 0.5, 0.5, 0.8)
    disks = []
    for chance in chances:
        tree = dict(before)
        for what, sure in zip(changes, synced, strict=True):
            if sure or rng.random() < chance:
                apply(tree, what)
        disks.append(tree)
    return disks


def files_below(folder: Path) -> Tree:
    found: Tree = {str(folder): None}
    for path in folder.rglob("*"):
        found[str(path)] = path.read_bytes() if path.is_file() else None
    return found


def content(tree: Tree, store: str) -> Tree | None:
    """Files of a store that says that it is complete, without its journal; None for any other."""
    if not tree.get(f"{store}/zarr.json"):
        return None
    journal = f"{store}/{JOURNAL}"
    return {
        name[len(store) :]: data
        for name, data in tree.items()
        if data is not None and name.startswith(f"{store}/") and not name.startswith(f"{journal}/")
    }


@pytest.fixture
def sources(tmp_path: Path) -> tuple[Path, Path]:
    rng = np.random.default_rng(0)
    paths = (tmp_path / "a.npy", tmp_path / "b.npy")
    for path in paths:
        np.save(path, rng.poisson(2.0, (6, 6, 8, 8)).astype("u2"))
    return paths


def run(source: Path, store: Path, **options: Any) -> None:
    with open_scan(source) as scan:
        compress(scan, store, chunk=(3, 6), workers=1, **options)


@pytest.mark.slow
def test_no_power_cut_leaves_a_store_that_looks_complete_and_is_not(sources, tmp_path, monkeypatch):
    folder = tmp_path / "out"
    folder.mkdir()
    store = folder / "scan.zarr"
    before = files_below(folder)
    recorder = Recorder(monkeypatch)
    run(sources[0], store)
    final = content(files_below(folder), str(store))
    assert final is not None
    assert len(recorder.steps) > 30
    rng = random.Random(0)
    complete = 0
    for count in range(len(recorder.steps) + 1):
        for tree in disks_after(before, recorder.steps[:count], rng):
            left = content(tree, str(store))
            assert left is None or left == final, recorder.steps[count - 1][:2]
            complete += left is not None
    # When the run has ended, the store is on the disk, whatever was not synced.
    assert all(content(tree, str(store)) == final for tree in disks_after(before, recorder.steps, rng))
    assert complete >= 5


@pytest.mark.slow
def test_a_power_cut_while_a_store_is_replaced_leaves_the_old_or_the_new_one(sources, tmp_path, monkeypatch):
    folder = tmp_path / "out"
    folder.mkdir()
    store = folder / "scan.zarr"
    run(sources[0], store)
    before = files_below(folder)
    old = content(before, str(store))
    recorder = Recorder(monkeypatch)
    run(sources[1], store, overwrite=True)
    new = content(files_below(folder), str(store))
    assert old != new
    rng = random.Random(1)
    for count in range(len(recorder.steps) + 1):
        for tree in disks_after(before, recorder.steps[:count], rng):
            roots = {os.path.dirname(name) for name in tree if name.endswith("/zarr.json")}
            stores = [content(tree, root) for root in roots if os.path.dirname(root) == str(folder)]
            assert old in stores or new in stores, recorder.steps[count - 1][:2]
            assert all(left in (None, old, new) for left in [content(tree, str(store))])
    assert all(content(tree, str(store)) == new for tree in disks_after(before, recorder.steps, rng))


@pytest.mark.slow
def test_every_change_of_the_store_is_recorded(sources, tmp_path, monkeypatch):
    """What the recorder does not see it cannot judge: replaying its steps gives the store."""
    folder = tmp_path / "out"
    folder.mkdir()
    before = files_below(folder)
    recorder = Recorder(monkeypatch)
    run(sources[0], folder / "scan.zarr")
    steps = [(kind, *args[:2], True) if kind == "write_file" else (kind, *args) for kind, *args in recorder.steps]
    everything = disks_after(before, steps, random.Random(0))[1]
    assert everything == files_below(folder)


def test_bytes_are_synced_before_they_get_their_name(tmp_path, monkeypatch):
    order = []
    fsync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (order.append("fsync"), fsync(fd)))
    monkeypatch.setattr(Path, "replace", lambda self, to: (order.append("replace"), replace(self, to))[1])
    disk.write_file(tmp_path / "a", tmp_path / "a.part", b"bytes")
    assert order == ["fsync", "replace"]
    assert (tmp_path / "a").read_bytes() == b"bytes"
