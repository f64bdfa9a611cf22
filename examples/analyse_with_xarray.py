"""Analyse a compressed scan with xarray: what the store holds already, and what is decoded on demand, chunk by chunk.

Run with ``python analyse_with_xarray.py [STORE]``, a store with rows and columns that ``stemcodecs compress`` wrote;
without it one is simulated. The rigid shift of the diffraction disc is the phase contrast of DPC: N. Shibata et al.,
Nature Physics 8, 611 (2012), doi:10.1038/nphys2337.
"""

import json
import sys

import numpy as np

import stemcodecs
from stemcodecs.simulate import simulate_scan
from stemcodecs_pipelines import compress, histograms, pixel_counts

if not sys.argv[1:]:
    compress(simulate_scan("grains", (16, 16), (64, 64), seed=1).scan(), "grains.zarr", overwrite=True)
store = sys.argv[1] if len(sys.argv) > 1 else "grains.zarr"
dataset = stemcodecs.open(store)  # lazy: nothing is decoded yet
print(f"{dict(dataset.sizes)}, {dataset['data'].dtype}; stored: {', '.join(sorted(set(dataset.data_vars) - {'data'}))}")

# Stored when the scan was compressed: costs nothing.
bright = dataset.stem.bright_field().compute()
print(f"bright field: {bright.shape} positions, {bright.min():g} to {bright.max():g} counts, mean {bright.mean():.1f}")

# Decoded on demand, on all cores.
disc = json.loads(dataset.attrs["stemcodecs"])["virtual_detectors"]
ring = dataset.stem.annulus(disc["radius"], 2 * disc["radius"]).compute()
brightest = {dim: int(index) for dim, index in ring.argmax(...).items()}
print(f"annulus of {disc['radius']:.1f} to {2 * disc['radius']:.1f} pixels: {ring.max():g} counts, most at {brightest}")
shift = dataset.stem.center_of_mass().compute()
print("shift of the disc, pixels: " + ", ".join(f"{name} ± {shift[name].std().item():.3f}" for name in shift))
part = dataset.isel(scan_y=slice(2, 4), scan_x=0)["data"].mean(("det_y", "det_x")).values
print(f"counts a pixel at two positions, for which two patterns were decoded: {np.round(part, 3)}")

values, times = pixel_counts(histograms(store).counts, *(n // 2 for n in dataset["data"].shape[-2:]))
print(f"central pixel: {values.min()} to {values.max()} counts, most often {values[times.argmax()]}")
