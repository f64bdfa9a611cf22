"""Compress diffraction patterns and a tilt series with a network that is fitted to them, next to histograms.

Run with ``python learned_lossless.py``.
"""

import numpy as np

from stemcodecs.codecs import Learned, PixelHistogram
from stemcodecs.simulate import simulate_scan, simulate_tilt_series

STEPS = 300  # 8,000 are the default: about fifteen seconds, and some percent smaller

# Speckles of coherent diffraction: neighbouring pixels of a pattern rise and fall together.
patterns = simulate_scan("ptychography", (16, 16), (48, 48), mean_counts=300.0, dtype=np.uint16, seed=1).counts
series = simulate_tilt_series((40, 64, 64), dose=3000.0, seed=1).images

for name, array in (("ptychography", patterns), ("tilt series", series)):
    codec = Learned(steps=STEPS)
    data = codec.encode_chunk(array)  # patterns or images: what is smaller is found out
    histograms = PixelHistogram().encode_chunk(array)
    assert np.array_equal(codec.decode_chunk(data), array)  # every value, by integer arithmetic alone
    bits, others = (8 * len(chunk) / array.size for chunk in (data, histograms))
    print(f"{name}: {bits:.3f} bits a value, histograms {others:.3f}: {100 * (1 - bits / others):.1f} % saved")
