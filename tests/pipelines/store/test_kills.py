"""kill -9 of a worker, the scheduler or the client at random times, on a real cluster of processes."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter

import numpy as np
import pytest

from stemcodecs.readers import open_scan
from stemcodecs.store import state
from stemcodecs_pipelines.store.compress import compress
from stemcodecs_pipelines.store.verify import verify

ROUNDS = int(os.environ.get("STEMCODECS_KILLS", "50"))
BLOCKS = 256
VICTIMS = ("worker", "scheduler", "client", "scheduler started again")
COMMAND = [sys.executable, "-c", "from stemcodecs_pipelines.cli import main; main()"]


class Cluster:
    """A scheduler and two workers, each its own process."""

    def __init__(self, folder):
        self.file = folder / "scheduler.json"
        self.folder = folder
        self.scheduler = None
        self.workers = []

    def _start(self, kind, *words):
        program = [sys.executable, "-m", f"distributed.cli.dask_{kind}"]
        with (self.folder / f"{kind}.log").open("a") as log:
            return subprocess.Popen(
                [*program, *map(str, words), "--no-dashboard"], cwd=self.folder, stdout=log, stderr=log
            )

    def revive(self, port=0):
        """Start whatever is dead; workers of a dead scheduler go too."""
        if self.scheduler is None or self.scheduler.poll() is not None:
            self.stop()
            self.file.unlink(missing_ok=True)
            words = ("--scheduler-file", self.file, "--port", port, "--host", "127.0.0.1")
            self.scheduler = self._start("scheduler", *words)
            deadline = time.monotonic() + 120
            while not self.file.exists():
                if self.scheduler.poll() is not None or time.monotonic() > deadline:
                    pytest.fail("the scheduler does not start: " + (self.folder / "scheduler.log").read_text()[-2000:])
                time.sleep(0.05)
        self.workers = [w for w in self.workers if w.poll() is None]
        while len(self.workers) < 2:
            words = ("--scheduler-file", self.file, "--nthreads", 1, "--no-nanny")
            self.workers.append(self._start("worker", *words, "--death-timeout", 5))

    @property
    def address(self):
        import json

        return json.loads(self.file.read_text())["address"]

    def stop(self):
        for process in [*self.workers, *filter(None, [self.scheduler])]:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            process.wait()
        self.workers, self.scheduler = [], None


def files_in(folder):
    with contextlib.suppress(FileNotFoundError):
        return len(os.listdir(folder))
    return 0


@pytest.mark.campaign
@pytest.mark.timeout(3600)
def test_nothing_is_lost_whoever_is_killed(tmp_path, digests):
    dice = random.Random(20)
    source, store = tmp_path / "scan.npy", tmp_path / "scan.zarr"
    records = store / ".stemcodecs/records/0"
    np.save(source, np.random.default_rng(1).poisson(1, (64, 64, 32, 32)).astype("u2"))
    with open_scan(source) as scan:
        compress(scan, tmp_path / "whole.zarr", chunk=(4, 4))
        whole = digests(tmp_path / "whole.zarr")
        cluster = Cluster(tmp_path)
        outcomes: dict[str, Counter[str]] = {victim: Counter() for victim in VICTIMS}
        try:
            for turn in range(ROUNDS):
                victim = VICTIMS[turn % len(VICTIMS)]
                shutil.rmtree(store, ignore_errors=True)
                cluster.revive()
                words = ["compress", source, store, "--chunk", "4,4", "--scheduler", cluster.address]
                # How long a client waits for a scheduler that went away.
                patience = {"DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "60s" if "again" in victim else "3s"}
                client = subprocess.Popen(
                    [*COMMAND, *map(str, words)], stderr=subprocess.PIPE, text=True, env=os.environ | patience
                )
                # A random moment of the writing, told by the records: clocks would mostly hit before or after it.
                moment = dice.randrange(BLOCKS)
                while files_in(records) <= moment and client.poll() is None:
                    time.sleep(0.002)
                process = {"worker": cluster.workers[0], "client": client}.get(victim, cluster.scheduler)
                in_the_middle = state(store).kind == "incomplete"
                os.kill(process.pid, signal.SIGKILL)
                if "again" in victim:
                    process.wait()
                    cluster.revive(port=cluster.address.rpartition(":")[2])
                _, error = client.communicate(timeout=120)
                assert "Traceback" not in error, error
                found = state(store).kind
                assert found == ("complete" if client.returncode == 0 else found)
                assert found in ("complete", "incomplete")
                assert not (victim in ("worker", "scheduler started again") and client.returncode), error
                if found == "incomplete" and victim == "scheduler":
                    assert client.returncode == 2, error
                    assert error.splitlines()[-1].startswith("stemcodecs: the connection"), error
                outcomes[victim][f"{'in the middle' if in_the_middle else 'too late'}, {found}"] += 1
                compress(scan, store, resume=True)
                assert digests(store) == whole, f"round {turn}: {victim}"
                # What a worker of a dead client still had in hand must not arrive late.
                time.sleep(0.2)
                assert digests(store) == whole, f"round {turn}: {victim}, late"
        finally:
            cluster.stop()
        assert verify(scan, store).intact
    for victim, counts in outcomes.items():
        print(f"{sum(counts.values())} kills of a {victim}:", dict(counts))
        middle = sum(count for outcome, count in counts.items() if "middle" in outcome)
        # Of two or three kills chance may send all too late.
        if sum(counts.values()) >= 8:
            assert 2 * middle >= sum(counts.values()), f"{victim}: the kills come too late to show anything"
