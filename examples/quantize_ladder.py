"""How small does a scan get within its own shot noise, and what does that cost?

Every rung stores the scan with a bound of r standard deviations on every count, from the lossless scan down to one
sigma (P. Huang et al. 2021, doi:10.1107/S1600577520013326), and compares what is read back with the counts and with the
true rate, which a simulation knows: the last column is the distance from the truth, 1.00 being the shot noise alone.

Run with ``python quantize_ladder.py``.
"""

import numpy as np

from stemcodecs.codecs import PixelHistogram, PoissonHistogram
from stemcodecs.quantize.guarantee import Deviation
from stemcodecs.simulate import simulate_scan

# Try another dose: at 0.5 counts per pixel one sigma is a poor choice, at 50 it is hard to tell.
simulation = simulate_scan("ptychography", (24, 24), (96, 96), mean_counts=8.0, seed=3)
scan, rate = simulation.counts, simulation.rate()
rungs = {f"r = {r}": PoissonHistogram(r=r, decoder="centroid") for r in (0.1, 0.25)}
for r, preset in ((0.5, "huang-511"), (1, "huang-255")):
    rungs |= {
        preset: PoissonHistogram(preset=preset, decoder="centroid"),
        f"r = {r}, counts below 5 exact": PoissonHistogram(r=r, decoder="centroid"),
        f"r = {r}, fewest levels": PoissonHistogram(r=r),
    }

print(f"{'':30}  bits/pixel   ratio  largest error  total counts  added noise  distance from truth")
lossless = PixelHistogram().encode_chunk(scan)
print(f"{'lossless':30}  {8 * len(lossless) / scan.size:10.3f}  {scan.nbytes / len(lossless):6.2f}")
for name, codec in rungs.items():
    stored = codec.encode_chunk(scan)
    found = Deviation.of(scan, restored := codec.decode_chunk(stored), codec)
    assert found.violations == 0  # the guarantee, checked for every value in exact arithmetic
    distance = np.square(restored - rate).mean() / np.square(scan - rate).mean()
    print(
        f"{name:30}  {8 * len(stored) / scan.size:10.3f}  {scan.nbytes / len(stored):6.2f}{found.largest_sigma:13.3f} σ"
        f"{100 * found.bias:+12.2f} %{100 * found.added_variance:11.1f} %{distance:21.3f}"
    )
