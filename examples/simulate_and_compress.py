"""Simulate a 4D-STEM scan block by block, compress it in Zarr, and compare with the Shannon bound.

Run it with:  python examples/simulate_and_compress.py
"""

import tempfile
from pathlib import Path

import numpy as np
import zarr

from stemcodecs.codecs import PixelHistogram
from stemcodecs.metrics import bits_per_pixel
from stemcodecs.simulate import simulate_scan

# 1,024 positions on a 128 × 128 detector, one electron per pixel on average. Try "unstructured",
# "lattice" or "ptychography", another dose, or a scan that is larger than memory.
simulation = simulate_scan("grains", (32, 32), (128, 128), mean_counts=1.0, seed=1)

with tempfile.TemporaryDirectory() as folder:
    store = Path(folder) / "scan.zarr"
    data = zarr.create_array(
        store,
        shape=simulation.shape,
        dtype=simulation.dtype,
        chunks=(16, 32, 128, 128),  # the whole detector, and enough positions to learn from
        serializer=PixelHistogram(),
        compressors=None,  # zarr would append Zstandard, which gains nothing here
        dimension_names=[axis.name for axis in simulation.axes],
    )
    for row in range(0, simulation.shape[0], data.chunks[0]):
        region = (slice(row, row + data.chunks[0]),)
        data[region] = simulation.block(region)

    # Any program with stemcodecs installed reads it, without importing stemcodecs.
    again = zarr.open_array(store, mode="r")
    for row in range(simulation.shape[0]):
        region = (slice(row, row + 1),)
        np.testing.assert_array_equal(again[region], simulation.block(region))

    nbytes = sum(f.stat().st_size for f in store.rglob("*") if f.is_file())

bits = bits_per_pixel(nbytes, int(np.prod(simulation.shape)))
bound = simulation.shannon_bound()
print(f"{simulation.nbytes / 1e6:.1f} MB became {nbytes / 1e6:.2f} MB, every value the same")
print(f"{bits:.3f} bits per pixel; no lossless code can go below {bound:.3f}")
