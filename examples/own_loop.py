"""Your own loop: write a Zarr array block by block while the detector, a simulation or a generator delivers.

Run with ``python own_loop.py [ARRAY]``. A codec alone, without the pipelines: any Zarr array takes it, and a chunk is
encoded as soon as it is whole. Zarr format 3: https://zarr-specs.readthedocs.io.
"""

import sys
from pathlib import Path

import numpy as np
import zarr

from stemcodecs.codecs import PixelHistogram
from stemcodecs.simulate import simulate_scan

place = Path(sys.argv[1] if len(sys.argv) > 1 else "array.zarr")
source = simulate_scan("ptychography", (32, 32), (64, 64), mean_counts=4.0, seed=3)

data = zarr.create_array(
    place,
    shape=source.shape,
    dtype=source.dtype,
    chunks=(8, 32, 64, 64),  # the whole detector, and enough positions to learn from
    serializer=PixelHistogram(),  # or PoissonHistogram(r=0.5), Pca, Learned: all of stemcodecs.codecs
    compressors=None,  # Zarr would append Zstandard, which gains nothing here
    dimension_names=["scan_y", "scan_x", "det_y", "det_x"],
    overwrite=True,
)
for row in range(0, source.shape[0], data.chunks[0]):
    block = source.block((slice(row, row + data.chunks[0]),))  # your detector
    data[row : row + len(block)] = block
    np.testing.assert_array_equal(data[row : row + len(block)], block)  # read back from the disk

stored = sum(file.stat().st_size for file in place.rglob("*") if file.is_file())
print(f"{data.nchunks} chunks, {data.nbytes / 1e6:.1f} MB became {stored / 1e6:.2f} MB, every value the same")
print(f"{8 * stored / data.size:.3f} bits a pixel; no lossless code can go below {source.shannon_bound():.3f}")
# One pattern is read with a 64th of its chunk's patterns or less, never the whole chunk.
print(f"pattern (3, 5): {data[3, 5].sum()} counts")
