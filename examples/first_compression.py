"""First compression: a scan becomes a Zarr store, every value is verified, and any program reads it.

Run with ``python first_compression.py [SCAN [STORE]]``. SCAN is what ``stemcodecs compress`` takes (.npy, HDF5, Zarr,
…); without it one is simulated, of which is known how small it can get at best (C. E. Shannon, 1948,
doi:10.1002/j.1538-7305.1948.tb01338.x).
"""

import sys

import zarr

from stemcodecs.readers import open_scan
from stemcodecs.simulate import simulate_scan
from stemcodecs_pipelines import compress, verify

source = sys.argv[1] if len(sys.argv) > 1 else None
store = sys.argv[2] if len(sys.argv) > 2 else "scan.zarr"

# 1,024 positions of a polycrystal, one electron a pixel on average. Try "lattice", "ptychography", or another dose.
simulation = simulate_scan("grains", (32, 32), (64, 64), mean_counts=1.0, seed=1)
with open_scan(source) if source else simulation.scan() as scan:
    done = compress(scan, store, overwrite=True, start=lambda plan: print(plan.describe()))
    print(f"{done.raw_bytes / 1e6:.1f} MB became {done.stored_bytes / 1e6:.2f} MB, {done.ratio:.1f} times smaller")
    print(f"every value agrees: {verify(scan, store).intact}")
print(f"{done.bits_per_pixel:.3f} bits a pixel", end="")
print("" if source else f"; no lossless code can go below {simulation.shannon_bound():.3f}")

# Any program with stemcodecs installed reads it, without importing stemcodecs.
data = zarr.open_group(store, mode="r")["data"]
pattern = data[(0,) * (data.ndim - 2)]
print(f"first pattern: {pattern.shape[0]} × {pattern.shape[1]} pixels of {pattern.dtype}, {pattern.sum():g} counts")
