"""Compress a whole scan, look at it before decoding anything, and take histograms of its counts.

Give a scan file (.npy, HDF5, Zarr …), or nothing to simulate one:  python whole_scan.py [SCAN] [STORE]
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import stemcodecs
from stemcodecs.readers import open_scan
from stemcodecs.simulate import simulate_scan
from stemcodecs_pipelines import compress, histograms, pixel_counts, verify

source = sys.argv[1] if len(sys.argv) > 1 else None
store = sys.argv[2] if len(sys.argv) > 2 else Path(tempfile.mkdtemp()) / "scan.zarr"

scan = open_scan(source) if source else simulate_scan("grains", (16, 16), (64, 64)).scan()
with scan:
    # For a cluster: engine=DaskEngine(client), from stemcodecs_pipelines.
    result = compress(scan, store, start=lambda plan: print(plan.describe()))
    print(f"ratio {result.ratio:.2f}, {result.bits_per_pixel:.3f} bits per pixel, in {store}")
    print("every value agrees:", verify(scan, store).intact)

    found = histograms(scan)
    values, occurrences = pixel_counts(found.counts, scan.shape[-2] // 2, scan.shape[-1] // 2)
    print("counts in the central pixel:", dict(zip(values.tolist(), occurrences.tolist(), strict=True)))
    print(f"a codec with one model for all chunks of the scan: {found.codec().model_sha256[:12]}…")

dataset = stemcodecs.open(store)
print(dataset)
if "scan_y" in dataset.dims:
    print("bright field, from the store:", dataset.stem.bright_field().dims)
    disk = dataset.attrs["stemcodecs"]["virtual_detectors"]
    ring = dataset.stem.annulus(disk["radius"], 2 * disk["radius"])
    print("brightest position in an annulus, decoded on demand:", dict(ring.argmax(...)))
