"""How small does a scan get within its own shot noise, and what does that cost?

Every rung stores the scan with a bound of r standard deviations on every count, from the lossless scan
down to one sigma, and compares what is read back with the counts and with the true rate, which a
simulation knows: the last column is the distance from the truth, 1.00 being the shot noise alone.

Run it with:  python examples/quantize_ladder.py
"""

import numpy as np

from stemcodecs.codecs import PixelHistogram
from stemcodecs.codecs.poisson_histogram import PoissonHistogram
from stemcodecs.quantize.guarantee import Deviation
from stemcodecs.simulate import simulate_scan

# Try another dose: at 0.5 counts per pixel one sigma is a poor choice, at 50 it is hard to tell.
simulation = simulate_scan("ptychography", (24, 24), (96, 96), mean_counts=8.0, seed=3)
scan = simulation.counts
rate = simulation.rate()

rungs = [
    ("r = 0.1", PoissonHistogram(r=0.1, decoder="centroid")),
    ("r = 0.25", PoissonHistogram(r=0.25, decoder="centroid")),
    ("huang-511", PoissonHistogram(preset="huang-511", decoder="centroid")),
    ("r = 0.5, counts below 5 exact", PoissonHistogram(r=0.5, decoder="centroid")),
    ("r = 0.5, fewest levels", PoissonHistogram(r=0.5)),
    ("huang-255", PoissonHistogram(preset="huang-255", decoder="centroid")),
    ("r = 1, counts below 5 exact", PoissonHistogram(r=1, decoder="centroid")),
    ("r = 1, fewest levels", PoissonHistogram(r=1)),
]

print(f"{'':30}  bits/pixel   ratio  largest error  total counts  added noise  distance from truth")
lossless = PixelHistogram().encode_chunk(scan)
print(f"{'lossless':30}  {8 * len(lossless) / scan.size:10.3f}  {scan.nbytes / len(lossless):6.2f}")
for name, codec in rungs:
    stored = codec.encode_chunk(scan)
    restored = codec.decode_chunk(stored)
    found = Deviation.of(scan, restored, codec)
    assert found.violations == 0  # the guarantee, checked for every value in exact arithmetic
    distance = np.square(restored - rate).mean() / np.square(scan - rate).mean()
    print(
        f"{name:30}  {8 * len(stored) / scan.size:10.3f}  {scan.nbytes / len(stored):6.2f}"
        f"  {found.largest_sigma:11.3f} σ  {100 * found.bias:+10.2f} %"
        f"  {100 * found.added_variance:9.1f} %  {distance:19.3f}"
    )
