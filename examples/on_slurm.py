"""Encode on SLURM: jobs of your cluster write the chunks; where there is no SLURM, processes of this machine do.

Run with ``python on_slurm.py [SCAN [STORE]]`` where you run sbatch; needs ``pip install 'stemcodecs[slurm]'``, and in
``~/.config/dask/jobqueue.yaml`` the queue, cores, memory and walltime of a job. SCAN and STORE must be seen by all
nodes. Both ways write the same bytes. The same in the shell: ``stemcodecs compress SCAN STORE --slurm --workers 8``.
"""

import shutil
import sys

import numpy as np

from stemcodecs.simulate import simulate_scan
from stemcodecs_pipelines import compress
from stemcodecs_pipelines.run.cluster import cluster_engine

JOBS = 2

if __name__ == "__main__":  # Dask's processes import this file
    if not sys.argv[1:]:
        np.save("grains.npy", simulate_scan("grains", (32, 32), (64, 64), seed=4).counts)
    source = sys.argv[1] if len(sys.argv) > 1 else "grains.npy"
    store = sys.argv[2] if len(sys.argv) > 2 else "cluster.zarr"

    there = shutil.which("sbatch") is not None
    print(f"{JOBS} SLURM jobs" if there else f"no sbatch on this machine: {JOBS} processes of its own (LocalCluster)")
    where = {"slurm": True} if there else {"scheduler": "local"}
    with cluster_engine(**where, workers=JOBS, report=print) as (engine, workers):
        done = compress(
            source,
            store,
            engine=engine,
            workers=workers,
            chunk=(8, 16),  # patterns of a chunk; more of them than workers keep all of them busy
            overwrite=True,
            start=lambda plan: print(plan.describe()),
            progress=lambda block: print(".", end="", flush=True),
        )
    print(f"\n{store}: {done.ratio:.1f} times smaller, every value verified")
